//! The index of the chunks that a domain already has.
//!
//! It holds only chunks in packs that the store lists with the indexed name and size; other chunks
//! are uploaded again. A chunk of this run is held with its full id until its pack is acknowledged.

pub mod copies;
mod table;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::chunk_ref::{ChunkRef, PackRef};
use crate::format::ids::{ChunkId, ObjectHash};
use crate::format::index::{Index, IndexEntry, IndexedPack, MAX_ENTRIES, ShortId};
use crate::format::pack::{PackClass, TableEntry};
use crate::format::pack_refs::PackName;
use crate::report::event::Reporter;
use table::Table;

/// The temporary file of the index could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the temporary file that holds the index")]
pub struct SpillError(#[source] std::io::Error);

/// The chunks and packs that a domain has stored.
#[derive(Debug)]
pub struct ChunkIndex {
    packs: Vec<IndexedPack>,
    numbers: HashMap<ObjectHash, u32>,
    table: Table,
    /// Chunks in packs that are not yet acknowledged.
    unacknowledged: HashMap<ShortId, ChunkRef>,
    /// The chunks of unusable packs, with their lengths.
    lost: BTreeMap<ObjectHash, Vec<(ShortId, u32)>>,
    lost_chunks: usize,
}

/// The most chunks of unusable packs that are remembered, so that a snapshot can name their copies.
const MAX_LOST_CHUNKS: usize = 1 << 18;

/// The packs that hold copies of the chunks of an unusable pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copies {
    /// The unusable pack.
    pub bad: ObjectHash,
    /// The packs with copies.
    pub by: BTreeSet<ObjectHash>,
    /// True if every chunk that the index knew in it has a copy.
    pub whole: bool,
}

/// Returns the first half of a chunk id: the part that the index holds.
#[must_use]
pub fn index_id(id: &ChunkId) -> ShortId {
    id.0[..16].try_into().unwrap_or_default()
}

impl ChunkIndex {
    /// Creates an empty index that holds about `share` bytes of chunks in memory and the rest in a
    /// temporary file. Without such a file it warns once through `reporter` and uses more memory.
    #[must_use]
    pub fn new(share: u64, reporter: Reporter) -> Self {
        Self {
            packs: Vec::new(),
            numbers: HashMap::new(),
            table: Table::new(share, reporter),
            unacknowledged: HashMap::new(),
            lost: BTreeMap::new(),
            lost_chunks: 0,
        }
    }

    /// Adds the chunks of an index object whose packs are `usable`. Returns the unusable packs.
    pub fn load(&mut self, index: &Index, usable: impl Fn(&IndexedPack) -> bool) -> BTreeSet<PackName> {
        let mut lost = BTreeSet::new();
        let numbers: Vec<Option<u32>> = index
            .packs
            .iter()
            .map(|pack| {
                if usable(pack) {
                    return Some(self.number(pack));
                }
                lost.insert(PackName { hash: pack.hash, size: pack.size });
                None
            })
            .collect();
        for entry in &index.entries {
            match numbers[entry.pack as usize] {
                Some(pack) => self.table.insert(&IndexEntry { pack, ..*entry }),
                None => self.remember_lost(index.packs[entry.pack as usize].hash, entry),
            }
        }
        lost
    }

    /// Remembers a chunk of an unusable pack. Beyond the limit the pack's list stays incomplete, which a chunk
    /// that no copy can have tells.
    fn remember_lost(&mut self, pack: ObjectHash, entry: &IndexEntry) {
        self.lost_chunks += 1;
        let chunk = match self.lost_chunks > MAX_LOST_CHUNKS {
            true => (ShortId::default(), u32::MAX),
            false => (entry.id, entry.plain),
        };
        let chunks = self.lost.entry(pack).or_default();
        if chunks.last() != Some(&chunk) {
            chunks.push(chunk);
        }
    }

    /// Returns the packs that hold copies of the chunks of each unusable pack.
    /// Fails if a temporary file cannot be read.
    pub fn copies(&self) -> Result<Vec<Copies>, SpillError> {
        let mut all = Vec::with_capacity(self.lost.len());
        for (bad, chunks) in &self.lost {
            let mut copies = Copies { bad: *bad, by: BTreeSet::new(), whole: true };
            for (id, plain) in chunks {
                match self.table.find(id).map_err(SpillError)?.filter(|entry| entry.plain == *plain) {
                    Some(entry) => {
                        copies.by.insert(self.packs[entry.pack as usize].hash);
                    }
                    None => copies.whole = false,
                }
            }
            all.push(copies);
        }
        Ok(all)
    }

    fn number(&mut self, pack: &IndexedPack) -> u32 {
        *self.numbers.entry(pack.hash).or_insert_with(|| {
            self.packs.push(*pack);
            u32::try_from(self.packs.len() - 1).unwrap_or(u32::MAX)
        })
    }

    /// Moves the chunks of an acknowledged pack of this run into the table.
    pub fn acknowledge(&mut self, pack: &IndexedPack, table: &[TableEntry]) {
        let number = self.number(pack);
        for entry in table {
            let id = index_id(&entry.id);
            self.unacknowledged.remove(&id);
            let TableEntry { offset, length, plain, .. } = *entry;
            self.table.insert(&IndexEntry { id, pack: number, offset, length, plain });
        }
    }

    /// Returns all acknowledged chunks as index objects that replace `replaces`. They must be stored in this
    /// order: only the last one names the replaced objects, so a crash between two of them loses no entry.
    /// Fails if a temporary file cannot be read.
    pub fn merged<'a>(
        &'a self,
        replaces: &'a [ObjectHash],
    ) -> Result<impl Iterator<Item = Result<Index, SpillError>> + 'a, SpillError> {
        let mut sorted = self.table.sorted().map_err(SpillError)?.peekable();
        Ok(std::iter::from_fn(move || {
            sorted.peek()?;
            let entries: std::io::Result<Vec<IndexEntry>> = sorted.by_ref().take(MAX_ENTRIES / 2).collect();
            let mut index = match entries {
                Ok(entries) => self.index_of(entries),
                Err(error) => return Some(Err(SpillError(error))),
            };
            if sorted.peek().is_none() {
                index.replaces = replaces.to_vec();
                index.replaces.sort_unstable();
            }
            Some(Ok(index))
        }))
    }

    fn index_of(&self, entries: Vec<IndexEntry>) -> Index {
        let mut index = Index { entries, ..Index::default() };
        let mut numbers: HashMap<u32, u32> = HashMap::new();
        for entry in &mut index.entries {
            let old = entry.pack;
            entry.pack = *numbers.entry(old).or_insert_with(|| {
                index.packs.push(self.packs[old as usize]);
                u32::try_from(index.packs.len() - 1).unwrap_or(u32::MAX)
            });
        }
        index.sort();
        index
    }

    /// True if the store has listed or acknowledged this pack with this size.
    #[must_use]
    pub fn has_pack(&self, pack: &PackName) -> bool {
        self.numbers.get(&pack.hash).is_some_and(|&number| self.packs[number as usize].size == pack.size)
    }

    /// Returns the location of a chunk, if it is in the index.
    /// Fails if a temporary file cannot be read.
    pub fn find(&self, id: &ChunkId, plain: u32) -> Result<Option<ChunkRef>, SpillError> {
        let key = index_id(id);
        if let Some(found) = self.unacknowledged.get(&key) {
            return Ok((found.id == *id && found.plain == plain).then(|| found.clone()));
        }
        let Some(entry) = self.table.find(&key).map_err(SpillError)? else {
            return Ok(None);
        };
        let pack = self.packs[entry.pack as usize];
        // Another length means another chunk or a poisoned entry, so the chunk is uploaded again.
        Ok((entry.plain == plain).then(|| ChunkRef {
            pack: PackRef::stored(PackName { hash: pack.hash, size: pack.size }),
            id: *id,
            offset: entry.offset,
            length: entry.length,
            plain,
        }))
    }

    /// Adds a chunk in a pack of this run that is not yet acknowledged.
    pub fn add(&mut self, chunk: ChunkRef) {
        self.unacknowledged.insert(index_id(&chunk.id), chunk);
    }

    /// True if the index holds no chunks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.len() == 0 && self.unacknowledged.is_empty()
    }

    /// Returns the packs of one class that are in the index.
    #[must_use]
    pub fn packs(&self, class: PackClass) -> HashSet<ObjectHash> {
        self.packs.iter().filter(|pack| pack.class == class).map(|pack| pack.hash).collect()
    }
}
