//! The chain of a plan: its verified manifests, and the queries that follow from their links.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use futures::stream::{self, StreamExt};
use jiff::Timestamp;

use super::first_stored::{MAX_FIRST_TIMES, first_stored};
use super::records::Records;
use super::signed_listing::{SignedFolder, SignedObject, Unsigned};
use crate::format::ids::{EpochId, NameId, ObjectHash, WriterId};
use crate::format::layout::parse_snapshot_name;
use crate::format::layout::{EpochPath, ObjectKey};
use crate::format::manifest::{Envelope, MAX_PREVIOUS, Manifest, ManifestError};
use crate::format::sign::{MAX_DOCUMENT, Namespace, PublicKey};
use crate::format::signers::Signers;
use crate::keys::epoch_file::LastCommit;
use crate::report::event::Reporter;
use crate::store::{ListedObject, Store, StoreError, StoreErrorKind};

/// The most manifests of one plan that are read: hourly ones for a century.
pub const MAX_SNAPSHOTS: usize = 1_000_000;

const PARALLEL: usize = 8;

/// A verified manifest and its place in the store.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The verified manifest.
    pub manifest: Manifest,
    /// The object's key.
    pub key: ObjectKey,
    /// The time at which the store received it.
    pub stored: Timestamp,
}

impl Snapshot {
    /// Returns the public envelope of the manifest.
    #[must_use]
    pub fn envelope(&self) -> &Envelope {
        self.manifest.envelope()
    }
}

/// The way to address one of two snapshots that may have the same number.
pub const SAME_NUMBER: &str = "name one by the first six digits of its hash or more; let runs of one plan not overlap; kbak verify says \
     whether snapshots are missing";

/// A snapshot's number with the first digits of its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotName(pub u64, pub ObjectHash);

impl std::fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hash = self.1.to_string();
        write!(f, "snapshot {:06} (sha256:{})", self.0, hash.get(..12).unwrap_or(&hash))
    }
}

/// All manifests of one plan.
#[derive(Debug, Default)]
pub struct Chain {
    snapshots: BTreeMap<(u64, ObjectHash), Snapshot>,
    numbers: HashMap<ObjectHash, u64>,
    /// Snapshots that the writer committed last and the store no longer has.
    lost_heads: Vec<LastCommit>,
    /// Snapshots that were stored after the end of their epoch and that no other snapshot names: they count only
    /// for who names them.
    pub late: Vec<Snapshot>,
    /// Objects with a signed key in the place of manifests that are not valid, and the reasons.
    pub rejected: Vec<(ObjectKey, ManifestError)>,
    /// The other objects in the place of manifests.
    pub unsigned: Unsigned,
}

/// An inconsistency of a chain that a restore or verify must report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// A parent that is neither present nor pruned by a signed record.
    #[error("snapshot {seq} names a parent {parent} that is not there")]
    ParentMissing {
        /// The child.
        seq: u64,
        /// The missing manifest.
        parent: ObjectHash,
    },
    /// A sequence that does not follow from its parents.
    #[error("snapshot {seq} does not follow its parents, whose greatest sequence is {parent}")]
    Sequence {
        /// The snapshot's own sequence.
        seq: u64,
        /// The greatest sequence among its parents.
        parent: u64,
    },
    /// A snapshot that ended before a parent of it.
    #[error("snapshot {seq} says that it ended before its parent {parent} did")]
    BackInTime {
        /// The child.
        seq: u64,
        /// The parent.
        parent: u64,
    },
}

/// Lists, reads and verifies the manifests of `epochs`.
pub async fn read(
    store: &Arc<dyn Store>,
    writer: WriterId,
    plan: NameId,
    epochs: impl IntoIterator<Item = EpochId>,
    signers: &Signers,
    reporter: &Reporter,
) -> Result<Chain, StoreError> {
    let mut chain = Chain::default();
    for epoch in epochs {
        let path = EpochPath { writer, plan, epoch };
        let prefix = path.snapshots_prefix();
        let folder = SignedFolder { store, prefix: &prefix, writer, signers, reporter };
        let of = |name: &str| parse_snapshot_name(name).map(|_| Namespace::Manifest);
        let (entries, unsigned) = folder.list(of, MAX_SNAPSHOTS - chain.snapshots.len()).await?;
        chain.unsigned.append(unsigned);
        let mut read = stream::iter(entries)
            .map(|SignedObject { entry, .. }| async move { (get(store, &entry).await, entry) })
            .buffered(PARALLEL);
        while let Some((bytes, entry)) = read.next().await {
            match bytes?.and_then(|bytes| Manifest::open(bytes, &path, entry.key.name(), signers)) {
                Ok(manifest) => chain.add(Snapshot { manifest, key: entry.key, stored: entry.modified }),
                Err(error) => chain.rejected.push((entry.key, error)),
            }
        }
    }
    Ok(chain)
}

/// Reads a manifest document, or returns the reason why it is none: too long, missing or not a file.
async fn get(
    store: &Arc<dyn Store>,
    entry: &ListedObject,
) -> Result<Result<bytes::Bytes, ManifestError>, StoreError> {
    if entry.size > MAX_DOCUMENT {
        return Ok(Err(ManifestError::Name));
    }
    match store.get(&entry.key, MAX_DOCUMENT).await {
        Ok(bytes) => Ok(Ok(bytes)),
        Err(error) => match error.kind {
            StoreErrorKind::TooLarge { .. } | StoreErrorKind::NotFound => Ok(Err(ManifestError::Name)),
            StoreErrorKind::NotAFile => Ok(Err(ManifestError::NotAFile)),
            _ => Err(error),
        },
    }
}

impl Chain {
    fn add(&mut self, snapshot: Snapshot) {
        let (seq, hash) = (snapshot.envelope().seq, snapshot.manifest.hash());
        self.numbers.insert(hash, seq);
        self.snapshots.insert((seq, hash), snapshot);
    }

    /// Rejects manifests by signing keys that owners have cut off. Of those, only the manifests
    /// that every statement names as good, and their ancestors, stay valid.
    pub fn cut_off(&mut self, records: &Records) {
        // For each key, the manifests that all statements call good. Most keys have no statement.
        let mut good: HashMap<PublicKey, Option<HashSet<ObjectHash>>> = HashMap::new();
        for snapshot in self.iter() {
            good.entry(snapshot.manifest.key()).or_insert_with_key(|key| {
                let good_manifests = records.cut_offs(*key).map(|trust| self.ancestors(&trust.last_good));
                good_manifests.reduce(|all, next| all.intersection(&next).copied().collect())
            });
        }
        let stolen = |snapshot: &&Snapshot| {
            let good = good.get(&snapshot.manifest.key()).and_then(Option::as_ref);
            good.is_some_and(|good| !good.contains(&snapshot.manifest.hash()))
        };
        let stolen: Vec<Snapshot> = self.iter().filter(stolen).cloned().collect();
        for snapshot in stolen {
            let hash = snapshot.manifest.hash();
            self.numbers.remove(&hash);
            self.snapshots.remove(&(snapshot.envelope().seq, hash));
            self.rejected.push((snapshot.key, ManifestError::Revoked));
        }
    }

    /// Sets aside snapshots that were stored after `deadline` of their epoch, unless a snapshot that counts names
    /// them as parent or the writer itself committed them.
    pub async fn set_aside_late(
        &mut self,
        store: &Arc<dyn Store>,
        deadline: impl Fn(EpochId) -> Option<Timestamp>,
        own: &[LastCommit],
    ) -> Result<(), StoreError> {
        for place in self.late(&deadline, own).into_iter().take(MAX_FIRST_TIMES) {
            if let Some(snapshot) = self.snapshots.get_mut(&place) {
                snapshot.stored = first_stored(store, &snapshot.key, snapshot.stored).await?;
            }
        }
        for place in self.late(&deadline, own) {
            self.numbers.remove(&place.1);
            self.late.extend(self.snapshots.remove(&place));
        }
        Ok(())
    }

    /// Returns the snapshots that [`Self::set_aside_late`] sets aside by the times that are known, newest first.
    fn late(
        &self,
        deadline: impl Fn(EpochId) -> Option<Timestamp>,
        own: &[LastCommit],
    ) -> Vec<(u64, ObjectHash)> {
        let mut named: HashSet<ObjectHash> = own.iter().map(|head| head.hash).collect();
        let mut late = Vec::new();
        // A snapshot's sequence is above those of its parents.
        for (place, snapshot) in self.snapshots.iter().rev() {
            let is_late = deadline(snapshot.envelope().epoch).is_some_and(|until| snapshot.stored > until);
            if is_late && !named.contains(&snapshot.manifest.hash()) {
                late.push(*place);
            } else {
                named.extend(&snapshot.envelope().previous);
            }
        }
        late
    }

    /// Returns these manifests and all their ancestors.
    #[must_use]
    pub fn ancestors(&self, of: &[ObjectHash]) -> HashSet<ObjectHash> {
        let mut found = HashSet::new();
        let mut open = of.to_vec();
        while let Some(hash) = open.pop() {
            if let Some(snapshot) = self.get(hash).filter(|_| found.insert(hash)) {
                open.extend(&snapshot.envelope().previous);
            }
        }
        found
    }

    /// Returns all snapshots, oldest first by (sequence, hash).
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Snapshot> {
        self.snapshots.values()
    }

    /// Returns the number of snapshots.
    #[must_use]
    pub fn len(&self) -> usize {
        self.snapshots.len()
    }

    /// True if there are no snapshots.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.snapshots.is_empty()
    }

    /// Returns the snapshot with this hash.
    #[must_use]
    pub fn get(&self, hash: ObjectHash) -> Option<&Snapshot> {
        self.snapshots.get(&(*self.numbers.get(&hash)?, hash))
    }

    /// Returns the manifests that no other names as previous: the next run merges them.
    #[must_use]
    pub fn heads(&self) -> Vec<&Snapshot> {
        let named: HashSet<ObjectHash> =
            self.iter().flat_map(|snapshot| snapshot.envelope().previous.iter().copied()).collect();
        self.iter().filter(|snapshot| !named.contains(&snapshot.manifest.hash())).collect()
    }

    /// Takes a snapshot that the writer committed last. Returns false if it is missing from the chain.
    pub fn expect(&mut self, head: LastCommit) -> bool {
        let is_there = self.get(head.hash).is_some();
        if !is_there {
            self.lost_heads.push(head);
        }
        is_there
    }

    /// Returns the parents of the next manifest: the heads and the lost heads, so that their removal
    /// stays visible. Of more than [`MAX_PREVIOUS`] the newest; later manifests name the others.
    #[must_use]
    pub fn parents(&self) -> Vec<ObjectHash> {
        let heads = self.heads().into_iter().map(|head| (head.envelope().seq, head.manifest.hash()));
        let mut parents: Vec<_> =
            heads.chain(self.lost_heads.iter().map(|head| (head.seq, head.hash))).collect();
        parents.sort_unstable_by(|one, other| other.cmp(one));
        parents.into_iter().take(MAX_PREVIOUS).map(|(_, hash)| hash).collect()
    }

    /// Returns the sequence of the next manifest: one above the greatest of its parents.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        let heads = self.heads().into_iter().map(|head| head.envelope().seq);
        1 + heads.chain(self.lost_heads.iter().map(|head| head.seq)).max().unwrap_or(0)
    }

    /// Returns the newest snapshot: by greatest sequence, then latest end, then hash.
    #[must_use]
    pub fn latest(&self) -> Option<&Snapshot> {
        self.iter().max_by_key(|s| (s.envelope().seq, s.envelope().finished, s.manifest.hash()))
    }

    /// Returns the inconsistencies of the chain. `pruned` are the manifests that were removed
    /// according to signed records.
    #[must_use]
    pub fn breaks(&self, pruned: &HashSet<ObjectHash>) -> Vec<ChainFault> {
        let mut breaks = Vec::new();
        for snapshot in self.iter() {
            let envelope = snapshot.envelope();
            let seq = envelope.seq;
            let mut greatest = Some(0);
            for parent in &envelope.previous {
                match self.get(*parent) {
                    Some(found) => {
                        let found = found.envelope();
                        greatest = greatest.map(|g| g.max(found.seq));
                        if found.finished > envelope.finished {
                            breaks.push(ChainFault::BackInTime { seq, parent: found.seq });
                        }
                    }
                    None => {
                        greatest = None;
                        if !pruned.contains(parent) {
                            breaks.push(ChainFault::ParentMissing { seq, parent: *parent });
                        }
                    }
                }
            }
            if let Some(parent) = greatest.filter(|greatest| greatest + 1 != seq) {
                breaks.push(ChainFault::Sequence { seq, parent });
            }
        }
        breaks
    }

    /// Returns the snapshots that `name` may mean: `latest`, a sequence, or the first digits of a
    /// hash (at least 6).
    #[must_use]
    pub fn select(&self, name: &str) -> Vec<&Snapshot> {
        if name == "latest" {
            return self.latest().into_iter().collect();
        }
        // Whoever names a late snapshot gets it.
        let all = || self.iter().chain(&self.late);
        if let Ok(seq) = name.parse::<u64>() {
            let found: Vec<&Snapshot> = all().filter(|snapshot| snapshot.envelope().seq == seq).collect();
            if !found.is_empty() {
                return found;
            }
        }
        let name = name.strip_prefix("sha256:").unwrap_or(name);
        let by_hash =
            |snapshot: &&Snapshot| name.len() >= 6 && snapshot.manifest.hash().to_string().starts_with(name);
        all().filter(by_hash).collect()
    }
}
