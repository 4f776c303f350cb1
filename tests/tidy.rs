//! The rules of the architecture, checked by reading the tree: crates allowed by folder, file
//! length, module docs.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that unwraps fails where it should")]

use std::path::{Path, PathBuf};

const MAX_LINES: usize = 500;

/// Crate, as its path starts in code, and the places under `src/` that may name it.
const CONFINED: &[(&str, &[&str])] = &[
    ("zstd", &["pipeline/"]),
    ("age", &["pipeline/", "format/"]),
    ("aws_sdk_s3", &["store/s3/"]),
    ("aws_config", &["store/s3/"]),
    ("kube", &["cluster/", "source/kubernetes/", "restore/kubernetes/"]),
    ("clap", &["cli/"]),
];

/// Folders that do no I/O; `IO` lists the names that they may not use.
const PURE: &[&str] = &["format/", "plan/"];
const IO: &[&str] =
    &["std::fs", "std::net", "std::process", "tokio::", "rustix::", "SystemTime", "Timestamp::now"];

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|e| e == ending) {
            found.push(path);
        }
    }
    found
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns every Rust file under `folder`: its path relative to it and its text.
fn sources(folder: &str) -> Vec<(String, String)> {
    let base = root().join(folder);
    files(&base, "rs")
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&base).expect("beneath").to_string_lossy().into_owned();
            (name, std::fs::read_to_string(path).expect("text"))
        })
        .collect()
}

/// True if a line of code names a crate as the start of a path.
fn names_crate(line: &str, name: &str) -> bool {
    let code = line.split("//").next().unwrap_or("");
    code.match_indices(&format!("{name}::"))
        .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'))
}

#[test]
fn confined_crates_are_named_only_in_their_folders() {
    let mut wrong = Vec::new();
    for (name, text) in sources("src") {
        for (number, line) in text.lines().enumerate() {
            for (krate, places) in CONFINED {
                if names_crate(line, krate) && !places.iter().any(|place| name.starts_with(place)) {
                    wrong.push(format!("src/{name}:{}: {krate} belongs to {places:?}", number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_folders_do_no_io() {
    let mut wrong = Vec::new();
    for (name, text) in sources("src") {
        if !PURE.iter().any(|pure| name.starts_with(pure)) {
            continue;
        }
        for (number, line) in text.lines().enumerate().take_while(|(_, line)| !line.contains("#[cfg(test)]"))
        {
            let code = line.split("//").next().unwrap_or("");
            if let Some(io) = IO.iter().find(|io| code.contains(*io)) {
                wrong.push(format!("src/{name}:{}: {io}", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_are_short_and_begin_with_module_docs() {
    let mut wrong = Vec::new();
    for folder in ["src", "tests", "benches", "fuzz"] {
        if !root().join(folder).is_dir() {
            continue;
        }
        for (name, text) in sources(folder) {
            let lines = text.lines().count();
            if lines > MAX_LINES {
                wrong.push(format!("{folder}/{name}: {lines} lines, at most {MAX_LINES}"));
            }
            if !text.starts_with("//!") {
                wrong.push(format!("{folder}/{name}: says not what it is (//!)"));
            }
            let stem = name.trim_end_matches("/mod.rs").trim_end_matches(".rs");
            let last = stem.rsplit('/').next().unwrap_or(stem);
            if ["util", "utils", "misc", "common", "helpers"].contains(&last) {
                wrong.push(format!("{folder}/{name}: a name that says nothing"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_one_tls_stack_is_locked() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    // Cargo.lock also lists optional dependencies that are off: cargo-deny checks that ring and
    // OpenSSL are not built (deny.toml).
    for (name, most) in [("rustls", 1), ("hyper", 1), ("h2", 1)] {
        let count = lock.matches(&format!("name = \"{name}\"\n")).count();
        assert!(count <= most, "{count} versions of {name} in Cargo.lock, at most {most}");
    }
}
