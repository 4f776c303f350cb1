//! Turns streams into packs, and packs into streams.
//!
//! ```text
//! Piece ──job──> fragments ──id, dedup, zstd, proof──> frames ──> open packs ──age──> store
//! Manifest ──> parts ──> slices ──whole or ranged reads──> frames ──id──> bytes in order
//! ```
//!
//! Code that waits is async; code that computes or blocks runs as a short job on a worker.
//! [`limits::MemoryLimits`] bounds memory by dividing one budget.

pub mod chunk_index;
pub mod chunk_ref;
mod chunk_verifier;
pub mod chunker;
pub mod codec;
pub mod context;
pub mod domain;
pub mod fallback;
pub mod fetch;
pub mod limits;
pub mod packer;
pub mod piece;
pub mod reader;
mod shared_cache;
pub mod stream;

use crate::format::{cache::CacheError, container::ContainerError};
use crate::report::outcome::Outcome;
use crate::store::StoreError;

/// The error of a source, passed on unchanged.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// An error while reading or writing a stream.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Encryption or decryption failed.
    #[error("cannot seal or open an object")]
    Container(#[from] ContainerError),
    /// Compression or its verification failed.
    #[error(transparent)]
    Codec(#[from] codec::CodecError),
    /// An index object could not be written.
    #[error(transparent)]
    Index(#[from] crate::format::index::IndexError),
    /// A scan cache could not be written.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The temporary file of the index could not be read.
    #[error(transparent)]
    Spill(#[from] chunk_index::SpillError),
    /// The source failed; its own error is the cause.
    #[error("the source failed")]
    Source(#[source] SourceError),
    /// The run was cancelled, or another part of it failed.
    #[error("the run is ending")]
    Ended,
    /// An invariant between parts of kbak was broken.
    #[error("a bug in kbak: {0}")]
    Bug(&'static str),
}

/// The result of writing a stream.
type Result<T, E = PipelineError> = std::result::Result<T, E>;

/// An error while reading a chunk.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store returned an error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stored object is not the one that was written.
    #[error("{object} is damaged: {what}")]
    Damaged {
        /// The object's key.
        object: String,
        /// The symptom of the damage.
        what: String,
    },
    /// A list or catalog of the snapshot is not one that a writer makes.
    #[error("the snapshot's {what} is malformed")]
    Malformed {
        /// The part of the snapshot.
        what: String,
    },
    /// The temporary file of the index could not be read.
    #[error(transparent)]
    Spill(#[from] chunk_index::SpillError),
    /// The run was cancelled.
    #[error("the run is ending")]
    Ended,
}

impl ReadError {
    /// Returns the outcome of a run that ends with this error.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Store(error) => error.outcome(),
            Self::Ended => Outcome::Interrupted,
            Self::Spill(_) => Outcome::Unreachable,
            Self::Damaged { .. } | Self::Malformed { .. } => Outcome::Damaged,
        }
    }

    /// True if the data is damaged or missing, false if it cannot be reached.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::Malformed { .. } => true,
            Self::Store(error) => error.kind.is_absence(),
            Self::Spill(_) | Self::Ended => false,
        }
    }
}

/// Returns the result of a task, or `ended` if the task was cancelled. A panic in it is resumed here.
fn joined<T, E>(result: Result<Result<T, E>, tokio::task::JoinError>, ended: E) -> Result<T, E> {
    match result {
        Ok(result) => result,
        Err(join) if join.is_panic() => std::panic::resume_unwind(join.into_panic()),
        Err(_) => Err(ended),
    }
}
