//! Finds another copy of a chunk whose pack is damaged: the domain's index may hold one that a
//! later run stored.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;

use super::{ReadError, chunk_index::ChunkIndex};
use crate::format::ids::{ChunkId, ObjectHash};
use crate::format::list::ChunkLocation;
use crate::store::StoreError;

/// Loads a domain's index without its damaged packs.
#[async_trait]
pub trait IndexSource: Send + Sync {
    /// Returns the chunks in packs that the store lists and that are not in `bad`.
    async fn load(&self, bad: &BTreeSet<ObjectHash>) -> Result<ChunkIndex, StoreError>;
    /// Reports that a copy is used in place of a chunk in the pack `bad`.
    fn report_copy_used(&self, bad: &ObjectHash);
}

/// Finds copies of chunks. Loads the index at the first request.
pub struct CopyFinder {
    source: Arc<dyn IndexSource>,
    seen: Mutex<(BTreeSet<ObjectHash>, Option<Arc<ChunkIndex>>)>,
}

impl CopyFinder {
    /// Creates a finder that loads its index from `indexes`.
    #[must_use]
    pub fn new(source: Arc<dyn IndexSource>) -> Self {
        Self { source, seen: Mutex::default() }
    }

    /// Returns the location of another copy of the chunk `id` of `plain` bytes. The pack `bad` is
    /// excluded from now on.
    pub(crate) async fn find_copy(
        &self,
        id: &ChunkId,
        plain: u32,
        bad: ObjectHash,
    ) -> Result<Option<ChunkLocation>, ReadError> {
        let mut seen = self.seen.lock().await;
        if seen.0.insert(bad) {
            seen.1 = None;
        }
        let index = match &seen.1 {
            Some(index) => index.clone(),
            None => {
                let index = Arc::new(self.source.load(&seen.0).await?);
                seen.1 = Some(index.clone());
                index
            }
        };
        let found = index.find(id, plain)?.and_then(|chunk| chunk.location());
        if found.is_some() {
            self.source.report_copy_used(&bad);
        }
        Ok(found)
    }
}
