//! The writer of one domain in one epoch and one run: its chunk index, its packs, and the packs it refers to.

use std::sync::{Arc, Mutex};

use super::context::{EpochTarget, PipelineContext};
use super::piece::{PreparedChunk, hash_and_compress};
use super::{Result, chunk_index::ChunkIndex, chunk_ref::ChunkRef, packer::Packer};
use crate::format::derive::{ChunkKind, DomainKey};
use crate::format::ids::NameId;
use crate::runtime::lock;

/// Writes streams into one domain.
pub struct DomainWriter {
    context: PipelineContext,
    target: EpochTarget,
    id: NameId,
    key: Arc<DomainKey>,
    index: Arc<Mutex<ChunkIndex>>,
    packer: Arc<Packer>,
}

impl DomainWriter {
    /// Creates a writer for the domain `id` of `target`. The chunks in `index` are already stored.
    #[must_use]
    pub fn new(
        context: PipelineContext,
        target: EpochTarget,
        id: NameId,
        key: DomainKey,
        index: ChunkIndex,
    ) -> Arc<Self> {
        let (key, index) = (Arc::new(key), Arc::new(Mutex::new(index)));
        let packer = Arc::new(Packer::new(context.clone(), target.clone(), id, key.clone(), index.clone()));
        Arc::new(Self { context, target, id, key, index, packer })
    }

    /// Returns the run's shared engine.
    #[must_use]
    pub fn context(&self) -> &PipelineContext {
        &self.context
    }

    /// Returns the domain's key.
    #[must_use]
    pub fn key(&self) -> &Arc<DomainKey> {
        &self.key
    }

    /// Returns the domain's id.
    #[must_use]
    pub fn id(&self) -> NameId {
        self.id
    }

    /// Returns the epoch folder and recipient that the domain is written to.
    #[must_use]
    pub fn target(&self) -> &EpochTarget {
        &self.target
    }

    /// Returns the index of stored chunks.
    #[must_use]
    pub fn chunk_index(&self) -> &Arc<Mutex<ChunkIndex>> {
        &self.index
    }

    /// Takes the chunk index out of a finished domain and leaves an empty one.
    #[must_use]
    pub fn take_chunk_index(&self) -> ChunkIndex {
        let none = ChunkIndex::new(0, self.context.reporter().clone());
        std::mem::replace(&mut lock(&self.index), none)
    }

    pub(super) fn packer(&self) -> &Arc<Packer> {
        &self.packer
    }

    /// Stores one chunk, unless it is already stored.
    pub async fn put_chunk(&self, kind: ChunkKind, bytes: Vec<u8>) -> Result<ChunkRef> {
        let _permit = self.context.jobs.take(bytes.len() as u64 * 3).await?;
        let (key, codec, index) = (self.key.clone(), self.context.codec.clone(), self.index.clone());
        let workers = self.context.runtime().workers;
        match workers.run(move || hash_and_compress(kind, &bytes, &key, &codec, &index)).await? {
            PreparedChunk::Stored(chunk) => Ok(chunk),
            PreparedChunk::New(frame) => self.packer.append(frame).await,
        }
    }

    /// Stops early: writes an index object for the packs that the store has acknowledged, and
    /// drops the uploads in progress.
    pub async fn abort(&self) -> Result<()> {
        self.packer.abort().await
    }
}

impl std::fmt::Debug for DomainWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DomainWriter({})", self.id)
    }
}
