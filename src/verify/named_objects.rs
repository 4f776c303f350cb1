//! The objects that the manifests of a plan name.

use super::finding::ObjectKind;
use crate::format::ids::{EpochId, NameId, ObjectHash};
use crate::format::layout::{EpochObject, EpochPath, ObjectClass, ObjectKey};
use crate::format::manifest::{DomainObjects, PublicItem};
use crate::format::pack_refs::{EtagPrint, PackName};
use crate::repository::chain::Snapshot;
use std::collections::{BTreeMap, BTreeSet};

/// A snapshot, by its position in the chain that is checked.
pub(super) type SnapshotIndex = usize;

/// The objects that the manifests of a plan name in one epoch.
#[derive(Debug, Default)]
pub(super) struct NamedObjects {
    /// All objects except packs and needs; index objects by their key without its tag.
    pub(super) objects: BTreeMap<ObjectKey, Object>,
    pub(super) domains: BTreeMap<NameId, Domain>,
}

#[derive(Debug)]
pub(super) struct Object {
    pub(super) role: ObjectKind,
    pub(super) place: EpochObject,
    pub(super) size: Option<u64>,
    pub(super) users: Vec<SnapshotIndex>,
    pub(super) seen: bool,
}

/// A domain of the epoch, with its packs.
#[derive(Debug, Default)]
pub(super) struct Domain {
    /// Its needs objects, and the snapshots that name them.
    pub(super) needs: BTreeMap<ObjectHash, Vec<SnapshotIndex>>,
    /// All packs that its needs objects list, sorted by hash. 56 bytes each.
    pub(super) packs: Vec<(PackName, EtagPrint)>,
    /// True if one of the needs objects cannot be read: nobody knows then which packs snapshots need.
    pub(super) is_incomplete: bool,
    /// Bad packs: missing, of another size, altered or unreadable.
    pub(super) bad: BTreeSet<ObjectHash>,
}

impl Domain {
    /// True if a snapshot needs `pack`.
    pub(super) fn wants(&self, pack: &ObjectHash) -> bool {
        self.packs.binary_search_by_key(pack, |(pack, _)| pack.hash).is_ok()
    }

    /// Returns the packs that snapshots need and in which no fault was found, each once.
    pub(super) fn good_packs(&self) -> Vec<PackName> {
        let packs = self.packs.iter().map(|(pack, _)| *pack);
        let mut good: Vec<PackName> = packs.filter(|pack| !self.bad.contains(&pack.hash)).collect();
        good.dedup();
        good
    }

    /// True if a snapshot needs `pack`, and no fault was found in it.
    pub(super) fn has_good(&self, pack: &ObjectHash) -> bool {
        self.wants(pack) && !self.bad.contains(pack)
    }
}

/// Returns the key by which manifests name a listed object: that of an index object without its tag.
pub(super) fn named_as(path: &EpochPath, key: &ObjectKey, placed: EpochObject) -> ObjectKey {
    match placed {
        EpochObject::InDomain(domain, ObjectClass::Index, hash) => {
            path.in_domain(domain, ObjectClass::Index, hash)
        }
        _ => key.clone(),
    }
}

/// Returns the objects that all manifests of a chain name, by epoch.
pub(super) fn named_objects(chain: &[Snapshot]) -> BTreeMap<EpochId, NamedObjects> {
    let mut epochs: BTreeMap<EpochId, NamedObjects> = BTreeMap::new();
    for (user, snapshot) in chain.iter().enumerate() {
        let envelope = snapshot.envelope();
        let path = envelope.path();
        let own = epochs.entry(envelope.epoch).or_default();
        let body = EpochObject::Body(envelope.body);
        own.name(path.body(envelope.body), body, ObjectKind::Body, Some(envelope.body_size), user);
        let hints: [(&[DomainObjects], ObjectClass); 3] = [
            (&envelope.index, ObjectClass::Index),
            (&envelope.cache, ObjectClass::Cache),
            (&envelope.state, ObjectClass::State),
        ];
        for (named, class) in hints {
            for one in named {
                for hash in &one.objects {
                    let key = path.in_domain(one.domain, class, *hash);
                    let place = EpochObject::InDomain(one.domain, class, *hash);
                    own.name(key, place, ObjectKind::Hint, None, user);
                }
            }
        }
        for needs in envelope.items.iter().filter_map(PublicItem::needs) {
            let domain = own.domains.entry(needs.domain).or_default();
            let users = domain.needs.entry(needs.list).or_default();
            if users.last() != Some(&user) {
                users.push(user);
            }
        }
    }
    epochs
}

impl NamedObjects {
    /// Returns the objects that only speed up the next backup, and their places.
    pub(super) fn hints(&self) -> impl Iterator<Item = (&ObjectKey, EpochObject)> {
        let hints = self.objects.iter().filter(|(_, object)| object.role == ObjectKind::Hint);
        hints.map(|(key, object)| (key, object.place))
    }

    pub(super) fn users(&self, key: &ObjectKey) -> &[SnapshotIndex] {
        self.objects.get(key).map_or(&[], |object| &object.users)
    }

    fn name(
        &mut self,
        key: ObjectKey,
        place: EpochObject,
        role: ObjectKind,
        size: Option<u64>,
        user: SnapshotIndex,
    ) {
        let object =
            self.objects.entry(key).or_insert(Object { role, place, size, users: Vec::new(), seen: false });
        object.users.push(user);
    }
}
