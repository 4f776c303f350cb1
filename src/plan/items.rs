//! Items: the things a plan declares, and their names.

use std::fmt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::run_settings::Objectives;

/// A thing that a plan declares: the unit of state and of retention.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ItemName {
    /// The cluster's resources: `resources`.
    Resources,
    /// A database, by its name in the plan.
    Database(String),
    /// A claim: `volume/<namespace>/<claim>`.
    Volume {
        /// The claim's namespace.
        namespace: String,
        /// The claim's name, or a glob as the plan has it.
        claim: String,
    },
    /// A folder: `path/<name>`, where the name is the plan's, else the path without its first slash.
    Path(String),
}

impl fmt::Display for ItemName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resources => f.write_str("resources"),
            Self::Database(name) => f.write_str(name),
            Self::Volume { namespace, claim } => write!(f, "volume/{namespace}/{claim}"),
            Self::Path(name) => write!(f, "path/{name}"),
        }
    }
}

impl ItemName {
    /// Parses a name in the form that messages print.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "resources" {
            return Some(Self::Resources);
        }
        match text.split_once('/') {
            None if is_item_name(text) => Some(Self::Database(text.to_owned())),
            Some(("path", name)) if !name.starts_with('/') => Some(Self::Path(name.to_owned())),
            Some(("volume", rest)) => {
                let (namespace, claim) = rest.split_once('/')?;
                let whole = !namespace.is_empty() && !claim.is_empty() && !claim.contains('/');
                whole.then(|| Self::Volume { namespace: namespace.to_owned(), claim: claim.to_owned() })
            }
            _ => None,
        }
    }
}

/// True if a name is lower-case letters, digits, `-` and `.` between letters or digits, at most 63.
pub(super) fn is_item_name(text: &str) -> bool {
    let end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    text.len() <= 63
        && end(text.chars().next())
        && end(text.chars().last())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c))
}

/// Returns the nearest valid name of an item for a foreign name, if there is one.
#[must_use]
pub fn sanitize_item_name(text: &str) -> Option<String> {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    let lower = text.to_lowercase();
    let name: String = lower.chars().map(|c| if fine(c) { c } else { '-' }).take(63).collect();
    let name = name.trim_matches(['-', '.']);
    (is_item_name(name) && name != "resources").then(|| name.to_owned())
}

/// A database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Database")]
pub struct DatabaseSpec {
    /// The name of the item: lower-case letters, digits, `-` and `.`; not `resources`.
    #[schemars(length(max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// The kind of database.
    pub engine: DatabaseEngine,
    /// The way to the server for a dump. Default: `job` if a namespace is given, else `local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<DumpTransport>,
    /// With `job`: the image whose client tool makes the dump. Default: the image of the database's pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The namespace of the Service or pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The Service of the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// A host name, an address, or the folder of a socket; instead of a Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The port. Default: that of the engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// With `exec`: the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// With `exec`: the container of the pod. Default: its first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The databases of the server to dump, by name or glob; a backslash makes the next character literal.
    /// A missing one is a gap (`absent`). `template1` is included unless it is empty. Default: all.
    #[serde(default = "everything")]
    pub databases: Vec<String>,
    /// The user to connect as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// A file that contains the user's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_file: Option<PathBuf>,
    /// A file that contains the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// A Secret that contains the user's name and the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// The encryption of the connection. Only `allow-plaintext` allows clear text.
    #[serde(default)]
    pub tls: TlsMode,
    /// A file with CA certificates (PEM) for the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// With the engine `command`: the commands that dump and restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandRecipe>,
    /// Objectives of this item. Default: those of the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objectives: Option<Objectives>,
}

fn everything() -> Vec<String> {
    vec!["*".into()]
}

impl DatabaseSpec {
    /// Creates a database of `engine` at `host`, with defaults for everything else.
    #[must_use]
    pub fn at(name: String, engine: DatabaseEngine, host: String) -> Self {
        Self {
            name,
            engine,
            transport: None,
            image: None,
            namespace: None,
            service: None,
            host: Some(host),
            port: None,
            pod: None,
            container: None,
            databases: everything(),
            user: None,
            user_file: None,
            password_file: None,
            secret_ref: None,
            tls: TlsMode::default(),
            ca_file: None,
            command: None,
            objectives: None,
        }
    }

    /// Returns the transport of its dump: the plan's, else a Job if it is in a cluster, else local.
    pub fn transport(&self) -> DumpTransport {
        self.transport.unwrap_or(if self.namespace.is_some() {
            DumpTransport::Job
        } else {
            DumpTransport::Local
        })
    }

    /// Returns the item.
    pub fn item(&self) -> ItemName {
        ItemName::Database(self.name.clone())
    }
}

/// Kinds of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Engine")]
pub enum DatabaseEngine {
    /// PostgreSQL.
    Postgresql,
    /// MariaDB.
    Mariadb,
    /// MySQL.
    Mysql,
    /// Redis and Valkey.
    Redis,
    /// MongoDB.
    Mongodb,
    /// etcd.
    Etcd,
    /// A command of the plan.
    Command,
}

impl DatabaseEngine {
    /// Returns the name as the plan writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgresql => "postgresql",
            Self::Mariadb => "mariadb",
            Self::Mysql => "mysql",
            Self::Redis => "redis",
            Self::Mongodb => "mongodb",
            Self::Etcd => "etcd",
            Self::Command => "command",
        }
    }
}

/// The way to the server for a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Transport")]
pub enum DumpTransport {
    /// A Job beside the database runs its own client tool.
    Job,
    /// kbak runs the client tool itself.
    Local,
    /// A command in the running pod.
    Exec,
}

impl DumpTransport {
    /// Returns the name as the plan writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Local => "local",
            Self::Exec => "exec",
        }
    }
}

/// A Secret and its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretRef {
    /// The Secret, in the database's namespace.
    pub name: String,
    /// The key of the user's name. Default: `username`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username_key: Option<String>,
    /// The key of the password. Default: `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_key: Option<String>,
}

/// The encryption of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Tls")]
pub enum TlsMode {
    /// Encrypted; the server's certificate is valid for its name.
    #[default]
    VerifyFull,
    /// Encrypted; the certificate is not checked.
    Require,
    /// Encrypted if the server supports it, else clear text.
    AllowPlaintext,
}

/// Commands of the plan, as lists of words; no shell is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CommandRecipe {
    /// The command that writes the dump to its standard output.
    pub dump: Vec<String>,
    /// The command that reads the dump from its standard input.
    pub restore: Vec<String>,
}

/// Volumes in the cluster, or a folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Volume")]
pub struct VolumeSpec {
    /// A local folder, as an absolute path; instead of claims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// With `path`: the name of the item. Default: the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The claims' namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Claims (PersistentVolumeClaims), by name or glob.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<String>,
    /// Claims by label selector; instead of `claims`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// The thing that is read: the volume itself (`live`), a snapshot of it, or a clone. Default: `live`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<ReadMethod>,
    /// Patterns of files to exclude, in the syntax of .gitignore.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Objectives of this item. Default: those of the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objectives: Option<Objectives>,
}

/// The thing that is read for a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Method")]
pub enum ReadMethod {
    /// The volume itself.
    Live,
    /// A snapshot of the volume.
    Snapshot,
    /// A clone of the volume.
    Clone,
}

impl VolumeSpec {
    /// Creates a volume for a local folder.
    #[must_use]
    pub fn folder(path: PathBuf) -> Self {
        Self { path: Some(path), ..Self::default() }
    }

    /// Returns the items it declares, with claims as the plan names them. There are none for a selector,
    /// which only the cluster can resolve.
    pub fn items(&self) -> Vec<ItemName> {
        match (&self.path, &self.namespace) {
            (Some(path), _) => vec![ItemName::Path(self.name.clone().unwrap_or_else(|| path_name(path)))],
            (None, Some(namespace)) => self
                .claims
                .iter()
                .map(|claim| ItemName::Volume { namespace: namespace.clone(), claim: claim.clone() })
                .collect(),
            (None, None) => Vec::new(),
        }
    }
}

/// Returns the path without leading slashes; `root` for `/` itself.
fn path_name(path: &Path) -> String {
    let text = path.to_string_lossy();
    let name = text.trim_start_matches('/');
    if name.is_empty() { "root".into() } else { name.to_owned() }
}
