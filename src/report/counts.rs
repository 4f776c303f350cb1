//! Counts entries that could not be kept: per kind the number and the first paths, in bounded memory.

use std::collections::BTreeMap;

/// The most paths that are kept of each kind.
pub const EXAMPLES: usize = 10;

/// The number of occurrences of one kind, with the first paths.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CountWithExamples {
    /// The number of occurrences.
    pub count: u64,
    /// The first paths, at most [`EXAMPLES`].
    pub examples: Vec<Vec<u8>>,
}

/// Counts by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts<K: Ord> {
    kinds: BTreeMap<K, CountWithExamples>,
}

impl<K: Ord> Default for Counts<K> {
    fn default() -> Self {
        Self { kinds: BTreeMap::new() }
    }
}

impl<K: Ord> Counts<K> {
    /// Counts one more of `kind`, at `path`.
    pub fn add(&mut self, kind: K, path: &[u8]) {
        let counted = self.kinds.entry(kind).or_default();
        counted.count += 1;
        if counted.examples.len() < EXAMPLES {
            counted.examples.push(path.to_vec());
        }
    }

    /// Returns the count of `kind`.
    pub fn count(&self, kind: &K) -> u64 {
        self.kinds.get(kind).map_or(0, |counted| counted.count)
    }

    /// Returns every kind that was counted, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &CountWithExamples)> {
        self.kinds.iter()
    }

    /// Returns true if nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// Returns the count of all kinds together.
    pub fn total(&self) -> u64 {
        self.kinds.values().map(|counted| counted.count).sum()
    }
}
