//! Keys and plain files, if the store or the disk accepts no more data.

use std::process::Command;

use super::lifecycle::{content, desk, place};
use crate::support::program::{beneath, read};

#[test]
fn keys_are_checked_even_if_no_receipt_can_be_stored() {
    let desk = desk();
    // A file in place of a folder: no object can be put there.
    let records = place(&desk.at("store"), "records");
    std::fs::remove_dir_all(&records).expect("removed");
    std::fs::write(&records, "").expect("a file");
    let (code, out, err) = desk.reads(&["keys", "check"]);
    assert!(code != 0 && code != 3, "{code} {err}");
    assert!(out.contains("yes") && out.contains("none"), "{out}");
    assert!(err.contains("every epoch was opened") && err.contains("→"), "{err}");
    let (_, out, _) = desk.reads(&["keys", "check", "-o", "json"]);
    assert_eq!(super::lifecycle::json(&out)[0]["opened"], true, "{out}");
}

#[test]
fn failed_export_leaves_no_partial_file() {
    let desk = desk();
    assert_eq!(desk.backup(&[]).0, 0);
    let out = desk.at("out");
    let command = format!(
        "trap '' XFSZ; ulimit -f 64; exec {} export --to {} --repo {} --signer {} --identity {}",
        env!("CARGO_BIN_EXE_kbak"),
        out.display(),
        desk.repo(),
        desk.text("keys/kbak.pub"),
        desk.text("keys/owner.key")
    );
    let (code, _, err) = read(Command::new("bash").args(["-c", &command]).output().expect("bash"));
    assert_eq!(code, 3, "{err}");
    assert!(err.contains(".tar: not exported") && err.contains("→"), "{err}");
    let left: Vec<_> = beneath(&out).into_iter().filter(|path| path.is_file()).collect();
    assert_eq!(left, [out.join("snapshot.json")], "only what is whole has a name");
    assert!(content(&left[0]).ends_with(b"}\n"));
    let (code, _, err) = desk.reads(&["export", "--to", &desk.text("out")]);
    assert!(code == 2 && err.contains("snapshot.json"), "what is there is not overwritten: {err}");
}
