//! The list of entries that a restore returns to at its end: links, and directories without attributes.
//!
//! Records are tar headers. They are held in memory up to [`MAX_BUFFER`] bytes and then appended to a file
//! without a name in the target's root. That is the only place on this machine that may hold these
//! names in the clear. It is on the disk that has room for the restore, and nothing is left of it
//! when the process ends, for whatever reason.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::{Errno, Result as Io};

use super::attributes::{self, AttributeOptions, Subject};
use super::{error::TargetError, report::FailureReason, state::TargetState};
use crate::format::tar::{self, EntryKind, TarEntry, decode};
use crate::runtime::kill_point;

/// Bytes of records in memory from which on they are written to the file.
const MAX_BUFFER: usize = 256 << 10;
/// The longest record: a PAX header and two blocks.
const MAX_RECORD: usize = tar::MAX_PAX + 3 * tar::BLOCK;
const LENGTH: usize = 4;
/// Flag of a directory that existed before the restore.
pub(super) const EXISTED: u8 = 1;
/// Flag of a directory that inherited an ACL.
pub(super) const INHERITED_ACL: u8 = 2;

/// A list of entries that can be read forwards or backwards. A record is its length (4 bytes, little
/// endian), a byte of flags, a tar header, and the length again.
#[derive(Debug, Default)]
pub(crate) struct DeferredEntries {
    buffer: Vec<u8>,
    file: Option<File>,
    file_len: u64,
}

impl DeferredEntries {
    /// Appends an entry. Its kind must have no content.
    pub(crate) fn push(&mut self, root: impl AsFd, flags: u8, entry: &TarEntry) -> Io<()> {
        // Entries come from headers or from the walk, so they can be encoded.
        let header = tar::encode(entry).map_err(|_| Errno::INVAL)?.header;
        let len = u32::try_from(header.len() + 1).map_err(|_| Errno::OVERFLOW)?.to_le_bytes();
        for part in [&len[..], &[flags], &header, &len] {
            self.buffer.extend_from_slice(part);
        }
        if self.buffer.len() < MAX_BUFFER {
            return Ok(());
        }
        if self.file.is_none() {
            self.file = Some(open_unnamed_file(root)?);
        }
        let Some(file) = &self.file else { return Ok(()) };
        file.write_all_at(&self.buffer, self.file_len).map_err(errno_of)?;
        self.file_len += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Returns the entry that starts at `at` and the start of the next; `None` at the end.
    pub(crate) fn forward(&self, at: u64) -> Io<Option<(u8, TarEntry, u64)>> {
        if at >= self.end() {
            return Ok(None);
        }
        let len = self.length(at)?;
        let (flags, entry) = self.entry(at + LENGTH as u64, len)?;
        Ok(Some((flags, entry, at + (2 * LENGTH + len) as u64)))
    }

    /// Returns the offset at which reading backwards starts.
    pub(crate) fn end(&self) -> u64 {
        self.file_len + self.buffer.len() as u64
    }

    /// Returns the entry that ends at `at` and its start; `None` at the beginning.
    pub(crate) fn backward(&self, at: u64) -> Io<Option<(u8, TarEntry, u64)>> {
        let Some(tail) = at.checked_sub(LENGTH as u64) else { return Ok(None) };
        let len = self.length(tail)?;
        let start = tail.checked_sub((LENGTH + len) as u64).ok_or(Errno::IO)?;
        let (flags, entry) = self.entry(start + LENGTH as u64, len)?;
        Ok(Some((flags, entry, start)))
    }

    fn length(&self, at: u64) -> Io<usize> {
        let mut bytes = [0u8; LENGTH];
        self.read(at, &mut bytes)?;
        usize::try_from(u32::from_le_bytes(bytes)).ok().filter(|len| *len <= MAX_RECORD).ok_or(Errno::IO)
    }

    fn entry(&self, at: u64, len: usize) -> Io<(u8, TarEntry)> {
        let mut bytes = vec![0u8; len];
        self.read(at, &mut bytes)?;
        let (flags, header) = bytes.split_first().ok_or(Errno::IO)?;
        // This process encoded it; if it does not decode, the disk has changed it.
        Ok((*flags, decode::decode_whole(header).map_err(|_| Errno::IO)?))
    }

    /// Reads bytes of a record. It is wholly in the file or in memory, since whole buffers are file.
    fn read(&self, at: u64, into: &mut [u8]) -> Io<()> {
        if let Some(from) = at.checked_sub(self.file_len) {
            let from = usize::try_from(from).map_err(|_| Errno::IO)?;
            let bytes = self.buffer.get(from..from + into.len()).ok_or(Errno::IO)?;
            into.copy_from_slice(bytes);
            return Ok(());
        }
        let file = self.file.as_ref().ok_or(Errno::IO)?;
        file.read_exact_at(into, at).map_err(errno_of)
    }
}

/// Returns the kernel's error, or `EIO` if the file ended early.
pub(super) fn errno_of(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

/// Opens a file in `root` that has no name, or loses it at once.
fn open_unnamed_file(root: impl AsFd) -> Io<File> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::openat(root.as_fd(), c".", flags | OFlags::TMPFILE, mode) {
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {}
        other => return other.map(File::from),
    }
    let name = c".kbak-restore-journal";
    let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(root.as_fd(), name, flags, mode)?;
    rustix::fs::unlinkat(root, name, AtFlags::empty())?;
    Ok(file.into())
}

pub(super) fn make_links(state: &TargetState, links: &DeferredEntries) -> Result<(), TargetError> {
    let mut at = 0;
    while let Some((_, entry, next)) = links.forward(at).map_err(TargetError::DeferredEntries)? {
        at = next;
        if let EntryKind::HardLink { link_target } = &entry.kind
            && let Err(reason) = state.make_link(&entry.path, link_target)
        {
            state.fail(&entry.path, reason);
        }
    }
    Ok(())
}

/// Sets the attributes of directories, from the last to the first: the content of a directory came after it.
pub(super) fn finish_directories(
    state: &TargetState,
    directories: &DeferredEntries,
) -> Result<(), TargetError> {
    let mut at = directories.end();
    while let Some((flags, entry, next)) = directories.backward(at).map_err(TargetError::DeferredEntries)? {
        at = next;
        let options = AttributeOptions {
            other_xattrs: state.options.allow_other_xattrs,
            inherited_acl: flags & INHERITED_ACL != 0,
            existed: flags & EXISTED != 0,
        };
        let finished = state
            .open_directory(&entry.path)
            .and_then(|directory| attributes::apply(Subject::Open(directory.as_fd()), &entry, options));
        match finished {
            Ok(lost) => state.record_lost_attributes(&entry.path, lost),
            Err(errno) => state.fail(&entry.path, FailureReason::system("set its attributes")(errno)),
        }
        kill_point("restore.directory.finished");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tar::FileTime;

    #[test]
    fn records_are_read_both_ways_from_memory_and_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let root = crate::fs::Root::open(dir.path()).expect("a root");
        let entries: Vec<TarEntry> = (0..600)
            .map(|number| TarEntry {
                path: format!("{number}/{}", "p".repeat(number * 5 + 1)).into_bytes(),
                kind: EntryKind::Directory,
                mode: 0o700,
                uid: 1,
                gid: 2,
                mtime: FileTime { seconds: number as i64, nanos: 3 },
                names: None,
                xattrs: Vec::new(),
            })
            .collect();
        let mut list = DeferredEntries::default();
        for (number, entry) in entries.iter().enumerate() {
            list.push(&root, number as u8, entry).expect("written");
        }
        assert!(list.file_len > MAX_BUFFER as u64 && !list.buffer.is_empty());
        assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 0, "it has a name");
        let (mut at, mut forward) = (0, Vec::new());
        while let Some((flags, entry, next)) = list.forward(at).expect("read") {
            assert_eq!(flags, forward.len() as u8);
            forward.push(entry);
            at = next;
        }
        let (mut at, mut backward) = (list.end(), Vec::new());
        while let Some((_, entry, next)) = list.backward(at).expect("read") {
            backward.push(entry);
            at = next;
        }
        backward.reverse();
        assert!(forward == entries && backward == entries);
    }
}
