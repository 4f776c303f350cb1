//! Packs: age files that hold many chunks each.
//!
//! Plaintext of a pack, in order:
//!
//! ```text
//! chunk frames    one zstd frame per chunk, content size and checksum on, window ≤ 2^23
//! padding frame   skippable 0x184D2A51, size u32, zeros: to a Padmé length of the whole
//! table frame     skippable 0x184D2A50, size u32, then per chunk 48 bytes:
//!                 id 32, offset u32, length u32, plain length u32, kind u8, zeros 3;
//!                 then count u32 and the magic `kbakpk01`
//! ```
//!
//! Numbers are little-endian. Stock `age -d | zstd -d` gives the chunks' plaintext one after the
//! other: skippable frames are invisible to it (RFC 8878, section 3.1.2).

use std::fmt;

use super::container::{ContainerError, DataRecipient, Sealer, sealed_capacity};
use super::ids::{ChunkId, NameId, ObjectHash};
use super::layout::{EpochPath, ObjectClass};
use super::symmetric::{take, take_u32};
use super::{derive::ChunkKind, object::SealedObject, padme};

/// The most plaintext that one chunk holds, in bytes: the window that stock `zstd -d` allows.
pub const MAX_CHUNK: usize = 8 << 20;
/// The largest pack, in bytes of plaintext; its ciphertext is about 0.03 % larger.
pub const MAX_PACK: usize = 64 << 20;

const PADDING_MAGIC: u32 = 0x184D_2A51;
const TABLE_MAGIC: u32 = 0x184D_2A50;
const END_MAGIC: &[u8; 8] = b"kbakpk01";
const ENTRY: usize = 48;
const SKIP_HEADER: usize = 8;
const TAIL: usize = 12;

/// The error for a pack whose table does not match its bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pack's table is wrong: {0}")]
pub struct TableError(pub &'static str);

/// The class of a pack. Data and metadata have separate packs, so that a listing reads few of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PackClass {
    /// Chunks of streams.
    Data,
    /// Slice lists and catalogs.
    Metadata,
}

impl PackClass {
    /// Returns the class of the packs that hold chunks of `kind`.
    #[must_use]
    pub fn of(kind: ChunkKind) -> Self {
        match kind {
            ChunkKind::Data => Self::Data,
            ChunkKind::List | ChunkKind::Catalog => Self::Metadata,
        }
    }
}

/// One chunk in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableEntry {
    /// The id of the chunk.
    pub id: ChunkId,
    /// The offset of the frame in the pack's plaintext, in bytes.
    pub offset: u32,
    /// The frame's length in bytes.
    pub length: u32,
    /// The chunk's length in bytes.
    pub plain: u32,
    /// The kind of its content.
    pub kind: ChunkKind,
}

/// Builds a pack. It holds ciphertext only: each frame is encrypted when it is added.
pub struct PackBuilder {
    sealer: Sealer,
    table: Vec<TableEntry>,
    filled: usize,
    target: usize,
}

impl PackBuilder {
    /// Returns the most bytes that a sealed pack takes that is full at `target` bytes of plaintext.
    #[must_use]
    pub fn sealed_capacity(target: usize) -> usize {
        let target = target.min(MAX_PACK);
        sealed_capacity(usize::try_from(padme::padded(target as u64)).unwrap_or(target))
    }

    /// Creates an empty pack for `recipient` that is full at `target` bytes of plaintext. `buffer` receives
    /// the sealed bytes.
    pub fn new(recipient: &DataRecipient, target: usize, buffer: Vec<u8>) -> Result<Self, ContainerError> {
        let target = target.min(MAX_PACK);
        let sealer = Sealer::to_recipient_in(recipient, buffer)?;
        Ok(Self { sealer, table: Vec::new(), filled: 0, target })
    }

    /// Returns `true` if a frame of `length` bytes still fits. An empty pack takes any frame.
    pub fn fits(&self, length: usize) -> bool {
        self.table.is_empty() || self.total(self.table.len() + 1, self.filled + length) <= self.target
    }

    fn total(&self, entries: usize, filled: usize) -> usize {
        filled + SKIP_HEADER + SKIP_HEADER + entries * ENTRY + TAIL
    }

    /// Adds a chunk's frame and returns its offset.
    pub fn push(
        &mut self,
        kind: ChunkKind,
        id: ChunkId,
        frame: &[u8],
        plain: u32,
    ) -> Result<u32, ContainerError> {
        let too_large = || ContainerError::TooLarge { limit: MAX_PACK as u64 };
        let offset = u32::try_from(self.filled).map_err(|_| too_large())?;
        let length = u32::try_from(frame.len()).map_err(|_| too_large())?;
        self.sealer.write(frame)?;
        self.filled += frame.len();
        self.table.push(TableEntry { id, offset, length, plain, kind });
        Ok(offset)
    }

    /// Returns the number of chunks added so far.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Returns `true` if the pack has no chunks.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Pads the pack, adds its table and finishes the age file.
    pub fn seal(mut self, path: &EpochPath, domain: NameId) -> Result<SealedPack, ContainerError> {
        let bare = self.total(self.table.len(), self.filled);
        let padding = usize::try_from(padme::padded(bare as u64)).unwrap_or(bare) - bare;
        let mut end = Vec::with_capacity(2 * SKIP_HEADER + padding + self.table.len() * ENTRY + TAIL);
        skippable(&mut end, PADDING_MAGIC, padding);
        end.resize(end.len() + padding, 0);
        skippable(&mut end, TABLE_MAGIC, self.table.len() * ENTRY + TAIL);
        for entry in &self.table {
            end.extend_from_slice(&entry.id.0);
            for number in [entry.offset, entry.length, entry.plain] {
                end.extend_from_slice(&number.to_le_bytes());
            }
            end.extend_from_slice(&[entry.kind.code(), 0, 0, 0]);
        }
        let count = u32::try_from(self.table.len()).unwrap_or(u32::MAX);
        end.extend_from_slice(&count.to_le_bytes());
        end.extend_from_slice(END_MAGIC);
        self.sealer.write(&end)?;
        let (bytes, hash) = self.sealer.finish()?;
        let size = bytes.len() as u64;
        let object = SealedObject::new(path.in_domain(domain, ObjectClass::Pack, hash), bytes, hash);
        Ok(SealedPack { object, hash, size, table: self.table })
    }
}

impl fmt::Debug for PackBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackBuilder({} chunks, {} of {} B)", self.table.len(), self.filled, self.target)
    }
}

fn skippable(out: &mut Vec<u8>, magic: u32, length: usize) {
    out.extend_from_slice(&magic.to_le_bytes());
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

/// A finished pack, ready for the store.
#[derive(Debug)]
pub struct SealedPack {
    /// The object to store.
    pub object: SealedObject,
    /// The object's SHA-256, which is its name.
    pub hash: ObjectHash,
    /// The size of the stored object, in bytes.
    pub size: u64,
    /// One entry per chunk.
    pub table: Vec<TableEntry>,
}

/// Reads the table of a decrypted pack and checks it against the pack's bytes: adjoining frames from
/// the first byte on, then padding of zeros, then the table, and no other bytes.
pub fn read_table(plaintext: &[u8]) -> Result<Vec<TableEntry>, TableError> {
    let wrong = TableError;
    let size = table_length(plaintext)?;
    let entries_at = plaintext.len().checked_sub(size).ok_or(wrong("count"))?;
    let (rest, end) = plaintext.split_at(entries_at);
    let rest = strip_skippable(rest, TABLE_MAGIC, size).ok_or(wrong("table frame"))?;
    let table = read_entries(end)?;
    let expected = table.last().map_or(0, |last| last.offset as usize + last.length as usize);
    let padding = rest.get(expected + SKIP_HEADER..).ok_or(wrong("frames past the padding"))?;
    strip_skippable(&rest[..expected + SKIP_HEADER], PADDING_MAGIC, padding.len())
        .ok_or(wrong("padding frame"))?;
    if padding.iter().any(|&byte| byte != 0) {
        return Err(wrong("padding that is not zero"));
    }
    Ok(table)
}

/// Returns the length of the table at the end of a pack, in bytes. `end` are the last bytes of the pack, at least
/// 12.
pub fn table_length(end: &[u8]) -> Result<usize, TableError> {
    let (rest, magic) = end.split_last_chunk::<8>().ok_or(TableError("too short"))?;
    if magic != END_MAGIC {
        return Err(TableError("no table at the end"));
    }
    let (_, count) = rest.split_last_chunk::<4>().ok_or(TableError("too short"))?;
    let size = (u32::from_le_bytes(*count) as usize).checked_mul(ENTRY).ok_or(TableError("count"))?;
    size.checked_add(TAIL).ok_or(TableError("count"))
}

/// Reads a table: the last bytes of a pack, as many as [`table_length`] says.
pub fn read_entries(end: &[u8]) -> Result<Vec<TableEntry>, TableError> {
    let wrong = TableError;
    let size = table_length(end)?.checked_sub(TAIL).filter(|size| size + TAIL == end.len());
    let entries = &end[..size.ok_or(wrong("count"))?];
    let mut table = Vec::with_capacity(entries.len() / ENTRY);
    let mut expected = 0u32;
    for bytes in entries.chunks_exact(ENTRY) {
        let entry = read_entry(bytes).ok_or(wrong("entry"))?;
        if entry.offset != expected || entry.plain as usize > MAX_CHUNK {
            return Err(wrong("entry out of place"));
        }
        expected = expected.checked_add(entry.length).ok_or(wrong("entry length"))?;
        table.push(entry);
    }
    Ok(table)
}

/// Removes the header of a skippable frame of `length` bytes from the end of `bytes`.
fn strip_skippable(bytes: &[u8], magic: u32, length: usize) -> Option<&[u8]> {
    let (rest, size) = bytes.split_last_chunk::<4>()?;
    let (rest, found) = rest.split_last_chunk::<4>()?;
    (u32::from_le_bytes(*found) == magic && u32::from_le_bytes(*size) as usize == length).then_some(rest)
}

fn read_entry(bytes: &[u8]) -> Option<TableEntry> {
    let mut rest = bytes;
    let id = ChunkId(take(&mut rest)?);
    let (offset, length, plain) = (take_u32(&mut rest)?, take_u32(&mut rest)?, take_u32(&mut rest)?);
    let [kind, 0, 0, 0] = rest else { return None };
    Some(TableEntry { id, offset, length, plain, kind: ChunkKind::from_code(*kind)? })
}
