//! The pieces of a stream that a source passes to the pipeline, in order, each with the job
//! that makes its bytes.

use super::chunk_ref::{ChunkRef, PackRef};
use super::{PipelineError, SourceError, chunk_index::ChunkIndex, codec::Codec, packer::EncodedChunk};
use crate::format::derive::{ChunkKind, DomainKey};
use crate::format::{cache::NO_DIGEST, catalog::CatalogLine, list::Slice};
use crate::runtime::{Buffer, lock};

/// A job that makes a piece's bytes on a worker. It may block on files, never on the store.
pub type PieceJob = Box<dyn FnOnce() -> Result<PieceOutput, SourceError> + Send>;

/// A piece of a stream: neighbouring members, or a part of a large one.
pub struct Piece {
    /// True if a group begins with this piece: the list, catalog and cache are cut before it.
    pub starts_group: bool,
    /// The most bytes that the job will hold.
    pub reserve: u64,
    /// The job that makes the bytes.
    pub job: PieceJob,
}

impl Piece {
    /// Creates a piece from bytes in memory that make one chunk.
    #[must_use]
    pub fn of_bytes(bytes: impl Into<Buffer>, members: Vec<StreamMember>) -> Self {
        let bytes = bytes.into();
        // A chunk may be in a buffer for a longer one. What is reserved is doubled.
        let reserve = bytes.len().max(bytes.capacity() / 2) as u64;
        let job = move || Ok(PieceOutput::of_bytes(bytes, members));
        Self { starts_group: false, reserve, job: Box::new(job) }
    }

    /// Marks the piece as the beginning of a group.
    #[must_use]
    pub fn starting_group(mut self) -> Self {
        self.starts_group = true;
        self
    }
}

/// The result of a job: at most one new chunk, and the order in which its bytes and stored
/// ones make the piece.
#[derive(Debug, Default)]
pub struct PieceOutput {
    /// The new bytes: at most [`crate::format::pack::MAX_CHUNK`], possibly none.
    pub data: Buffer,
    /// The runs that make the piece, in order.
    pub runs: Vec<PieceRun>,
    /// The members that start in the piece, or end in it (see [`StreamMember::at`]), in order.
    pub members: Vec<StreamMember>,
}

impl PieceOutput {
    /// Creates an output in which all of `bytes` are new.
    #[must_use]
    pub fn of_bytes(bytes: impl Into<Buffer>, members: Vec<StreamMember>) -> Self {
        let bytes = bytes.into();
        let all = PieceRun::New { skip: 0, take: u32::try_from(bytes.len()).unwrap_or(u32::MAX) };
        Self { runs: if bytes.is_empty() { Vec::new() } else { vec![all] }, data: bytes, members }
    }
}

/// A run of bytes in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PieceRun {
    /// A range of the output's new bytes.
    New {
        /// The offset of the first byte.
        skip: u32,
        /// The number of bytes.
        take: u32,
    },
    /// Bytes that are already stored, according to the scan cache.
    Known(Vec<Slice>),
}

/// A member of a stream.
#[derive(Debug)]
pub struct StreamMember {
    /// Its offset in bytes from the start of the piece. Negative if it started in an earlier
    /// piece: the state of a large file is known only once it was read.
    pub at: i64,
    /// Its length in the stream, in bytes.
    pub length: u64,
    /// Its line in the catalog, with `at` not yet set.
    pub line: Option<CatalogLine>,
    /// Its digest for the scan cache.
    pub digest: [u8; 16],
}

impl StreamMember {
    /// Creates a member that the scan cache cannot recognise.
    #[must_use]
    pub fn uncached(at: i64, length: u64, line: Option<CatalogLine>) -> Self {
        Self { at, length, line, digest: NO_DIGEST }
    }
}

/// A range of a chunk whose pack may still be open.
#[derive(Debug, Clone)]
pub struct OpenSlice {
    /// The chunk.
    pub chunk: ChunkRef,
    /// The number of bytes skipped at the start of the chunk.
    pub skip: u32,
    /// The number of bytes used.
    pub take: u32,
}

impl From<Slice> for OpenSlice {
    fn from(slice: Slice) -> Self {
        let Slice { location, id, skip, take } = slice;
        let pack = PackRef::stored(location.pack);
        let chunk =
            ChunkRef { pack, id, offset: location.offset, length: location.length, plain: location.plain };
        Self { chunk, skip, take }
    }
}

/// The result of preparing a chunk: already stored, or ready to be packed.
#[derive(Debug)]
pub enum PreparedChunk {
    /// The chunk is already in a pack.
    Stored(ChunkRef),
    /// The chunk is new.
    New(EncodedChunk),
}

/// Computes a chunk's id and, unless the chunk is already stored, compresses it. Runs on a worker.
pub fn hash_and_compress(
    kind: ChunkKind,
    bytes: &[u8],
    key: &DomainKey,
    codec: &Codec,
    index: &std::sync::Mutex<ChunkIndex>,
) -> Result<PreparedChunk, PipelineError> {
    let id = key.chunk_id(kind, bytes);
    let plain = u32::try_from(bytes.len()).map_err(|_| PipelineError::Bug("a chunk beyond 4 GiB"))?;
    let found = lock(index).find(&id, plain)?;
    Ok(match found {
        Some(chunk) => PreparedChunk::Stored(chunk),
        None => PreparedChunk::New(EncodedChunk { kind, id, bytes: codec.encode(bytes)?, plain }),
    })
}
