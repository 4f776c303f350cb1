//! The second place of a chunk: when a pack turns out bad, the domain's index may know a copy that a
//! later run stored.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;

use crate::format::ids::{ChunkId, ObjectHash};
use crate::format::list::Place;
use crate::store::StoreError;

use super::fetch::ReadError;
use super::known::{Known, place};

/// Loads what a domain's index says of all packs but the bad ones.
#[async_trait]
pub trait Indexes: Send + Sync {
    /// The chunks that lie in packs that the store lists and that are not among `bad`.
    async fn load(&self, bad: &BTreeSet<ObjectHash>) -> Result<Known, StoreError>;
    /// A copy is used instead of what `bad` should hold.
    fn healed(&self, bad: &ObjectHash);
}

/// Finds copies. Loads nothing until it is asked.
pub struct Healer {
    indexes: Arc<dyn Indexes>,
    seen: Mutex<(BTreeSet<ObjectHash>, Option<Arc<Known>>)>,
}

impl Healer {
    /// Asks `indexes`.
    #[must_use]
    pub fn new(indexes: Arc<dyn Indexes>) -> Self {
        Self { indexes, seen: Mutex::default() }
    }

    /// Where else the chunk `id` of `plain` bytes lies, `bad` having turned out bad.
    pub(super) async fn elsewhere(
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

impl std::fmt::Debug for Healer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Healer")
    }
}
