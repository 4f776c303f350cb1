//! The recipe of a database engine: how its servers are listed, checked and dumped.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::dump::Dump;
use super::error::DatabaseError;
use crate::plan::Glob;

/// A connected server, and the engine's way to dump it. Connecting is the first part of the
/// preflight: it finds the client tools and refuses servers and tools of unsupported versions.
///
/// A recipe decides what one dump holds (one database, or the whole server), by which means it is consistent
/// (a transaction or a lock), and which [`CompletenessCheck`](super::CompletenessCheck) proves it complete.
#[async_trait]
pub trait Recipe: std::fmt::Debug + Send + Sync {
    /// Returns the server's version, such as `15.18`.
    fn server_version(&self) -> &str;

    /// Describes the server and the tool that dumps it: versions, and the role in replication.
    async fn describe(&self) -> Result<String, DatabaseError>;

    /// Returns the parts of the server that no dump of this user can hold.
    fn omissions(&self) -> Vec<Omission>;

    /// Returns the databases that match a pattern, or all without patterns.
    async fn select(&self, patterns: &[Glob]) -> Result<SelectedDatabases, DatabaseError>;

    /// Checks that the user may read all of a database. Returns what a dump could not read.
    async fn check_access(&self, database: &str) -> Option<Omission>;

    /// Returns the dumps that together hold these databases and the objects of no database, in order.
    fn plan_dumps(&self, databases: &[DatabaseInfo]) -> Vec<PlannedDump>;

    /// Starts a dump. Later failures come from reading it and from [`Dump::finish`].
    async fn start_dump(&self, planned: &PlannedDump) -> Result<Dump, DatabaseError>;
}

/// A database of a server. Stored in the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseInfo {
    /// The database's name.
    pub name: String,
    /// The size on the server's disk in bytes; progress is measured against it.
    pub size: u64,
    /// Properties that the engine's restore needs to create the database, such as its encoding.
    #[serde(flatten)]
    pub properties: serde_json::Map<String, serde_json::Value>,
}

/// The databases that a plan's patterns select.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectedDatabases {
    /// Databases that can be dumped.
    pub databases: Vec<DatabaseInfo>,
    /// Databases that exist and cannot be dumped.
    pub omissions: Vec<Omission>,
    /// Names (not patterns) that no database has.
    pub absent: Vec<String>,
}

/// Something on the server that a dump does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Omission {
    /// The code of the gap or note.
    pub code: &'static str,
    /// The database or stream that lacks it.
    pub object: String,
    /// The reason, in words.
    pub reason: String,
    /// The next step for the user.
    pub remedy: String,
}

/// A dump to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedDump {
    /// The name of its stream in the snapshot.
    pub stream: String,
    /// The format of its bytes, as the snapshot names it.
    pub format: &'static str,
    /// The databases that it holds; empty for the objects that belong to no database.
    pub databases: Vec<String>,
}
