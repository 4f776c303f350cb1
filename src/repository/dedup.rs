//! What a domain already has in the store: its index objects, checked against its packs.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};

use crate::format::derive::DomainKey;
use crate::format::ids::{NameId, ObjectHash};
use crate::format::index::{Index, MAX_INDEX};
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

/// What [`load`] found.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The chunks that can be used.
    pub known: Known,
    /// The index objects that were read.
    pub objects: Vec<ObjectHash>,
    /// Packs that an index names and the store does not have as named. Their chunks are stored
    /// anew when they come by.
    pub lost: Vec<PackName>,
}

/// Loads a domain's index and checks each of its packs against the store's listing.
///
/// Index objects are taken wherever they come from: they are sealed under the domain's own key, so
/// only its writer can have made them, and orphans of a crashed run are what the next one reuses.
/// Those that the newest snapshot names (`newest`) are read first: what they replace is not read.
/// One that does not open is damage: it is named and left out, which costs uploads, not safety.
pub async fn load(
    store: &Arc<dyn Store>,
    path: &EpochPath,
    domain: NameId,
    key: &Arc<DomainKey>,
    distrusted: &BTreeSet<ObjectHash>,
    newest: &[ObjectHash],
    reporter: &Reporter,
) -> Result<Loaded, StoreError> {
    let mut loaded = Loaded::default();
    let prefix = path.class_prefix(domain, Class::Index);
    let entries: Vec<Entry> =
        list_all(store.clone(), prefix, reporter.clone()).take(MAX_INDEXES).try_collect().await?;
    let (first, rest): (Vec<ObjectKey>, Vec<ObjectKey>) = entries
        .into_iter()
        .map(|entry| entry.key)
        .partition(|key| key.name().parse().is_ok_and(|hash| newest.contains(&hash)));
    let mut replaced = HashSet::new();
    for keys in [first, rest] {
        let keys =
            keys.into_iter().filter(|key| key.name().parse().is_ok_and(|hash| !replaced.contains(&hash)));
        let mut read = stream::iter(keys.collect::<Vec<_>>())
            .map(|object| async move { (store.get(&object, MAX_INDEX + (1 << 20)).await, object) })
            .buffered(PARALLEL);
        while let Some((sealed, object)) = read.next().await {
            let sealed = sealed?;
            let named = object.name().parse().ok().filter(|hash| ObjectHash::of(&sealed) == *hash);
            match (named, Index::open(&sealed, key)) {
                (Some(hash), Ok(index)) => {
                    replaced.extend(index.replaces.iter().copied());
                    loaded.known.load(&index);
                    loaded.objects.push(hash);
                }
                _ => reporter.event(Event::Warning {
                    object: object.to_string(),
                    message: "this index object is damaged; what it names is stored anew".into(),
                    remedy: Some("kbak verify --read-all shows what else is".into()),
                }),
            }
        }
    }
    loaded.objects.retain(|hash| !replaced.contains(hash));
    if loaded.known.is_empty() {
        return Ok(loaded);
    }
    let mut packs = packs(store, path, domain, reporter);
    while let Some(pack) = packs.next().await {
        let pack = pack?;
        if !distrusted.contains(&pack.hash) {
            loaded.known.confirm(&pack);
        }
    }
    loaded.lost = loaded.known.settle();
    Ok(loaded)
}

/// The packs of a domain as the store lists them, in order of their hash.
pub fn packs(
    store: &Arc<dyn Store>,
    path: &EpochPath,
    domain: NameId,
    reporter: &Reporter,
) -> stream::BoxStream<'static, Result<PackName, StoreError>> {
    let prefix = path.class_prefix(domain, Class::Pack);
    list_all(store.clone(), prefix, reporter.clone())
        .try_filter_map(|entry| async move {
            let hash: Option<ObjectHash> = entry.key.name().parse().ok();
            Ok(hash.map(|hash| PackName { hash, size: entry.size }))
        })
        .boxed()
}

/// Merges the store's listing of a domain with what a snapshot needs, both in order. Gives what is
/// missing or of another size.
pub async fn missing(
    store: &Arc<dyn Store>,
    path: &EpochPath,
    domain: NameId,
    needs: &Needs,
    reporter: &Reporter,
) -> Result<Vec<PackName>, StoreError> {
    let mut missing = Vec::new();
    let mut wanted = needs.packs().iter().peekable();
    let mut listed = packs(store, path, domain, reporter);
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
