//! The chunks that were decrypted and matched their ids, and what is opened to prove them.

use crate::format::ids::{ChunkId, EpochId, NameId, ObjectHash};
use crate::format::{derive::ChunkKind, epoch::VerifiedEpoch, index::IndexEntry, layout::ObjectKey};
use crate::format::{list::ChunkLocation, pack::TableEntry, wrap::EpochKeys};
use crate::repository::read::copies::EpochCopies;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

pub(super) type Epochs = BTreeMap<EpochId, (VerifiedEpoch, EpochKeys)>;

/// Every chunk that was opened and proven: its place and half of its id, to the other half and its
/// kind. About 40 bytes a chunk.
#[derive(Default)]
pub(super) struct Proven {
    places: HashMap<[u8; 16], ([u8; 16], u8)>,
    /// First halves of the ids, at any place: 16 bytes a chunk.
    ids: HashSet<[u8; 16]>,
}

impl Proven {
    fn place(pack: &ObjectHash, place: (u32, u32, u32), half: &[u8]) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&pack.0).update(half);
        for number in [place.0, place.1, place.2] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.finalize().as_bytes()[..16].try_into().unwrap_or_default()
    }

    /// True if an index entry is correct.
    pub(super) fn has_entry(&self, pack: &ObjectHash, entry: &IndexEntry) -> bool {
        let place = (entry.offset, entry.length, entry.plain);
        self.places.contains_key(&Self::place(pack, place, &entry.id))
    }

    pub(super) fn add(&mut self, pack: &ObjectHash, entry: &TableEntry) {
        let (first, second) = halves(&entry.id);
        let place = Self::place(pack, (entry.offset, entry.length, entry.plain), &first);
        self.ids.insert(first);
        self.places.insert(place, (second, entry.kind.code()));
    }

    /// Adds a chunk that was read from a copy outside of the packs that snapshots need.
    pub(super) fn add_copy(&mut self, id: &ChunkId) {
        self.ids.insert(halves(id).0);
    }

    /// True if a chunk was proven at any place.
    pub(super) fn has_id(&self, id: &ChunkId) -> bool {
        self.ids.contains(&halves(id).0)
    }

    pub(super) fn has(&self, place: &ChunkLocation, id: &ChunkId, kind: ChunkKind) -> bool {
        let (first, second) = halves(id);
        let key = Self::place(&place.pack.hash, (place.offset, place.length, place.plain), &first);
        self.places.get(&key) == Some(&(second, kind.code()))
    }
}

fn halves(id: &ChunkId) -> ([u8; 16], [u8; 16]) {
    let (first, second) = id.0.split_at(16);
    (first.try_into().unwrap_or_default(), second.try_into().unwrap_or_default())
}

pub(super) struct Opening {
    pub(super) epochs: Epochs,
    /// Names of the domains that were opened.
    pub(super) names: BTreeMap<(EpochId, NameId), String>,
    pub(super) proven: Proven,
    /// The searches for copies of damaged chunks, by epoch.
    pub(super) copies: BTreeMap<EpochId, Arc<EpochCopies>>,
    /// Streams that were read in an earlier snapshot, and the bad packs that they miss.
    pub(super) read: HashMap<[u8; 32], Vec<ObjectKey>>,
    /// Bad packs whose needed chunks all have copies elsewhere.
    pub(super) healed: BTreeSet<ObjectKey>,
}
