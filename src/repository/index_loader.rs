//! Loads the index of a domain from the store and checks it against the domain's packs.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};

use crate::format::derive::DomainKey;
use crate::format::ids::{NameId, ObjectHash};
use crate::format::index::{HEADER, Index, IndexHeader, IndexedPack, MAX_INDEX};
use crate::format::layout::{self, EpochPath, ObjectClass, ObjectKey};
use crate::format::pack_refs::{EtagPrint, PackName, PackRefs};
use crate::format::sign::PublicKey;
use crate::pipeline::chunk_index::ChunkIndex;
use crate::report::event::{Event, Reporter};
use crate::repository::fetched::{self, Fetched};
use crate::store::listing::list_all;
use crate::store::{ListedObject, Store, StoreError};

/// The number of index objects above which a run merges those of a domain at its end.
pub const MERGE_ABOVE: usize = 64;
/// The most index objects of a domain that are read.
pub const MAX_INDEXES: usize = 100_000;
/// The most index objects whose header is read because no snapshot names them.
pub const MAX_UNNAMED: usize = 4_096;
const PARALLEL: usize = 4;

/// The most bytes of an index object as it is stored.
const MAX_SEALED: u64 = MAX_INDEX + (1 << 20);

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

/// The packs of a domain that a snapshot needs, as the store lists them.
#[derive(Debug, Default)]
pub struct ListedPacks {
    /// Packs that are not listed, or with another size.
    pub missing: Vec<PackName>,
    /// The ETags of the others, sorted by pack.
    pub etags: Vec<(ObjectHash, EtagPrint)>,
}

/// The index objects that are used.
#[derive(Debug, Clone, Copy)]
pub enum TrustedIndexes<'a> {
    /// Those of a writer's own past: it believes that a chunk is stored where they say.
    OwnPast {
        /// Those that the writer's own snapshots name.
        named: &'a HashSet<ObjectHash>,
        /// The keys of runs whose other index objects count.
        runs: &'a [PublicKey],
    },
    /// All of them: a reader proves every chunk by its id.
    All,
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
    /// Loads a domain's index and checks each of its packs against the store's listing: its size, and its ETag
    /// if `known_etags`, sorted by pack, has another. `share` is the memory that its chunks may take, in bytes.
    ///
    /// Only `trusted` index objects are used: a wrong one would make a backup that is none. Those that
    /// own snapshots name are read first, and the objects that they replace are not read. Of the others the header
    /// is read, at most [`MAX_UNNAMED`] times. One that does not open is damaged: a warning names it and it is
    /// skipped, which costs uploads, not safety.
    pub async fn load(
        &self,
        key: &Arc<DomainKey>,
        distrusted: &BTreeSet<ObjectHash>,
        trusted: TrustedIndexes<'_>,
        known_etags: &[(ObjectHash, EtagPrint)],
        share: u64,
    ) -> Result<Loaded, StoreError> {
        let prefix = self.path.class_prefix(self.domain, ObjectClass::Index);
        // What nobody made who has the domain's key costs no request.
        let made_with_key = |entry: ListedObject| {
            let (hash, _) = layout::parse_index_name(entry.key.name())?;
            let own = self.path.index(self.domain, hash, key.index_tag(hash)) == entry.key;
            own.then_some((entry.key, hash))
        };
        let entries: Vec<(ObjectKey, ObjectHash)> =
            list_all(self.store.clone(), prefix, self.reporter.clone())
                .try_filter_map(|entry| std::future::ready(Ok(made_with_key(entry))))
                .take(MAX_INDEXES)
                .try_collect()
                .await?;
        let known = ChunkIndex::new(share, self.reporter.clone());
        let mut loaded = Loaded { known, objects: Vec::new(), lost: Vec::new() };
        if entries.is_empty() {
            return Ok(loaded);
        }
        // Listed after the index objects, because a pack is stored before the index that names it.
        let listed = self.good_packs(distrusted, known_etags).await?;
        let usable =
            |pack: &IndexedPack| listed.binary_search(&PackName { hash: pack.hash, size: pack.size }).is_ok();
        let (first, rest) = match trusted {
            TrustedIndexes::All => (entries, Vec::new()),
            TrustedIndexes::OwnPast { named, runs } => {
                let (first, rest) = entries.into_iter().partition(|(_, hash)| named.contains(hash));
                (first, self.of_runs(rest, runs).await?)
            }
        };
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

    /// Returns the listed packs that no record distrusts and that were not overwritten, sorted.
    async fn good_packs(
        &self,
        distrusted: &BTreeSet<ObjectHash>,
        known_etags: &[(ObjectHash, EtagPrint)],
    ) -> Result<Vec<PackName>, StoreError> {
        let is_good = |(pack, etag): &(PackName, EtagPrint)| {
            let known = known_etags.binary_search_by_key(&pack.hash, |(hash, _)| *hash);
            let overwritten = known.is_ok_and(|at| known_etags[at].1.contradicts(*etag));
            !overwritten && !distrusted.contains(&pack.hash)
        };
        let good = self.packs().try_filter(|pack| std::future::ready(is_good(pack)));
        let mut good: Vec<PackName> = good.map_ok(|(pack, _)| pack).try_collect().await?;
        good.sort_unstable();
        Ok(good)
    }

    /// Returns those of `objects` that one of the runs signed.
    async fn of_runs(
        &self,
        objects: Vec<(ObjectKey, ObjectHash)>,
        runs: &[PublicKey],
    ) -> Result<Vec<(ObjectKey, ObjectHash)>, StoreError> {
        if objects.len() > MAX_UNNAMED {
            let left = objects.len() - MAX_UNNAMED;
            let what = format!("{left} index objects that no snapshot names are not looked at: too many");
            self.reporter.warn(self.path.class_prefix(self.domain, ObjectClass::Index), what);
        }
        let mut read = stream::iter(objects.into_iter().take(MAX_UNNAMED))
            .map(|(object, hash)| async move {
                let header = self.store.get_range(&object, 0..HEADER as u64).await;
                let claims = match header {
                    Ok(bytes) => {
                        IndexHeader::split(&bytes).is_some_and(|(header, _)| runs.contains(&header.run))
                    }
                    Err(error) if error.kind.is_absence() => false,
                    Err(error) => return Err(error),
                };
                if !claims {
                    return Ok(None);
                }
                let signed = match fetched::get(self.store, &object, hash, MAX_SEALED).await? {
                    Fetched::Valid(bytes) => IndexHeader::split(&bytes)
                        .is_some_and(|(header, sealed)| header.verifies(&self.path, self.domain, sealed)),
                    Fetched::Missing | Fetched::Corrupt => false,
                };
                Ok(signed.then_some((object, hash)))
            })
            .buffered(PARALLEL);
        let mut signed = Vec::new();
        while let Some(object) = read.next().await {
            signed.extend(object?);
        }
        Ok(signed)
    }

    /// Reads one index object. Warns and returns none if it is damaged.
    async fn index(
        &self,
        key: &DomainKey,
        object: &ObjectKey,
        hash: ObjectHash,
    ) -> Result<Option<Index>, StoreError> {
        let index = match fetched::get(self.store, object, hash, MAX_SEALED).await? {
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

    /// Lists the packs of the domain with their ETags, in order of their hash.
    #[must_use]
    pub fn packs(&self) -> stream::BoxStream<'static, Result<(PackName, EtagPrint), StoreError>> {
        let prefix = self.path.class_prefix(self.domain, ObjectClass::Pack);
        list_all(self.store.clone(), prefix, self.reporter.clone())
            .try_filter_map(|entry| async move {
                let hash: Option<ObjectHash> = entry.key.name().parse().ok();
                let etag = entry.etag.as_deref().map(EtagPrint::of).unwrap_or_default();
                Ok(hash.map(|hash| (PackName { hash, size: entry.size }, etag)))
            })
            .boxed()
    }

    /// Returns the packs that the store does not list with their size, and the ETags of the others in order of
    /// their packs. Merges two sorted lists: the store's listing and `packs`.
    pub async fn compare(&self, packs: &PackRefs) -> Result<ListedPacks, StoreError> {
        let mut found = ListedPacks::default();
        let mut wanted = packs.packs().iter().peekable();
        let mut listed = self.packs();
        while wanted.peek().is_some() {
            let Some((pack, etag)) = listed.next().await.transpose()? else { break };
            while let Some(next) = wanted.next_if(|next| next.hash < pack.hash) {
                found.missing.push(*next);
            }
            let Some(next) = wanted.next_if(|next| next.hash == pack.hash) else { continue };
            match next.size == pack.size {
                true => found.etags.push((pack.hash, etag)),
                false => found.missing.push(*next),
            }
        }
        found.missing.extend(wanted.copied());
        Ok(found)
    }
}
