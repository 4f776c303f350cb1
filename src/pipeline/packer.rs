//! Fills packs with chunks, seals and uploads them, and writes their index objects.

use std::sync::{Arc, Mutex};

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::AbortOnDropHandle;

use super::chunk_index::{ChunkIndex, index_id};
use super::chunk_ref::{ChunkRef, PackRef};
use super::context::{EpochTarget, PipelineContext};
use super::{PipelineError, joined};
use crate::format::derive::{ChunkKind, DomainKey};
use crate::format::ids::{ChunkId, NameId, ObjectHash};
use crate::format::index::{Index, IndexEntry, IndexedPack, MAX_ENTRIES};
use crate::format::pack::{PackBuilder, PackClass, SealedPack};
use crate::format::pack_refs::PackName;
use crate::runtime::{Buffer, kill_point, lock};

/// The number of acknowledged packs after which an index object is written. A crash leaves no
/// more than these unindexed.
pub const PACKS_PER_INDEX: usize = 16;

/// A chunk that is not yet in a pack.
#[derive(Debug)]
pub struct EncodedChunk {
    /// The kind of content.
    pub kind: ChunkKind,
    /// The chunk's id.
    pub id: ChunkId,
    /// Its zstd frame, verified.
    pub bytes: Buffer,
    /// The length of its plaintext in bytes.
    pub plain: u32,
}

struct OpenPack {
    builder: PackBuilder,
    name: PackRef,
    permit: OwnedSemaphorePermit,
}

/// The open packs of one domain.
pub struct Packer {
    context: PipelineContext,
    epoch: EpochTarget,
    domain: NameId,
    key: Arc<DomainKey>,
    index: Arc<Mutex<ChunkIndex>>,
    data: [tokio::sync::Mutex<Option<OpenPack>>; 2],
    metadata: tokio::sync::Mutex<Option<OpenPack>>,
    uploads: Mutex<Vec<AbortOnDropHandle<Result<(), PipelineError>>>>,
    acknowledged: Arc<tokio::sync::Mutex<Acknowledged>>,
}

/// Packs that the store acknowledged, and the index objects written for them.
#[derive(Default)]
struct Acknowledged {
    unindexed: Index,
    written: Vec<ObjectHash>,
    packs: u64,
}

impl Packer {
    /// Creates a packer without open packs.
    #[must_use]
    pub fn new(
        context: PipelineContext,
        epoch: EpochTarget,
        domain: NameId,
        key: Arc<DomainKey>,
        index: Arc<Mutex<ChunkIndex>>,
    ) -> Self {
        Self {
            context,
            epoch,
            domain,
            key,
            index,
            data: Default::default(),
            metadata: Default::default(),
            uploads: Mutex::default(),
            acknowledged: Arc::default(),
        }
    }

    fn slot(&self, class: PackClass) -> &tokio::sync::Mutex<Option<OpenPack>> {
        match class {
            PackClass::Metadata => &self.metadata,
            // The slot is random: neighbours in a stream do not stay neighbours in a pack, so the size of
            // a pack reveals less about a file (restic #5291).
            PackClass::Data => &self.data[usize::from(self.context.runtime().random::<1>()[0] & 1)],
        }
    }

    /// Adds a frame to a pack, unless its chunk was stored meanwhile. Waits until a pack may be opened.
    ///
    /// Runs in a task of its own: when a stream fails, its pending work is dropped, but the open
    /// pack also holds chunks of other streams.
    pub async fn append(self: &Arc<Self>, frame: EncodedChunk) -> Result<ChunkRef, PipelineError> {
        let this = self.clone();
        let task = async move { this.append_whole(frame).await };
        joined(tokio::spawn(task).await, PipelineError::Ended)
    }

    async fn append_whole(&self, frame: EncodedChunk) -> Result<ChunkRef, PipelineError> {
        let class = PackClass::of(frame.kind);
        let mut slot = self.slot(class).lock().await;
        if let Some(found) = lock(&self.index).find(&frame.id, frame.plain)? {
            return Ok(found);
        }
        if let Some(full) = slot.take_if(|open| !open.builder.fits(frame.bytes.len())) {
            self.close(full, class)?;
        }
        let open = match slot.take() {
            Some(open) => open,
            None => {
                let permit = self.context.pack_permit().await?;
                let target = usize::try_from(self.context.limits.pack).unwrap_or(usize::MAX);
                let buffer = self.context.pack_buffers.take(PackBuilder::sealed_capacity(target));
                let builder = PackBuilder::new(&self.epoch.recipient, target, buffer.into_vec())?;
                OpenPack { builder, name: PackRef::open(), permit }
            }
        };
        let workers = self.context.runtime().workers;
        let (open, chunk) = workers
            .run(move || {
                let mut open = open;
                let offset = open.builder.push(frame.kind, frame.id, &frame.bytes, frame.plain)?;
                let length = u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX);
                let (pack, id, plain) = (open.name.clone(), frame.id, frame.plain);
                Ok::<_, PipelineError>((open, ChunkRef { pack, id, offset, length, plain }))
            })
            .await?;
        *slot = Some(open);
        lock(&self.index).add(chunk.clone());
        Ok(chunk)
    }

    /// Seals a pack and uploads it in the background.
    fn close(&self, open: OpenPack, class: PackClass) -> Result<(), PipelineError> {
        let (context, epoch, domain) = (self.context.clone(), self.epoch.clone(), self.domain);
        let (key, index, acknowledged) = (self.key.clone(), self.index.clone(), self.acknowledged.clone());
        let task = async move {
            let OpenPack { builder, name, permit } = open;
            let path = epoch.path;
            let sealed = context.runtime().workers.run(move || builder.seal(&path, domain)).await?;
            let SealedPack { object, hash, size, table } = sealed;
            name.set_name(PackName { hash, size });
            kill_point("backup.pack.sealed");
            context.put(&object).await?;
            context.reporter().stored(size, true);
            tracing::debug!(pack = %hash, size, chunks = table.len(), "pack stored");
            kill_point("backup.pack.stored");
            context.pack_buffers.reclaim(object.into_bytes());
            drop(permit);
            let pack = IndexedPack { hash, size, class };
            lock(&index).acknowledge(&pack, &table);
            let mut acknowledged = acknowledged.lock().await;
            acknowledged.add(pack, &table);
            if acknowledged.unindexed.packs.len() >= PACKS_PER_INDEX
                || acknowledged.unindexed.entries.len() >= MAX_ENTRIES / 2
            {
                acknowledged.write(&context, &epoch, domain, &key).await?;
            }
            Ok(())
        };
        let handle = AbortOnDropHandle::new(tokio::spawn(task));
        let mut uploads = lock(&self.uploads);
        // Finished uploads are checked whenever one is added, so that a failure ends the run soon.
        let mut kept = Vec::with_capacity(uploads.len() + 1);
        for upload in uploads.drain(..) {
            if upload.is_finished() {
                if let Some(result) = futures::FutureExt::now_or_never(upload) {
                    joined(result, PipelineError::Ended)?;
                }
            } else {
                kept.push(upload);
            }
        }
        kept.push(handle);
        *uploads = kept;
        Ok(())
    }

    /// Closes the open packs of `class`. Their chunks get names once the packs are sealed.
    pub async fn flush(&self, class: PackClass) -> Result<(), PipelineError> {
        let slots = match class {
            PackClass::Data => vec![&self.data[0], &self.data[1]],
            PackClass::Metadata => vec![&self.metadata],
        };
        for slot in slots {
            if let Some(open) = slot.lock().await.take() {
                self.close(open, class)?;
            }
        }
        Ok(())
    }

    /// Waits until the store has acknowledged all packs closed so far.
    pub async fn wait_for_uploads(&self) -> Result<(), PipelineError> {
        loop {
            let upload = lock(&self.uploads).pop();
            match upload {
                Some(upload) => joined(upload.await, PipelineError::Ended)?,
                None => return Ok(()),
            }
        }
    }

    /// Drops the uploads in progress, and writes the index of the acknowledged packs.
    pub async fn abort(&self) -> Result<(), PipelineError> {
        lock(&self.uploads).clear();
        self.acknowledged.lock().await.write(&self.context, &self.epoch, self.domain, &self.key).await
    }

    /// Closes all packs, waits for their uploads and writes the last index object. Returns the
    /// index objects of this run and the number of packs that it stored.
    pub async fn finish(&self) -> Result<(Vec<ObjectHash>, u64), PipelineError> {
        self.flush(PackClass::Data).await?;
        self.flush(PackClass::Metadata).await?;
        self.wait_for_uploads().await?;
        let mut acknowledged = self.acknowledged.lock().await;
        acknowledged.write(&self.context, &self.epoch, self.domain, &self.key).await?;
        Ok((acknowledged.written.clone(), acknowledged.packs))
    }
}

impl Acknowledged {
    fn add(&mut self, pack: IndexedPack, table: &[crate::format::pack::TableEntry]) {
        let number = u32::try_from(self.unindexed.packs.len()).unwrap_or(u32::MAX);
        self.unindexed.packs.push(pack);
        self.unindexed.entries.extend(table.iter().map(|entry| IndexEntry {
            id: index_id(&entry.id),
            pack: number,
            offset: entry.offset,
            length: entry.length,
            plain: entry.plain,
        }));
        self.packs += 1;
    }

    async fn write(
        &mut self,
        context: &PipelineContext,
        epoch: &EpochTarget,
        domain: NameId,
        key: &Arc<DomainKey>,
    ) -> Result<(), PipelineError> {
        if self.unindexed.packs.is_empty() {
            return Ok(());
        }
        let mut index = std::mem::take(&mut self.unindexed);
        let (path, key, run) = (epoch.path, key.clone(), epoch.run.clone());
        let sealed = context
            .runtime()
            .workers
            .run(move || {
                index.sort();
                index.seal(&path, domain, &key, &run)
            })
            .await?;
        kill_point("backup.index.sealed");
        context.put(&sealed).await?;
        context.reporter().stored(sealed.bytes().len() as u64, false);
        kill_point("backup.index.stored");
        self.written.push(sealed.hash());
        Ok(())
    }
}
