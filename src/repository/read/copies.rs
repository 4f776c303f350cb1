//! The search for copies of damaged chunks in one epoch. Snapshots that are open at once share it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::TryStreamExt as _;

use crate::format::derive::DomainKey;
use crate::format::ids::{EpochId, NameId, ObjectHash};
use crate::format::layout::{EpochPath, ObjectClass};
use crate::format::manifest::PublicItem;
use crate::format::pack_refs::{MAX_PACK_REFS, PackName, PackRefs};
use crate::pipeline::ReadError;
use crate::pipeline::chunk_index::copies::CopyIndex;
use crate::pipeline::fallback::{CopyFinder, CopySource};
use crate::report::event::Reporter;
use crate::repository::chain::Snapshot;
use crate::repository::fetched::{self, Fetched};
use crate::repository::index_loader::DomainIndexLoader;
use crate::runtime::lock;
use crate::store::{Store, StoreError};

/// The most packs of a domain whose own tables are read when no index helps: a terabyte in packs of 64 MiB.
pub const MAX_TABLES: usize = 16_384;

/// The objects of an epoch that signed snapshots name, and the searches that have begun.
#[derive(Default)]
pub struct EpochCopies {
    /// The index objects of each domain.
    indexes: HashMap<NameId, HashSet<ObjectHash>>,
    /// The lists of packs of each domain, those of the newest snapshots first.
    lists: HashMap<NameId, Vec<ObjectHash>>,
    finders: Mutex<HashMap<NameId, Arc<CopyFinder>>>,
}

impl EpochCopies {
    /// Collects the objects that the snapshots of an epoch name. `snapshots` begin with the oldest.
    #[must_use]
    pub fn new<'a>(snapshots: impl DoubleEndedIterator<Item = &'a Snapshot>, epoch: EpochId) -> Arc<Self> {
        let mut named = Self::default();
        let mut seen = HashSet::new();
        let envelopes = snapshots.rev().map(Snapshot::envelope).filter(|envelope| envelope.epoch == epoch);
        for envelope in envelopes {
            for one in &envelope.index {
                named.indexes.entry(one.domain).or_default().extend(&one.objects);
            }
            for needs in envelope.items.iter().filter_map(PublicItem::needs) {
                if seen.insert((needs.domain, needs.list)) {
                    named.lists.entry(needs.domain).or_default().push(needs.list);
                }
            }
        }
        Arc::new(named)
    }

    /// Returns the search in one domain. It begins at the first chunk that is damaged.
    pub(super) fn finder(self: &Arc<Self>, place: DomainPlace) -> Arc<CopyFinder> {
        let mut finders = lock(&self.finders);
        let finder = finders.entry(place.domain).or_insert_with(|| {
            Arc::new(CopyFinder::new(Arc::new(DomainCopies { named: self.clone(), place })))
        });
        finder.clone()
    }
}

/// A domain that is searched.
#[derive(Clone)]
pub(super) struct DomainPlace {
    pub store: Arc<dyn Store>,
    pub path: EpochPath,
    pub domain: NameId,
    pub key: Arc<DomainKey>,
    pub reporter: Reporter,
    /// The memory that the places of copies may take, in bytes.
    pub share: u64,
}

struct DomainCopies {
    named: Arc<EpochCopies>,
    place: DomainPlace,
}

impl DomainCopies {
    fn loader(&self) -> DomainIndexLoader<'_> {
        let DomainPlace { store, path, domain, reporter, .. } = &self.place;
        DomainIndexLoader { store, path: *path, domain: *domain, reporter }
    }

    /// Returns packs that signed lists name: at least [`MAX_TABLES`], if there are as many.
    async fn listed(&self) -> Result<HashSet<PackName>, StoreError> {
        let DomainPlace { store, path, domain, .. } = &self.place;
        let mut packs = HashSet::new();
        for list in self.named.lists.get(domain).into_iter().flatten() {
            let key = path.in_domain(*domain, ObjectClass::PackRefs, *list);
            if let Fetched::Valid(bytes) = fetched::get(store, &key, *list, MAX_PACK_REFS).await? {
                packs.extend(PackRefs::parse(&bytes).iter().flat_map(PackRefs::packs).copied());
            }
            if packs.len() >= MAX_TABLES {
                break;
            }
        }
        Ok(packs)
    }
}

#[async_trait]
impl CopySource for DomainCopies {
    async fn indexed(&self) -> Result<CopyIndex, ReadError> {
        let none = HashSet::new();
        let named = self.named.indexes.get(&self.place.domain).unwrap_or(&none);
        self.loader().load_copies(&self.place.key, named, self.place.share).await
    }

    async fn packs(&self) -> Result<(Vec<PackName>, CopyIndex), StoreError> {
        let DomainPlace { path, domain, reporter, share, .. } = &self.place;
        let named = self.listed().await?;
        // Anyone may put packs that no signed list names: they come last.
        let (mut first, mut rest, mut left) = (Vec::new(), Vec::new(), 0);
        let mut listing = self.loader().packs();
        while let Some((pack, _)) = listing.try_next().await? {
            let packs = if named.contains(&pack) { &mut first } else { &mut rest };
            match packs.len() < MAX_TABLES {
                true => packs.push(pack),
                false => left += 1,
            }
        }
        first.append(&mut rest);
        left += first.len().saturating_sub(MAX_TABLES);
        first.truncate(MAX_TABLES);
        let place = path.class_prefix(*domain, ObjectClass::Pack);
        reporter.warn(
            place.as_str(),
            format!(
                "no index names a copy of a chunk in a bad pack: the tables of {} packs are read to find one",
                first.len()
            ),
        );
        if left > 0 {
            let what =
                format!("the tables of {left} more packs are not read: a copy in one of them is not found");
            reporter.warn(place, what);
        }
        Ok((first, CopyIndex::new(*share, reporter.clone())))
    }

    fn report_copy_used(&self, bad: &ObjectHash) {
        let DomainPlace { path, domain, reporter, .. } = &self.place;
        let object = path.in_domain(*domain, ObjectClass::Pack, *bad);
        reporter.warn(
            object.to_string(),
            "it is missing or damaged: copies of its chunks in other packs are used",
        );
    }
}
