//! Finds another copy of a chunk whose pack is damaged: the domain's index may hold one that a
//! later run stored.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;

use crate::format::ids::{ChunkId, ObjectHash};
use crate::format::list::Place;
use crate::store::StoreError;

use crate::pipeline::chunk_index::{ChunkIndex, place};
use crate::pipeline::fetch::ReadError;

/// Loads a domain's index without its damaged packs.
#[async_trait]
pub trait Indexes: Send + Sync {
    /// Returns the chunks in packs that the store lists and that are not in `bad`.
    async fn load(&self, bad: &BTreeSet<ObjectHash>) -> Result<ChunkIndex, StoreError>;
    /// Reports that a copy is used in place of a chunk in the pack `bad`.
    fn healed(&self, bad: &ObjectHash);
}

/// Finds copies of chunks. Loads the index at the first request.
pub struct CopyFinder {
    indexes: Arc<dyn Indexes>,
    seen: Mutex<(BTreeSet<ObjectHash>, Option<Arc<ChunkIndex>>)>,
}

impl CopyFinder {
    /// Creates a finder that loads its index from `indexes`.
    #[must_use]
    pub fn new(indexes: Arc<dyn Indexes>) -> Self {
        Self { indexes, seen: Mutex::default() }
    }

    /// Returns the place of another copy of the chunk `id` of `plain` bytes. The pack `bad` is
    /// excluded from now on.
    pub(crate) async fn elsewhere(
        &self,
        id: &ChunkId,
        plain: u32,
        bad: ObjectHash,
    ) -> Result<Option<Place>, ReadError> {
        let mut seen = self.seen.lock().await;
        if seen.0.insert(bad) {
            seen.1 = None;
        }
        let known = match &seen.1 {
            Some(known) => known.clone(),
            None => {
                let known = Arc::new(self.indexes.load(&seen.0).await?);
                seen.1 = Some(known.clone());
                known
            }
        };
        let found = known.find(id, plain)?.and_then(|chunk| place(&chunk));
        if found.is_some() {
            self.indexes.healed(&bad);
        }
        Ok(found)
    }
}

impl std::fmt::Debug for CopyFinder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Healer")
    }
}
