//! The chunks that a domain already has: the index in memory.
//!
//! Loaded entries lie in one sorted array, 32 bytes a chunk; those of this run in a map beside it.
//! Packs are checked against the store's listing: an entry whose pack is absent, of another size,
//! or distrusted is as if it were not there, and its chunk is uploaded anew.

use std::collections::{HashMap, HashSet};

use crate::format::ids::{ChunkId, ObjectHash};
use crate::format::index::{Index, IndexEntry, IndexedPack, MAX_ENTRIES, ShortId};
use crate::format::list::Place;
use crate::format::needs::PackName;
use crate::format::pack::PackClass;

use super::packer::{ChunkRef, PackRef};

/// What a domain has.
#[derive(Debug, Default)]
pub struct Known {
    packs: Vec<IndexedPack>,
    usable: Vec<bool>,
    numbers: HashMap<ObjectHash, u32>,
    entries: Vec<IndexEntry>,
    fresh: HashMap<ShortId, ChunkRef>,
}

/// The half of an id that the index holds.
#[must_use]
pub fn short(id: &ChunkId) -> ShortId {
    let mut half = [0; 16];
    half.copy_from_slice(&id.0[..16]);
    half
}

impl Known {
    /// Adds the content of an index object. Call [`Known::settle`] after the last.
    pub fn load(&mut self, index: &Index) {
        let numbers: Vec<u32> = index.packs.iter().map(|pack| self.number(pack)).collect();
        self.entries.extend(
            index.entries.iter().map(|entry| IndexEntry { pack: numbers[entry.pack as usize], ..*entry }),
        );
    }

    fn number(&mut self, pack: &IndexedPack) -> u32 {
        *self.numbers.entry(pack.hash).or_insert_with(|| {
            self.packs.push(*pack);
            self.usable.push(false);
            u32::try_from(self.packs.len() - 1).unwrap_or(u32::MAX)
        })
    }

    /// The store lists this pack with this size, and nobody distrusts it.
    pub fn confirm(&mut self, listed: &PackName) {
        if let Some(&number) = self.numbers.get(&listed.hash) {
            let number = number as usize;
            self.usable[number] = self.packs[number].size == listed.size;
        }
    }

    /// Drops what cannot be used, sorts what can. Gives the packs that the index names and the
    /// store does not have as named: they were lost, and are said.
    pub fn settle(&mut self) -> Vec<PackName> {
        let usable = &self.usable;
        self.entries.retain(|entry| usable[entry.pack as usize]);
        self.entries.sort_unstable();
        self.entries.dedup_by_key(|entry| entry.id);
        self.entries.shrink_to_fit();
        let lost = self.packs.iter().zip(&self.usable).filter(|(_, usable)| !**usable);
        lost.map(|(pack, _)| PackName { hash: pack.hash, size: pack.size }).collect()
    }

    /// What was loaded, as index objects that replace those it was loaded from, to be stored in this
    /// order: only the last one says what they replace, so that a death between two of them leaves
    /// everything named. Call it after [`Known::settle`]: what cannot be used is left behind.
    #[must_use]
    pub fn merged(&self, replaces: &[ObjectHash]) -> Vec<Index> {
        let merge = |entries: &[IndexEntry]| {
            let mut index = Index::default();
            let mut numbers: HashMap<u32, u32> = HashMap::new();
            for entry in entries {
                let number = *numbers.entry(entry.pack).or_insert_with(|| {
                    index.packs.push(self.packs[entry.pack as usize]);
                    u32::try_from(index.packs.len() - 1).unwrap_or(u32::MAX)
                });
                index.entries.push(IndexEntry { pack: number, ..*entry });
            }
            index.sort();
            index
        };
        let mut merged: Vec<Index> = self.entries.chunks(MAX_ENTRIES / 2).map(merge).collect();
        if let Some(last) = merged.last_mut() {
            last.replaces = replaces.to_vec();
            last.replaces.sort_unstable();
        }
        merged
    }

    /// Whether this pack is at hand, by the store's listing.
    #[must_use]
    pub fn has_pack(&self, pack: &PackName) -> bool {
        self.numbers.get(&pack.hash).is_some_and(|&number| {
            self.usable[number as usize] && self.packs[number as usize].size == pack.size
        })
    }

    /// Where a chunk lies, if it is known.
    #[must_use]
    pub fn find(&self, id: &ChunkId, plain: u32) -> Option<ChunkRef> {
        let key = short(id);
        if let Some(found) = self.fresh.get(&key) {
            return (found.id == *id && found.plain == plain).then(|| found.clone());
        }
        let at = self.entries.binary_search_by_key(&key, |entry| entry.id).ok()?;
        let entry = self.entries[at];
        let pack = self.packs[entry.pack as usize];
        // A length that differs is another chunk, or a poisoned entry: upload anew.
        (entry.plain == plain).then(|| ChunkRef {
            pack: PackRef::stored(PackName { hash: pack.hash, size: pack.size }),
            id: *id,
            offset: entry.offset,
            length: entry.length,
            plain,
        })
    }

    /// A chunk was put into a pack of this run.
    pub fn add(&mut self, chunk: ChunkRef) {
        self.fresh.insert(short(&chunk.id), chunk);
    }

    /// How many chunks are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len() + self.fresh.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The packs of one class that are at hand.
    #[must_use]
    pub fn packs(&self, class: PackClass) -> HashSet<ObjectHash> {
        let usable =
            self.packs.iter().zip(&self.usable).filter(|(pack, usable)| **usable && pack.class == class);
        usable.map(|(pack, _)| pack.hash).collect()
    }
}

/// A chunk's place, once its pack has a name.
#[must_use]
pub fn place(chunk: &ChunkRef) -> Option<Place> {
    let pack = chunk.pack.name()?;
    Some(Place { pack, offset: chunk.offset, length: chunk.length, plain: chunk.plain })
}
