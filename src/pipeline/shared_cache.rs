//! A cache whose values several readers can await together, within a number of bytes.

use std::hash::Hash;
use std::sync::Arc;

use lru::LruCache;
use tokio::sync::OnceCell;

/// A cache that evicts the least recently used values when the others exceed its limit.
pub(super) struct SharedCache<K: Eq + Hash, V> {
    max: u64,
    held: u64,
    /// Each cell with the bytes that its value takes.
    cells: LruCache<K, (Arc<OnceCell<V>>, u64)>,
}

impl<K: Copy + Eq + Hash, V> SharedCache<K, V> {
    pub(super) fn new(max: u64) -> Self {
        Self { max, held: 0, cells: LruCache::unbounded() }
    }

    pub(super) fn has(&self, key: &K) -> bool {
        self.cells.contains(key)
    }

    /// True if the key has a value, which counts as used.
    pub(super) fn is_filled(&mut self, key: &K) -> bool {
        self.cells.get(key).is_some_and(|(cell, _)| cell.initialized())
    }

    /// Returns the cell of a key; the first reader fills it.
    pub(super) fn cell(&mut self, key: K) -> Arc<OnceCell<V>> {
        self.cells.get_or_insert(key, Default::default).0.clone()
    }

    /// Records that the value of `key` takes `bytes`, and evicts other values until all fit. Cells that
    /// are being filled are kept.
    pub(super) fn set_size(&mut self, key: &K, bytes: u64) {
        if let Some((_, size)) = self.cells.peek_mut(key) {
            self.held = self.held - *size + bytes;
            *size = bytes;
        }
        while self.held > self.max {
            let mut oldest = self.cells.iter().rev();
            let found = oldest.find(|(other, (cell, _))| *other != key && cell.initialized());
            let Some(oldest) = found.map(|(oldest, _)| *oldest) else { return };
            self.held -= self.cells.pop(&oldest).map_or(0, |(_, size)| size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_recently_used_value_is_evicted_first() {
        let mut cache: SharedCache<u8, u8> = SharedCache::new(100);
        for key in 0..3 {
            cache.cell(key).set(key).unwrap();
            cache.set_size(&key, 40);
        }
        assert!(!cache.has(&0) && cache.held == 80);
        cache.cell(1);
        cache.cell(3).set(3).unwrap();
        cache.set_size(&3, 40);
        assert!(cache.has(&1) && !cache.has(&2));
        cache.cell(4).set(4).unwrap();
        cache.set_size(&4, 1000);
        assert!(cache.has(&4), "one that is larger than the cache can still be used");
    }
}
