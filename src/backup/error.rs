//! The errors that end a backup.

use jiff::Timestamp;

use crate::format::ids::WriterId;
use crate::keys::writer_key::WriterFileError;
use crate::kubernetes::ApiError;
use crate::pipeline::PipelineError;
use crate::plan::{EscapedGlobError, GlobError};
use crate::repository::epoch::error::CreateEpochError;
use crate::repository::error::RepositoryError;
use crate::repository::write::commit::CommitError;
use crate::source::database::DatabaseError;
use crate::source::kubernetes::ResourcesError;
use crate::store::StoreError;

/// Difference between this machine's clock and the store's, in seconds, above which a run warns.
pub const CLOCK_WARN: i64 = 5 * 60;
/// Difference, in seconds, above which a run refuses to start: signatures and ages would be wrong.
pub const CLOCK_REFUSE: i64 = 15 * 60;

/// A plan that no job can be made of.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// There is no access to a cluster.
    #[error("there is no access to a cluster")]
    Access(#[from] ApiError),
    /// A pattern of the plan is invalid.
    #[error("invalid pattern")]
    Pattern(#[from] GlobError),
    /// A pattern for names of databases is invalid.
    #[error("invalid pattern")]
    DatabasePattern(#[from] EscapedGlobError),
    /// A database has settings that cannot be used.
    #[error("the database cannot be used")]
    Database(#[from] DatabaseError),
}

/// An error that ends a backup. A failure of one source is a gap instead.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The job has no items.
    #[error("the plan selects nothing")]
    NoItems,
    /// The run was cancelled.
    #[error("interrupted")]
    Interrupted,
    /// An owner has cut off the writer's key.
    #[error("an owner has cut off this writer's key: nothing that it signs counts")]
    WriterCutOff {
        /// The reason that the owner gave.
        why: String,
    },
    /// The store holds no object of this writer.
    #[error("{store} holds nothing of this writer, not even its first epoch")]
    NotThisWriters {
        /// The store, without credentials.
        store: String,
        /// The writer.
        writer: WriterId,
    },
    /// The newest snapshot has the greatest number that there is.
    #[error("{newest} has the greatest number that there is, so no snapshot can follow it")]
    NumbersExhausted {
        /// The key of the newest snapshot.
        newest: String,
    },
    /// A newer kbak has written this plan.
    #[error("{object} requires the feature {feature} of whoever writes")]
    Newer {
        /// The epoch or manifest.
        object: String,
        /// The feature.
        feature: String,
    },
    /// The clocks differ by more than [`CLOCK_REFUSE`].
    #[error("this machine's clock and the store's differ too far")]
    Clock {
        /// The store's time.
        store: Timestamp,
        /// This machine's time.
        machine: Timestamp,
    },
    /// The epoch of the run has disappeared from the store.
    #[error("the epoch of this run is gone from the store")]
    EpochGone,
    /// The store returned an error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The repository cannot be used.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// There is no epoch to write into.
    #[error(transparent)]
    Epoch(#[from] CreateEpochError),
    /// The epoch's secrets cannot be written.
    #[error(transparent)]
    Writer(#[from] WriterFileError),
    /// A stream cannot be stored.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The pipeline failed while a cluster was read.
    #[error(transparent)]
    Resources(ResourcesError),
    /// The snapshot was not committed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl BackupError {
    /// True if the store does not answer, so that nothing more can be stored.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::EpochGone | Self::Resources(_) => true,
            Self::Store(error)
            | Self::Pipeline(PipelineError::Store(error))
            | Self::Commit(CommitError::Store(error))
            | Self::Epoch(CreateEpochError::Store(error))
            | Self::Repository(RepositoryError::Store(error)) => error.is_unreachable(),
            Self::Pipeline(error) => matches!(error, PipelineError::Spill(_)),
            _ => false,
        }
    }
}
