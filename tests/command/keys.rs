//! Keys and plain files, if the store or the disk accepts no more data.

use std::process::Command;

use super::lifecycle::{content, place, sample_repo};
use crate::support::program::{beneath, read};

#[test]
fn keys_are_checked_even_if_no_receipt_can_be_stored() {
    let cli = sample_repo();
    // A file in place of a folder: no object can be put there.
    let records = place(&cli.at("store"), "records");
    std::fs::remove_dir_all(&records).expect("removed");
    std::fs::write(&records, "").expect("a file");
    let (code, out, err) = cli.run_reader(&["keys", "check"]);
    assert!(code != 0 && code != 3, "{code} {err}");
    assert!(out.contains("yes") && out.contains("none"), "{out}");
    assert!(err.contains("every epoch was opened") && err.contains("→"), "{err}");
    let (_, out, _) = cli.run_reader(&["keys", "check", "-o", "json"]);
    assert_eq!(super::lifecycle::json(&out)[0]["opened"], true, "{out}");
}

#[test]
fn failed_export_leaves_no_partial_file() {
    let cli = sample_repo();
    assert_eq!(cli.backup(&[]).0, 0);
    let out = cli.at("out");
    let command = format!(
        "trap '' XFSZ; ulimit -f 64; exec {} export --to {} --repo {} --signer {} --identity {}",
        env!("CARGO_BIN_EXE_kbak"),
        out.display(),
        cli.url(),
        cli.text("keys/kbak.pub"),
        cli.text("keys/owner.key")
    );
    let (code, _, err) = read(Command::new("bash").args(["-c", &command]).output().expect("bash"));
    assert_eq!(code, 3, "{err}");
    assert!(err.contains(".tar: not exported") && err.contains("→"), "{err}");
    let left: Vec<_> = beneath(&out).into_iter().filter(|path| path.is_file()).collect();
    assert_eq!(left, [out.join("snapshot.json")], "only what is whole has a name");
    assert!(content(&left[0]).ends_with(b"}\n"));
    let (code, _, err) = cli.run_reader(&["export", "--to", &cli.text("out")]);
    assert!(code == 2 && err.contains("snapshot.json"), "an existing file is not overwritten: {err}");
}
