//! What goes where: data to standard output, talk to standard error, and either for programs.

use super::life::{desk, json};
use crate::support::program::kbak;

/// Every line as JSON.
fn events(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(json).collect()
}

#[test]
fn with_json_progress_all_of_standard_error_is_json_lines() {
    let desk = desk();
    let (code, _, err) = desk.backup(&["--progress", "json"]);
    assert_eq!(code, 0, "{err}");
    let told = events(&err);
    let last = told.last().expect("a summary");
    assert_eq!((&last["event"], &last["report"]["exit"]), (&"summary".into(), &"safe".into()), "{err}");
    assert!(told.iter().all(|event| event["time"].is_string() && event["event"].is_string()), "{err}");

    std::fs::rename(desk.at("data"), desk.at("moved")).expect("moved");
    let (code, out, err) = desk.backup(&["--progress", "json", "-o", "json"]);
    assert_eq!(code, 3, "{err}");
    assert_eq!(events(&err).last().expect("a summary")["report"], json(&out), "the same report");

    let (code, _, err) = desk.reads(&["verify", "--progress", "json"]);
    assert_eq!((code, events(&err).last().expect("a summary")["event"].as_str()), (0, Some("summary")));
    let (code, _, err) = desk.reads(&["restore", "7", "--progress", "json", "--to", &desk.text("back")]);
    assert_eq!(code, 2, "{err}");
    let told = events(&err);
    let failure = &told.last().expect("a summary")["report"]["failure"];
    assert!(failure["remedy"].is_string() || failure["what"].is_string(), "{err}");
    // Before there is a run, too.
    let (code, _, err) = kbak(&["restore", "--progress", "json"]);
    assert_eq!((code, events(&err)[0]["event"].as_str()), (2, Some("failure")), "{err}");
}

#[test]
fn lists_are_lines_and_their_help_says_so() {
    let desk = desk();
    assert_eq!(desk.backup(&[]).0, 0);
    let (code, out, _) = desk.reads(&["ls", "latest", "-o", "json"]);
    assert_eq!((code, events(&out)[0]["place"].as_str()), (0, Some(desk.item().as_str())));
    let (_, out, _) = desk.reads(&["ls", "latest", "-o", "yaml"]);
    assert!(out.starts_with("---\n"), "{out}");
    for verb in ["ls", "find", "diff"] {
        let (_, help, _) = kbak(&[verb, "--help"]);
        assert!(help.contains("one object a line") && !help.contains("One JSON document"), "{help}");
    }
}
