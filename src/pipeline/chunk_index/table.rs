//! Index entries by half of the chunk id, in bounded memory. Entries that do not fit are kept
//! sorted in unnamed temporary files.
//!
//! A log-structured merge: a full map is written as a run. A run is merged with the one before
//! it once that is less than twice as long, so there are about log2(length) runs. A look-up
//! reads at most one block of each. The ids are keyed hashes: such a file reveals no more than
//! the stored index objects do, and it is gone when the process ends.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;

use crate::format::index::{ENTRY, IndexEntry, ShortId};
use crate::report::event::Reporter;

/// The number of entries in a block of 4 KiB (one page).
const BLOCK: usize = 4096 / ENTRY;
/// The most memory an entry of the map takes, in bytes: twice 33 just after the map has grown,
/// plus the old map that it is copied from.
const ENTRY_MEMORY: u64 = 100;
/// The least number of entries held in memory.
const MIN_ENTRIES: u64 = 1 << 10;

type EntryLocation = [u32; 4];

fn location(entry: &IndexEntry) -> EntryLocation {
    [entry.pack, entry.offset, entry.length, entry.plain]
}

fn entry(id: ShortId, [pack, offset, length, plain]: EntryLocation) -> IndexEntry {
    IndexEntry { id, pack, offset, length, plain }
}

/// Entries by id. A later entry replaces an earlier one with the same id.
#[derive(Debug)]
pub(crate) struct Table {
    most: usize,
    reporter: Reporter,
    warned: bool,
    memory: HashMap<ShortId, EntryLocation>,
    runs: Vec<SortedRun>,
}

impl Table {
    /// Creates a table that holds about `share` bytes in memory. If it cannot write a temporary file, it warns
    /// once through `reporter` and uses more memory.
    pub(crate) fn new(share: u64, reporter: Reporter) -> Self {
        let most = usize::try_from((share / ENTRY_MEMORY).max(MIN_ENTRIES)).unwrap_or(usize::MAX);
        Self { most, reporter, warned: false, memory: HashMap::new(), runs: Vec::new() }
    }

    /// Returns the number of entries, including replaced ones.
    pub(crate) fn len(&self) -> usize {
        self.memory.len() + self.runs.iter().map(|run| run.entries).sum::<usize>()
    }

    /// Adds an entry. If a file cannot be written, the entry is kept and memory grows.
    pub(crate) fn insert(&mut self, new: &IndexEntry) {
        self.memory.insert(new.id, location(new));
        if self.memory.len() >= self.most
            && let Err(error) = self.spill()
            && !std::mem::replace(&mut self.warned, true)
        {
            self.reporter.warn(
                std::env::temp_dir().display().to_string(),
                format!("no temporary file for the index ({error}): it takes memory beyond its limit"),
            );
        }
    }

    fn spill(&mut self) -> io::Result<()> {
        // If this attempt fails, the next one waits for half as many entries more.
        self.most += self.most / 2;
        let run = SortedRun::write(Sorted::of(&self.memory, &[])?)?;
        self.most = self.most * 2 / 3;
        self.memory = HashMap::new();
        self.runs.push(run);
        while let [.., before, last] = self.runs.as_slice()
            && before.entries < 2 * last.entries
        {
            let from = self.runs.len() - 2;
            let merged = SortedRun::write(Sorted::of(&HashMap::new(), &self.runs[from..])?)?;
            self.runs.truncate(from);
            self.runs.push(merged);
        }
        Ok(())
    }

    /// Returns the latest entry of an id.
    pub(crate) fn find(&self, id: &ShortId) -> io::Result<Option<IndexEntry>> {
        if let Some(location) = self.memory.get(id) {
            return Ok(Some(entry(*id, *location)));
        }
        for run in self.runs.iter().rev() {
            if let Some(found) = run.find(id)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Returns all entries in order of their id, each id once.
    pub(crate) fn sorted(&self) -> io::Result<Sorted<'_>> {
        Sorted::of(&self.memory, &self.runs)
    }
}

/// Sorted entries in an unnamed temporary file.
#[derive(Debug)]
struct SortedRun {
    file: File,
    entries: usize,
    /// The first id of each block: 16 bytes for 4 KiB.
    first_ids: Vec<ShortId>,
}

impl SortedRun {
    fn write(entries: Sorted<'_>) -> io::Result<Self> {
        let mut run = Self { file: tempfile::tempfile()?, entries: 0, first_ids: Vec::new() };
        let mut out = BufWriter::with_capacity(64 << 10, &run.file);
        for entry in entries {
            let entry = entry?;
            if run.entries.is_multiple_of(BLOCK) {
                run.first_ids.push(entry.id);
            }
            out.write_all(&entry.to_bytes())?;
            run.entries += 1;
        }
        out.flush()?;
        drop(out);
        Ok(run)
    }

    fn block(&self, number: usize) -> io::Result<Vec<IndexEntry>> {
        let count = BLOCK.min(self.entries.saturating_sub(number * BLOCK));
        let mut bytes = vec![0; count * ENTRY];
        self.file.read_exact_at(&mut bytes, (number * BLOCK * ENTRY) as u64)?;
        Ok(bytes.as_chunks::<ENTRY>().0.iter().map(IndexEntry::from_bytes).collect())
    }

    fn find(&self, id: &ShortId) -> io::Result<Option<IndexEntry>> {
        let Some(number) = self.first_ids.partition_point(|first_id| first_id <= id).checked_sub(1) else {
            return Ok(None);
        };
        let block = self.block(number)?;
        Ok(block.binary_search_by_key(id, |entry| entry.id).ok().map(|at| block[at]))
    }
}

/// The remaining entries of one input of a merge.
struct MergeInput<'a> {
    run: Option<(&'a SortedRun, usize)>,
    block: std::vec::IntoIter<IndexEntry>,
}

impl MergeInput<'_> {
    /// Returns the next entry without removing it.
    fn peek(&mut self) -> io::Result<Option<IndexEntry>> {
        if self.block.as_slice().is_empty()
            && let Some((run, next)) = &mut self.run
        {
            self.block = run.block(*next)?.into_iter();
            *next += 1;
        }
        Ok(self.block.as_slice().first().copied())
    }
}

/// An iterator that merges entries in order of their id. Of several with the same id it yields the latest.
pub(crate) struct Sorted<'a> {
    /// Oldest source first.
    inputs: Vec<MergeInput<'a>>,
}

impl<'a> Sorted<'a> {
    fn of(memory: &HashMap<ShortId, EntryLocation>, runs: &'a [SortedRun]) -> io::Result<Self> {
        let mut in_memory: Vec<IndexEntry> =
            memory.iter().map(|(id, location)| entry(*id, *location)).collect();
        in_memory.sort_unstable();
        let mut inputs: Vec<MergeInput<'a>> = runs
            .iter()
            .map(|run| MergeInput { run: Some((run, 0)), block: Vec::new().into_iter() })
            .collect();
        inputs.push(MergeInput { run: None, block: in_memory.into_iter() });
        Ok(Self { inputs })
    }

    fn least(&mut self) -> io::Result<Option<IndexEntry>> {
        let mut least: Option<IndexEntry> = None;
        for input in &mut self.inputs {
            if let Some(next) = input.peek()?
                && least.is_none_or(|least| next.id.cmp(&least.id) != Ordering::Greater)
            {
                least = Some(next);
            }
        }
        if let Some(least) = least {
            for input in &mut self.inputs {
                if input.peek()?.is_some_and(|next| next.id == least.id) {
                    input.block.next();
                }
            }
        }
        Ok(least)
    }
}

impl Iterator for Sorted<'_> {
    type Item = io::Result<IndexEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        self.least().transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::runtime::{Random as _, SeededRandom};

    #[test]
    fn table_with_least_memory_matches_a_map() {
        let random = SeededRandom::new(3);
        let number = || {
            let mut bytes = [0; 4];
            random.fill(&mut bytes);
            u32::from_le_bytes(bytes)
        };
        let (mut table, mut model) = (Table::new(0, Reporter::silent()), BTreeMap::new());
        for round in 0..40_000u32 {
            // Each id occurs about three times.
            let id: ShortId = (u128::from(number() % 13_000) << 64).to_be_bytes();
            let new = entry(id, [round, number(), number(), number()]);
            table.insert(&new);
            model.insert(id, new);
        }
        assert!(
            table.memory.len() <= MIN_ENTRIES as usize && table.runs.len() > 1,
            "{} runs",
            table.runs.len()
        );
        assert!(table.runs.len() < 12, "{} runs", table.runs.len());
        for at in 0..13_100u128 {
            let id = (at << 64).to_be_bytes();
            assert_eq!(table.find(&id).unwrap(), model.get(&id).copied());
        }
        assert!(table.find(&[0; 16]).unwrap().is_some() == model.contains_key(&[0; 16]));
        assert_eq!(table.find(&[255; 16]).unwrap(), None);
        let sorted: Vec<IndexEntry> = table.sorted().unwrap().map(|entry| entry.unwrap()).collect();
        assert_eq!(sorted, model.into_values().collect::<Vec<_>>());
    }
}
