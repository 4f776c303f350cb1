//! Finds other copies of a chunk whose pack is damaged: by the domain's index objects, which may name copies
//! that a later run stored, then by the tables of the packs themselves.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::OnceCell;

use super::{ReadError, chunk_index::copies::CopyIndex};
use crate::format::ids::{ChunkId, ObjectHash};
use crate::format::list::ChunkLocation;
use crate::format::pack_refs::PackName;
use crate::runtime::lock;
use crate::store::StoreError;

/// The places in a domain where copies of chunks are looked for.
#[async_trait]
pub trait CopySource: Send + Sync {
    /// Returns the places that the domain's index objects name, the most trusted first.
    async fn indexed(&self) -> Result<CopyIndex, ReadError>;
    /// Returns the packs whose own tables are read where no index helps, and an empty index for their chunks.
    async fn packs(&self) -> Result<(Vec<PackName>, CopyIndex), StoreError>;
    /// Reports that copies are used in place of chunks in the pack `bad`.
    fn report_copy_used(&self, bad: &ObjectHash);
}

/// Finds copies of the chunks of a domain. Loads the index, and the packs' tables, when they are first needed.
pub struct CopyFinder {
    source: Arc<dyn CopySource>,
    indexed: OnceCell<CopyIndex>,
    pub(super) tables: OnceCell<CopyIndex>,
    reported: Mutex<BTreeSet<ObjectHash>>,
}

impl CopyFinder {
    /// Creates a finder of the copies that `source` knows.
    #[must_use]
    pub fn new(source: Arc<dyn CopySource>) -> Self {
        Self { source, indexed: OnceCell::new(), tables: OnceCell::new(), reported: Mutex::default() }
    }

    /// Returns the places at which index objects say that the chunk `id` of `plain` bytes is.
    pub(super) async fn indexed(&self, id: &ChunkId, plain: u32) -> Result<Vec<ChunkLocation>, ReadError> {
        let index = self.indexed.get_or_try_init(|| self.source.indexed()).await?;
        Ok(index.places(id, plain)?)
    }

    /// Returns the packs whose tables are read, and an empty index for their chunks.
    pub(super) async fn packs(&self) -> Result<(Vec<PackName>, CopyIndex), StoreError> {
        self.source.packs().await
    }

    /// Reports once for each pack that copies are used in place of its chunks.
    pub(super) fn report_copy_used(&self, bad: &ObjectHash) {
        if lock(&self.reported).insert(*bad) {
            self.source.report_copy_used(bad);
        }
    }
}
