//! The rules of docs/architecture.md. Each returns the places that break it, empty if none does.

use std::collections::BTreeSet;

use regex::Regex;

use crate::tree::{Source, Tree};

/// For each folder of src/, lowest first, the folders that it may import. None may import one that comes
/// after it, so that no two import each other.
pub const LAYERS: &[(&str, &[&str])] = &[
    ("report", &[]),
    ("runtime", &["report"]),
    ("format", &["report"]),
    ("fs", &["format"]),
    ("store", &["report", "runtime", "format"]),
    ("keys", &["report", "runtime", "format", "fs"]),
    ("pipeline", &["report", "runtime", "format", "store"]),
    ("repository", &["report", "runtime", "format", "store", "keys", "pipeline"]),
    ("plan", &["report", "store", "keys"]),
    ("kubernetes", &["report", "runtime", "plan"]),
    ("source", &["report", "runtime", "format", "fs", "plan", "kubernetes"]),
    ("target", &["report", "runtime", "format", "fs", "plan", "kubernetes", "source"]),
    ("inventory", &["report", "plan", "kubernetes"]),
    ("rbac", &["plan", "kubernetes"]),
    (
        "backup",
        &[
            "report",
            "runtime",
            "format",
            "store",
            "keys",
            "pipeline",
            "repository",
            "plan",
            "kubernetes",
            "source",
            "inventory",
        ],
    ),
    (
        "restore",
        &["report", "runtime", "format", "pipeline", "repository", "plan", "kubernetes", "source", "target"],
    ),
    ("verify", &["report", "runtime", "format", "store", "keys", "pipeline", "repository"]),
    ("notify", &["report", "store", "plan", "kubernetes"]),
    ("compare", &["report", "format", "pipeline", "repository", "kubernetes"]),
    (
        "check",
        &[
            "report",
            "runtime",
            "format",
            "fs",
            "store",
            "keys",
            "repository",
            "plan",
            "kubernetes",
            "source",
            "inventory",
            "backup",
            "notify",
        ],
    ),
    (
        "cli",
        &[
            "report",
            "runtime",
            "format",
            "fs",
            "store",
            "keys",
            "pipeline",
            "repository",
            "plan",
            "kubernetes",
            "source",
            "target",
            "inventory",
            "rbac",
            "backup",
            "restore",
            "verify",
            "notify",
            "compare",
            "check",
        ],
    ),
    ("lib", &[]),
    ("main", &["cli"]),
];

/// A crate, as its path starts in code, and the places under src/ that may name it.
const CONFINED: &[(&str, &[&str])] = &[
    ("zstd", &["pipeline/"]),
    ("age", &["pipeline/", "format/", "keys/"]),
    ("aws_lc_rs", &["format/payload.rs"]),
    ("aws_sdk_s3", &["store/s3/"]),
    ("aws_config", &["store/s3/"]),
    ("kube", &["kubernetes/"]),
    ("clap", &["cli/"]),
    ("indicatif", &["cli/"]),
];

/// The words for exit codes, which only the command line has.
const EXIT_CODES: &[&str] = &["ExitCode", "process::exit", "exit_code"];

/// Folders that do no I/O, and the names that they may therefore not use.
const PURE: &[&str] = &["format/", "plan/"];
const IO: &[&str] =
    &["std::fs", "std::net", "std::process", "tokio::", "rustix::", "SystemTime", "Timestamp::now"];

/// The most lines of a file in src/ and of one in another folder, and of a function in src/.
const MAX_LINES: usize = 400;
const MAX_TEST_LINES: usize = 500;
const MAX_FUNCTION: usize = 60;

/// Words of a language that kbak had before, as identifiers or parts of messages.
const OLD_WORDS: &[&str] = &[
    "Nursery",
    "BirthError",
    "Shelf",
    "Whither",
    "Wishes",
    "Healer",
    "Sandwich",
    "Talk",
    "Asker",
    "Ears",
    "Whereabouts",
    "nursery",
    "wishes",
    "Victim",
    "Desk",
    "desk",
    "Cycle",
    "Bench",
    "bench",
    "Cage",
    "Liar",
    "liar",
    "Lie",
    "Meddling",
    "meddled",
    "Scene",
    "scene",
    "Stage",
    "Plane",
];

/// Imports that the table of layers does not allow, and folders that it does not know.
pub fn layers(tree: &Tree) -> Vec<String> {
    let mut wrong = BTreeSet::new();
    let rank = |folder: &str| LAYERS.iter().position(|(name, _)| *name == folder);
    for (at, (folder, below)) in LAYERS.iter().enumerate() {
        for other in *below {
            if rank(other).is_none_or(|other| other >= at) {
                wrong.insert(format!("the table itself: {folder} may not stand above {other}"));
            }
        }
    }
    for source in &tree.0 {
        if rank(source.folder()).is_none() {
            wrong.insert(format!("src/{}: no folder of the table of layers", source.path));
        }
    }
    for (from, path) in tree.imports() {
        let from = &tree.0[from];
        let Some(to) = path.first().filter(|to| rank(to).is_some()) else { continue };
        let allowed = LAYERS.iter().find(|(name, _)| *name == from.folder());
        if to != from.folder() && !allowed.is_some_and(|(_, below)| below.contains(&to.as_str())) {
            wrong.insert(format!("src/{}: {} may not import {to}", from.path, from.folder()));
        }
    }
    wrong.into_iter().collect()
}

/// Circles of files that import each other; a module and what is below it may.
pub fn circles(tree: &Tree) -> Vec<String> {
    let modules: Vec<_> = tree.0.iter().map(Source::module).collect();
    let related =
        |a: usize, b: usize| modules[a].starts_with(&modules[b]) || modules[b].starts_with(&modules[a]);
    let graph: Vec<BTreeSet<usize>> = tree.graph();
    let next = |from: usize| graph[from].iter().copied().filter(move |to| !related(from, *to));
    let reach = |from: usize| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(at) = open.pop() {
            open.extend(next(at).filter(|to| seen.insert(*to)).collect::<Vec<_>>());
        }
        seen
    };
    let reached: Vec<BTreeSet<usize>> = (0..modules.len()).map(reach).collect();
    let mut circles = BTreeSet::new();
    for at in (0..modules.len()).filter(|at| reached[*at].contains(at)) {
        let members = (0..modules.len()).filter(|to| reached[at].contains(to) && reached[*to].contains(&at));
        let names: Vec<&str> = members.map(|member| tree.0[member].path.as_str()).collect();
        circles.insert(format!("these import each other: {}", names.join(", ")));
    }
    circles.into_iter().collect()
}

/// Crates that are named outside of their places.
pub fn confined_crates(tree: &Tree) -> Vec<String> {
    let names = |line: &str, name: &str| {
        line.match_indices(&format!("{name}::"))
            .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'))
    };
    lines(tree, |source, line| {
        let wrong = CONFINED.iter().find(|(krate, places)| {
            names(line, krate) && !places.iter().any(|place| source.path.starts_with(place))
        });
        wrong.map(|(krate, places)| format!("{krate} belongs to {places:?}"))
    })
}

/// Exit codes outside of the command line.
pub fn exit_codes(tree: &Tree) -> Vec<String> {
    lines(tree, |source, line| {
        let outside = !source.path.starts_with("cli/") && source.path != "main.rs";
        let word = EXIT_CODES.iter().find(|word| line.contains(**word)).filter(|_| outside)?;
        Some(format!("{word}: exit codes belong to cli/"))
    })
}

/// I/O in folders that do none.
pub fn io_in_pure_folders(tree: &Tree) -> Vec<String> {
    lines(tree, |source, line| {
        let pure = PURE.iter().any(|pure| source.path.starts_with(pure));
        IO.iter().find(|io| pure && line.contains(**io)).map(|io| format!("{io}: this folder does no I/O"))
    })
}

fn lines(tree: &Tree, check: impl Fn(&Source, &str) -> Option<String>) -> Vec<String> {
    let places =
        tree.0.iter().flat_map(|source| source.code().map(move |(number, line)| (source, number, line)));
    let wrong = |(source, number, line): (&Source, usize, &str)| {
        check(source, line).map(|what| format!("src/{}:{number}: {what}", source.path))
    };
    places.filter_map(wrong).collect()
}

/// Files that are too long, do not say what they are, or have a name that says nothing.
pub fn files(folder: &str, tree: &Tree) -> Vec<String> {
    let most = if folder == "src" { MAX_LINES } else { MAX_TEST_LINES };
    let mut wrong = Vec::new();
    for Source { path, text } in &tree.0 {
        let lines = text.lines().count();
        if lines > most {
            wrong.push(format!("{folder}/{path}: {lines} lines, at most {most}"));
        }
        if !text.starts_with("//!") {
            wrong.push(format!("{folder}/{path}: it has no module documentation (//!)"));
        }
        let stem = path.trim_end_matches("/mod.rs").trim_end_matches(".rs");
        let last = stem.rsplit('/').next().unwrap_or(stem);
        if ["util", "utils", "misc", "common", "helpers"].contains(&last) {
            wrong.push(format!("{folder}/{path}: a name that says nothing"));
        }
    }
    wrong
}

/// Functions that do not fit a screen. rustfmt puts the closing brace below the first character of the
/// line that begins the function.
pub fn functions(tree: &Tree) -> Vec<String> {
    let head =
        Regex::new(r"^(\s*)(?:pub(?:\([a-z ]+\))? )?(?:const )?(?:async )?fn (\w+)").expect("a pattern");
    let mut wrong = Vec::new();
    for source in &tree.0 {
        let lines: Vec<&str> = source.text.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            let Some(found) = head.captures(line) else { continue };
            let close = format!("{}}}", &found[1]);
            let end = lines[start..].iter().position(|line| **line == close).unwrap_or(0);
            let signature = lines[start..=start + end].iter().position(|line| line.ends_with('{'));
            let bodiless = lines[start..].iter().position(|line| line.ends_with(';')).unwrap_or(usize::MAX);
            if end + 1 > MAX_FUNCTION && signature.is_some_and(|open| open < bodiless) {
                wrong.push(format!("src/{}:{}: {} has {} lines", source.path, start + 1, &found[2], end + 1));
            }
        }
    }
    wrong
}

/// Folders whose functions walk objects that somebody else wrote.
const WALKS: &[&str] = &["kubernetes/", "source/kubernetes/", "target/kubernetes/", "compare/"];

/// Functions that walk a JSON value by recursion and do not count their steps: a test holds the steps of all
/// walks to the size of the object.
pub fn uncounted_walks(tree: &Tree) -> Vec<String> {
    let head = Regex::new(r"^(\s*)(?:pub(?:\([a-z ]+\))? )?fn (\w+)").expect("a pattern");
    let mut wrong = Vec::new();
    for source in tree.0.iter().filter(|source| WALKS.iter().any(|walks| source.path.starts_with(walks))) {
        let lines: Vec<(usize, &str)> = source.code().collect();
        for (at, (number, line)) in lines.iter().enumerate() {
            let Some(found) = head.captures(line) else { continue };
            let close = format!("{}}}", &found[1]);
            let function: Vec<&str> =
                lines[at..].iter().map(|(_, line)| *line).take_while(|line| **line != close).collect();
            let calls = Regex::new(&format!(r"(?:^|[^.:\w]){}\(", &found[2])).expect("a pattern");
            let is_recursive = function.iter().skip(1).any(|line| calls.is_match(line));
            let has = |text: &str| function.iter().any(|line| line.contains(text));
            if is_recursive && has("Value") && !has("count_step();") {
                wrong.push(format!("src/{}:{number}: {} does not count its steps", source.path, &found[2]));
            }
        }
    }
    wrong
}

/// Doc comments that do not name the thing, and words of the language that kbak had before.
pub fn words(folder: &str, tree: &Tree) -> Vec<String> {
    let riddle = Regex::new(r"^\s*//[/!] (What|Whether|Who|Whoever)\b").expect("a pattern");
    let old = Regex::new(&format!(r"\b({})\b", OLD_WORDS.join("|"))).expect("a pattern");
    let mut wrong = Vec::new();
    for source in tree.0.iter().filter(|source| !source.path.starts_with("tidy/")) {
        for (number, line) in source.text.lines().enumerate() {
            if let Some(found) = riddle.find(line).or_else(|| old.find(line)) {
                wrong.push(format!("{folder}/{}:{}: {}", source.path, number + 1, found.as_str().trim()));
            }
        }
    }
    wrong
}
