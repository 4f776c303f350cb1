//! A second reader and verifier, in Python, written from docs/format.md (tests/reader): it reads the golden
//! repository, and agrees with kbak about what is wrong with changed ones.

use super::repository::{compare_recovered, expected, golden, owner_key};
use super::vectors::reader;
use crate::support::program::succeeds;

/// Mutations of the golden repository at each of three depths of verification.
const MUTATIONS: &str = "100";
const SEED: &str = "kbak";

#[test]
fn golden_repository_is_restored_by_second_reader() {
    let facts = expected();
    let scratch = tempfile::tempdir().expect("a folder");
    let out = scratch.path().join("out");
    let (store, pin) = (golden().join("store"), golden().join("kbak.pub"));
    succeeds(reader().arg("restore").args([store, pin, owner_key(), out.clone()]));
    compare_recovered(&out, &scratch.path().join("folder"), &facts);
}

#[test]
fn examples_of_format_document_are_read_by_second_reader() {
    succeeds(reader().arg("document").arg(golden().join("../../../docs/format.md")));
}

#[test]
fn second_reader_agrees_with_kbak_on_presence_in_mutations() {
    compare("presence");
}

#[test]
fn second_reader_agrees_with_kbak_on_bytes_in_mutations() {
    compare("bytes");
}

#[test]
fn second_reader_agrees_with_kbak_on_contents_in_mutations() {
    compare("contents");
}

/// Mutates the golden repository, and compares exit codes, findings and restores.
fn compare(depth: &str) {
    let (store, pin) = (golden().join("store"), golden().join("kbak.pub"));
    let output = reader()
        .args(["compare", env!("CARGO_BIN_EXE_kbak")])
        .args([store, pin, owner_key()])
        .args([depth, MUTATIONS, SEED])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
}
