//! The entries of one or more kubeconfig files, merged: the first file that has an entry wins.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::AccessError;

/// The largest kubeconfig, in bytes.
const MAX_FILE: u64 = 16 << 20;
/// The most contexts that a message lists.
const MAX_LISTED: usize = 10;
/// The fields of entries that name files, relative to the folder of the kubeconfig.
const FILES: [&str; 4] = ["certificate-authority", "client-certificate", "client-key", "tokenFile"];
/// The fields whose blanks count.
const WITH_BLANKS: [&str; 2] = ["username", "password"];

/// The entries by name, without empty fields.
#[derive(Default)]
pub(super) struct Kubeconfig {
    clusters: Map<String, Value>,
    users: Map<String, Value>,
    contexts: Map<String, Value>,
    current: Option<String>,
}

/// The entries that one context selects.
pub(super) struct SelectedEntries {
    /// The context's name.
    pub(super) context: String,
    pub(super) namespace: Option<String>,
    /// The cluster's name.
    pub(super) cluster: String,
    pub(super) cluster_entry: Value,
    /// The user's name; empty if the context names none.
    pub(super) user: String,
    pub(super) user_entry: Value,
}

impl Kubeconfig {
    /// Reads files. With `skip_missing`, those that do not exist are skipped, but not all of them.
    pub(super) fn read(files: &[PathBuf], skip_missing: bool) -> Result<Self, AccessError> {
        let (mut merged, mut read) = (Self::default(), 0);
        for file in files {
            let text = match read_text(file) {
                Err(AccessError::Unreadable { source, .. })
                    if skip_missing && source.kind() == std::io::ErrorKind::NotFound =>
                {
                    continue;
                }
                text => text?,
            };
            merged.add(file, &text)?;
            read += 1;
        }
        if read == 0 {
            return Err(AccessError::Missing("none of the files that KUBECONFIG names exists".into()));
        }
        Ok(merged)
    }

    /// Adds the entries of a file's documents.
    fn add(&mut self, file: &Path, text: &str) -> Result<(), AccessError> {
        let what = || format!("the kubeconfig {}", file.display());
        // No snippets: the lines around an error may hold a token.
        let options = serde_saphyr::options! { with_snippet: false };
        let parsed = serde_saphyr::from_multiple_with_options::<Value>(text, options);
        let documents = parsed.map_err(|error| {
            let at = error.location().map(|at| format!(", at line {}, column {}", at.line(), at.column()));
            AccessError::invalid(what(), format!("cannot be parsed{}", at.unwrap_or_default()))
        })?;
        let folder = file.parent().unwrap_or(Path::new(""));
        for mut document in documents.into_iter().filter(|document| !document.is_null()) {
            if !document.is_object() {
                return Err(AccessError::invalid(what(), "is not a kubeconfig: it has no fields"));
            }
            for (list, field, entries) in [
                ("clusters", "cluster", &mut self.clusters),
                ("users", "user", &mut self.users),
                ("contexts", "context", &mut self.contexts),
            ] {
                let wrong = |problem: &str| AccessError::invalid(format!("{}: {list}", what()), problem);
                match document[list].take() {
                    Value::Null => {}
                    Value::Array(given) => {
                        for mut entry in given {
                            if !entry.is_object() {
                                return Err(wrong("has an entry without fields"));
                            }
                            let name = entry["name"].as_str().unwrap_or_default().trim().to_owned();
                            let value = clean(entry[field].take(), folder)
                                .ok_or_else(|| wrong(&format!("has a malformed entry {name:?}")))?;
                            entries.entry(name).or_insert(value);
                        }
                    }
                    _ => return Err(wrong("is not a list")),
                }
            }
            let current = document["current-context"].as_str().map(str::trim).filter(|name| !name.is_empty());
            self.current = self.current.take().or(current.map(str::to_owned));
        }
        Ok(())
    }

    /// Returns the entries of a context: the given one, or else the current one.
    pub(super) fn select(mut self, context: Option<&str>) -> Result<SelectedEntries, AccessError> {
        let listed = self.list_contexts();
        let Some(context) = context.map(str::to_owned).or_else(|| self.current.clone()) else {
            return Err(AccessError::invalid("the kubeconfig", format!("has no current-context; {listed}")));
        };
        let what = format!("the context {context:?}");
        let Some(entry) = self.contexts.get(&context) else {
            return Err(AccessError::invalid(what, format!("is not in the kubeconfig; {listed}")));
        };
        let text = |field: &str| entry[field].as_str().map(str::to_owned);
        let (cluster, user, namespace) = (text("cluster"), text("user"), text("namespace"));
        let Some(cluster) = cluster else { return Err(AccessError::invalid(what, "names no cluster")) };
        let Some(cluster_entry) = self.clusters.remove(&cluster) else {
            return Err(AccessError::invalid(
                what,
                format!("names the cluster {cluster:?}, which is not there"),
            ));
        };
        let user = user.unwrap_or_default();
        // As in kubectl, a missing user is one without credentials: the server decides.
        let user_entry = self.users.remove(&user).unwrap_or_else(|| Value::Object(Map::new()));
        Ok(SelectedEntries { context, namespace, cluster, cluster_entry, user, user_entry })
    }

    fn list_contexts(&self) -> String {
        let names: Vec<&str> = self.contexts.keys().take(MAX_LISTED).map(String::as_str).collect();
        match names.as_slice() {
            [] => "it has no contexts".to_owned(),
            names => format!("contexts: {}", names.join(", ")),
        }
    }
}

fn read_text(file: &Path) -> Result<Zeroizing<String>, AccessError> {
    let what = || format!("the kubeconfig {}", file.display());
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(file)
        .and_then(|open| open.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(|source| AccessError::Unreadable { what: what(), source })?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(AccessError::invalid(what(), "is larger than 16 MiB"));
    }
    decode(&bytes).map(Zeroizing::new).ok_or_else(|| AccessError::invalid(what(), "is not text in UTF-8"))
}

/// Decodes UTF-8, and UTF-16 with a byte order mark, which PowerShell writes.
fn decode(bytes: &[u8]) -> Option<String> {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes.as_chunks::<2>();
        let units: Vec<u16> = pairs.iter().map(|pair| unit(*pair)).collect();
        String::from_utf16(&units).ok().filter(|_| rest.is_empty())
    };
    match bytes {
        [0xFF, 0xFE, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xFE, 0xFF, rest @ ..] => utf16(rest, u16::from_be_bytes),
        _ => std::str::from_utf8(crate::report::text::bytes_without_bom(bytes)).ok().map(str::to_owned),
    }
}

/// Removes the empty fields of an entry, blanks around values and line breaks within encoded ones, and makes
/// the names of files absolute. None if the entry is not an object.
fn clean(entry: Value, folder: &Path) -> Option<Value> {
    let mut fields = match entry {
        Value::Null => Map::new(),
        Value::Object(fields) => fields,
        _ => return None,
    };
    clean_fields(&mut fields);
    for name in FILES {
        make_absolute(fields.get_mut(name), folder);
    }
    if let Some(Value::Object(exec)) = fields.get_mut("exec") {
        clean_fields(exec);
        // A bare name is looked up in PATH.
        make_absolute(
            exec.get_mut("command").filter(|command| command.as_str().is_some_and(|c| c.contains('/'))),
            folder,
        );
    }
    Some(Value::Object(fields))
}

fn clean_fields(fields: &mut Map<String, Value>) {
    for (name, value) in fields.iter_mut() {
        if let Value::String(text) = value {
            if name.ends_with("-data") {
                text.retain(|c| !c.is_ascii_whitespace());
            } else if !WITH_BLANKS.contains(&name.as_str()) {
                *text = text.trim().to_owned();
            }
        }
    }
    fields.retain(|_, value| !(value.is_null() || value.as_str() == Some("")));
}

fn make_absolute(value: Option<&mut Value>, folder: &Path) {
    if let Some(Value::String(text)) = value
        && Path::new(text.as_str()).is_relative()
        && let Some(path) = folder.join(text.as_str()).to_str()
    {
        *text = path.to_owned();
    }
}
