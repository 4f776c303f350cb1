//! The writer of one domain in one epoch and one run: its chunk index, its packs, and the packs it refers to.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use crate::format::derive::{ChunkKind, DomainKey};
use crate::format::ids::{NameId, ObjectHash};
use crate::format::list::Part;
use crate::format::pack::PackClass;
use crate::format::pack_refs::{PackName, PackRefs};
use crate::runtime::kill_point;

use super::PipelineError;
use super::engine::{Engine, EpochTarget};
use super::packer::{ChunkRef, Packer};
use super::piece::{Prepared, prepare};
use super::stream::{PendingStream, StreamWriter, WrittenStream};
use crate::pipeline::chunk_index::{ChunkIndex, place};
use crate::runtime::lock;

/// Writes streams into one domain.
pub struct DomainWriter {
    engine: Engine,
    target: EpochTarget,
    id: NameId,
    key: Arc<DomainKey>,
    known: Arc<Mutex<ChunkIndex>>,
    packer: Arc<Packer>,
    needs: Mutex<HashSet<PackName>>,
}

/// The result of writing a domain in a run.
#[derive(Debug)]
pub struct WrittenDomain {
    /// The streams, in the order in which they were passed in.
    pub streams: Vec<WrittenStream>,
    /// The packs that the streams refer to.
    pub needs: PackRefs,
    /// The index objects of this run.
    pub index: Vec<ObjectHash>,
    /// The number of packs that this run stored.
    pub packs: u64,
}

impl DomainWriter {
    /// Creates a writer for the domain `id` of `target`. The chunks in `known` are already stored.
    #[must_use]
    pub fn new(
        engine: Engine,
        target: EpochTarget,
        id: NameId,
        key: DomainKey,
        known: ChunkIndex,
    ) -> Arc<Self> {
        let (key, known) = (Arc::new(key), Arc::new(Mutex::new(known)));
        let packer = Arc::new(Packer::new(engine.clone(), target.clone(), id, key.clone(), known.clone()));
        Arc::new(Self { engine, target, id, key, known, packer, needs: Mutex::default() })
    }

    /// Returns the run's shared engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
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
    pub fn known(&self) -> &Arc<Mutex<ChunkIndex>> {
        &self.known
    }

    /// Takes the chunk index out of a finished domain and leaves an empty one.
    #[must_use]
    pub fn take_known(&self) -> ChunkIndex {
        let none = ChunkIndex::new(0, self.engine.reporter().clone());
        std::mem::replace(&mut lock(&self.known), none)
    }

    pub(super) fn packer(&self) -> &Arc<Packer> {
        &self.packer
    }

    pub(super) fn need(&self, pack: PackName) {
        lock(&self.needs).insert(pack);
    }

    /// Starts a new stream.
    #[must_use]
    pub fn stream(self: &Arc<Self>) -> StreamWriter {
        StreamWriter::new(self.clone())
    }

    /// Stores one chunk, unless it is already stored.
    pub async fn put_chunk(&self, kind: ChunkKind, bytes: Vec<u8>) -> Result<ChunkRef, PipelineError> {
        let _permit = self.engine.jobs().take(bytes.len() as u64 * 3).await?;
        let (key, codec, known) = (self.key.clone(), self.engine.codec().clone(), self.known.clone());
        let workers = self.engine.runtime().workers;
        match workers.run(move || prepare(kind, &bytes, &key, &codec, &known)).await? {
            Prepared::Known(chunk) => Ok(chunk),
            Prepared::Frame(frame) => self.packer.append(frame).await,
        }
    }

    /// Stops early: writes an index object for the packs that the store has acknowledged, and
    /// drops the uploads in progress.
    pub async fn leave(&self) -> Result<(), PipelineError> {
        self.packer.leave().await
    }

    /// Finishes the domain. When this returns, everything is stored and acknowledged.
    pub async fn finish(&self, streams: Vec<PendingStream>) -> Result<WrittenDomain, PipelineError> {
        self.packer.flush(PackClass::Data).await?;
        self.packer.settle().await?;
        let mut settled = Vec::with_capacity(streams.len());
        for stream in streams {
            settled.push(stream.settle(self).await?);
        }
        kill_point("backup.lists.settled");
        let (index, packs) = self.packer.finish().await?;
        let streams = settled.into_iter().map(|stream| stream.finish(self)).collect::<Result<_, _>>()?;
        let needs = std::mem::take(&mut *lock(&self.needs));
        Ok(WrittenDomain { streams, needs: PackRefs::new(needs.into_iter().collect()), index, packs })
    }

    /// Returns the entry that the body has for a part of a list or catalog. The part's pack must be sealed.
    pub(super) fn part(
        &self,
        chunk: &ChunkRef,
        start: u64,
        first: Option<Vec<u8>>,
    ) -> Result<Part, PipelineError> {
        let place = place(chunk).ok_or(PipelineError::Bug("a part whose pack is open"))?;
        self.need(place.pack);
        Ok(Part {
            pack: place.pack.hash,
            pack_size: place.pack.size,
            offset: place.offset,
            length: place.length,
            plain_length: place.plain,
            id: chunk.id,
            start,
            first: first.map(crate::format::name::Name),
        })
    }
}

impl std::fmt::Debug for DomainWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DomainWriter({})", self.id)
    }
}
