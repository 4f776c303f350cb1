//! The chunks that a domain already has: the index.
//!
//! Only chunks whose pack the store lists as named come in; the others are uploaded anew. Chunks of
//! this run are held whole while their pack is open, and join the others once it is acknowledged.

mod table;

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::format::ids::{ChunkId, ObjectHash};
use crate::format::index::{Index, IndexEntry, IndexedPack, MAX_ENTRIES, ShortId};
use crate::format::list::Place;
use crate::format::needs::PackName;
use crate::format::pack::{PackClass, TableEntry};
use crate::report::event::Reporter;

use self::table::Table;
use super::packer::{ChunkRef, PackRef};

/// What was put into a temporary file does not come back.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the temporary file that holds the index")]
pub struct SpillError(#[source] std::io::Error);

/// What a domain has.
#[derive(Debug)]
pub struct Known {
    packs: Vec<IndexedPack>,
    numbers: HashMap<ObjectHash, u32>,
    table: Table,
    /// Chunks in packs that are not acknowledged yet.
    fresh: HashMap<ShortId, ChunkRef>,
    reporter: Reporter,
    told: bool,
}

/// The half of an id that the index holds.
#[must_use]
pub fn short(id: &ChunkId) -> ShortId {
    let mut half = [0; 16];
    half.copy_from_slice(&id.0[..16]);
    half
}

impl Known {
    /// Nothing yet. Holds about `share` bytes of chunks in memory, the rest in a temporary file; if
    /// that cannot be had, `reporter` is told and the memory grows.
    #[must_use]
    pub fn new(share: u64, reporter: Reporter) -> Self {
        Self {
            packs: Vec::new(),
            numbers: HashMap::new(),
            table: Table::new(share),
            fresh: HashMap::new(),
            reporter,
            told: false,
        }
    }

    /// Adds the chunks of an index object that lie in packs that are `usable`. Gives the others.
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
            if let Some(pack) = numbers[entry.pack as usize] {
                self.insert(&IndexEntry { pack, ..*entry });
            }
        }
        lost
    }

    fn number(&mut self, pack: &IndexedPack) -> u32 {
        *self.numbers.entry(pack.hash).or_insert_with(|| {
            self.packs.push(*pack);
            u32::try_from(self.packs.len() - 1).unwrap_or(u32::MAX)
        })
    }

    fn insert(&mut self, entry: &IndexEntry) {
        if let Err(error) = self.table.insert(entry)
            && !std::mem::replace(&mut self.told, true)
        {
            self.reporter.warn(
                std::env::temp_dir().display().to_string(),
                format!("no temporary file for the index ({error}): it takes memory beyond its limit"),
            );
        }
    }

    /// A pack of this run is in the store.
    pub fn acknowledge(&mut self, pack: &IndexedPack, table: &[TableEntry]) {
        let number = self.number(pack);
        for entry in table {
            let id = short(&entry.id);
            self.fresh.remove(&id);
            let TableEntry { offset, length, plain, .. } = *entry;
            self.insert(&IndexEntry { id, pack: number, offset, length, plain });
        }
    }

    /// Everything that is known and acknowledged, as index objects that replace those named, to be
    /// stored in this order: only the last one says what they replace, so that a death between two
    /// of them leaves everything named.
    ///
    /// # Errors
    /// If a temporary file cannot be read.
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

    /// Whether this pack is at hand, by the store's listing.
    #[must_use]
    pub fn has_pack(&self, pack: &PackName) -> bool {
        self.numbers.get(&pack.hash).is_some_and(|&number| self.packs[number as usize].size == pack.size)
    }

    /// Where a chunk lies, if it is known.
    ///
    /// # Errors
    /// If a temporary file cannot be read.
    pub fn find(&self, id: &ChunkId, plain: u32) -> Result<Option<ChunkRef>, SpillError> {
        let key = short(id);
        if let Some(found) = self.fresh.get(&key) {
            return Ok((found.id == *id && found.plain == plain).then(|| found.clone()));
        }
        let Some(entry) = self.table.find(&key).map_err(SpillError)? else {
            return Ok(None);
        };
        let pack = self.packs[entry.pack as usize];
        // A length that differs is another chunk, or a poisoned entry: upload anew.
        Ok((entry.plain == plain).then(|| ChunkRef {
            pack: PackRef::stored(PackName { hash: pack.hash, size: pack.size }),
            id: *id,
            offset: entry.offset,
            length: entry.length,
            plain,
        }))
    }

    /// A chunk was put into a pack of this run.
    pub fn add(&mut self, chunk: ChunkRef) {
        self.fresh.insert(short(&chunk.id), chunk);
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.len() == 0 && self.fresh.is_empty()
    }

    /// The packs of one class that are at hand.
    #[must_use]
    pub fn packs(&self, class: PackClass) -> HashSet<ObjectHash> {
        self.packs.iter().filter(|pack| pack.class == class).map(|pack| pack.hash).collect()
    }
}

/// A chunk's place, once its pack has a name.
#[must_use]
pub fn place(chunk: &ChunkRef) -> Option<Place> {
    let pack = chunk.pack.name()?;
    Some(Place { pack, offset: chunk.offset, length: chunk.length, plain: chunk.plain })
}
