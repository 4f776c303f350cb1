//! A stream as a list of slices, in parts of at most 1 MiB.
//!
//! A part is text: a first line `{"packs":[["<sha256>",size],…]}`, then one line per slice,
//! `[pack, offset, length, plain length, "id", skip, take]`: decode `length` bytes at `offset` of
//! the decrypted pack (one zstd frame), check the id, leave out `skip` bytes, use `take`. Parts are
//! chunks of kind list; the body names them. A reader needs nothing else to read a stream.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::ids::{ChunkId, ObjectHash};
use super::{name::Name, pack::MAX_CHUNK};
use crate::format::pack_refs::PackName;

/// A part ends before it is longer than this, in bytes of text.
pub const MAX_PART: usize = 1 << 20;
/// The most bytes that one slice adds to a part: its line and a pack of its own.
pub const MAX_SLICE_TEXT: usize = 7 * 11 + 64 + 16 + 64 + 24;

/// The location of a chunk's frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkLocation {
    /// The pack that holds it.
    pub pack: PackName,
    /// The offset of the frame in the pack's plaintext, in bytes.
    pub offset: u32,
    /// The frame's length in bytes.
    pub length: u32,
    /// The chunk's length in bytes.
    pub plain: u32,
}

/// A range of a chunk's bytes, as one piece of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// The location of the chunk.
    pub location: ChunkLocation,
    /// The id of the chunk.
    pub id: ChunkId,
    /// The number of bytes to leave out at the start of the chunk.
    pub skip: u32,
    /// The number of bytes that belong to the stream.
    pub take: u32,
}

/// The error for a malformed part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the list is malformed")]
pub struct ListError {
    /// The line, from 1; 0 if the part does not end with a line end.
    pub line: usize,
}

#[derive(Serialize, Deserialize)]
struct PartHead {
    packs: Vec<(ObjectHash, u64)>,
}

/// Returns the packs of slices, in the order of their first use, and the number of each slice's pack.
pub(super) fn number_packs(slices: &[Slice]) -> (Vec<PackName>, Vec<usize>) {
    let mut packs: Vec<PackName> = Vec::new();
    let mut known = HashMap::new();
    let number = |slice: &Slice| {
        *known.entry(slice.location.pack.hash).or_insert_with(|| {
            packs.push(slice.location.pack);
            packs.len() - 1
        })
    };
    let numbers = slices.iter().map(number).collect();
    (packs, numbers)
}

/// Writes a part.
#[must_use]
pub fn write_part(slices: &[Slice]) -> String {
    let (packs, numbers) = number_packs(slices);
    let mut lines = String::with_capacity(slices.len() * 110);
    for (slice, number) in slices.iter().zip(numbers) {
        let ChunkLocation { offset, length, plain, .. } = slice.location;
        // Writing to a String cannot fail.
        let Slice { id, skip, take, .. } = slice;
        let _ = writeln!(lines, "[{number},{offset},{length},{plain},\"{id}\",{skip},{take}]");
    }
    let mut text = String::from("{\"packs\":[");
    for (at, pack) in packs.iter().enumerate() {
        let _ = write!(text, "{}[\"{}\",{}]", if at > 0 { "," } else { "" }, pack.hash, pack.size);
    }
    text.push_str("]}\n");
    text.push_str(&lines);
    text
}

/// Reads a part.
pub fn read_part(text: &[u8]) -> Result<Vec<Slice>, ListError> {
    let text = text.strip_suffix(b"\n").ok_or(ListError { line: 0 })?;
    let mut lines = text.split(|&byte| byte == b'\n').enumerate();
    let head = lines.next().and_then(|(_, line)| serde_json::from_slice::<PartHead>(line).ok());
    let packs = head.ok_or(ListError { line: 1 })?.packs;
    let read = |line: &[u8]| {
        type Line = (u32, u32, u32, u32, ChunkId, u32, u32);
        let (number, offset, length, plain, id, skip, take) = serde_json::from_slice::<Line>(line).ok()?;
        let &(hash, size) = packs.get(number as usize)?;
        let within = skip.checked_add(take)? <= plain && take > 0 && plain as usize <= MAX_CHUNK;
        let location = ChunkLocation { pack: PackName { hash, size }, offset, length, plain };
        within.then_some(Slice { location, id, skip, take })
    };
    lines.map(|(at, line)| read(line).ok_or(ListError { line: at + 1 })).collect()
}

/// Computes the hash of a stream: BLAKE3 over (id, skip, take) of its slices in order, numbers little-endian.
#[derive(Debug, Default)]
pub struct StreamHasher(blake3::Hasher);

impl StreamHasher {
    /// Adds the next slice.
    pub fn update(&mut self, slice: &Slice) {
        self.0.update(&slice.id.0);
        self.0.update(&slice.skip.to_le_bytes());
        self.0.update(&slice.take.to_le_bytes());
    }

    /// Returns the hash of all slices added.
    pub fn finish(&self) -> ObjectHash {
        ObjectHash(*self.0.finalize().as_bytes())
    }
}

/// The location of a list part or a catalog chunk, as the body holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The SHA-256 of the pack that holds it.
    pub pack: ObjectHash,
    /// The size of the stored pack, in bytes.
    pub pack_size: u64,
    /// The offset of the frame in the pack's plaintext, in bytes.
    pub offset: u32,
    /// The frame's length in bytes.
    pub length: u32,
    /// The length of the part's plaintext, in bytes.
    pub plain_length: u32,
    /// The part's chunk id.
    pub id: ChunkId,
    /// The offset in the stream of the first byte that the part lists.
    pub start: u64,
    /// The first member that starts in this part; `None` if one member takes up all of the part.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub first: Option<Name>,
}

impl Part {
    /// Returns the location of the part's own chunk.
    pub fn location(&self) -> ChunkLocation {
        ChunkLocation {
            pack: PackName { hash: self.pack, size: self.pack_size },
            offset: self.offset,
            length: self.length,
            plain: self.plain_length,
        }
    }
}
