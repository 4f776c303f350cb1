//! Restores dumps into a database server, and the objects that belong to no database, such as accounts.

pub mod postgres;

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use tokio::io::AsyncRead;

use crate::plan::DatabaseEngine;
use crate::source::database::postgres::Postgres;
use crate::source::database::{DatabaseConfig, DatabaseError, DatabaseInfo, unsupported};

/// A stored dump, read from its beginning.
pub type DumpReader<'a> = dyn AsyncRead + Send + Unpin + 'a;

/// A connected server, and the engine's way to restore into it.
#[async_trait]
pub trait RestoreRecipe: std::fmt::Debug + Send + Sync {
    /// Returns the contents of a stream of the snapshot; none if the recipe does not restore it.
    fn contents(&self, stream: &str, format: &str) -> Option<StreamContents>;

    /// Creates the objects of a globals dump that do not exist, all of them or none. Existing ones stay
    /// unchanged, and their differences are reported, as is each object that the server refuses. Fails with
    /// [`DatabaseError`] if the dump cannot be read or the server does not answer.
    async fn restore_globals(&self, dump: &mut DumpReader<'_>) -> Result<GlobalsReport, DatabaseError>;

    /// Sets the settings of a globals dump that apply to every session, also to those of a restore: call it
    /// after the databases. Returns those that were not set. Fails as [`Self::restore_globals`] does.
    async fn restore_settings(&self, dump: &mut DumpReader<'_>) -> Result<Vec<NotApplied>, DatabaseError>;

    /// Restores the dump of one database. Parts that the server refuses are reported, and the rest is
    /// restored. Fails before any change with [`DatabaseError::NotEmpty`] if the target holds something and
    /// may not be replaced, and with [`DatabaseError::Refused`] if the server does not create or drop it.
    /// Later failures are a [`DatabaseError::PartlyRestored`], also for a dump that ends early and that the
    /// tool accepts.
    async fn restore_database(
        &self,
        request: &DatabaseRestore,
        dump: &mut DumpReader<'_>,
    ) -> Result<RestoredDatabase, DatabaseError>;

    /// Returns what [`Self::restore_database`] would do with the target database, and changes nothing. Fails as it
    /// would: with [`DatabaseError::NotEmpty`], with [`DatabaseError::NoRight`], or if the server does not answer.
    async fn preview_database(&self, request: &DatabaseRestore) -> Result<TargetState, DatabaseError>;

    /// Returns what [`Self::restore_globals`] and [`Self::restore_settings`] would report, as far as the user's
    /// rights decide it, and changes nothing. Fails as they do.
    async fn preview_globals(&self, dump: &mut DumpReader<'_>) -> Result<GlobalsPreview, DatabaseError>;

    /// Returns what [`Self::restore_database`] would refuse or not apply in a database that it accepts, as far as
    /// the user's rights decide it, and changes nothing. Reads the head of the dump. Fails with
    /// [`DatabaseError`] if the server does not answer.
    async fn preview_contents(
        &self,
        request: &DatabaseRestore,
        target: TargetState,
        globals: Option<&GlobalsPreview>,
        dump: &mut DumpReader<'_>,
    ) -> Result<RestoredDatabase, DatabaseError>;

    /// Counts the objects in a database, such as tables. A restore refuses a database that holds some, and a
    /// drill requires some. Fails with [`DatabaseError`] if the server does not answer.
    async fn count_objects(&self, database: &str) -> Result<u64, DatabaseError>;
}

/// Connects to a server with the recipe of its engine. Fails with [`DatabaseError`], also for an engine
/// without a recipe.
pub async fn connect(config: &DatabaseConfig) -> Result<Box<dyn RestoreRecipe>, DatabaseError> {
    match config.engine {
        DatabaseEngine::Postgresql => Ok(Box::new(Postgres::connect(config).await?)),
        engine => Err(unsupported(&config.name, engine)),
    }
}

/// The contents of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamContents {
    /// Objects that belong to no database.
    Globals,
    /// One database, by its name in the source.
    Database(String),
}

/// The treatment of the target database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetDatabase {
    /// The database is created first; an empty one may exist already.
    Create,
    /// The database is dropped, with everything in it, and created anew.
    Replace,
}

/// The state of a target database that a restore accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetState {
    /// It does not exist: it is created.
    Absent,
    /// It exists and is empty: it is filled.
    Empty,
    /// It exists and holds this number of objects: it is dropped first, with everything in it.
    Dropped(u64),
}

/// The request to restore one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseRestore {
    /// The database's name in the target.
    pub database: String,
    /// The treatment of the target database.
    pub target: TargetDatabase,
    /// The backup's database, whose encoding and collation a new one gets; `None` for the server's
    /// defaults.
    pub encoding_from: Option<DatabaseInfo>,
    /// True if all objects go to the user who restores, without rights for others: for servers
    /// without the accounts of the backup.
    pub no_owner: bool,
}

/// The result of restoring one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredDatabase {
    /// True if kbak also found the dump complete; false if only the tool accepted it.
    pub is_verified_complete: bool,
    /// Entries of the dump that the server refused, such as a table's data, the first of them.
    pub refused: Vec<NotApplied>,
    /// The number of further refusals.
    pub more_refused: u64,
    /// Properties of the database itself in the dump that were not applied.
    pub not_applied: Vec<NotApplied>,
}

/// The result of restoring the objects that belong to no database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GlobalsReport {
    /// Accounts that were created.
    pub created: Vec<String>,
    /// Accounts that existed and were kept unchanged, their passwords too.
    pub existed: Vec<String>,
    /// Number of statements of other shapes that were skipped, by their first words.
    pub refused: BTreeMap<String, u64>,
    /// Accounts that could not be created, properties that created ones lack, and differences of existing
    /// ones.
    pub not_applied: Vec<NotApplied>,
}

/// The foreseen restore of the objects that belong to no database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GlobalsPreview {
    /// The report of the restore.
    pub report: GlobalsReport,
    /// Accounts that the user who restores could become after it.
    pub usable: BTreeSet<String>,
}

/// A property in the backup that was not applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotApplied {
    /// The property in words: `the comment`.
    pub property: String,
    /// The reason.
    pub reason: String,
}
