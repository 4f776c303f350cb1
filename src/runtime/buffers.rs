//! Large buffers that are used again. A fresh one costs a page fault for every 4 KiB (docs/performance.md).

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::lock;

/// Buffers shorter than this are not pooled: malloc serves them from memory that it keeps.
const SMALLEST: usize = 128 << 10;

/// Capacities are rounded up to multiples of this, so that neighbours in size share buffers.
const STEP: usize = 64 << 10;

/// The most spare buffers: each request looks at all of them.
const MAX_SPARE: usize = 64;

/// Lends buffers and keeps those that come back. Cheap to clone.
#[derive(Clone)]
pub struct BufferPool(Arc<Mutex<Buffers>>);

struct Buffers {
    spare: Vec<Vec<u8>>,
    /// The capacity of the spare buffers, in bytes.
    kept: usize,
    /// The capacity of the buffers that are lent, in bytes.
    lent: usize,
    limit: usize,
}

impl BufferPool {
    /// Creates an empty pool. It keeps a buffer only while those that it has lent and kept take at most
    /// `limit` bytes: how many are lent is limited by the callers.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Self(Arc::new(Mutex::new(Buffers { spare: Vec::new(), kept: 0, lent: 0, limit })))
    }

    /// Returns an empty buffer for at least `capacity` bytes.
    #[must_use]
    pub fn take(&self, capacity: usize) -> Buffer {
        let mut buffer = self.take_used(capacity);
        buffer.clear();
        buffer
    }

    /// Returns a buffer of `length` bytes, whose content is what an earlier buffer of this pool held, or zeros. It is
    /// for a caller that overwrites all of it, and need not be cleared.
    #[must_use]
    pub fn take_filled(&self, length: usize) -> Buffer {
        let mut buffer = self.take_used(length);
        buffer.resize(length, 0);
        buffer
    }

    fn take_used(&self, capacity: usize) -> Buffer {
        if capacity < SMALLEST {
            return Buffer::from(Vec::with_capacity(capacity));
        }
        let mut buffers = lock(&self.0);
        let bytes = buffers.take(capacity);
        let lent = bytes.capacity();
        buffers.lent += lent;
        drop(buffers);
        Buffer { bytes, lent, pool: Some(self.clone()) }
    }

    /// Keeps the memory of `bytes`, which nothing else may use, for a later buffer.
    pub fn reclaim(&self, mut bytes: Bytes) {
        if bytes.is_unique() {
            // Without this the conversion would move the content. An empty reference would free its memory.
            bytes.truncate(1);
            lock(&self.0).keep(Vec::from(bytes));
        }
    }
}

impl Buffers {
    fn take(&mut self, capacity: usize) -> Vec<u8> {
        let fits = |(_, spare): &(usize, &Vec<u8>)| spare.capacity() >= capacity;
        let best = self.spare.iter().enumerate().filter(fits).min_by_key(|(_, spare)| spare.capacity());
        if let Some((index, _)) = best {
            let bytes = self.spare.swap_remove(index);
            self.kept -= bytes.capacity();
            return bytes;
        }
        let capacity = capacity.next_multiple_of(STEP);
        // Those that are too short make room for the new one.
        while self.kept + self.lent + capacity > self.limit {
            let Some(shortest) = self.spare.iter().enumerate().min_by_key(|(_, spare)| spare.capacity())
            else {
                break;
            };
            let removed = self.spare.swap_remove(shortest.0);
            self.kept -= removed.capacity();
        }
        Vec::with_capacity(capacity)
    }

    fn keep(&mut self, bytes: Vec<u8>) {
        let capacity = bytes.capacity();
        let fits = self.kept + self.lent + capacity <= self.limit && self.spare.len() < MAX_SPARE;
        if fits && capacity >= SMALLEST {
            self.kept += capacity;
            self.spare.push(bytes);
        }
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let buffers = lock(&self.0);
        write!(f, "BufferPool({} B lent, {} B kept)", buffers.lent, buffers.kept)
    }
}

/// Bytes in a buffer that returns to its pool when it is dropped.
#[derive(Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    /// The capacity with which it was lent.
    lent: usize,
    pool: Option<BufferPool>,
}

impl Buffer {
    /// Takes the bytes out of the pool's account. [`BufferPool::reclaim`] brings them back.
    #[must_use]
    pub fn into_vec(mut self) -> Vec<u8> {
        if let Some(pool) = self.pool.take() {
            lock(&pool.0).lent -= self.lent;
        }
        std::mem::take(&mut self.bytes)
    }

    /// Converts the content without a copy. The buffer returns to its pool with the last part of it.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        if self.pool.is_some() { Bytes::from_owner(self) } else { Bytes::from(self.into_vec()) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            let mut buffers = lock(&pool.0);
            buffers.lent -= self.lent;
            buffers.keep(std::mem::take(&mut self.bytes));
        }
    }
}

/// Bytes outside of any pool.
impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, lent: 0, pool: None }
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;
    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} of {} B)", self.bytes.len(), self.bytes.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn returned_buffer_is_lent_again() {
        let pool = BufferPool::new(8 << 20);
        let mut first = pool.take(MIB);
        first.extend_from_slice(b"content");
        let at = first.as_ptr();
        let bytes = first.into_bytes();
        let part = bytes.slice(1..3);
        drop(bytes);
        assert_ne!(pool.take(MIB).as_ptr(), at, "a part is still in use");
        drop(part);
        let taken = [pool.take(MIB), pool.take(MIB)];
        assert!(taken.iter().any(|buffer| buffer.as_ptr() == at));
        assert!(taken.iter().all(|buffer| buffer.is_empty()));
        drop(taken);
        assert_eq!(pool.take_filled(MIB).len(), MIB);
    }

    #[test]
    fn reclaimed_bytes_keep_their_memory() {
        let pool = BufferPool::new(8 << 20);
        let mut bytes = pool.take(MIB).into_vec();
        bytes.extend_from_slice(b"content");
        let at = bytes.as_ptr();
        let bytes = Bytes::from(bytes);
        let other = bytes.clone();
        pool.reclaim(bytes);
        assert_ne!(pool.take(MIB).as_ptr(), at, "a copy of the reference is still in use");
        pool.reclaim(other);
        let taken = [pool.take(MIB), pool.take(MIB)];
        assert!(taken.iter().any(|buffer| buffer.as_ptr() == at));
    }

    #[test]
    fn buffers_beyond_the_limit_are_freed() {
        let pool = BufferPool::new(3 << 20);
        let lent: Vec<Buffer> = (0..5).map(|_| pool.take(MIB)).collect();
        drop(lent);
        assert!(lock(&pool.0).kept <= 3 * MIB);
        let long = pool.take(2 * MIB + 1);
        let buffers = lock(&pool.0);
        assert!(buffers.kept + buffers.lent <= 3 * MIB, "shorter ones make room");
        drop(buffers);
        drop(long);
        assert_eq!(lock(&pool.0).lent, 0);
    }
}
