//! Several places of each chunk, at which copies of it may be. Anyone with the domain's key can name wrong
//! places, so one that is tried in vain must not hide the others.

use std::collections::HashMap;

use super::table::Table;
use super::{SpillError, index_id};
use crate::format::ids::{ChunkId, ObjectHash};
use crate::format::index::{Index, IndexEntry, IndexedPack};
use crate::format::list::ChunkLocation;
use crate::format::pack::TableEntry;
use crate::format::pack_refs::PackName;
use crate::report::event::Reporter;

/// The most places of one chunk that are kept: the first ones that are added.
pub const MAX_PLACES: usize = 16;

/// The places of chunks, in the order in which they were added.
#[derive(Debug)]
pub struct CopyIndex {
    packs: Vec<PackName>,
    numbers: HashMap<ObjectHash, u32>,
    /// The first place of each chunk, the second one, and so on. A chunk that is not in one table is in none after.
    tables: Vec<Table>,
    share: u64,
    reporter: Reporter,
}

impl CopyIndex {
    /// Creates an empty index that holds about `share` bytes of places in memory and the rest in temporary
    /// files.
    #[must_use]
    pub fn new(share: u64, reporter: Reporter) -> Self {
        Self { packs: Vec::new(), numbers: HashMap::new(), tables: Vec::new(), share, reporter }
    }

    /// Adds the places of an index object that are in `usable` packs.
    /// Fails if a temporary file cannot be read.
    pub fn add_index(
        &mut self,
        index: &Index,
        usable: impl Fn(&IndexedPack) -> bool,
    ) -> Result<(), SpillError> {
        let name = |pack: &IndexedPack| PackName { hash: pack.hash, size: pack.size };
        let numbers: Vec<Option<u32>> =
            index.packs.iter().map(|pack| usable(pack).then(|| self.number(name(pack)))).collect();
        for entry in &index.entries {
            if let Some(pack) = numbers[entry.pack as usize] {
                self.add(&IndexEntry { pack, ..*entry })?;
            }
        }
        Ok(())
    }

    /// Adds the chunks of a pack, as its own table names them.
    /// Fails if a temporary file cannot be read.
    pub fn add_table(&mut self, pack: PackName, table: &[TableEntry]) -> Result<(), SpillError> {
        let pack = self.number(pack);
        for entry in table {
            let TableEntry { offset, length, plain, .. } = *entry;
            self.add(&IndexEntry { id: index_id(&entry.id), pack, offset, length, plain })?;
        }
        Ok(())
    }

    fn number(&mut self, pack: PackName) -> u32 {
        *self.numbers.entry(pack.hash).or_insert_with(|| {
            self.packs.push(pack);
            u32::try_from(self.packs.len() - 1).unwrap_or(u32::MAX)
        })
    }

    fn add(&mut self, entry: &IndexEntry) -> Result<(), SpillError> {
        for table in &mut self.tables {
            match table.find(&entry.id).map_err(SpillError)? {
                Some(known) if known == *entry => return Ok(()),
                Some(_) => {}
                None => {
                    table.insert(entry);
                    return Ok(());
                }
            }
        }
        if self.tables.len() < MAX_PLACES {
            // Nearly every chunk has one place.
            let share = if self.tables.is_empty() { self.share } else { 0 };
            let mut table = Table::new(share, self.reporter.clone());
            table.insert(entry);
            self.tables.push(table);
        }
        Ok(())
    }

    /// Returns the places of a chunk of `plain` bytes, in the order in which they were added.
    /// Fails if a temporary file cannot be read.
    pub fn places(&self, id: &ChunkId, plain: u32) -> Result<Vec<ChunkLocation>, SpillError> {
        let mut places = Vec::new();
        for table in &self.tables {
            let Some(entry) = table.find(&index_id(id)).map_err(SpillError)? else { break };
            if entry.plain == plain {
                let pack = self.packs[entry.pack as usize];
                places.push(ChunkLocation { pack, offset: entry.offset, length: entry.length, plain });
            }
        }
        Ok(places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::pack::PackClass;

    #[test]
    fn every_place_of_a_chunk_is_kept_in_order_up_to_the_limit() {
        let mut copies = CopyIndex::new(0, Reporter::silent());
        let (id, other) = (ChunkId([7; 32]), ChunkId([8; 32]));
        let entry =
            |id: &ChunkId, offset| IndexEntry { id: index_id(id), pack: 0, offset, length: 9, plain: 5 };
        for pack in 0..=MAX_PLACES as u8 {
            let packs = vec![IndexedPack { hash: ObjectHash([pack; 32]), size: 100, class: PackClass::Data }];
            let index = Index { packs, entries: vec![entry(&id, 1), entry(&other, 2)], ..Index::default() };
            // The same object twice, as it is listed under two names.
            copies.add_index(&index, |pack| pack.hash.0[0] != 3).unwrap();
            copies.add_index(&index, |pack| pack.hash.0[0] != 3).unwrap();
        }
        let packs: Vec<u8> =
            copies.places(&id, 5).unwrap().iter().map(|place| place.pack.hash.0[0]).collect();
        let expected: Vec<u8> = (0..=MAX_PLACES as u8).filter(|pack| *pack != 3).collect();
        assert_eq!(packs, expected);
        assert_eq!(copies.places(&id, 6).unwrap(), []);
        assert_eq!(copies.places(&ChunkId([9; 32]), 5).unwrap(), []);
    }
}
