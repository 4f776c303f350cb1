//! The source tree as the rules see it: files, modules, and which file imports which.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use regex::Regex;

/// A path of modules below the crate's root.
pub type Module = Vec<String>;

/// One Rust file.
pub struct Source {
    /// Its path below the folder that was read, with `/`.
    pub path: String,
    /// Its text.
    pub text: String,
}

impl Source {
    /// Its lines of code with their numbers: comments are cut off, unit tests at its end are left out.
    pub fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate();
        let lines = lines.take_while(|(_, line)| !line.starts_with("#[cfg(test)]"));
        lines.map(|(number, line)| (number + 1, line.split("//").next().unwrap_or("")))
    }

    /// The module that the file is.
    pub fn module(&self) -> Module {
        let stem = self.path.trim_end_matches(".rs");
        let stem = stem.strip_suffix("/mod").unwrap_or(stem);
        if matches!(stem, "lib" | "main") {
            return Module::new();
        }
        stem.split('/').map(str::to_owned).collect()
    }

    /// The top-level folder, or the file's own name.
    pub fn folder(&self) -> &str {
        self.path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }
}

/// The Rust files of one folder.
pub struct Tree(pub Vec<Source>);

impl Tree {
    /// Reads every Rust file below `folder`.
    pub fn read(folder: &Path) -> Self {
        let mut found = Vec::new();
        collect(folder, &mut found);
        found.sort();
        let source = |path: PathBuf| Source {
            path: path.strip_prefix(folder).expect("below the folder").to_string_lossy().into_owned(),
            text: std::fs::read_to_string(&path).expect("text"),
        };
        Self(found.into_iter().map(source).collect())
    }

    /// Every import: the index of the file, and the path below the crate's root that it names.
    pub fn imports(&self) -> Vec<(usize, Module)> {
        let modules: BTreeSet<Module> = self.0.iter().map(Source::module).collect();
        let mut all = Vec::new();
        for (index, source) in self.0.iter().enumerate() {
            let text: String = source.code().flat_map(|(_, line)| [line, "\n"]).collect();
            let module = source.module();
            let named = uses(&text).into_iter().map(|(_, path)| path).chain(inline(&text));
            all.extend(named.filter_map(|path| Some((index, resolve(&path, &module, &modules)?))));
        }
        all
    }

    /// For each file the files that it imports. A re-export leads to the file that defines the item.
    pub fn graph(&self) -> Vec<BTreeSet<usize>> {
        let by_module: BTreeMap<Module, usize> =
            self.0.iter().enumerate().map(|(index, source)| (source.module(), index)).collect();
        let modules: BTreeSet<Module> = by_module.keys().cloned().collect();
        let mut exports: BTreeMap<Module, Module> = BTreeMap::new();
        for source in &self.0 {
            let text: String = source.code().flat_map(|(_, line)| [line, "\n"]).collect();
            let module = source.module();
            for (_, path) in uses(&text).into_iter().filter(|(is_public, _)| *is_public) {
                let Some(to) = resolve(&path, &module, &modules) else { continue };
                let name = to.last().cloned().unwrap_or_default();
                exports.insert([module.clone(), vec![name]].concat(), to);
            }
        }
        let mut graph = vec![BTreeSet::new(); self.0.len()];
        for (from, mut path) in self.imports() {
            for _ in 0..8 {
                match exports.get(&path) {
                    Some(to) => path.clone_from(to),
                    None => break,
                }
            }
            let file = (1..=path.len()).rev().find_map(|length| by_module.get(&path[..length]).copied());
            if let Some(to) = file.filter(|to| *to != from) {
                graph[from].insert(to);
            }
        }
        graph
    }
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// The `use` declarations of a text, one path each, and whether it is public.
fn uses(text: &str) -> Vec<(bool, String)> {
    let declaration = Regex::new(r"\b(pub(?:\([a-z ]+\))?\s+)?use\s+([^;]+);").expect("a pattern");
    let mut paths = Vec::new();
    for found in declaration.captures_iter(text) {
        let tree: String = found[2].split_whitespace().collect::<Vec<_>>().join(" ");
        let mut expanded = Vec::new();
        expand("", &tree, &mut expanded);
        paths.extend(expanded.into_iter().map(|path| (found.get(1).is_some(), path)));
    }
    paths
}

/// Expands a tree of imports into its paths; aliases and a final `self` are cut off.
fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let mut depth = 0;
    let parts = tree.split(|c: char| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    for part in parts.map(str::trim).filter(|part| !part.is_empty()) {
        match (part.find('{'), part.strip_suffix('}')) {
            (Some(open), Some(whole)) => {
                expand(&format!("{prefix}{}", &part[..open]), &whole[open + 1..], paths);
            }
            _ => {
                let path = format!("{prefix}{}", part.split(" as ").next().unwrap_or(part));
                paths.push(path.trim_end_matches("::self").to_owned());
            }
        }
    }
}

/// Paths that code names without importing them.
fn inline(text: &str) -> Vec<String> {
    let path = Regex::new(r"\b(?:crate|super)(?:::\w+)+").expect("a pattern");
    path.find_iter(text).map(|found| found.as_str().to_owned()).collect()
}

/// The path below the crate's root; `None` for another crate.
fn resolve(path: &str, module: &Module, modules: &BTreeSet<Module>) -> Option<Module> {
    let segments: Vec<String> = path.split("::").map(str::to_owned).collect();
    match segments.first()?.as_str() {
        "crate" => Some(segments[1..].to_vec()),
        "self" | "super" => {
            let mut base = module.clone();
            let relative = segments.iter().take_while(|one| matches!(one.as_str(), "self" | "super"));
            for one in relative.clone() {
                if one == "super" {
                    base.pop()?;
                }
            }
            base.extend(segments.iter().skip(relative.count()).cloned());
            Some(base)
        }
        first => {
            let child = [module.clone(), vec![first.to_owned()]].concat();
            modules.contains(&child).then(|| [module.clone(), segments].concat())
        }
    }
}
