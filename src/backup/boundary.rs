//! Chooses the boundaries of segments and groups in the streams of volumes and resources.
//!
//! Both begin before members whose path hash, keyed with the domain's key, is below a threshold that
//! grows with the bytes at stake. So an inserted or deleted file moves only its own boundary, and the
//! averages hold for trees of small and of large files.

use crate::format::derive::DomainKey;
use crate::format::epoch::Sizes;

/// A group does not end before this many bytes of catalog text, unless its headers are too long.
const MIN_TEXT: u64 = 256 << 10;
/// The average that a group aims at, in bytes of catalog text.
const AVERAGE_TEXT: u64 = 512 << 10;
/// A group ends at the first member after this many bytes of catalog text.
const MAX_TEXT: u64 = 900 << 10;
/// Most bytes of headers in a group: the attributes and the extents in them are held in memory while it is planned.
const MAX_HEADERS: u64 = 6 << 20;
/// Estimated bytes of a catalog line besides its path.
const LINE: u64 = 120;

/// The boundary before a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Boundary {
    /// No boundary: the member joins its neighbours.
    None,
    /// A segment begins.
    Segment,
    /// A segment and a group begin.
    Group,
}

/// Chooses the boundaries, member by member.
#[derive(Debug)]
pub struct BoundaryChooser {
    sizes: Sizes,
    segment: u64,
    text_of_segment: u64,
    text: u64,
    headers: u64,
    first: bool,
    after_large: bool,
}

impl BoundaryChooser {
    /// Returns a chooser for segments of `sizes`.
    #[must_use]
    pub fn new(sizes: Sizes) -> Self {
        Self { sizes, segment: 0, text_of_segment: 0, text: 0, headers: 0, first: true, after_large: false }
    }

    /// True if a member of `length` bytes is cut into chunks of its own.
    #[must_use]
    pub fn is_large(&self, length: u64) -> bool {
        length >= self.sizes.min
    }

    /// Returns the boundary before the member at `path`, which takes `length` bytes in the stream,
    /// `header` of them before its content.
    pub fn boundary_before(&mut self, key: &DomainKey, path: &[u8], length: u64, header: u64) -> Boundary {
        let hash = key.cut(path);
        let full = self.text > MAX_TEXT || self.headers + header > MAX_HEADERS;
        let boundary = if self.first || full {
            Boundary::Group
        } else if self.segment_ends(hash, length) {
            // The lower half of the hash decides about groups, the upper half about segments.
            let probability = Probability { bytes: self.text_of_segment, interval: AVERAGE_TEXT - MIN_TEXT };
            if self.text >= MIN_TEXT && probability.is_hit(hash << 32) {
                Boundary::Group
            } else {
                Boundary::Segment
            }
        } else {
            Boundary::None
        };
        self.first = false;
        let text = path.len() as u64 + LINE;
        if boundary >= Boundary::Segment {
            (self.segment, self.text_of_segment) = (0, 0);
        }
        if boundary == Boundary::Group {
            (self.text, self.headers) = (0, 0);
        }
        self.segment += length;
        self.text_of_segment += text;
        self.text += text;
        self.headers += header;
        self.after_large = self.is_large(length);
        boundary
    }

    fn segment_ends(&self, hash: u64, length: u64) -> bool {
        if self.after_large || self.segment + length > self.sizes.max {
            return true;
        }
        let probability = Probability { bytes: length, interval: self.sizes.average - self.sizes.min };
        self.segment >= self.sizes.min && probability.is_hit(hash)
    }
}

/// A probability of `bytes` in `interval`.
struct Probability {
    bytes: u64,
    interval: u64,
}

impl Probability {
    /// True if the upper 32 bits of `hash` fall below the probability.
    fn is_hit(&self, hash: u64) -> bool {
        u128::from(hash >> 32) * u128::from(self.interval.max(1)) < u128::from(self.bytes) << 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::derive::SecretKey;

    fn boundaries(paths: &[String], length: u64) -> Vec<String> {
        let sizes = Sizes { min: 1 << 20, average: 3 << 19, max: 4 << 20 };
        let (mut chooser, key) = (BoundaryChooser::new(sizes), DomainKey::new(&SecretKey::new([1; 32])));
        let begins_segment =
            |path: &&String| chooser.boundary_before(&key, path.as_bytes(), length, 512) > Boundary::None;
        paths.iter().filter(begins_segment).cloned().collect()
    }

    #[test]
    fn insertion_moves_few_boundaries() {
        let paths: Vec<String> = (0..40_000).map(|i| format!("dir/{i:06}")).collect();
        let before = boundaries(&paths, 8192);
        let average = 40_000 * 8192 / before.len() as u64;
        assert!((1 << 20..5 << 19).contains(&average), "segments of {average} B on average");
        let mut more = paths.clone();
        more.insert(20_000, "dir/019999x".into());
        let after = boundaries(&more, 8192);
        let kept = before.iter().filter(|path| after.contains(path)).count();
        assert!(kept + 5 >= before.len(), "{kept} of {} boundaries stay", before.len());
    }
}
