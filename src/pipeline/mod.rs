//! Streams into packs, and back.
//!
//! ```text
//! Piece ──job──> fragments ──id, dedup, zstd, proof──> frames ──> open packs ──age──> store
//! Manifest ──> parts ──> slices ──whole or ranged reads──> frames ──id──> bytes in order
//! ```
//!
//! Everything that waits is async; everything that computes or blocks runs as a short job on a
//! worker. Memory is bounded by [`limits::Limits`], which divides one budget.

pub mod chunker;
pub mod codec;
pub mod domain;
pub mod engine;
pub mod fetch;
pub mod heal;
pub mod known;
pub mod limits;
pub mod owner;
pub mod packer;
pub mod piece;
pub mod reader;
pub mod stream;

use crate::format::cache::CacheError;
use crate::format::container::ContainerError;
use crate::store::StoreError;

/// What a source reports; the pipeline passes it on.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Why a stream was not carried.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Encryption or decryption failed.
    #[error("cannot seal or open an object")]
    Container(#[from] ContainerError),
    /// Compression failed, or its proof.
    #[error(transparent)]
    Codec(#[from] codec::CodecError),
    /// A scan cache failed to be written.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The index could not be read back.
    #[error(transparent)]
    Spill(#[from] known::SpillError),
    /// The source failed; its own error says how.
    #[error("the source failed")]
    Source(#[source] SourceError),
    /// The run is ending because something else failed or it was cancelled.
    #[error("the run is ending")]
    Ended,
    /// A promise between parts of kbak was broken.
    #[error("a bug in kbak: {0}")]
    Bug(&'static str),
}
