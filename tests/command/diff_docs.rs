//! Checks that docs/diff.md lists what the comparison leaves out.

use kbak::compare::ignored_fields::{RULES, VOLATILE_KINDS};

#[test]
fn rules_table_in_diff_docs_matches_the_code() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/diff.md");
    let text = std::fs::read_to_string(file).expect("docs/diff.md");
    let row = |(kind, field, why): &(&str, &str, &str)| {
        let kind = if *kind == "*" { "all".to_owned() } else { format!("`{kind}`") };
        format!("| {kind} | `{field}` | {why} |\n")
    };
    let rows: String = RULES.iter().map(row).collect();
    assert!(text.ends_with(&format!("|---|---|---|\n{rows}")), "docs/diff.md should end with:\n{rows}");
    for kind in VOLATILE_KINDS {
        let plural = kind.split('.').next().unwrap_or(kind);
        assert!(text.contains(plural), "docs/diff.md does not name {kind}");
    }
}
