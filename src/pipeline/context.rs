//! The resources that all streams of a run share: runtime, store, limits, codec.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::limits::{MemoryBudget, MemoryLimits};
use super::{PipelineError, codec::Codec};
use crate::format::{container::DataRecipient, layout::EpochPath, object::SealedObject, sign::SigningKey};
use crate::report::event::Reporter;
use crate::runtime::{BufferPool, Runtime};
use crate::store::{
    ListedObject, PutOutcome, Store, StoreError, StoreErrorKind, listing, operation::Operation,
};

/// The destination of a run's chunks: an epoch's folder and the key they are encrypted to.
#[derive(Debug, Clone)]
pub struct EpochTarget {
    /// The epoch's folder.
    pub path: EpochPath,
    /// The epoch's public key.
    pub recipient: DataRecipient,
    /// The key of this run, which signs its index objects.
    pub run: Arc<SigningKey>,
}

/// The resources shared by all writers of one run. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PipelineContext {
    runtime: Runtime,
    store: Arc<dyn Store>,
    reporter: Reporter,
    /// The limits of the memory budget.
    pub limits: MemoryLimits,
    pub(super) codec: Codec,
    packs: Arc<Semaphore>,
    pub(super) jobs: MemoryBudget,
    /// Two pieces for each worker: one is read while the other is compressed.
    pieces: Arc<Semaphore>,
    /// The buffers of open and sealed packs: at most as many as packs.
    pub(super) pack_buffers: BufferPool,
    /// The buffers of sources and frames.
    chunk_buffers: BufferPool,
}

impl PipelineContext {
    /// Creates an engine that stays within `limits`, compresses with the zstd level `level` and, with
    /// `verify`, decompresses each frame before it is stored.
    #[must_use]
    pub fn new(
        runtime: Runtime,
        store: Arc<dyn Store>,
        reporter: Reporter,
        limits: MemoryLimits,
        level: i32,
        verify: bool,
    ) -> Self {
        let packs = Arc::new(Semaphore::new(usize::try_from(limits.packs).unwrap_or(usize::MAX)));
        // Room for what sealing adds to each pack.
        let pack_buffers = BufferPool::new(limits.packs * (limits.pack + limits.pack / 8));
        let chunk_buffers = BufferPool::new(limits.jobs);
        let codec = Codec::new(level, verify, chunk_buffers.clone());
        let jobs = MemoryBudget::new(limits.jobs);
        let pieces = Arc::new(Semaphore::new(runtime.workers.count() * 2));
        Self { runtime, store, reporter, limits, codec, packs, jobs, pieces, pack_buffers, chunk_buffers }
    }

    /// Returns the pool of the buffers that sources read into.
    #[must_use]
    pub fn buffers(&self) -> &BufferPool {
        &self.chunk_buffers
    }

    /// Returns the clock, randomness and workers.
    #[must_use]
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Returns the store that objects are written to.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Returns the reporter of events.
    #[must_use]
    pub fn reporter(&self) -> &Reporter {
        &self.reporter
    }

    pub(super) async fn piece_slot(&self) -> Result<OwnedSemaphorePermit, PipelineError> {
        self.pieces.clone().acquire_owned().await.map_err(|_| PipelineError::Ended)
    }

    pub(super) async fn pack_permit(&self) -> Result<OwnedSemaphorePermit, PipelineError> {
        self.packs.clone().acquire_owned().await.map_err(|_| PipelineError::Ended)
    }

    /// Stores an object. If the key is taken by an object of the right size, that is success:
    /// names are content hashes, so an earlier attempt of this put stored it.
    pub async fn put(&self, object: &SealedObject) -> Result<(), StoreError> {
        if self.store.put(object).await? == PutOutcome::Created {
            return Ok(());
        }
        let size = object.bytes().len() as u64;
        match listing::find(&self.store, object.key()).await? {
            Some(entry) if entry.size == size => Ok(()),
            Some(ListedObject { size: other, .. }) => {
                let what =
                    format!("the key holds another object of {other} bytes, not the {size} of this one");
                Err(self.put_error(object, StoreErrorKind::Corrupt(what)))
            }
            None => {
                let what = "the store reports that the key exists, but does not list it";
                Err(self.put_error(object, StoreErrorKind::Protocol(what.into())))
            }
        }
    }

    fn put_error(&self, object: &SealedObject, kind: StoreErrorKind) -> StoreError {
        StoreError::new(Operation::Put, object.key().as_str(), self.store.describe(), kind)
    }
}
