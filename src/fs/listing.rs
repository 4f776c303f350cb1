//! Reads the names of one directory, sorted.

use std::os::fd::AsFd;

use rustix::fs::RawDir;
use rustix::io::Result;

use super::stat::FileType;

/// The most bytes of names in one directory: 512 MiB, some 20 million files. A directory with more
/// is a gap, so that it cannot fill the memory.
pub const MAX_NAMES: usize = 512 << 20;
const BUFFER: usize = 64 << 10;

/// The names of a directory in bytewise order, with their types as far as the directory gives them. It takes
/// the names' bytes and 12 bytes for each; nothing else is held of files before their turn. A directory of
/// 1,000,000 names of 20 bytes takes 32 MiB, and up to twice that while it is read.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    names: Vec<u8>,
    entries: Vec<NameSpan>,
}

#[derive(Debug, Clone, Copy)]
struct NameSpan {
    start: u32,
    len: u16,
    file_type: FileType,
}

impl Listing {
    /// Reads and sorts the names of an open directory; `None` if they take more than `max_bytes`.
    pub(crate) fn read(directory: impl AsFd, max_bytes: usize) -> Result<Option<Self>> {
        let mut buffer = Vec::with_capacity(BUFFER);
        let mut listing = Self::default();
        let mut raw = RawDir::new(directory.as_fd(), buffer.spare_capacity_mut());
        while let Some(entry) = raw.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            if listing.names.len() + name.len() > max_bytes.min(MAX_NAMES) {
                return Ok(None);
            }
            // Both fit: all names together are at most MAX_NAMES, and the kernel's buffer for one
            // entry limits each to less than 64 KiB.
            let (Ok(start), Ok(len)) = (u32::try_from(listing.names.len()), u16::try_from(name.len())) else {
                return Ok(None);
            };
            listing.entries.push(NameSpan { start, len, file_type: entry.file_type().into() });
            listing.names.extend_from_slice(name);
        }
        let names = &listing.names;
        let bytes =
            |name: &NameSpan| &names[name.start as usize..name.start as usize + usize::from(name.len)];
        listing.entries.sort_unstable_by(|a, b| bytes(a).cmp(bytes(b)));
        // A directory that changes while it is read may give one name twice.
        listing.entries.dedup_by(|a, b| bytes(a) == bytes(b));
        Ok(Some(listing))
    }

    /// Returns the name at `index` and its type; [`FileType::Unknown`] where the directory gives none.
    pub(crate) fn get(&self, index: usize) -> Option<(&[u8], FileType)> {
        let name = self.entries.get(index)?;
        let start = name.start as usize;
        Some((&self.names[start..start + usize::from(name.len)], name.file_type))
    }
}
