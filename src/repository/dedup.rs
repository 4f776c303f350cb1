//! What a domain already has in the store: its index objects, checked against its packs.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::named::{self, Named};
use crate::format::derive::DomainKey;
use crate::format::ids::{NameId, ObjectHash};
use crate::format::index::{Index, IndexedPack, MAX_INDEX};
use crate::format::layout::{Class, EpochPath, ObjectKey};
use crate::format::needs::{Needs, PackName};
use crate::pipeline::known::Known;
use crate::report::event::{Event, Reporter};
use crate::store::listing::list_all;
use crate::store::{Entry, Store, StoreError};

/// A domain with more index objects than this has them merged at the end of a run.
pub const MERGE_ABOVE: usize = 64;
/// The most index objects that a domain may have.
pub const MAX_INDEXES: usize = 100_000;
/// How many are read at once.
const PARALLEL: usize = 4;

/// What [`Shelf::load`] found.
#[derive(Debug)]
pub struct Loaded {
    /// The chunks that can be used.
    pub known: Known,
    /// The index objects that were read.
    pub objects: Vec<ObjectHash>,
    /// Packs that an index names and the store does not have as named. Their chunks are stored
    /// anew when they come by.
    pub lost: Vec<PackName>,
}

/// Where a domain lies, and who is told of what is wrong there.
#[derive(Debug, Clone, Copy)]
pub struct Shelf<'a> {
    /// The store.
    pub store: &'a Arc<dyn Store>,
    /// The epoch's folder.
    pub path: EpochPath,
    /// The domain.
    pub domain: NameId,
    /// Is told.
    pub reporter: &'a Reporter,
}

impl Shelf<'_> {
    /// Loads a domain's index and checks each of its packs against the store's listing. `share` is the
    /// memory that its chunks may take, in bytes.
    ///
    /// Index objects are taken wherever they come from: they are sealed under the domain's own key, so
    /// only its writer can have made them, and orphans of a crashed run are what the next one reuses.
    /// Those that the newest snapshot names (`newest`) are read first: what they replace is not read.
    /// One that does not open is damage: it is named and left out, which costs uploads, not safety.
    pub async fn load(
        &self,
        key: &Arc<DomainKey>,
        distrusted: &BTreeSet<ObjectHash>,
        newest: &[ObjectHash],
        share: u64,
    ) -> Result<Loaded, StoreError> {
        let prefix = self.path.class_prefix(self.domain, Class::Index);
        let entries: Vec<Entry> = list_all(self.store.clone(), prefix, self.reporter.clone())
            .take(MAX_INDEXES)
            .try_collect()
            .await?;
        let known = Known::new(share, self.reporter.clone());
        let mut loaded = Loaded { known, objects: Vec::new(), lost: Vec::new() };
        if entries.is_empty() {
            return Ok(loaded);
        }
        // After the index objects: a pack is stored before the index that names it.
        let mut listed: Vec<PackName> = self.packs().try_collect().await?;
        listed.retain(|pack| !distrusted.contains(&pack.hash));
        listed.sort_unstable();
        let usable =
            |pack: &IndexedPack| listed.binary_search(&PackName { hash: pack.hash, size: pack.size }).is_ok();
        // Whatever has no hash for a name is no index object of ours; verify names it.
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

    /// One index object. A damaged one is told.
    async fn index(
        &self,
        key: &DomainKey,
        object: &ObjectKey,
        hash: ObjectHash,
    ) -> Result<Option<Index>, StoreError> {
        let index = match named::get(self.store, object, hash, MAX_INDEX + (1 << 20)).await? {
            Named::Is(sealed) => Index::open(&sealed, key).ok(),
            Named::Missing | Named::Altered => None,
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

    /// The packs of the domain as the store lists them, in order of their hash.
    #[must_use]
    pub fn packs(&self) -> stream::BoxStream<'static, Result<PackName, StoreError>> {
        let prefix = self.path.class_prefix(self.domain, Class::Pack);
        list_all(self.store.clone(), prefix, self.reporter.clone())
            .try_filter_map(|entry| async move {
                let hash: Option<ObjectHash> = entry.key.name().parse().ok();
                Ok(hash.map(|hash| PackName { hash, size: entry.size }))
            })
            .boxed()
    }

    /// Merges the store's listing of the domain with what a snapshot needs, both in order. Gives what
    /// is missing or of another size.
    pub async fn missing(&self, needs: &Needs) -> Result<Vec<PackName>, StoreError> {
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
