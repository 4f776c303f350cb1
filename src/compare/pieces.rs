//! The stored slices that make up a range of a stream. The same slices prove the same bytes without reading
//! them: a chunk's id is a hash of its bytes, so the ids of two keys do not collide either. Different slices
//! prove nothing, because another key or other neighbours may have changed them.

use std::ops::Range;

use crate::format::ids::ObjectHash;
use crate::format::list::{Slice, StreamHasher};
use crate::pipeline::ReadError;
use crate::pipeline::reader::{StreamReader, cut_slice};

/// Walks a stream's list of slices, with one part in memory.
pub(super) struct SliceWalker {
    reader: StreamReader,
    /// The number of the next part.
    part: usize,
    slices: std::vec::IntoIter<Slice>,
    /// The offset at which the slice in `slice`, or else the next one, begins.
    at: u64,
    slice: Option<Slice>,
}

impl SliceWalker {
    pub(super) fn new(reader: &StreamReader) -> Self {
        Self { reader: reader.clone(), part: 0, slices: Vec::new().into_iter(), at: 0, slice: None }
    }

    /// Returns a hash of the slices that make up `range`. Ranges must come in ascending order.
    pub(super) async fn of(&mut self, range: &Range<u64>) -> Result<ObjectHash, ReadError> {
        let (mut run, mut found) = (Run::default(), 0);
        while let Some(slice) = self.peek(range).await? {
            let end = self.at + u64::from(slice.take);
            if end > range.start {
                let cut = cut_slice(slice, self.at, range);
                found += u64::from(cut.take);
                run.add(cut);
            }
            // The rest of a slice that ends after the range is kept for the next range.
            if end > range.end {
                break;
            }
            (self.at, self.slice) = (end, None);
        }
        // A range out of order would have no slices, and two ranges without slices would look the same.
        if found != range.end.saturating_sub(range.start) {
            return Err(ReadError::Malformed { what: "catalog names bytes out of order".into() });
        }
        Ok(run.finish())
    }

    /// Returns the current slice, unless it begins after the range.
    async fn peek(&mut self, range: &Range<u64>) -> Result<Option<Slice>, ReadError> {
        while self.slice.is_none() && self.at < range.end {
            self.slice = self.slices.next();
            if self.slice.is_none() {
                self.turn(range.start).await?;
            }
        }
        Ok(self.slice.filter(|_| self.at < range.end))
    }

    /// Loads the next part that does not end before `start`; parts before it are not read.
    async fn turn(&mut self, start: u64) -> Result<(), ReadError> {
        let malformed = |what: &str| ReadError::Malformed { what: what.into() };
        let body = self.reader.body();
        let end_of = |part: usize| body.parts.get(part + 1).map_or(body.length, |next| next.start);
        while self.part < body.parts.len() && end_of(self.part) <= start {
            self.part += 1;
        }
        let end = end_of(self.part);
        let short = || malformed("list does not hold as many bytes as the stream has");
        let part = body.parts.get(self.part).ok_or_else(short)?.clone();
        let slices = self.reader.slices(&part).await?;
        let total: u64 = slices.iter().map(|slice| u64::from(slice.take)).sum();
        if part.start.checked_add(total) != Some(end) {
            return Err(malformed("list has a part of another length than its place"));
        }
        (self.part, self.at, self.slices) = (self.part + 1, part.start, slices.into_iter());
        Ok(())
    }
}

/// Hashes slices. Adjacent slices of one chunk count as one, so that a split does not change the hash.
#[derive(Default)]
struct Run {
    hasher: StreamHasher,
    held: Option<Slice>,
}

impl Run {
    fn add(&mut self, slice: Slice) {
        match &mut self.held {
            Some(held) if held.id == slice.id && held.skip.checked_add(held.take) == Some(slice.skip) => {
                held.take += slice.take;
            }
            held => {
                if let Some(held) = held.replace(slice) {
                    self.hasher.update(&held);
                }
            }
        }
    }

    fn finish(mut self) -> ObjectHash {
        if let Some(held) = &self.held {
            self.hasher.update(held);
        }
        self.hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::ids::ChunkId;
    use crate::format::list::ChunkLocation;
    use crate::format::pack_refs::PackName;

    fn slice(id: u8, skip: u32, take: u32) -> Slice {
        let pack = PackName { hash: ObjectHash([1; 32]), size: 1 };
        Slice {
            location: ChunkLocation { pack, offset: 0, length: 1, plain: 100 },
            id: ChunkId([id; 32]),
            skip,
            take,
        }
    }

    fn hash(slices: &[Slice]) -> ObjectHash {
        let mut run = Run::default();
        slices.iter().for_each(|slice| run.add(*slice));
        run.finish()
    }

    #[test]
    fn hash_does_not_depend_on_split_of_slices() {
        let whole = hash(&[slice(1, 10, 30), slice(2, 0, 5)]);
        assert_eq!(hash(&[slice(1, 10, 20), slice(1, 30, 10), slice(2, 0, 5)]), whole);
        assert_ne!(hash(&[slice(1, 10, 20), slice(1, 31, 10), slice(2, 0, 5)]), whole);
        assert_ne!(hash(&[slice(1, 10, 30)]), whole);
    }

    #[test]
    fn slice_is_cut_to_its_range() {
        assert_eq!(cut_slice(slice(1, 10, 30), 1000, &(1005..1020)), slice(1, 15, 15));
        assert_eq!(cut_slice(slice(1, 10, 30), 1000, &(0..2000)), slice(1, 10, 30));
    }
}
