//! The input of a restore, and the run over its items.

use std::path::PathBuf;

use tokio::io::AsyncWrite;
use tokio::sync::Mutex;

use super::error::ItemError;
use super::folder::Paths;
use crate::format::body::Item;
use crate::format::name::Name;
use crate::plan::ClusterSpec;
use crate::report::event::Reporter;
use crate::repository::read::snapshot::OpenSnapshot;
use crate::runtime::Runtime;
use crate::source::database::DatabaseConfig;
use crate::target::database::{GlobalsReport, RestoredDatabase};
use crate::target::kubernetes::{ObjectRef, Outcome, Plan, RestoreConfig, RestoreReport, WrittenFiles};
use crate::target::volume::{TargetOptions, VolumeReport};

/// The input of a restore.
#[derive(Debug)]
pub struct RestoreJob<'a> {
    /// The opened snapshot.
    pub snapshot: &'a OpenSnapshot,
    /// The items to restore, in this order; see [`super::run::outer_folders_first`].
    pub items: Vec<&'a Item>,
    /// The selected paths of a folder; `None` for all.
    pub paths: Option<Paths>,
    /// The target of folders.
    pub folder: Option<FolderTarget>,
    /// The target of databases.
    pub database: Option<DatabaseTarget>,
    /// The target of resources.
    pub resources: Option<ResourcesTarget>,
    /// Clock, randomness, workers.
    pub runtime: &'a Runtime,
    /// Receives events and warnings.
    pub reporter: &'a Reporter,
}

/// The target of the folders of a restore.
pub enum FolderTarget {
    /// A directory. If there are several items, each folder goes into a subdirectory with its name.
    Directory {
        /// The directory.
        to: PathBuf,
        /// The handling of existing files, and permissions.
        options: TargetOptions,
    },
    /// A tar stream of one folder.
    Archive(Mutex<Box<dyn AsyncWrite + Send + Unpin>>),
}

impl std::fmt::Debug for FolderTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory { to, .. } => f.debug_struct("Directory").field("to", to).finish_non_exhaustive(),
            Self::Archive(_) => f.write_str("Archive"),
        }
    }
}

/// The target of the databases of a restore.
#[derive(Debug)]
pub struct DatabaseTarget {
    /// The server.
    pub config: DatabaseConfig,
    /// True if existing databases of the same names are dropped first.
    pub replace: bool,
    /// True if everything belongs to the restoring user afterwards.
    pub no_owner: bool,
}

/// The target of the resources of a restore, with selection, mapping and policy.
#[derive(Debug)]
pub enum ResourcesTarget {
    /// A cluster.
    Cluster {
        /// The access to the cluster.
        cluster: ClusterSpec,
        /// Selection and policy.
        config: RestoreConfig,
        /// The first digits of the hash that the plan must have; `None` for any plan.
        plan_hash: Option<String>,
    },
    /// Files in a directory.
    Directory {
        /// The directory.
        to: PathBuf,
        /// The selection.
        config: RestoreConfig,
    },
}

/// A restored item, and what its target reported.
#[derive(Debug)]
pub enum Restored {
    /// A folder.
    Folder {
        /// The target directory.
        target: PathBuf,
        /// The report of the target.
        report: VolumeReport,
        /// Selected paths that the snapshot does not hold.
        absent: Vec<Name>,
    },
    /// A folder as a tar stream of this many bytes.
    Archive(u64),
    /// Databases, with accounts and other objects that belong to none.
    Databases(DatabasesReport),
    /// Resources in a cluster.
    Cluster(RestoreReport),
    /// Resources as files in this directory.
    Files(PathBuf, WrittenFiles),
}

/// The result of restoring the databases of an item.
#[derive(Debug, Default)]
pub struct DatabasesReport {
    /// The roles and other objects that belong to no database, if the snapshot holds some.
    pub globals: Option<Result<GlobalsReport, ItemError>>,
    /// Each database with the stream that holds it.
    pub databases: Vec<DatabaseResult>,
}

/// The result of restoring one database.
#[derive(Debug)]
pub struct DatabaseResult {
    /// The database's name.
    pub database: String,
    /// The stream's name in the item.
    pub stream: String,
    /// The result.
    pub result: Result<RestoredDatabase, ItemError>,
}

/// Receives the decisions and the results of a restore.
pub trait RestoreObserver: Sync {
    /// Receives the plan for the resources of an item, before it is carried out.
    fn planned(&self, item: &Item, plan: &Plan) {
        let _ = (item, plan);
    }

    /// Receives the outcome of one Kubernetes object.
    fn object(&self, object: &ObjectRef, outcome: &Outcome) {
        let _ = (object, outcome);
    }

    /// Receives the result of an item. An error that ends the run is returned by it instead.
    fn finished(&self, item: &Item, result: Result<Restored, ItemError>);
}
