//! The rules of the architecture, checked by reading the tree (docs/architecture.md).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that unwraps fails where it should")]

mod planted;
mod rules;
mod tree;

use std::path::PathBuf;

use tree::Tree;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn src() -> Tree {
    Tree::read(&root().join("src"))
}

#[track_caller]
fn none(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn folders_import_only_layers_below_them() {
    none(rules::layers(&src()));
}

#[test]
fn no_files_import_each_other() {
    none(rules::circles(&src()));
}

#[test]
fn crates_stay_where_they_belong() {
    none(rules::confined_crates(&src()));
}

#[test]
fn exit_codes_are_the_command_lines() {
    none(rules::exit_codes(&src()));
}

#[test]
fn pure_folders_do_no_io() {
    none(rules::io_in_pure_folders(&src()));
}

#[test]
fn files_are_short_and_documented() {
    for folder in ["src", "tests", "benches", "fuzz"] {
        let path = root().join(folder);
        if path.is_dir() {
            none(rules::files(folder, &Tree::read(&path)));
        }
    }
}

#[test]
fn functions_fit_a_screen() {
    none(rules::functions(&src()));
}

#[test]
fn walks_over_objects_count_their_steps() {
    none(rules::uncounted_walks(&src()));
}

#[test]
fn words_are_plain() {
    for folder in ["src", "tests"] {
        none(rules::words(folder, &Tree::read(&root().join(folder))));
    }
}

#[test]
fn one_tls_stack() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    // Cargo.lock lists optional dependencies that are off, too: cargo-deny checks that ring and OpenSSL
    // are not built (deny.toml).
    for (name, most) in [("rustls", 1), ("hyper", 1), ("h2", 1)] {
        let count = lock.matches(&format!("name = \"{name}\"\n")).count();
        assert!(count <= most, "{count} versions of {name} in Cargo.lock, at most {most}");
    }
}
