//! Every rule refuses what breaks it, planted in a copy of the tree.

use std::path::Path;

use crate::rules;
use crate::tree::Tree;

/// Copies src/, adds text to files of the copy, and returns the answer of `rule`.
fn planted(files: &[(&str, &str)], rule: fn(&Tree) -> Vec<String>) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    copy(&crate::root().join("src"), folder.path());
    for (path, text) in files {
        let file = folder.path().join(path);
        std::fs::create_dir_all(file.parent().expect("a parent")).expect("a folder");
        let before = std::fs::read_to_string(&file).unwrap_or_default();
        std::fs::write(&file, format!("{text}{before}")).expect("a file");
    }
    rule(&Tree::read(folder.path())).join("\n")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a readable folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

#[test]
fn upward_import_is_refused() {
    let said = planted(&[("format/planted.rs", "use crate::store::{Store, StoreError};\n")], rules::layers);
    assert_eq!(said, "src/format/planted.rs: format may not import store");
    let said =
        planted(&[("store/planted.rs", "fn f() { crate::repository::records::list(); }\n")], rules::layers);
    assert_eq!(said, "src/store/planted.rs: store may not import repository");
}

#[test]
fn unknown_folder_is_refused() {
    let said = planted(&[("shared/planted.rs", "")], rules::layers);
    assert_eq!(said, "src/shared/planted.rs: no folder of the table of layers");
}

#[test]
fn circle_of_two_files_is_refused() {
    let said = planted(&[("store/retry.rs", "use super::memory::MemoryStore;\n")], rules::circles);
    assert_eq!(said, "", "one direction alone is no circle");
    let said = planted(
        &[
            ("store/memory.rs", "use super::retry::RetryStore;\n"),
            ("store/retry.rs", "use super::memory::MemoryStore;\n"),
        ],
        rules::circles,
    );
    assert_eq!(said, "these import each other: store/memory.rs, store/retry.rs");
}

#[test]
fn circle_through_a_re_export_is_refused() {
    let said = planted(
        &[
            ("kubernetes/kind.rs", "use crate::kubernetes::Cluster;\n"),
            ("kubernetes/client.rs", "use super::kind::KindInfo;\n"),
        ],
        rules::circles,
    );
    assert_eq!(said, "these import each other: kubernetes/client.rs, kubernetes/kind.rs");
}

#[test]
fn clap_outside_the_command_line_is_refused() {
    let said = planted(&[("restore/planted.rs", "fn f(_: clap::Command) {}\n")], rules::confined_crates);
    assert_eq!(said, "src/restore/planted.rs:1: clap belongs to [\"cli/\"]");
}

#[test]
fn exit_code_outside_the_command_line_is_refused() {
    let said = planted(&[("backup/planted.rs", "fn f() -> std::process::ExitCode {}\n")], rules::exit_codes);
    assert_eq!(said, "src/backup/planted.rs:1: ExitCode: exit codes belong to cli/");
    let said = planted(&[("verify/planted.rs", "fn f() { std::process::exit(4) }\n")], rules::exit_codes);
    assert_eq!(said, "src/verify/planted.rs:1: process::exit: exit codes belong to cli/");
}

#[test]
fn long_function_and_long_file_are_refused() {
    let long = format!("//! Planted.\nfn long() {{\n{}}}\n", "    let _ = 1;\n".repeat(60));
    let said = planted(&[("fs/planted.rs", &long)], rules::functions);
    assert_eq!(said, "src/fs/planted.rs:2: long has 62 lines");
    let long = format!("//! Planted.\n{}", "\n".repeat(400));
    let said = planted(&[("fs/planted.rs", &long)], |tree| rules::files("src", tree));
    assert_eq!(said, "src/fs/planted.rs: 401 lines, at most 400");
}

#[test]
fn walk_that_counts_no_steps_is_refused() {
    let walk = "fn depth(value: &Value) -> usize {\n    value.iter().map(|one| depth(one)).max()\n}\n";
    let said = planted(&[("compare/planted.rs", walk)], rules::uncounted_walks);
    assert_eq!(said, "src/compare/planted.rs:1: depth does not count its steps");
}
