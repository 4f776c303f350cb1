//! PostgreSQL servers: finds the client tools, lists the databases and starts their dumps.
//!
//! One archive per database (`pg_dump -Fc -Z0`: a consistent snapshot of that database, not
//! compressed, so that unchanged tables deduplicate) and one text of roles and tablespaces
//! (`pg_dumpall --globals-only`). Each database is consistent in itself, but not with the others:
//! PostgreSQL has no snapshot across databases.

pub mod archive;
pub mod globals;
pub mod properties;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use globals::{GlobalStatement, Globals, split_globals};
pub use properties::{Properties, Property, database_properties};

use super::dump::Dump;
use super::tool::{Tool, Tools, connection};
use super::{DatabaseConfig, DatabaseError, TlsMode};
use crate::plan::Glob;

/// Folders in which distributions keep client tools, one per major version.
const INSTALLED: &[(&str, &str)] = &[("/usr/lib/postgresql", "bin"), ("/usr/libexec/postgresql", "")];
/// The oldest supported major version: the oldest whose archives the proof knows.
const OLDEST: u32 = 10;
/// The largest accepted answer to a query, in bytes.
const ANSWER: usize = 16 << 20;
/// The template databases that every server has.
const TEMPLATES: &[&str] = &["template0", "template1"];

/// A server that was reached, and the client tools for it.
#[derive(Debug, Clone)]
pub struct Postgres {
    config: DatabaseConfig,
    tools: Tools,
    server: u32,
    server_version: String,
    reads_passwords: bool,
}

/// A database of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseInfo {
    /// The database's name.
    pub name: String,
    /// The size on the server's disk in bytes; progress is measured against it.
    pub size: u64,
    /// The encoding, such as `UTF8`.
    pub encoding: String,
    /// The collation.
    pub collate: String,
    /// The character classification (`LC_CTYPE`).
    pub ctype: String,
}

/// The databases that a plan's patterns select.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Databases that can be dumped.
    pub open: Vec<DatabaseInfo>,
    /// Databases that accept no connections.
    pub closed: Vec<String>,
    /// Names (not patterns) that no database has.
    pub absent: Vec<String>,
}

impl Postgres {
    /// Reads the server's version and picks the client tools: the nearest installed version that is
    /// not older than the server, because an older `pg_dump` refuses.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn connect(config: &DatabaseConfig) -> Result<Self, DatabaseError> {
        if !config.is_socket() && config.host.is_empty() {
            let problem = "no host".to_owned();
            return Err(DatabaseError::Config { name: config.name.clone(), problem });
        }
        let installed = installed(config).await;
        let Some(newest) = installed.last() else {
            return Err(no_tool(config, OLDEST, &installed));
        };
        let asked = "SELECT json_build_object('number', current_setting('server_version_num'), \
                     'text', current_setting('server_version'), \
                     'passwords', has_table_privilege('pg_catalog.pg_authid', 'SELECT'))";
        #[derive(Deserialize)]
        struct Server {
            number: String,
            text: String,
            passwords: bool,
        }
        let server: Server = ask(config, newest, &config.maintenance, asked).await?;
        let major = server.number.parse::<u32>().unwrap_or_default() / 10_000;
        if major < OLDEST {
            let problem = format!("the server is PostgreSQL {}, too old: {OLDEST} or newer", server.text);
            return Err(DatabaseError::Config { name: config.name.clone(), problem });
        }
        let Some(tools) = installed.iter().find(|tools| tools.major >= major).cloned() else {
            return Err(no_tool(config, major, &installed));
        };
        Ok(Self {
            config: config.clone(),
            tools,
            server: major,
            server_version: server.text,
            reads_passwords: server.passwords,
        })
    }

    /// Returns the configuration.
    #[must_use]
    pub fn config(&self) -> &DatabaseConfig {
        &self.config
    }

    /// Returns the client tools in use.
    #[must_use]
    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    /// Returns the server's version, such as `15.18`.
    #[must_use]
    pub fn server_version(&self) -> &str {
        &self.server_version
    }

    /// Returns the server's major version.
    #[must_use]
    pub fn server_major(&self) -> u32 {
        self.server
    }

    /// Returns true if the user may read the roles' password hashes. Managed servers forbid that to
    /// all users; roles are then dumped without hashes, and a restore has to supply passwords.
    #[must_use]
    pub fn reads_passwords(&self) -> bool {
        self.reads_passwords
    }

    /// Returns the databases that the patterns select, or all without patterns. `template0` is
    /// selected only by its exact name. `template1` is also selected if it holds user objects,
    /// which every new database inherits.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn choose(&self, wanted: &[Glob]) -> Result<Chosen, DatabaseError> {
        let names: Vec<String> = wanted.iter().filter_map(Glob::name).collect();
        let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|glob| glob.matches(name));
        let mut open = self.databases().await?;
        let mut closed = self.closed_databases().await?;
        let there = |name: &String| closed.contains(name) || open.iter().any(|one| one.name == *name);
        let absent = names.iter().filter(|name| !there(name)).cloned().collect();
        let bare = |name: &str| TEMPLATES.contains(&name) && !names.iter().any(|named| named == name);
        open.retain(|one| wants(&one.name));
        closed.retain(|name| wants(name) && !bare(name));
        if let Some(at) = open.iter().position(|one| bare(&one.name) && one.name == "template1")
            && !self.holds_own(&open[at].name).await?
        {
            open.remove(at);
        }
        Ok(Chosen { open, closed, absent })
    }

    /// Returns the databases that accept connections, except `template0`, sorted by name.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn databases(&self) -> Result<Vec<DatabaseInfo>, DatabaseError> {
        let asked = "SELECT coalesce(json_agg(json_build_object('name', datname, \
                     'size', CASE WHEN has_database_privilege(oid, 'CONNECT') THEN pg_database_size(oid) ELSE 0 END, \
                     'encoding', pg_encoding_to_char(encoding), 'collate', datcollate, 'ctype', datctype) \
                     ORDER BY datname COLLATE \"C\"), '[]') \
                     FROM pg_catalog.pg_database WHERE datallowconn AND datname <> 'template0'";
        self.ask(&self.config.maintenance, asked).await
    }

    /// Returns the names of the databases that accept no connections and so cannot be dumped, sorted.
    async fn closed_databases(&self) -> Result<Vec<String>, DatabaseError> {
        let asked = "SELECT coalesce(json_agg(datname ORDER BY datname COLLATE \"C\"), '[]') \
                     FROM pg_catalog.pg_database WHERE NOT datallowconn";
        self.ask(&self.config.maintenance, asked).await
    }

    /// Returns true if the database holds objects created after the server was initialized. Their
    /// ids begin at 16384 (`FirstNormalObjectId`).
    async fn holds_own(&self, database: &str) -> Result<bool, DatabaseError> {
        let made = ["class", "proc", "type", "namespace", "extension", "largeobject_metadata"]
            .map(|what| format!("EXISTS (SELECT FROM pg_catalog.pg_{what} WHERE oid >= 16384)"));
        self.ask(database, &format!("SELECT to_json({})", made.join(" OR "))).await
    }

    /// Runs a query in `database`; the answer is one JSON value.
    pub(crate) async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        database: &str,
        question: &str,
    ) -> Result<T, DatabaseError> {
        ask(&self.config, &self.tools, database, question).await
    }

    /// Starts the dump of one database in custom format, uncompressed, with large objects.
    ///
    /// # Errors
    /// [`DatabaseError`] when the tool does not start. Later failures come from reading and from
    /// [`Dump::finish`].
    pub fn dump(&self, database: &str) -> Result<Dump, DatabaseError> {
        let arguments = [
            "--format=custom",
            "--compress=0",
            "--no-password",
            "--lock-wait-timeout=60s",
            "--dbname",
            &connection(database),
        ];
        let tool = Tool::start(&self.config, &self.tools, "pg_dump", arguments, false)?;
        Dump::archive(&self.config.name, database, tool)
    }

    /// Starts the dump of objects that belong to no database: roles, memberships, tablespaces.
    ///
    /// # Errors
    /// As for [`Self::dump`].
    pub fn dump_globals(&self) -> Result<Dump, DatabaseError> {
        let dbname = connection(&self.config.maintenance);
        let mut arguments =
            vec!["--globals-only", "--no-password", "--lock-wait-timeout=60s", "--dbname", &dbname];
        if !self.reads_passwords {
            arguments.push("--no-role-passwords");
        }
        let tool = Tool::start(&self.config, &self.tools, "pg_dumpall", arguments, false)?;
        Dump::text(&self.config.name, "globals", tool)
    }
}

async fn ask<T: serde::de::DeserializeOwned>(
    config: &DatabaseConfig,
    tools: &Tools,
    database: &str,
    question: &str,
) -> Result<T, DatabaseError> {
    let dbname = connection(database);
    let arguments = [
        "--no-psqlrc",
        "--no-password",
        "--quiet",
        "--tuples-only",
        "--no-align",
        "--set=ON_ERROR_STOP=1",
        "--dbname",
        &dbname,
        "--command",
        question,
    ];
    let answer = Tool::start(config, tools, "psql", arguments, false)?.output(ANSWER).await?;
    serde_json::from_slice(&answer).map_err(|source| DatabaseError::Io {
        name: config.name.clone(),
        operation: "understand psql's answer".to_owned(),
        source: source.into(),
    })
}

fn no_tool(config: &DatabaseConfig, needed: u32, installed: &[Tools]) -> DatabaseError {
    let found: Vec<&str> = installed.iter().map(|tools| tools.version.as_str()).collect();
    let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
    DatabaseError::Tool { name: config.name.clone(), tool: "pg_dump", needed, found }
}

/// Returns the installed client tools, oldest first.
async fn installed(config: &DatabaseConfig) -> Vec<Tools> {
    let mut folders: Vec<PathBuf> = Vec::new();
    if let Some(folder) = &config.tools {
        folders.push(folder.clone());
    } else {
        for (root, bin) in INSTALLED {
            let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
            folders.extend(entries.map(|entry| entry.path().join(bin)));
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        folders.extend(std::env::split_paths(&path));
    }
    let mut found: Vec<Tools> = Vec::new();
    for folder in folders.into_iter().filter(|folder| folder.is_absolute()) {
        let whole = ["pg_dump", "pg_dumpall", "pg_restore", "psql"];
        if !whole.iter().all(|tool| folder.join(tool).is_file()) {
            continue;
        }
        let Some((major, version)) = version(&folder).await else { continue };
        // A distribution's wrappers in PATH come after the tools that they wrap.
        if !found.iter().any(|tools| tools.version == version) {
            found.push(Tools { folder, major, version });
        }
    }
    found.sort_by_key(|tools| tools.major);
    found
}

/// Returns the version in the output of `pg_dump --version`: "pg_dump (PostgreSQL) 15.18 (Debian …)".
async fn version(folder: &Path) -> Option<(u32, String)> {
    let mut command = tokio::process::Command::new(folder.join("pg_dump"));
    command.arg("--version").env_clear().env("PATH", "/usr/bin:/bin").kill_on_drop(true);
    command.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let output =
        tokio::time::timeout(std::time::Duration::from_secs(10), command.output()).await.ok()?.ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let version = text.split_whitespace().nth(2)?.to_owned();
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    Some((digits.parse().ok()?, version))
}

/// Implements [`DatabaseConfig::from_url`].
pub(crate) fn parse_url(url: &str) -> Result<(DatabaseConfig, Option<String>), DatabaseError> {
    let wrong =
        |problem: &str| DatabaseError::Config { name: "of the URL".to_owned(), problem: problem.to_owned() };
    let rest = url
        .strip_prefix("postgresql://")
        .or_else(|| url.strip_prefix("postgres://"))
        .ok_or_else(|| wrong("it does not begin with postgresql://"))?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, place) = authority.rsplit_once('@').map_or((None, authority), |(user, at)| (Some(user), at));
    if user.is_some_and(|user| user.contains(':')) {
        return Err(wrong("a password in a URL is seen by every user of this machine: use a password file"));
    }
    let decode = |text: &str| decoded(text).ok_or_else(|| wrong("a %-escape in it is wrong"));
    let (host, port) = match place.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':').unwrap_or("")),
        None => place.split_once(':').unwrap_or((place, "")),
    };
    let mut config = DatabaseConfig::postgresql(host, &decode(host)?);
    if let Some(user) = user {
        config.user = decode(user)?;
    }
    if !port.is_empty() {
        config.port = port.parse().map_err(|_| wrong("its port is no number"))?;
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(value)?;
        match (key, value.as_str()) {
            ("host", _) => config.host = value,
            ("port", _) => config.port = value.parse().map_err(|_| wrong("its port is no number"))?,
            ("user", _) => config.user = value,
            ("sslrootcert", _) => config.ca_file = Some(value.into()),
            ("sslmode", "verify-full") => config.tls = TlsMode::VerifyFull,
            ("sslmode", "require") => config.tls = TlsMode::Require,
            ("sslmode", "prefer" | "allow" | "disable") => config.tls = TlsMode::AllowPlaintext,
            ("password" | "passfile", _) => {
                return Err(wrong(
                    "a password in a URL is seen by every user of this machine: use a password file",
                ));
            }
            _ => return Err(wrong("it has a parameter that is not known here")),
        }
    }
    if config.host.is_empty() {
        config.host = "/run/postgresql".to_owned();
    }
    config.name = if config.is_socket() { "postgresql".to_owned() } else { config.host.clone() };
    let database = decode(path)?;
    Ok((config, (!database.is_empty()).then_some(database)))
}

/// Decodes `%xx` escapes; none if an escape is invalid or the result is not UTF-8 without NUL.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}
