//! A database's own dump as a stream of bytes, with a proof that it is whole.
//!
//! [`Postgres`] finds the client tools, checks versions and rights, lists databases and starts
//! dumps. A [`Dump`] is read like a file; [`Dump::finish`] then says whether what was read is a
//! whole dump: the tool's exit status alone is not believed, the stream itself must end where the
//! format says that it ends ([`archive`]).
//!
//! Passwords reach a tool only through a memory file that it inherits ([`tool`]); argv, the
//! environment and the disk never see them.

pub mod archive;
mod dump;
mod globals;
pub mod postgres;
mod properties;
pub mod tool;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use dump::{Dump, DumpProof, Proof};
pub use globals::{GlobalStatement, Globals, split_globals};
pub use postgres::{Chosen, DatabaseInfo, Postgres};
pub use properties::{Properties, Property, database_properties};

/// What kind of database it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// PostgreSQL, version 10 or newer.
    Postgresql,
}

/// How the dump comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// kbak starts the client tool itself, which connects by TCP or socket.
    Local,
}

/// How a connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Encrypted, the certificate checked against an authority and the host's name.
    VerifyFull,
    /// Encrypted, to whoever answers.
    Require,
    /// Encrypted if the server can, in the clear if not.
    AllowPlaintext,
}

/// Where a database server is and who asks. Plain values; the plan maps to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseConfig {
    /// The item's name in the plan.
    pub name: String,
    /// What it is.
    pub engine: Engine,
    /// How it is reached.
    pub transport: Transport,
    /// A host name, an address, or the absolute path of a folder with a socket.
    pub host: String,
    /// The port; also part of a socket's name.
    pub port: u16,
    /// Who asks.
    pub user: String,
    /// A file that holds the password, a line break at its end left out. Without it, and without
    /// [`Self::password`], the server must trust the connection (a socket with peer rights).
    pub password_file: Option<PathBuf>,
    /// The password, where it came from a Secret and no file holds it.
    pub password: Option<Password>,
    /// The database that questions about the server are put to.
    pub maintenance: String,
    /// How a TCP connection is protected. Sockets need nothing.
    pub tls: TlsMode,
    /// Certificates of authorities in PEM for [`TlsMode::VerifyFull`]; else the system's.
    pub ca_file: Option<PathBuf>,
    /// A folder with client tools; else those installed, the version nearest to the server's.
    pub tools: Option<PathBuf>,
    /// How long a tool may be silent before it counts as stuck. Reading the catalog of a large
    /// database is silent for minutes.
    pub silence: Duration,
}

/// A password. Shows nothing of itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(zeroize::Zeroizing<String>);

impl Password {
    /// A password.
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
    /// A server with everything else as it usually is: port 5432, user and maintenance database
    /// `postgres`, certificates checked, 15 minutes of silence.
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

    /// A server named by `postgresql://[user@]host[:port][/database][?sslmode=…&sslrootcert=…]`,
    /// or by a socket's folder: `postgresql:///database?host=/run/postgresql`. The database, if
    /// there is one, comes beside the configuration. The item's name is the host's.
    ///
    /// # Errors
    /// [`DatabaseError::Config`]; also for a password in it, which every user of the machine
    /// could see among kbak's own arguments. The text never quotes the URL.
    pub fn from_url(url: &str) -> Result<(Self, Option<String>), DatabaseError> {
        postgres::parse_url(url)
    }

    /// Whether the connection is a socket on this machine.
    #[must_use]
    pub fn is_socket(&self) -> bool {
        self.host.starts_with('/')
    }
}

/// Why a database cannot be dumped or restored.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The configuration cannot work.
    #[error("database {name}: {problem}")]
    Config {
        /// The item.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// A client tool is missing, or older than the server.
    #[error("database {name}: no {tool} {needed} or newer on this machine (found: {found})")]
    Tool {
        /// The item.
        name: String,
        /// Which.
        tool: &'static str,
        /// The server's major version.
        needed: u32,
        /// What there is.
        found: String,
    },
    /// A tool said no. The server's words, secrets masked.
    #[error("database {name}: {tool} failed ({status}): {said}")]
    Failed {
        /// The item.
        name: String,
        /// Which.
        tool: &'static str,
        /// Its exit status or signal.
        status: String,
        /// The end of what it wrote to its standard error.
        said: String,
    },
    /// A tool was silent for too long.
    #[error("database {name}: {tool} was silent for {silence:?}")]
    Stuck {
        /// The item.
        name: String,
        /// Which.
        tool: &'static str,
        /// How long.
        silence: Duration,
    },
    /// The dump ended well by its tool's word, and is not whole by its own.
    #[error("database {name}: the dump of {database} is not whole: {problem}")]
    NotWhole {
        /// The item.
        name: String,
        /// Which database.
        database: String,
        /// What is missing.
        problem: String,
    },
    /// A restore would destroy something.
    #[error(
        "database {name}: {database} exists and holds {objects} tables, views or sequences; nothing was changed"
    )]
    NotEmpty {
        /// The item.
        name: String,
        /// Which database.
        database: String,
        /// How many.
        objects: u64,
    },
    /// A tool could not be started, or its pipe broke.
    #[error("database {name}: cannot {operation}")]
    Io {
        /// The item.
        name: String,
        /// What was tried.
        operation: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl DatabaseError {
    /// Whether trying again later may help: the server was not there, or went away. Everything else
    /// is a matter of names, keys, rights and versions.
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

/// What libpq says of a server that is not there, or not any more (fe-connect.c, strerror(3)).
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
