//! Database dumps as streams of bytes, each with a proof that it is complete.
//!
//! [`Postgres`] finds the client tools, checks versions and rights, lists databases and starts
//! dumps. A [`Dump`] is read like a file. [`Dump::finish`] then checks that it is complete: the
//! tool's exit status is not enough, the stream itself must end where the format says
//! ([`archive`]).
//!
//! Passwords reach a tool only through a memory file that it inherits ([`tool`]), never through
//! argv, the environment or the disk.

mod dump;
pub mod postgres;
pub mod tool;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use dump::{Dump, DumpProof, Proof};

/// The kind of database engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// PostgreSQL, version 10 or newer.
    Postgresql,
}

/// The way in which a dump is obtained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// kbak starts the client tool itself, which connects by TCP or socket.
    Local,
}

/// The protection of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Encrypted; the certificate is checked against an authority and the host's name.
    VerifyFull,
    /// Encrypted, without a check of the server's identity.
    Require,
    /// Encrypted if the server supports it, otherwise in plain text.
    AllowPlaintext,
}

/// The address of a database server and the access to it. Plain values; the plan maps to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseConfig {
    /// The item's name in the plan.
    pub name: String,
    /// The database engine.
    pub engine: Engine,
    /// The way in which dumps are obtained.
    pub transport: Transport,
    /// A host name, an address, or the absolute path of a folder with a socket.
    pub host: String,
    /// The port; also part of a socket's name.
    pub port: u16,
    /// The user that connects.
    pub user: String,
    /// A file that holds the password; a line break at its end is ignored. Without it and without
    /// [`Self::password`], the server must trust the connection (a socket with peer authentication).
    pub password_file: Option<PathBuf>,
    /// The password itself, if it came from a Secret and not from a file.
    pub password: Option<Password>,
    /// The database for queries about the server.
    pub maintenance: String,
    /// The protection of a TCP connection. Sockets need none.
    pub tls: TlsMode,
    /// PEM certificates of authorities for [`TlsMode::VerifyFull`]; by default the system's.
    pub ca_file: Option<PathBuf>,
    /// A folder with client tools; by default the installed version nearest to the server's.
    pub tools: Option<PathBuf>,
    /// The longest time that a tool may be silent before it counts as stuck. Reading the catalog of
    /// a large database is silent for minutes.
    pub silence: Duration,
}

/// A password. Its `Debug` output hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(zeroize::Zeroizing<String>);

impl Password {
    /// Wraps a password.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(zeroize::Zeroizing::new(text))
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

impl DatabaseConfig {
    /// Returns the configuration of a server with defaults: port 5432, user and maintenance
    /// database `postgres`, certificates checked, 15 minutes of silence allowed.
    #[must_use]
    pub fn postgresql(name: &str, host: &str) -> Self {
        Self {
            name: name.to_owned(),
            engine: Engine::Postgresql,
            transport: Transport::Local,
            host: host.to_owned(),
            port: 5432,
            user: "postgres".to_owned(),
            password_file: None,
            password: None,
            maintenance: "postgres".to_owned(),
            tls: TlsMode::VerifyFull,
            ca_file: None,
            tools: None,
            silence: Duration::from_secs(900),
        }
    }

    /// Parses `postgresql://[user@]host[:port][/database][?sslmode=…&sslrootcert=…]`, or the URL of
    /// a socket's folder: `postgresql:///database?host=/run/postgresql`. Also returns the database,
    /// if the URL names one. The item is named after the host, or `postgresql` for a socket.
    ///
    /// # Errors
    /// [`DatabaseError::Config`], also for a password in the URL, which every user of the machine
    /// could see among kbak's arguments. The message never quotes the URL.
    pub fn from_url(url: &str) -> Result<(Self, Option<String>), DatabaseError> {
        postgres::parse_url(url)
    }

    /// Returns true if the connection is a socket on this machine.
    #[must_use]
    pub fn is_socket(&self) -> bool {
        self.host.starts_with('/')
    }
}

/// An error while a database is dumped or restored.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The configuration is unusable.
    #[error("database {name}: {problem}")]
    Config {
        /// The item's name.
        name: String,
        /// The problem.
        problem: String,
    },
    /// A client tool is missing, or older than the server.
    #[error("database {name}: no {tool} {needed} or newer on this machine (found: {found})")]
    Tool {
        /// The item's name.
        name: String,
        /// The missing tool.
        tool: &'static str,
        /// The server's major version.
        needed: u32,
        /// The versions that were found.
        found: String,
    },
    /// A tool failed. Carries its error output, secrets masked.
    #[error("database {name}: {tool} failed ({status}): {said}")]
    Failed {
        /// The item's name.
        name: String,
        /// The tool.
        tool: &'static str,
        /// Its exit status or signal.
        status: String,
        /// The end of its standard error.
        said: String,
    },
    /// A tool was silent for too long.
    #[error("database {name}: {tool} was silent for {silence:?}")]
    Stuck {
        /// The item's name.
        name: String,
        /// The tool.
        tool: &'static str,
        /// The longest allowed silence.
        silence: Duration,
    },
    /// The tool reported success, but the dump is incomplete.
    #[error("database {name}: the dump of {database} is not whole: {problem}")]
    NotWhole {
        /// The item's name.
        name: String,
        /// The database.
        database: String,
        /// The missing part.
        problem: String,
    },
    /// The target database is not empty, so a restore would destroy data.
    #[error(
        "database {name}: {database} exists and holds {objects} tables, views or sequences; nothing was changed"
    )]
    NotEmpty {
        /// The item's name.
        name: String,
        /// The database.
        database: String,
        /// The number of tables, views and sequences in it.
        objects: u64,
    },
    /// A tool could not be started, or its pipe broke.
    #[error("database {name}: cannot {operation}")]
    Io {
        /// The item's name.
        name: String,
        /// The failed operation.
        operation: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl DatabaseError {
    /// Returns true if a later try may succeed: the server was unreachable or went away. All other
    /// errors concern names, keys, rights and versions.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Failed { said, .. } => {
                let said = said.to_ascii_lowercase();
                LOST.iter().any(|words| said.contains(words))
            }
            Self::Stuck { .. } | Self::Io { .. } => true,
            Self::Config { .. } | Self::Tool { .. } | Self::NotWhole { .. } | Self::NotEmpty { .. } => false,
        }
    }
}

/// Messages of libpq for a server that is unreachable or went away (fe-connect.c, strerror(3)).
const LOST: [&str; 8] = [
    "connection refused",
    "connection reset",
    "timed out",
    "timeout expired",
    "no route to host",
    "no such file or directory",
    "could not translate host name",
    "closed the connection unexpectedly",
];
