//! docs/plan.md says what the types say: its table of fields, its example, and the schema.

use kbak::plan::{self, FieldDoc};

const HEADING: &str = "| field | value | default | meaning |\n|---|---|---|---|\n";

fn row(field: &FieldDoc) -> String {
    let name = if field.required { format!("**`{}`**", field.path) } else { format!("`{}`", field.path) };
    let default = field.default.as_ref().map(|text| format!("`{text}`")).unwrap_or_default();
    let cell = |text: &str| text.replace('|', "\\|");
    format!("| {name} | {} | {} | {} |\n", cell(&field.values), cell(&default), cell(&field.about))
}

fn document() -> String {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/plan.md");
    std::fs::read_to_string(file).expect("docs/plan.md")
}

#[test]
fn the_table_is_that_of_the_types() {
    let table: String = plan::fields().iter().map(row).collect();
    let text = document();
    let (_, found) = text.split_once(HEADING).expect("the table's heading");
    assert!(found == table, "docs/plan.md should end with:\n\n{HEADING}{table}");
}

#[test]
fn the_example_is_a_good_plan() {
    let text = document();
    let (_, rest) = text.split_once("```yaml\n").expect("an example");
    let (example, _) = rest.split_once("```").expect("its end");
    let checked = plan::parse(example).expect("a good plan");
    assert!(checked.warnings.is_empty(), "{:?}", checked.warnings);
    assert_eq!(checked.plan.items().len(), 3);
}

#[test]
fn the_schema_takes_what_the_reader_takes() {
    // Every name that the reader knows stands in the schema, and nothing unknown is let through.
    let schema = plan::schema();
    let objects = std::iter::once(&schema).chain(schema["$defs"].as_object().expect("definitions").values());
    for object in objects.filter(|object| object["properties"].is_object()) {
        assert_eq!(object["additionalProperties"], false, "{object}");
    }
    assert_eq!(schema["properties"]["apiVersion"]["$ref"], "#/$defs/ApiVersion");
    assert!(plan::fields().iter().all(|field| !field.about.is_empty()), "every field says what it is");
}
