//! PostgreSQL servers: finds the client tools, lists the databases and starts their dumps.
//!
//! One archive per database (`pg_dump -Fc -Z0`: a consistent snapshot of that database, not
//! compressed, so that unchanged tables deduplicate) and one text of roles and tablespaces
//! (`pg_dumpall --globals-only`, after the settings of all roles, which it leaves out). Each database is
//! consistent in itself, but not with the others: PostgreSQL has no snapshot across databases.

pub mod archive;
pub(crate) mod client;
pub(crate) mod globals;
pub(crate) mod messages;
pub(crate) mod properties;
mod recipe;
mod settings;
pub(crate) mod tokens;
mod url;

use serde::Deserialize;
use serde::de::DeserializeOwned;

pub use url::{default_config, parse_url};

use super::dump::{Dump, LastLineCheck};
use super::tool::ClientTools;
use super::{DatabaseConfig, DatabaseError};
use archive::ArchiveScanner;
use client::{connection, installed, start};

/// The environment variable from which PostgreSQL's own tools take a password.
pub const PASSWORD_VARIABLE: &str = "PGPASSWORD";
/// The name of the stream of roles and tablespaces.
pub const GLOBALS_STREAM: &str = "globals.sql";
/// The format of a database's stream, as the snapshot names it.
pub const ARCHIVE_FORMAT: &str = "pgdump";
/// The end of the name of a database's stream.
pub const ARCHIVE_ENDING: &str = ".dump";
/// The code of the note on dumps whose roles have no passwords.
pub const NO_ROLE_PASSWORDS: &str = "no-role-passwords";
/// The oldest supported major version: the oldest whose archives the proof knows.
const MIN_SERVER_VERSION: u32 = 10;
/// The options of every `psql`.
pub(crate) const PSQL_OPTIONS: &[&str] =
    &["--no-psqlrc", "--no-password", "--quiet", "--set=ON_ERROR_STOP=1"];
/// The largest accepted answer to a query, in bytes.
const MAX_ANSWER: usize = 16 << 20;
/// The last line of text that `pg_dumpall` writes; `\unrestrict` and comment lines may follow it.
const GLOBALS_END: &str = "-- PostgreSQL database cluster dump complete";

/// A server that was reached, and the client tools for it.
#[derive(Debug, Clone)]
pub struct Postgres {
    pub(crate) config: DatabaseConfig,
    pub(crate) tools: ClientTools,
    pub(crate) server_major: u32,
    server_version: String,
    can_read_passwords: bool,
}

impl Postgres {
    /// Reads the server's version and picks the client tools: the nearest installed version that is
    /// not older than the server, because an older `pg_dump` refuses.
    pub async fn connect(config: &DatabaseConfig) -> Result<Self, DatabaseError> {
        if !config.is_socket() && config.host.is_empty() {
            return Err(config.invalid("no host"));
        }
        let installed = installed(config).await;
        let Some(newest) = installed.last() else {
            return Err(missing_tool(config, MIN_SERVER_VERSION, &installed));
        };
        let question = "SELECT json_build_object('number', current_setting('server_version_num'), \
                     'text', current_setting('server_version'), \
                     'passwords', has_table_privilege('pg_catalog.pg_authid', 'SELECT'))";
        #[derive(Deserialize)]
        struct Answer {
            number: String,
            text: String,
            passwords: bool,
        }
        let mut config = config.clone();
        let mut answer = query::<Answer>(&config, newest, &config.maintenance_database, question).await;
        if answer.as_ref().is_err_and(|error| is_missing(error, &config.maintenance_database)) {
            // Every server has this one; the other may have been dropped, also by a restore that was killed.
            config.maintenance_database = "template1".to_owned();
            answer = query(&config, newest, &config.maintenance_database, question).await;
        }
        let answer = answer?;
        let server_major = answer.number.parse::<u32>().unwrap_or_default() / 10_000;
        if server_major < MIN_SERVER_VERSION {
            return Err(config.invalid(format!(
                "the server is PostgreSQL {}, too old: {MIN_SERVER_VERSION} or newer",
                answer.text
            )));
        }
        let Some(tools) = installed.iter().find(|tools| tools.major >= server_major).cloned() else {
            return Err(missing_tool(&config, server_major, &installed));
        };
        Ok(Self {
            config,
            tools,
            server_major,
            server_version: answer.text,
            can_read_passwords: answer.passwords,
        })
    }

    /// Returns true if this user sees the passwords of roles.
    pub(crate) fn can_read_passwords(&self) -> bool {
        self.can_read_passwords
    }

    /// Runs a query in `database`; the answer is one JSON value.
    pub(crate) async fn query<T: DeserializeOwned>(
        &self,
        database: &str,
        question: &str,
    ) -> Result<T, DatabaseError> {
        query(&self.config, &self.tools, database, question).await
    }

    /// Starts the dump of one database in custom format, uncompressed, with large objects. Fails when the
    /// tool does not start. Later failures come from reading and from [`Dump::finish`].
    pub fn dump(&self, database: &str) -> Result<Dump, DatabaseError> {
        let arguments = [
            "--format=custom",
            "--compress=0",
            "--no-password",
            "--lock-wait-timeout=60s",
            "--dbname",
            &connection(database),
        ];
        let tool = start(&self.config, &self.tools, "pg_dump", arguments, false)?;
        Dump::new(database, tool, ArchiveScanner::default())
    }

    /// Starts the dump of roles, memberships, settings and tablespaces; without the roles' passwords where
    /// managed servers show them to no user. Fails as [`Self::dump`] does, and if the settings of all roles
    /// cannot be read.
    pub async fn dump_globals(&self) -> Result<Dump, DatabaseError> {
        let question = "SELECT coalesce(json_agg(setting ORDER BY setting COLLATE \"C\"), '[]') FROM \
             (SELECT unnest(setconfig) AS setting FROM pg_catalog.pg_db_role_setting \
             WHERE setdatabase = 0 AND setrole = 0) settings";
        let settings: Vec<String> = self.query(&self.config.maintenance_database, question).await?;
        let dbname = connection(&self.config.maintenance_database);
        let mut arguments =
            vec!["--globals-only", "--no-password", "--lock-wait-timeout=60s", "--dbname", &dbname];
        if !self.can_read_passwords {
            arguments.push("--no-role-passwords");
        }
        let tool = start(&self.config, &self.tools, "pg_dumpall", arguments, false)?;
        let dump = Dump::new("globals", tool, LastLineCheck::new(GLOBALS_END))?;
        Ok(dump.with_head(settings::settings_of_all_roles(&settings)))
    }
}

/// Returns true for the error of a connection to a database that does not exist.
fn is_missing(error: &DatabaseError, database: &str) -> bool {
    let message = format!("database \"{database}\" does not exist");
    matches!(error, DatabaseError::ToolFailed { stderr_tail, .. } if stderr_tail.contains(&message))
}

async fn query<T: DeserializeOwned>(
    config: &DatabaseConfig,
    tools: &ClientTools,
    database: &str,
    question: &str,
) -> Result<T, DatabaseError> {
    let dbname = connection(database);
    let arguments = ["--tuples-only", "--no-align", "--dbname", &dbname, "--command", question];
    let answer = start(config, tools, "psql", PSQL_OPTIONS.iter().copied().chain(arguments), false)?
        .output(MAX_ANSWER)
        .await?;
    serde_json::from_slice(&answer)
        .map_err(|source| config.io_error("understand psql's answer", source.into()))
}

fn missing_tool(config: &DatabaseConfig, needed: u32, installed: &[ClientTools]) -> DatabaseError {
    let found: Vec<&str> = installed.iter().map(|tools| tools.version.as_str()).collect();
    let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
    let (name, engine) = (config.name.clone(), "PostgreSQL");
    DatabaseError::MissingTool { name, engine, tool: "pg_dump", needed, found }
}
