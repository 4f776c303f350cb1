//! Loads the index of a domain from the store and checks it against the domain's packs.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};

use crate::format::derive::DomainKey;
use crate::format::ids::{NameId, ObjectHash};
use crate::format::index::{Index, IndexedPack, MAX_INDEX};
use crate::format::layout::{EpochPath, ObjectClass, ObjectKey};
use crate::format::pack_refs::{PackName, PackRefs};
use crate::pipeline::chunk_index::ChunkIndex;
use crate::report::event::{Event, Reporter};
use crate::repository::fetched::{self, Fetched};
use crate::store::listing::list_all;
use crate::store::{ListedObject, Store, StoreError};

/// The number of index objects above which a run merges those of a domain at its end.
pub const MERGE_ABOVE: usize = 64;
/// The most index objects of a domain that are read.
pub const MAX_INDEXES: usize = 100_000;
const PARALLEL: usize = 4;

/// The result of [`DomainIndexLoader::load`].
#[derive(Debug)]
pub struct Loaded {
    /// The chunks that can be used.
    pub known: ChunkIndex,
    /// The index objects that were read and are not replaced.
    pub objects: Vec<ObjectHash>,
    /// Packs that an index names but the store does not list with that size. Their chunks are
    /// uploaded again when they occur.
    pub lost: Vec<PackName>,
}

/// Loads the index of one domain.
#[derive(Debug, Clone, Copy)]
pub struct DomainIndexLoader<'a> {
    /// The store.
    pub store: &'a Arc<dyn Store>,
    /// The epoch's folder.
    pub path: EpochPath,
    /// The domain.
    pub domain: NameId,
    /// The reporter of damaged index objects.
    pub reporter: &'a Reporter,
}

impl DomainIndexLoader<'_> {
    /// Loads a domain's index and checks each of its packs against the store's listing. `share` is
    /// the memory that its chunks may take, in bytes.
    ///
    /// All index objects are read: they are sealed under the domain's own key, so only its writer can
    /// have made them, and the next run reuses those of a crashed one. Those that the newest snapshot
    /// names (`newest`) are read first, and the objects that they replace are not read. One that does
    /// not open is damaged: a warning names it and it is skipped, which costs uploads, not safety.
    pub async fn load(
        &self,
        key: &Arc<DomainKey>,
        distrusted: &BTreeSet<ObjectHash>,
        newest: &[ObjectHash],
        share: u64,
    ) -> Result<Loaded, StoreError> {
        let prefix = self.path.class_prefix(self.domain, ObjectClass::Index);
        let entries: Vec<ListedObject> = list_all(self.store.clone(), prefix, self.reporter.clone())
            .take(MAX_INDEXES)
            .try_collect()
            .await?;
        let known = ChunkIndex::new(share, self.reporter.clone());
        let mut loaded = Loaded { known, objects: Vec::new(), lost: Vec::new() };
        if entries.is_empty() {
            return Ok(loaded);
        }
        // Listed after the index objects, because a pack is stored before the index that names it.
        let mut listed: Vec<PackName> = self.packs().try_collect().await?;
        listed.retain(|pack| !distrusted.contains(&pack.hash));
        listed.sort_unstable();
        let usable =
            |pack: &IndexedPack| listed.binary_search(&PackName { hash: pack.hash, size: pack.size }).is_ok();
        // An object whose name is not a hash is not an index object; verify reports it.
        let (first, rest): (Vec<_>, Vec<_>) = entries
            .into_iter()
            .filter_map(|entry| entry.key.name().parse().ok().map(|hash: ObjectHash| (entry.key, hash)))
            .partition(|(_, hash)| newest.contains(hash));
        let (mut replaced, mut lost) = (HashSet::new(), BTreeSet::new());
        for keys in [first, rest] {
            let keys: Vec<_> = keys.into_iter().filter(|(_, hash)| !replaced.contains(hash)).collect();
            let mut read = stream::iter(keys)
                .map(|(object, hash)| async move { (self.index(key, &object, hash).await, hash) })
                .buffered(PARALLEL);
            while let Some((index, hash)) = read.next().await {
                let Some(index) = index? else { continue };
                replaced.extend(index.replaces.iter().copied());
                lost.extend(loaded.known.load(&index, usable));
                loaded.objects.push(hash);
            }
        }
        loaded.objects.retain(|hash| !replaced.contains(hash));
        loaded.lost = lost.into_iter().collect();
        Ok(loaded)
    }

    /// Reads one index object. Warns and returns none if it is damaged.
    async fn index(
        &self,
        key: &DomainKey,
        object: &ObjectKey,
        hash: ObjectHash,
    ) -> Result<Option<Index>, StoreError> {
        let index = match fetched::get(self.store, object, hash, MAX_INDEX + (1 << 20)).await? {
            Fetched::Valid(sealed) => Index::open(&sealed, key).ok(),
            Fetched::Missing | Fetched::Corrupt => None,
        };
        if index.is_none() {
            self.reporter.event(Event::Warning {
                object: object.to_string(),
                message: "this index object is damaged; what it names is stored anew".into(),
                remedy: Some("kbak verify --read-all shows what else is".into()),
            });
        }
        Ok(index)
    }

    /// Lists the packs of the domain in order of their hash.
    #[must_use]
    pub fn packs(&self) -> stream::BoxStream<'static, Result<PackName, StoreError>> {
        let prefix = self.path.class_prefix(self.domain, ObjectClass::Pack);
        list_all(self.store.clone(), prefix, self.reporter.clone())
            .try_filter_map(|entry| async move {
                let hash: Option<ObjectHash> = entry.key.name().parse().ok();
                Ok(hash.map(|hash| PackName { hash, size: entry.size }))
            })
            .boxed()
    }

    /// Returns the referenced packs that the store does not list with their size. Merges two
    /// sorted lists: the store's listing and the packs in `needs`.
    pub async fn missing(&self, needs: &PackRefs) -> Result<Vec<PackName>, StoreError> {
        let mut missing = Vec::new();
        let mut wanted = needs.packs().iter().peekable();
        let mut listed = self.packs();
        while wanted.peek().is_some() {
            let Some(pack) = listed.next().await.transpose()? else { break };
            while let Some(next) = wanted.next_if(|next| next.hash < pack.hash) {
                missing.push(*next);
            }
            if let Some(next) = wanted.next_if(|next| next.hash == pack.hash)
                && next.size != pack.size
            {
                missing.push(*next);
            }
        }
        missing.extend(wanted.copied());
        Ok(missing)
    }
}
