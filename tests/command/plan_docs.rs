//! Checks that docs/plan.md matches the types: its table of fields, its example, and the schema.

use kbak::plan::{self, FieldDoc};

const HEADING: &str = "| field | value | default | meaning |\n|---|---|---|---|\n";

fn row(field: &FieldDoc) -> String {
    let name = if field.required { format!("**`{}`**", field.path) } else { format!("`{}`", field.path) };
    let default = field.default.as_ref().map(|text| format!("`{text}`")).unwrap_or_default();
    let cell = |text: &str| text.replace('|', "\\|");
    format!("| {name} | {} | {} | {} |\n", cell(&field.values), cell(&default), cell(&field.description))
}

fn document() -> String {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/plan.md");
    std::fs::read_to_string(file).expect("docs/plan.md")
}

#[test]
fn field_table_in_plan_docs_matches_the_types() {
    let table: String = plan::fields().iter().map(row).collect();
    let text = document();
    let (_, found) = text.split_once(HEADING).expect("the table's heading");
    assert!(found == table, "docs/plan.md should end with:\n\n{HEADING}{table}");
}

fn restore_document() -> String {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/restore-resources.md");
    std::fs::read_to_string(file).expect("docs/restore-resources.md")
}

#[test]
fn field_table_in_restore_docs_matches_the_types() {
    let table: String = plan::restore_fields().iter().map(row).collect();
    let text = restore_document();
    let (_, found) = text.split_once(HEADING).expect("the table's heading");
    assert!(found == table, "docs/restore-resources.md should end with:\n\n{HEADING}{table}");
}

#[test]
fn restore_plan_example_is_valid_and_mistakes_in_it_are_refused() {
    let text = restore_document();
    let (_, rest) = text.split_once("```yaml\n").expect("an example");
    let (example, _) = rest.split_once("```").expect("its end");
    let plan = plan::parse_restore(example).expect("a good plan");
    assert_eq!(plan.spec.modify.len(), 2);
    for (mistake, field) in [
        (example.replace("web-[0-9]+", "web-["), "spec.modify[0].match.nameRegex"),
        (example.replace("op: replace", "op: renew"), "spec.modify[1].patch"),
        (example.replace("tier!=cache", "tier in cache"), "spec.select.selector"),
        (example.replace("shop: shop-test}", "shop: Shop}"), "spec.map.namespaces.shop"),
        (example.replace("existing: skip", "existing: never"), "spec.existing"),
    ] {
        let error = plan::parse_restore(&mistake).expect_err("a mistake");
        assert_eq!(error.problems[0].field, field, "{:?}", error.problems);
        assert!(error.problems[0].at.is_some(), "{:?}", error.problems);
    }
}

#[test]
fn backup_plan_example_is_valid_without_warnings() {
    let text = document();
    let (_, rest) = text.split_once("```yaml\n").expect("an example");
    let (example, _) = rest.split_once("```").expect("its end");
    let checked = plan::parse(example).expect("a good plan");
    assert!(checked.warnings.is_empty(), "{:?}", checked.warnings);
    assert_eq!(checked.plan.items().len(), 3);
}

#[test]
fn schema_accepts_exactly_the_known_fields() {
    // The schema contains every name that the reader knows, and allows no unknown field.
    let schema = plan::schema();
    let objects = std::iter::once(&schema).chain(schema["$defs"].as_object().expect("definitions").values());
    for object in objects.filter(|object| object["properties"].is_object()) {
        assert_eq!(object["additionalProperties"], false, "{object}");
    }
    assert_eq!(schema["properties"]["apiVersion"]["$ref"], "#/$defs/ApiVersion");
    assert!(plan::fields().iter().all(|field| !field.description.is_empty()), "every field says what it is");
}

#[test]
fn notices_in_plan_docs_match_the_types() {
    let text = document();
    let (_, section) = text.split_once("## Notices\n").expect("the section");
    let (section, _) = section.split_once("\n## ").expect("its end");
    let (_, rest) = section.split_once("```yaml\n").expect("an example");
    let (notify, _) = rest.split_once("```").expect("its end");
    let (_, rest) = text.split_once("```yaml\n").expect("a plan");
    let (plan, _) = rest.split_once("```").expect("its end");
    let indented: String = notify.lines().map(|line| format!("  {line}\n")).collect();
    let checked = plan::parse(&format!("{plan}{indented}")).expect("a good plan");
    assert_eq!(checked.plan.spec.notify.len(), 4);

    let row = |line: &str| line.split('|').nth(1).expect("a cell").to_owned();
    let rows: Vec<String> = section.lines().filter(|line| line.starts_with("| `ver")).map(row).collect();
    let names = |cell: &str| {
        let outside = cell.split(['(', ')']).step_by(2).collect::<String>();
        outside.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(names(&rows[0]), plan::NOTICE_FIELDS);
    assert_eq!(names(&rows[1]), plan::NAMING_FIELDS);
}
