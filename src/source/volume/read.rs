//! Reads the content of members: small ones whole into a caller's buffer, large ones block by block.
//!
//! A file may change between the walk and the read, and during the read. The header always declares the bytes
//! that follow it. If the file is not the one that the walk saw, the member is encoded anew. If it changes
//! during the read, it is read again. After the last attempt the member keeps its declared length (a file
//! that shrank ends in zeros, one that grew is cut), and the change is reported as a gap.
//!
//! A size may be wrong without any change: /proc says 0 for all files, sysfs 4096, and FUSE what its server
//! says. So a file is read until it ends. Where that is not at its size, the member is encoded anew with the
//! length that was found, and read again.
//!
//! A file with further names is read only if it is the file that the walk saw. Links to it in the
//! stream name its path, and would restore any other content that is stored there.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::fs::{Advice, Mode, OFlags};
use rustix::io::Errno;

use super::VolumeReader;
use super::gap::GapKind;
use super::inspect::{EntryLocation, InspectLimits, Inspected, VolumeMember};
use super::length::{find_end, read_at};
use crate::format::tar::{self, EntryKind, Extent};
use crate::fs::beneath::{self, Mounts};
use crate::fs::{FileType, Stat};

/// The number of reads of a changing file before the change is accepted and reported.
pub const ATTEMPTS: usize = 3;

/// The consistency of content that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadConsistency {
    /// The file was the same before and after, so the member shows one moment.
    Stable,
    /// The file changed while it was read. The bytes have the declared length and may mix several
    /// moments. Report the gap [`GapKind::Changed`].
    Changed,
    /// The file did not change, and ends after this number of bytes. The member has another length: read
    /// it again with that one ([`VolumeReader::for_next_attempt`]).
    EndsAt(u64),
}

/// The result of reading a whole member.
#[derive(Debug)]
pub enum AppendResult {
    /// The member is in the buffer. It differs from the given member if the file changed since the walk.
    Stored(VolumeMember, ReadConsistency),
    /// The member grew too large since the walk: use [`VolumeReader::read`]. Nothing was appended.
    TooLarge(VolumeMember),
}

/// A member whose content is read in blocks.
#[derive(Debug)]
pub struct MemberReader {
    member: VolumeMember,
    /// The open file; none for members without content.
    fd: Option<OwnedFd>,
    extents: Vec<Extent>,
    extent: usize,
    within: u64,
    /// The offset at which the file ended, if that was before the last extent's end.
    short_at: Option<u64>,
}

impl VolumeReader {
    /// Appends header, map, content and padding of `member` to `out`, if they are at most `max`
    /// bytes ([`VolumeMember::encoded_len`]).
    /// Fails with the reason why it cannot be read; `out` is then unchanged. [`GapKind::Open`] with
    /// `ENOENT` means that the file was deleted, which is no loss unless a link to it is stored.
    /// [`GapKind::LinkTargetGone`] means that a file with possible links was replaced, which is a loss.
    pub fn append(&self, member: VolumeMember, max: u64, out: &mut Vec<u8>) -> Result<AppendResult, GapKind> {
        let start = out.len();
        let mut last = member;
        for attempt in 1..=ATTEMPTS {
            let mut reading = self.read(last)?;
            if reading.member.encoded_len() > max {
                return Ok(AppendResult::TooLarge(reading.member));
            }
            let content = read_whole(&mut reading, out);
            let (member, content) = match content.and_then(|()| reading.finish()) {
                Ok(read) => read,
                Err(gap) => {
                    out.truncate(start);
                    return Err(gap);
                }
            };
            if content == ReadConsistency::Stable || attempt == ATTEMPTS {
                return Ok(AppendResult::Stored(member, content));
            }
            out.truncate(start);
            last = self.for_next_attempt(member, content)?;
        }
        Err(GapKind::Changed)
    }

    /// Opens a member for reading in blocks. If the file is not the one that the walk saw, the member is
    /// encoded anew: use [`MemberReader::member`] from here on. Fails as [`Self::append`] does.
    pub fn read(&self, member: VolumeMember) -> Result<MemberReader, GapKind> {
        if !matches!(member.entry.kind, EntryKind::File { .. } | EntryKind::Sparse { .. }) {
            return Ok(MemberReader::new(member, None));
        }
        let has_links = member.stat.has_links();
        self.read_file(member).map_err(|gap| match gap {
            GapKind::Replaced if has_links => GapKind::LinkTargetGone,
            gap => gap,
        })
    }

    fn read_file(&self, member: VolumeMember) -> Result<MemberReader, GapKind> {
        let fd = self.open_file(&member.entry.path, member.stat.uid)?;
        let now = beneath::stat_fd(&fd).map_err(GapKind::Stat)?;
        if now.file_type != FileType::File {
            return Err(GapKind::Replaced);
        }
        let member = if now.is_unchanged(&member.stat) { member } else { self.reencode(member, &now)? };
        if member.content > 1 << 20 {
            // This is only advice; a file system that does not support it reads anyway.
            let _ = rustix::fs::fadvise(&fd, 0, None, Advice::Sequential);
        }
        Ok(MemberReader::new(member, Some(fd)))
    }

    /// Encodes a member anew after the file was opened with the attributes `now`.
    fn reencode(&self, member: VolumeMember, now: &Stat) -> Result<VolumeMember, GapKind> {
        let mut again = self.inspect_again(&member.entry.path)?;
        let inode = member.stat.inode();
        if member.stat.has_links() && (now.inode() != inode || again.stat.inode() != inode) {
            return Err(GapKind::Replaced);
        }
        // Names that were deleted since the walk may be in the stream, so they still count as links.
        again.stat.nlink = again.stat.nlink.max(member.stat.nlink);
        Ok(again)
    }

    /// Returns the member at `path` as it is now, on its own: never a link to another member.
    ///
    /// Used for a hard link whose target could not be stored: the content is then stored under its path.
    /// Fails with [`GapKind::Open`] and `ENOENT` if the path does not exist.
    pub fn inspect_again(&self, path: &[u8]) -> Result<VolumeMember, GapKind> {
        let place = self.place_of(path)?;
        match self.inspect(&place, &mut path.to_vec(), false, InspectLimits::FULL, &mut Vec::new()) {
            Inspected::Member(member, _) => Ok(*member),
            Inspected::Gap(gap) => Err(gap),
            Inspected::Vanished => Err(GapKind::Open(Errno::NOENT)),
            Inspected::Skipped(_) | Inspected::ExceedsLimits => Err(GapKind::Replaced),
        }
    }

    /// Returns the member to read after a read with this result: with the length that was found, if that is
    /// another one, and then without holes.
    pub fn for_next_attempt(
        &self,
        member: VolumeMember,
        content: ReadConsistency,
    ) -> Result<VolumeMember, GapKind> {
        let ReadConsistency::EndsAt(end) = content else { return Ok(member) };
        let (path, kind) = (member.entry.path, EntryKind::File { size: end });
        let place = self.place_of(&path)?;
        // The first inspection has recorded those that are left out.
        let xattrs =
            self.read_xattrs(&place, &path, InspectLimits::FULL, &mut Vec::new()).unwrap_or_default();
        self.encode(path, kind, member.stat, xattrs, &mut Vec::new()).map_err(|(_, gap)| gap)
    }

    fn place_of(&self, path: &[u8]) -> Result<EntryLocation, GapKind> {
        let (parent, _) = tar::order::split(path).ok_or(GapKind::Replaced)?;
        let parent = self.inner.root.open_directory(parent, true, Mounts::Stop).map_err(GapKind::Open)?;
        Ok(EntryLocation::In(Arc::new(parent)))
    }

    /// Opens a regular file. Its access time is left unchanged if this user may request that.
    fn open_file(&self, path: &[u8], owner: u32) -> Result<OwnedFd, GapKind> {
        // Without O_NONBLOCK, opening a pipe that took the file's place would block for ever.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let open = |flags| self.inner.root.open_beneath(path, flags, Mode::empty(), Mounts::Stop);
        let may_ask = self.inner.euid == 0 || self.inner.euid == owner;
        let opened = match may_ask.then(|| open(flags | OFlags::NOATIME)) {
            Some(Ok(fd)) => Ok(fd),
            Some(Err(Errno::PERM)) | None => open(flags),
            Some(Err(error)) => Err(error),
        };
        opened.map_err(|error| match error {
            Errno::LOOP | Errno::NOTDIR | Errno::ISDIR | Errno::NXIO => GapKind::Replaced,
            other => GapKind::Open(other),
        })
    }
}

impl MemberReader {
    fn new(member: VolumeMember, fd: Option<OwnedFd>) -> Self {
        let extents = match &member.entry.kind {
            EntryKind::Sparse { extents, .. } => extents.clone(),
            _ => vec![Extent { offset: 0, len: member.content }],
        };
        Self { member, fd, extents, extent: 0, within: 0, short_at: None }
    }

    /// Returns the member whose content this is. Write its header and map first.
    pub fn member(&self) -> &VolumeMember {
        &self.member
    }

    /// Fills `buffer` with content and returns the number of bytes; 0 is the end. Holes are not
    /// read. Where the file became shorter, zeros replace the missing bytes.
    pub fn next_block(&mut self, buffer: &mut [u8]) -> Result<usize, GapKind> {
        let Some(fd) = &self.fd else { return Ok(0) };
        let mut filled = 0;
        while filled < buffer.len() {
            let Some(extent) = self.extents.get(self.extent) else { break };
            let left = extent.len - self.within;
            if left == 0 {
                (self.extent, self.within) = (self.extent + 1, 0);
                continue;
            }
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len() - filled);
            let into = &mut buffer[filled..filled + want];
            let got = read_at(fd, into, extent.offset + self.within)?;
            into[got..].fill(0);
            if got < want {
                self.short_at.get_or_insert(extent.offset + self.within + got as u64);
            }
            filled += want;
            self.within += want as u64;
        }
        Ok(filled)
    }

    /// Appends at most `most` bytes of content to `out`, for which it has room, and returns their number; 0 is the
    /// end. As [`Self::next_block`], but the memory is not cleared first.
    pub fn fill(&mut self, out: &mut Vec<u8>, most: usize) -> Result<usize, GapKind> {
        let start = out.len();
        let (Some(fd), [extent]) = (&self.fd, self.extents.as_slice()) else {
            out.resize(start + most, 0);
            let got = self.next_block(&mut out[start..])?;
            out.truncate(start + got);
            return Ok(got);
        };
        let want = usize::try_from(extent.len - self.within).unwrap_or(usize::MAX).min(most);
        let from = extent.offset + self.within;
        out.reserve(want);
        while out.len() - start < want {
            let at = from + (out.len() - start) as u64;
            match rustix::io::pread(fd, spare_capacity(out), at) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(GapKind::Read(error)),
            }
        }
        let got = out.len() - start;
        if got < want {
            self.short_at.get_or_insert(from + got as u64);
        }
        // Zeros for those that are missing, and none past the end.
        out.resize(start + want, 0);
        self.within += want as u64;
        Ok(want)
    }

    /// Compares the file with its attributes when the read began, and its end with the declared length.
    pub fn finish(self) -> Result<(VolumeMember, ReadConsistency), GapKind> {
        let Some(fd) = &self.fd else { return Ok((self.member, ReadConsistency::Stable)) };
        let declared = self.member.length();
        // Read first: if more appeared meanwhile, the attributes show it.
        let end = match self.short_at {
            Some(end) => end,
            None => find_end(fd, declared)?,
        };
        let now: Stat = beneath::stat_fd(fd).map_err(GapKind::Stat)?;
        let content = match now.is_unchanged(&self.member.stat) {
            false => ReadConsistency::Changed,
            true if end == declared => ReadConsistency::Stable,
            true => ReadConsistency::EndsAt(end),
        };
        Ok((self.member, content))
    }
}

fn read_whole(reading: &mut MemberReader, out: &mut Vec<u8>) -> Result<(), GapKind> {
    let member = &reading.member;
    let content = usize::try_from(member.content).map_err(|_| GapKind::Read(Errno::FBIG))?;
    out.reserve(usize::try_from(member.before_content()).unwrap_or(0) + content + tar::BLOCK);
    member.append_before_content(out)?;
    reading.fill(out, content)?;
    out.resize(out.len() + tar::padding(content as u64), 0);
    Ok(())
}
