//! Content-defined chunking of large files and dumps: FastCDC (Xia et al., USENIX ATC 2016,
//! and its 2020 form) with a secret gear table.
//!
//! Two differences from the papers. The whole table is secret, derived from the domain's key: cut
//! points then reveal little, and packs hide them anyway (eprint 2025/532, 2025/558). The cut condition
//! compares the hash with a threshold instead of masking it, so that any average size can be set.

/// The parameters that decide chunk boundaries. Sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkerParams {
    min: usize,
    average: usize,
    max: usize,
    hard: u64,
    easy: u64,
}

/// The window of the rolling hash in bytes: each step shifts its 64 bits by one.
const WINDOW: usize = 64;

impl ChunkerParams {
    /// Creates parameters for chunks of `min` to `max` bytes, `average` on average.
    #[must_use]
    pub fn new(min: usize, average: usize, max: usize) -> Self {
        let (min, average) = (min.max(WINDOW), average.max(min + 1));
        let threshold = u64::MAX / (average - min) as u64;
        // Normalised chunking, level 2: a cut is four times less likely before the average size, four
        // times more likely after it.
        Self { min, average, max: max.max(average), hard: threshold / 4, easy: threshold.saturating_mul(4) }
    }

    /// Returns the largest chunk size in bytes.
    #[must_use]
    pub fn max(&self) -> usize {
        self.max
    }

    /// Returns a length in bytes that nine of ten chunks do not exceed, if it is large enough for them all to be
    /// cut by content.
    #[must_use]
    pub fn usual(&self) -> usize {
        (self.average + (self.average - self.min) / 2).min(self.max)
    }

    /// Returns the length of the chunk at the start of `bytes`, or all of `bytes` if there is no cut
    /// point. The caller then holds either the end of the stream or fewer than [`Self::max`] bytes.
    #[must_use]
    pub fn chunk_length(&self, gear: &[u64; 256], bytes: &[u8]) -> usize {
        self.chunk_length_after(gear, bytes, 0)
    }

    /// Returns the length of the chunk as [`Self::chunk_length`] does. The first `known` bytes were searched before,
    /// and had no cut point but possibly at their end.
    #[must_use]
    pub fn chunk_length_after(&self, gear: &[u64; 256], bytes: &[u8], known: usize) -> usize {
        let end = bytes.len().min(self.max);
        let first = self.min.max(known.saturating_sub(1));
        if end <= first {
            return end;
        }
        let middle = self.average.clamp(first, end);
        let mut hash = 0u64;
        for &byte in &bytes[first - WINDOW..first] {
            hash = (hash << 1).wrapping_add(gear[usize::from(byte)]);
        }
        for (limit, range) in [(self.hard, first..middle), (self.easy, middle..end)] {
            let start = range.start;
            // Two bytes at a time, so that each hash waits for half as many sums.
            let (pairs, rest) = bytes[range].as_chunks::<2>();
            for (at, pair) in pairs.iter().enumerate() {
                // Not by `map`, which some builds call instead of inlining it.
                let (first, second) = (gear[usize::from(pair[0])], gear[usize::from(pair[1])]);
                let between = (hash << 1).wrapping_add(first);
                hash = (hash << 2).wrapping_add((first << 1).wrapping_add(second));
                if between < limit {
                    return start + 2 * at + 1;
                }
                if hash < limit {
                    return start + 2 * at + 2;
                }
            }
            for &byte in rest {
                hash = (hash << 1).wrapping_add(gear[usize::from(byte)]);
                if hash < limit {
                    return start + 2 * pairs.len() + 1;
                }
            }
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::derive::{DomainKey, SecretKey};
    use crate::runtime::{Random, SeededRandom};

    fn cut_all(params: &ChunkerParams, gear: &[u64; 256], mut bytes: &[u8]) -> Vec<usize> {
        let mut lengths = Vec::new();
        while !bytes.is_empty() {
            let length = params.chunk_length(gear, bytes);
            lengths.push(length);
            bytes = &bytes[length..];
        }
        lengths
    }

    #[test]
    fn insertion_moves_few_cut_points() {
        let key = DomainKey::new(&SecretKey::new([5; 32]));
        let params = ChunkerParams::new(4096, 16384, 65536);
        let mut bytes = vec![0; 4 << 20];
        SeededRandom::new(1).fill(&mut bytes);
        let before = cut_all(&params, key.gear(), &bytes);
        assert!(before.iter().rev().skip(1).all(|&l| (4096..=65536).contains(&l)));
        let average = bytes.len() / before.len();
        assert!((12_000..24_000).contains(&average), "average {average}");
        bytes.splice(1000..1000, [7; 100]);
        let after = cut_all(&params, key.gear(), &bytes);
        let same = before.iter().rev().zip(after.iter().rev()).take_while(|(a, b)| a == b).count();
        assert!(same + 5 > before.len(), "{same} of {} cuts stay", before.len());
    }

    #[test]
    fn cut_is_after_the_first_hash_below_the_limit() {
        let key = DomainKey::new(&SecretKey::new([9; 32]));
        // Odd sizes, so that no range is a whole number of pairs.
        let params = ChunkerParams::new(65, 200, 411);
        let mut bytes = vec![0; 1 << 17];
        SeededRandom::new(3).fill(&mut bytes);
        let mut from = 0;
        for length in cut_all(&params, key.gear(), &bytes) {
            let rest = &bytes[from..];
            let hash = |end: usize| {
                let window = rest[end - WINDOW..end].iter();
                window.fold(0u64, |hash, byte| (hash << 1).wrapping_add(key.gear()[usize::from(*byte)]))
            };
            let limit = |end: usize| if end <= 200 { params.hard } else { params.easy };
            let end = rest.len().min(411);
            let expected =
                (66.min(end)..=end).find(|end| *end > 65 && hash(*end) < limit(*end)).unwrap_or(end);
            assert_eq!(length, expected, "at {from}");
            // The same if the bytes arrive in parts.
            let mut known = 0;
            let found = (1..).map(|part| rest.len().min(part * 37)).find_map(|held| {
                let found = params.chunk_length_after(key.gear(), &rest[..held], known);
                known = held;
                (found < held || held == rest.len()).then_some(found)
            });
            assert_eq!(found, Some(expected), "at {from}");
            from += length;
        }
    }

    #[test]
    fn different_key_gives_different_cut_points() {
        let params = ChunkerParams::new(4096, 16384, 65536);
        let mut bytes = vec![0; 1 << 20];
        SeededRandom::new(2).fill(&mut bytes);
        let lengths = |seed| cut_all(&params, DomainKey::new(&SecretKey::new([seed; 32])).gear(), &bytes);
        assert_ne!(lengths(1), lengths(2));
    }
}
