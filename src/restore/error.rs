//! The errors of a restore: of a stream, and of an item.

use std::io::{self, ErrorKind};
use std::path::PathBuf;

use crate::format::tar::parse::ParseError;
use crate::kubernetes::ApiError;
use crate::pipeline::ReadError;
use crate::report::error::find_cause;
use crate::report::item_state::ItemState;
use crate::report::outcome::Outcome;
use crate::repository::read::snapshot::SnapshotError;
use crate::source::database::DatabaseError;
use crate::source::volume::OpenVolumeError;
use crate::target::kubernetes::{DirectoryError, RestoreError};
use crate::target::volume::TargetError;

/// An error while restoring a stream.
#[derive(Debug, thiserror::Error)]
pub enum RestoreStreamError {
    /// The stream cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The snapshot cannot be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The stream is malformed.
    #[error("the stream is not one that kbak writes")]
    Malformed(#[from] ParseError),
    /// The stream is not whole.
    #[error("the stream stopped before its end")]
    Truncated,
    /// A hard link leads to an entry that is not a file.
    #[error("{0} is a further name of something that is no file")]
    LinkToNoFile(String),
    /// The target folder failed.
    #[error("cannot restore into the folder")]
    Target(#[from] TargetError),
    /// The target folder cannot be created.
    #[error("{}: the target cannot be made", path.display())]
    CreateTarget {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// None of the selected paths is in the snapshot.
    #[error("the snapshot holds nothing at {}", .0.join(", "))]
    NothingAt(Vec<String>),
    /// The output cannot be written.
    #[error("cannot write the output")]
    Output(#[source] io::Error),
    /// The snapshot holds no resources, because their backup failed.
    #[error("this snapshot holds nothing of {item}")]
    NoResources {
        /// The item.
        item: String,
        /// The reason of its first gap; empty if there is none.
        why: String,
    },
    /// The list of kinds cannot be read.
    #[error("the snapshot does not say which kinds it holds")]
    Kinds(#[source] serde_json::Error),
    /// The stream of a kind is missing.
    #[error("{item}: it says that it holds {stream}, and does not")]
    KindMissing {
        /// The item.
        item: String,
        /// The stream.
        stream: String,
    },
    /// The item has no stream.
    #[error("{item} has no data in this snapshot")]
    NoData {
        /// The item.
        item: String,
        /// Its state.
        state: ItemState,
    },
    /// The item has several streams.
    #[error("{item} has {count} streams")]
    SeveralStreams {
        /// The item.
        item: String,
        /// Their number.
        count: usize,
    },
}

impl RestoreStreamError {
    /// Returns the outcome of a run that ends with this error.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Read(error) => error.outcome(),
            Self::Snapshot(error) => error.outcome(),
            Self::Target(error) => match error {
                TargetError::NoRoom { .. }
                | TargetError::Stopped { .. }
                | TargetError::DeferredEntries(_) => Outcome::Partial,
                TargetError::NoDeletionScope | TargetError::EventOrder => Outcome::Bug,
                _ => Outcome::Usage,
            },
            Self::Malformed(_)
            | Self::Kinds(_)
            | Self::Truncated
            | Self::LinkToNoFile(_)
            | Self::KindMissing { .. } => Outcome::Damaged,
            Self::NothingAt(_) | Self::NoResources { .. } | Self::NoData { .. } => Outcome::Partial,
            Self::CreateTarget { .. } | Self::Output(_) | Self::SeveralStreams { .. } => Outcome::Usage,
        }
    }
}

/// An error while restoring an item.
#[derive(Debug, thiserror::Error)]
pub enum ItemError {
    /// A stream of the item cannot be restored.
    #[error(transparent)]
    Stream(#[from] RestoreStreamError),
    /// The archive was not written whole.
    #[error("the output took only a part of the folder")]
    Archive(#[source] io::Error),
    /// The excluded paths of the backup cannot be read.
    #[error("{item}: what it excluded cannot be read")]
    Excluded {
        /// The item.
        item: String,
        /// The cause.
        source: OpenVolumeError,
    },
    /// A database server failed.
    #[error("{step}")]
    Database {
        /// The step that failed.
        step: DatabaseStep,
        /// The cause.
        source: DatabaseError,
    },
    /// There is no access to a cluster.
    #[error("there is no access to a cluster")]
    Access(#[source] ApiError),
    /// The restore into a cluster stopped early.
    #[error("the restore into the cluster stopped")]
    Cluster {
        /// The number of objects that were created; `None` if the restore was only planned.
        created: Option<u64>,
        /// The cause.
        source: RestoreError,
    },
    /// The plan has another hash than the job says.
    #[error("the plan is another than the expected one; nothing was changed")]
    PlanChanged {
        /// The first digits of the expected hash.
        expected: String,
        /// The hash of the plan.
        actual: String,
    },
    /// The resources cannot be written as files.
    #[error("the resources cannot be written as files")]
    Files(#[from] DirectoryError),
    /// The job names no target for the item's kind.
    #[error("the restore has no target for {0}")]
    NoTarget(String),
    /// This version does not restore items of this kind.
    #[error("{item} is of the kind {kind}")]
    UnknownKind {
        /// The item.
        item: String,
        /// The kind.
        kind: String,
    },
}

/// A step of the restore of databases, displayed as its failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseStep {
    /// The connection to the server.
    #[error("the database server cannot be used")]
    Connect,
    /// The roles and other objects that belong to no database.
    #[error("the roles cannot be restored")]
    Globals,
    /// The dump of this database.
    #[error("{0} is not restored")]
    Dump(String),
}

impl From<ReadError> for ItemError {
    fn from(error: ReadError) -> Self {
        Self::Stream(error.into())
    }
}

impl From<SnapshotError> for ItemError {
    fn from(error: SnapshotError) -> Self {
        Self::Stream(error.into())
    }
}

impl ItemError {
    /// Returns the outcome of a run that ends with this error.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Stream(error) => error.outcome(),
            Self::Archive(_) => Outcome::Partial,
            Self::Excluded { .. } => Outcome::Damaged,
            Self::Database { step, source } => reading_outcome(source).unwrap_or(match step {
                DatabaseStep::Dump(_) => Outcome::Partial,
                _ if source.is_unreachable() => Outcome::Unreachable,
                DatabaseStep::Globals => Outcome::Partial,
                DatabaseStep::Connect => Outcome::Usage,
            }),
            Self::Cluster { created, source } => match source {
                RestoreError::Damaged { .. } => Outcome::Damaged,
                RestoreError::Stream { .. } => reading_outcome(source).unwrap_or(Outcome::Damaged),
                // The server does not know the user, or does not let them see what it serves.
                RestoreError::Api(error) if matches!(error.code(), Some(401 | 403)) => match created {
                    None => Outcome::Usage,
                    Some(_) => Outcome::Partial,
                },
                RestoreError::Api(_) => Outcome::Unreachable,
            },
            Self::Files(error) => match error {
                DirectoryError::Restore(RestoreError::Damaged { .. }) => Outcome::Damaged,
                DirectoryError::Restore(error) => reading_outcome(error).unwrap_or(Outcome::Usage),
                // As for a folder: a full target is a part, one that takes nothing is a wrong argument.
                DirectoryError::Io(_, error)
                    if matches!(
                        error.kind(),
                        ErrorKind::ReadOnlyFilesystem
                            | ErrorKind::PermissionDenied
                            | ErrorKind::NotADirectory
                            | ErrorKind::AlreadyExists
                    ) =>
                {
                    Outcome::Usage
                }
                DirectoryError::Io { .. } => Outcome::Partial,
                _ => Outcome::Usage,
            },
            Self::Access(_) | Self::PlanChanged { .. } | Self::NoTarget(_) | Self::UnknownKind { .. } => {
                Outcome::Usage
            }
        }
    }

    /// True if the other items of a run would fail for the same reason: the store or the cluster cannot be
    /// reached, or the run is interrupted.
    #[must_use]
    pub fn ends_run(&self) -> bool {
        !matches!(self.outcome(), Outcome::Usage | Outcome::Partial | Outcome::Damaged)
    }
}

/// Returns the outcome of the [`ReadError`] among the causes of `error`, if there is one.
#[must_use]
pub fn reading_outcome(error: &(dyn std::error::Error + 'static)) -> Option<Outcome> {
    find_cause(error).map(ReadError::outcome)
}
