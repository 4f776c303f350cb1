//! Errors while a database is dumped or restored.

use std::time::Duration;

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
    MissingTool {
        /// The item's name.
        name: String,
        /// The database engine, as its makers write it.
        engine: &'static str,
        /// The missing tool.
        tool: &'static str,
        /// The server's major version.
        needed: u32,
        /// The versions that were found.
        found: String,
    },
    /// A tool failed. Carries its error output, secrets masked.
    #[error("database {name}: {tool} failed ({status}): {stderr_tail}")]
    ToolFailed {
        /// The item's name.
        name: String,
        /// The tool.
        tool: &'static str,
        /// Its exit status or signal.
        status: String,
        /// The end of its standard error.
        stderr_tail: String,
        /// True if the tool says that the server was unreachable or went away.
        is_unreachable: bool,
    },
    /// A tool wrote or read nothing for too long.
    #[error("database {name}: {tool} made no progress for {idle_timeout:?}")]
    TimedOut {
        /// The item's name.
        name: String,
        /// The tool.
        tool: &'static str,
        /// The longest allowed time without progress.
        idle_timeout: Duration,
    },
    /// The tool reported success, but the dump is incomplete.
    #[error("database {name}: the dump of {database} is incomplete: {problem}")]
    IncompleteDump {
        /// The item's name.
        name: String,
        /// The database.
        database: String,
        /// The missing part.
        problem: String,
    },
    /// The target database is not empty, so a restore would destroy data.
    #[error("database {name}: {database} exists and holds {objects} objects; nothing was changed")]
    NotEmpty {
        /// The item's name.
        name: String,
        /// The database.
        database: String,
        /// The number of objects in it, such as tables.
        objects: u64,
    },
    /// The server refuses to change a database.
    #[error("database {name}: the server refuses to {operation}: {reason}")]
    Refused {
        /// The item's name.
        name: String,
        /// The refused operation, with the database.
        operation: String,
        /// The reason, in words.
        reason: String,
    },
    /// A restore failed in the middle.
    #[error("database {name}: {database} exists now and holds only a part of the backup")]
    PartlyRestored {
        /// The item's name.
        name: String,
        /// The database.
        database: String,
        /// The cause.
        #[source]
        source: Box<DatabaseError>,
    },
    /// The user lacks a right that the operation needs.
    #[error("database {name}: the user {user} may not {operation}")]
    NoRight {
        /// The item's name.
        name: String,
        /// The user.
        user: String,
        /// The operation.
        operation: String,
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
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::ToolFailed { is_unreachable, .. } => *is_unreachable,
            Self::TimedOut { .. } | Self::Io { .. } => true,
            Self::PartlyRestored { source, .. } => source.is_unreachable(),
            Self::Config { .. }
            | Self::Refused { .. }
            | Self::MissingTool { .. }
            | Self::IncompleteDump { .. }
            | Self::NoRight { .. }
            | Self::NotEmpty { .. } => false,
        }
    }
}
