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
use crate::pipeline::ReadError;
use crate::pipeline::chunk_index::{ChunkIndex, copies::CopyIndex};
use crate::report::event::{Event, Reporter};
use crate::repository::fetched::{self, Fetched};
use crate::store::listing::{list_all, list_named};
use crate::store::{ListedObject, Store, StoreError};

/// The number of index objects above which a run merges those of a domain at its end.
pub const MERGE_ABOVE: usize = 64;
/// The most index objects of a domain that no snapshot names, and that are listed.
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

/// The index objects of a writer's own past: it believes that a chunk is stored where they say.
#[derive(Debug, Clone, Copy)]
pub struct TrustedIndexes<'a> {
    /// Those that the writer's own snapshots name.
    pub named: &'a HashSet<ObjectHash>,
    /// The keys of runs whose other index objects count.
    pub runs: &'a [PublicKey],
}

/// The index objects of a domain that its key made: those that snapshots name, and the others.
#[derive(Default)]
struct ListedIndexes {
    named: Vec<(ObjectKey, ObjectHash)>,
    others: Vec<(ObjectKey, ObjectHash)>,
}

/// True if the store lists the pack with its size.
fn is_listed(listed: &[PackName], pack: &IndexedPack) -> bool {
    listed.binary_search(&PackName { hash: pack.hash, size: pack.size }).is_ok()
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
        let ListedIndexes { named, others } = self.indexes(key, trusted.named).await?;
        let known = ChunkIndex::new(share, self.reporter.clone());
        let mut loaded = Loaded { known, objects: Vec::new(), lost: Vec::new() };
        if named.is_empty() && others.is_empty() {
            return Ok(loaded);
        }
        // Listed after the index objects, because a pack is stored before the index that names it.
        let listed = self.good_packs(distrusted, known_etags).await?;
        let usable = |pack: &IndexedPack| is_listed(&listed, pack);
        let others = self.of_runs(others, trusted.runs).await?;
        let (mut replaced, mut lost) = (HashSet::new(), BTreeSet::new());
        for keys in [named, others] {
            let keys = keys.into_iter().filter(|(_, hash)| !replaced.contains(hash)).collect();
            let mut read = self.read(key, keys, "what it names is stored anew");
            while let Some((index, hash)) = read.try_next().await? {
                replaced.extend(index.replaces.iter().copied());
                lost.extend(loaded.known.load(&index, usable));
                loaded.objects.push(hash);
            }
        }
        loaded.objects.retain(|hash| !replaced.contains(hash));
        loaded.lost = lost.into_iter().collect();
        Ok(loaded)
    }

    /// Returns the places at which the domain's index objects say that chunks are, in packs that the store lists.
    /// Anyone with the domain's key can name wrong places, so those of index objects that signed snapshots name
    /// (`named`) come first. Other objects are read up to [`MAX_INDEXES`].
    pub async fn load_copies(
        &self,
        key: &DomainKey,
        named: &HashSet<ObjectHash>,
        share: u64,
    ) -> Result<CopyIndex, ReadError> {
        let ListedIndexes { named, others } = self.indexes(key, named).await?;
        let mut copies = CopyIndex::new(share, self.reporter.clone());
        if named.is_empty() && others.is_empty() {
            return Ok(copies);
        }
        let listed = self.good_packs(&BTreeSet::new(), &[]).await?;
        for keys in [named, others] {
            let mut read = self.read(key, keys, "the copies of chunks that it names are not found by it");
            while let Some((index, _)) = read.try_next().await? {
                copies.add_index(&index, |pack| is_listed(&listed, pack))?;
            }
        }
        Ok(copies)
    }

    /// Lists the index objects that the domain's key made. What nobody made who has it costs no request.
    async fn indexes(
        &self,
        key: &DomainKey,
        named: &HashSet<ObjectHash>,
    ) -> Result<ListedIndexes, StoreError> {
        let prefix = self.path.class_prefix(self.domain, ObjectClass::Index);
        let mut found = ListedIndexes::default();
        let mut left = 0;
        let mut listing = list_all(self.store.clone(), prefix.as_str(), self.reporter.clone());
        while let Some(entry) = listing.try_next().await? {
            let Some((hash, _)) = layout::parse_index_name(entry.key.name()) else { continue };
            if self.path.index(self.domain, hash, key.index_tag(hash)) != entry.key {
                continue;
            }
            match named.contains(&hash) {
                true => found.named.push((entry.key, hash)),
                false if found.others.len() < MAX_INDEXES => found.others.push((entry.key, hash)),
                false => left += 1,
            }
        }
        if left > 0 {
            let what = format!("{left} index objects that no snapshot names are not looked at: too many");
            self.reporter.warn(prefix, what);
        }
        Ok(found)
    }

    /// Reads index objects in order. One that does not open is skipped, with a warning that says `effect`.
    fn read<'a>(
        &'a self,
        key: &'a DomainKey,
        objects: Vec<(ObjectKey, ObjectHash)>,
        effect: &'static str,
    ) -> stream::BoxStream<'a, Result<(Index, ObjectHash), StoreError>> {
        stream::iter(objects)
            .map(move |(object, hash)| async move {
                let index = self.index(key, &object, hash, effect).await?;
                Ok(index.map(|index| (index, hash)))
            })
            .buffered(PARALLEL)
            .try_filter_map(|index| std::future::ready(Ok(index)))
            .boxed()
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
        effect: &str,
    ) -> Result<Option<Index>, StoreError> {
        let index = match fetched::get(self.store, object, hash, MAX_SEALED).await? {
            Fetched::Valid(sealed) => Index::open(&sealed, key).ok(),
            Fetched::Missing | Fetched::Corrupt => None,
        };
        if index.is_none() {
            self.reporter.event(Event::Warning {
                object: object.to_string(),
                message: format!("this index object is damaged; {effect}"),
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
            .try_filter_map(|entry| std::future::ready(Ok(pack_of(&entry))))
            .boxed()
    }

    /// Returns the packs that the store does not list with their size, and the ETags of the others in order of
    /// their packs.
    pub async fn compare(&self, packs: &PackRefs) -> Result<ListedPacks, StoreError> {
        let mut found = ListedPacks::default();
        let mut wanted = packs.packs().iter().peekable();
        let (path, domain) = (self.path, self.domain);
        let keys = packs.packs().iter().map(move |pack| path.in_domain(domain, ObjectClass::Pack, pack.hash));
        let mut listed = list_named(self.store, path.class_prefix(domain, ObjectClass::Pack), keys);
        while let Some(entry) = listed.try_next().await? {
            let Some((pack, etag)) = pack_of(&entry) else { continue };
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

/// Returns the pack of an entry in a folder of packs, and its ETag.
fn pack_of(entry: &ListedObject) -> Option<(PackName, EtagPrint)> {
    let hash = entry.key.name().parse().ok()?;
    let etag = entry.etag.as_deref().map(EtagPrint::of).unwrap_or_default();
    Some((PackName { hash, size: entry.size }, etag))
}
