//! The list of entries that a restore returns to at its end: links, and directories without attributes.
//!
//! Records are tar headers. They are held in memory up to [`HELD`] bytes and then appended to a file
//! without a name in the target's root. That is the only place on this machine that may hold these
//! names in the clear. It is on the disk that has room for the restore, and nothing is left of it
//! when the process ends, for whatever reason.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::{Errno, Result};

use crate::format::tar;
use crate::format::tar::Entry;
use crate::format::tar::decode;

/// Bytes of records in memory from which on they are written to the file.
const HELD: usize = 256 << 10;
/// The longest record: a PAX header and two blocks.
const MAX_RECORD: usize = tar::MAX_PAX + 3 * tar::BLOCK;
const LENGTH: usize = 4;

/// A list of entries that can be read forwards or backwards. A record is its length (4 bytes, little
/// endian), a byte of flags, a tar header, and the length again.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    held: Vec<u8>,
    spilled: Option<OwnedFd>,
    spilled_len: u64,
}

impl Journal {
    /// Appends an entry. Its kind must have no content.
    pub(crate) fn push(&mut self, root: impl AsFd, mark: u8, entry: &Entry) -> Result<()> {
        // Entries come from headers or from the walk, so they can be encoded.
        let header = tar::encode(entry).map_err(|_| Errno::INVAL)?.header;
        let len = u32::try_from(header.len() + 1).map_err(|_| Errno::OVERFLOW)?.to_le_bytes();
        for part in [&len[..], &[mark], &header, &len] {
            self.held.extend_from_slice(part);
        }
        if self.held.len() < HELD {
            return Ok(());
        }
        if self.spilled.is_none() {
            self.spilled = Some(nameless(root)?);
        }
        let Some(file) = &self.spilled else { return Ok(()) };
        write_all(file, &self.held, self.spilled_len)?;
        self.spilled_len += self.held.len() as u64;
        self.held.clear();
        Ok(())
    }

    fn len(&self) -> u64 {
        self.spilled_len + self.held.len() as u64
    }

    /// Returns the entry that starts at `at` and the start of the next; `None` at the end.
    pub(crate) fn forward(&self, at: u64) -> Result<Option<(u8, Entry, u64)>> {
        if at >= self.len() {
            return Ok(None);
        }
        let len = self.length(at)?;
        let (mark, entry) = self.entry(at + LENGTH as u64, len)?;
        Ok(Some((mark, entry, at + (2 * LENGTH + len) as u64)))
    }

    /// Returns the offset at which reading backwards starts.
    pub(crate) fn end(&self) -> u64 {
        self.len()
    }

    /// Returns the entry that ends at `at` and its start; `None` at the beginning.
    pub(crate) fn backward(&self, at: u64) -> Result<Option<(u8, Entry, u64)>> {
        let Some(tail) = at.checked_sub(LENGTH as u64) else { return Ok(None) };
        let len = self.length(tail)?;
        let start = tail.checked_sub((LENGTH + len) as u64).ok_or(Errno::IO)?;
        let (mark, entry) = self.entry(start + LENGTH as u64, len)?;
        Ok(Some((mark, entry, start)))
    }

    fn length(&self, at: u64) -> Result<usize> {
        let mut bytes = [0u8; LENGTH];
        self.read(at, &mut bytes)?;
        usize::try_from(u32::from_le_bytes(bytes)).ok().filter(|len| *len <= MAX_RECORD).ok_or(Errno::IO)
    }

    fn entry(&self, at: u64, len: usize) -> Result<(u8, Entry)> {
        let mut bytes = vec![0u8; len];
        self.read(at, &mut bytes)?;
        let (mark, header) = bytes.split_first().ok_or(Errno::IO)?;
        // This process encoded it; if it does not decode, the disk has changed it.
        Ok((*mark, decode::whole(header).map_err(|_| Errno::IO)?))
    }

    /// Reads bytes of a record. It is wholly in the file or in memory, since whole buffers are spilled.
    fn read(&self, at: u64, into: &mut [u8]) -> Result<()> {
        if let Some(from) = at.checked_sub(self.spilled_len) {
            let from = usize::try_from(from).map_err(|_| Errno::IO)?;
            let bytes = self.held.get(from..from + into.len()).ok_or(Errno::IO)?;
            into.copy_from_slice(bytes);
            return Ok(());
        }
        let file = self.spilled.as_ref().ok_or(Errno::IO)?;
        let mut filled = 0;
        while filled < into.len() {
            match rustix::io::pread(file, &mut into[filled..], at + filled as u64) {
                Ok(0) => return Err(Errno::IO),
                Ok(got) => filled += got,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Writes all of `bytes` at `offset`.
pub(crate) fn write_all(file: impl AsFd, mut bytes: &[u8], mut offset: u64) -> Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file.as_fd(), bytes, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(done) => {
                bytes = &bytes[done..];
                offset += done as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Opens a file in `root` that has no name, or loses it at once.
fn nameless(root: impl AsFd) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::openat(root.as_fd(), c".", flags | OFlags::TMPFILE, mode) {
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {}
        other => return other,
    }
    let name = c".kbak-restore-journal";
    let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(root.as_fd(), name, flags, mode)?;
    rustix::fs::unlinkat(root, name, AtFlags::empty())?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tar::Kind;
    use crate::format::tar::Time;

    #[test]
    fn records_are_read_both_ways_from_memory_and_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let root = crate::fs::Root::open(dir.path()).expect("a root");
        let entries: Vec<Entry> = (0..600)
            .map(|number| Entry {
                path: format!("{number}/{}", "p".repeat(number * 5 + 1)).into_bytes(),
                kind: Kind::Directory,
                mode: 0o700,
                uid: 1,
                gid: 2,
                mtime: Time { seconds: number as i64, nanos: 3 },
                names: None,
                xattrs: Vec::new(),
            })
            .collect();
        let mut journal = Journal::default();
        for (number, entry) in entries.iter().enumerate() {
            journal.push(&root, number as u8, entry).expect("written");
        }
        assert!(journal.spilled_len > HELD as u64 && !journal.held.is_empty());
        assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 0, "it has a name");
        let (mut at, mut forward) = (0, Vec::new());
        while let Some((mark, entry, next)) = journal.forward(at).expect("read") {
            assert_eq!(mark, forward.len() as u8);
            forward.push(entry);
            at = next;
        }
        let (mut at, mut backward) = (journal.end(), Vec::new());
        while let Some((_, entry, next)) = journal.backward(at).expect("read") {
            backward.push(entry);
            at = next;
        }
        backward.reverse();
        assert!(forward == entries && backward == entries);
    }
}
