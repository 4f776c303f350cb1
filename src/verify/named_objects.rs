//! The objects that the manifests of a plan name.

use super::finding::ObjectKind;
use crate::format::ids::{EpochId, NameId, ObjectHash};
use crate::format::layout::{EpochPath, ObjectClass, ObjectKey};
use crate::format::{manifest::DomainObjects, pack_refs::PackName};
use crate::repository::chain::Snapshot;
use std::collections::{BTreeMap, BTreeSet};

/// A snapshot, by its position in the chain that is checked.
pub(super) type SnapshotIndex = usize;

/// The objects that the manifests of a plan name in one epoch.
#[derive(Debug, Default)]
pub(super) struct NamedObjects {
    /// All objects except packs and needs.
    pub(super) objects: BTreeMap<ObjectKey, Object>,
    pub(super) domains: BTreeMap<NameId, Domain>,
}

#[derive(Debug)]
pub(super) struct Object {
    pub(super) role: ObjectKind,
    pub(super) size: Option<u64>,
    pub(super) users: Vec<SnapshotIndex>,
    pub(super) seen: bool,
}

/// A domain of the epoch, with its packs.
#[derive(Debug, Default)]
pub(super) struct Domain {
    /// Its needs objects, and the snapshots that name them.
    pub(super) needs: BTreeMap<ObjectHash, Vec<SnapshotIndex>>,
    /// All packs that its needs objects list, sorted by hash. 40 bytes each.
    pub(super) packs: Vec<PackName>,
    /// Bad packs: missing, of another size, altered or unreadable.
    pub(super) bad: BTreeSet<ObjectHash>,
}

impl Domain {
    /// True if a snapshot needs `pack`.
    pub(super) fn wants(&self, pack: &ObjectHash) -> bool {
        self.packs.binary_search_by_key(pack, |pack| pack.hash).is_ok()
    }

    /// True if a snapshot needs `pack`, and no fault was found in it.
    pub(super) fn has_good(&self, pack: &ObjectHash) -> bool {
        self.wants(pack) && !self.bad.contains(pack)
    }
}

/// Returns the objects that all manifests of a chain name, by epoch.
pub(super) fn named_objects(chain: &[Snapshot]) -> BTreeMap<EpochId, NamedObjects> {
    let mut epochs: BTreeMap<EpochId, NamedObjects> = BTreeMap::new();
    for (user, snapshot) in chain.iter().enumerate() {
        let envelope = snapshot.envelope();
        let path = |epoch| EpochPath { epoch, ..envelope.path() };
        let own = epochs.entry(envelope.epoch).or_default();
        own.name(envelope.path().body(envelope.body), ObjectKind::Body, Some(envelope.body_size), user);
        let hints: [(&[DomainObjects], ObjectClass); 3] = [
            (&envelope.index, ObjectClass::Index),
            (&envelope.cache, ObjectClass::Cache),
            (&envelope.state, ObjectClass::State),
        ];
        for (named, class) in hints {
            for one in named {
                let wanted = epochs.entry(one.epoch).or_default();
                for hash in &one.objects {
                    wanted.name(
                        path(one.epoch).in_domain(one.domain, class, *hash),
                        ObjectKind::Hint,
                        None,
                        user,
                    );
                }
            }
        }
        for one in &envelope.needs {
            let domain = epochs.entry(one.epoch).or_default().domains.entry(one.domain).or_default();
            for hash in &one.objects {
                domain.needs.entry(*hash).or_default().push(user);
            }
        }
    }
    epochs
}

impl NamedObjects {
    /// Returns the objects that only speed up the next backup.
    pub(super) fn hints(&self) -> impl Iterator<Item = &ObjectKey> {
        self.objects.iter().filter(|(_, object)| object.role == ObjectKind::Hint).map(|(key, _)| key)
    }

    pub(super) fn users(&self, key: &ObjectKey) -> &[SnapshotIndex] {
        self.objects.get(key).map_or(&[], |object| &object.users)
    }

    fn name(&mut self, key: ObjectKey, role: ObjectKind, size: Option<u64>, user: SnapshotIndex) {
        let object = self.objects.entry(key).or_insert(Object { role, size, users: Vec::new(), seen: false });
        object.users.push(user);
    }
}
