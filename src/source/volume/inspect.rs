//! Makes a member from one name in a directory: attributes, link target, extended attributes, holes, header.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result as Io};

use super::VolumeReader;
use super::gap::{GapKind, LeftOut, SkipReason};
use super::length::find_end;
use crate::format::tar::{self, EntryKind, MAX_EXTENTS, TarEntry, Xattr};
use crate::fs::{FileType, Root, Stat, beneath, holes, xattrs};

/// One entry of a volume with its header, as [`tar::encode`] gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeMember {
    /// The path relative to the root; [`tar::ROOT`] is the root itself.
    pub path: Vec<u8>,
    /// The type; a link names its target.
    pub kind: EntryKind,
    /// The exact PAX and ustar blocks.
    pub header: Vec<u8>,
    /// The map of a file with holes, padded to a block; otherwise empty.
    pub map: Vec<u8>,
    /// The number of content bytes that follow header and map, before padding.
    pub content: u64,
    /// The attributes that the header was made from.
    pub stat: Stat,
}

impl VolumeMember {
    /// Returns the length in the stream: header, map, content and padding.
    pub fn encoded_len(&self) -> u64 {
        self.before_content() + self.content + tar::padding(self.content) as u64
    }

    /// Returns the length of header and map.
    pub fn before_content(&self) -> u64 {
        (self.header.len() + self.map.len()) as u64
    }

    /// Returns the length that the header declares, holes included; 0 for all but files.
    pub fn length(&self) -> u64 {
        match &self.kind {
            EntryKind::File { size } | EntryKind::Sparse { size, .. } => *size,
            _ => 0,
        }
    }

    /// Returns true if the file system states the length that the header declares. Only then does it show
    /// later changes of the file.
    pub fn has_stated_length(&self) -> bool {
        match self.kind {
            EntryKind::File { .. } | EntryKind::Sparse { .. } => self.length() == self.stat.size,
            _ => true,
        }
    }

    /// Appends the bytes that a scan cache digests: the exact header, then ino, ctime seconds and ctime
    /// nanoseconds in little endian. Equal bytes mean equal content if [`super::VolumeReader::is_settled`].
    pub fn append_cache_key(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.header);
        out.extend_from_slice(&self.stat.ino.to_le_bytes());
        out.extend_from_slice(&self.stat.ctime.seconds.to_le_bytes());
        out.extend_from_slice(&self.stat.ctime.nanos.to_le_bytes());
    }

    /// Turns the member into a hard link to an earlier path of the same inode.
    pub(super) fn into_link(self, link_target: Vec<u8>) -> Result<Self, GapKind> {
        let Self { path, stat, .. } = self;
        Self::encode(path, EntryKind::HardLink { link_target }, stat, Vec::new())
    }

    pub(super) fn encode(
        path: Vec<u8>,
        kind: EntryKind,
        stat: Stat,
        xattrs: Vec<Xattr>,
    ) -> Result<Self, GapKind> {
        let Stat { mode, uid, gid, mtime, .. } = stat;
        let entry = TarEntry { path, kind, mode, uid, gid, mtime, names: None, xattrs };
        let encoded = tar::encode(&entry).map_err(GapKind::Encode)?;
        let TarEntry { path, kind, .. } = entry;
        Ok(Self { path, kind, header: encoded.header, map: encoded.map, content: encoded.content, stat })
    }
}

/// The place of an entry.
#[derive(Debug, Clone)]
pub(super) enum EntryLocation {
    /// The open directory itself.
    Itself(Arc<OwnedFd>),
    /// A name in an open directory.
    Named(Arc<OwnedFd>, Vec<u8>),
}

/// The memory limits of one inspection.
#[derive(Debug, Clone, Copy)]
pub(super) struct InspectLimits {
    xattrs: usize,
    extents: usize,
}

impl InspectLimits {
    /// Limits for members that wait in a queue.
    pub(super) const AHEAD: Self = Self { xattrs: 2048, extents: 64 };
    /// Limits for the one member that is processed now.
    pub(super) const FULL: Self = Self { xattrs: tar::MAX_PAX, extents: MAX_EXTENTS };
}

/// The result of an inspection.
#[derive(Debug)]
pub(super) enum Inspected {
    Member(Box<VolumeMember>, Vec<LeftOut>),
    Skipped(SkipReason),
    Gap(GapKind),
    /// The name no longer exists.
    Vanished,
    /// The member exceeds the limits: inspect it again when its turn comes.
    ExceedsLimits,
}

impl VolumeReader {
    /// Inspects one place. `directory` is true if the planner took it for a directory. If the type
    /// changed since, the result is [`GapKind::Replaced`], because its content was not walked.
    pub(super) fn inspect(
        &self,
        place: &EntryLocation,
        path: &[u8],
        directory: bool,
        limits: InspectLimits,
    ) -> Inspected {
        match self.try_inspect(place, path, directory, limits) {
            Ok(found) => found,
            Err(GapKind::Stat(Errno::NOENT)) => Inspected::Vanished,
            Err(gap) => Inspected::Gap(gap),
        }
    }

    fn try_inspect(
        &self,
        place: &EntryLocation,
        path: &[u8],
        directory: bool,
        limits: InspectLimits,
    ) -> Result<Inspected, GapKind> {
        let stat = match place {
            EntryLocation::Itself(fd) => beneath::stat_fd(fd),
            EntryLocation::Named(fd, name) => beneath::stat_at(fd, name),
        }
        .map_err(GapKind::Stat)?;
        if directory != (stat.file_type == FileType::Directory) {
            return Err(GapKind::Replaced);
        }
        if stat.is_mount_root && !directory {
            return Ok(Inspected::Skipped(SkipReason::MountPoint));
        }
        let kind = match stat.file_type {
            FileType::Socket => return Ok(Inspected::Skipped(SkipReason::Socket)),
            FileType::Unknown => return Ok(Inspected::Skipped(SkipReason::UnknownType)),
            FileType::Directory => EntryKind::Directory,
            FileType::Fifo => EntryKind::Fifo,
            FileType::CharDevice => EntryKind::CharDevice(stat.rdev),
            FileType::BlockDevice => EntryKind::BlockDevice(stat.rdev),
            FileType::Symlink => EntryKind::Symlink { target: read_link(place)? },
            FileType::File => match self.file_kind(place, &stat, limits)? {
                Some(kind) => kind,
                None => return Ok(Inspected::ExceedsLimits),
            },
        };
        let mut left_out = Vec::new();
        let Some(xattrs) = self.read_xattrs(place, limits, &mut left_out) else {
            return Ok(Inspected::ExceedsLimits);
        };
        if stat.is_locked {
            left_out.push(LeftOut::LockedFlag);
        }
        let member = VolumeMember::encode(path.to_vec(), kind, stat, xattrs)?;
        Ok(Inspected::Member(Box::new(member), left_out))
    }

    /// Returns a plain file or one with holes; `None` if the map exceeds the limit.
    fn file_kind(
        &self,
        place: &EntryLocation,
        stat: &Stat,
        limits: InspectLimits,
    ) -> Result<Option<EntryKind>, GapKind> {
        let plain = EntryKind::File { size: stat.size };
        let EntryLocation::Named(directory, name) = place else { return Ok(Some(plain)) };
        // A member that is larger than it seems must be known as large from the beginning.
        let may_be_longer = stat.size == 0 && !self.inner.timestamp_trust.are_sizes_exact();
        if !stat.may_have_holes() && !may_be_longer {
            return Ok(Some(plain));
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let Ok(fd) = rustix::fs::openat(directory, name.as_slice(), flags, Mode::empty()) else {
            // The later read meets the same error and reports it.
            return Ok(Some(plain));
        };
        if may_be_longer {
            return Ok(Some(EntryKind::File { size: find_end(&fd, 0)? }));
        }
        let extents = if limits.extents < MAX_EXTENTS {
            holes::find_few_extents(&fd, stat.size, limits.extents).map_err(GapKind::Holes)?
        } else {
            Some(holes::find_extents(&fd, stat.size, limits.extents).map_err(GapKind::Holes)?)
        };
        let Some(extents) = extents else { return Ok(None) };
        let data: u64 = extents.iter().map(|extent| extent.len).sum();
        Ok(Some(if data == stat.size { plain } else { EntryKind::Sparse { size: stat.size, extents } }))
    }

    /// Returns the extended attributes that are kept, sorted; `None` if they exceed the limit.
    pub(super) fn read_xattrs(
        &self,
        place: &EntryLocation,
        limits: InspectLimits,
        left_out: &mut Vec<LeftOut>,
    ) -> Option<Vec<Xattr>> {
        let at = match place {
            EntryLocation::Itself(fd) => beneath::proc_path(fd, b"."),
            EntryLocation::Named(fd, name) => beneath::proc_path(fd, name),
        };
        let list = match xattrs::list(&at) {
            Ok(list) => list,
            Err(Errno::OPNOTSUPP | Errno::NOENT) => return Some(Vec::new()),
            Err(_) => {
                left_out.push(LeftOut::UnreadableXattr);
                return Some(Vec::new());
            }
        };
        let mut kept = Vec::new();
        let mut total = 0;
        for name in list.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
            if let Some(why) = self.left_out_xattr(name) {
                left_out.push(why);
                continue;
            }
            match xattrs::value(&at, name) {
                Ok(value) => {
                    total += name.len() + value.len();
                    kept.push(Xattr { name: name.to_vec(), value });
                }
                Err(Errno::NODATA | Errno::NOENT) => {}
                Err(_) => left_out.push(LeftOut::UnreadableXattr),
            }
            if total > limits.xattrs && limits.xattrs < InspectLimits::FULL.xattrs {
                left_out.clear();
                return None;
            }
        }
        kept.sort();
        Some(kept)
    }

    fn left_out_xattr(&self, name: &[u8]) -> Option<LeftOut> {
        let options = &self.inner.options;
        match name {
            b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default" => None,
            b"security.selinux" => (!options.selinux).then_some(LeftOut::SelinuxXattr),
            name if name.starts_with(b"user.") => None,
            name if name.starts_with(b"trusted.") => {
                (!options.trusted_xattrs).then_some(LeftOut::TrustedXattr)
            }
            _ => Some(LeftOut::OtherXattr),
        }
    }
}

/// Checks that extended attributes can be read through /proc.
pub(super) fn probe_proc(root: &Root) -> Io<()> {
    match xattrs::list(&beneath::proc_path(root, b".")) {
        Ok(_) | Err(Errno::OPNOTSUPP | Errno::ACCESS | Errno::PERM) => Ok(()),
        Err(error) => Err(error),
    }
}

fn read_link(place: &EntryLocation) -> Result<Vec<u8>, GapKind> {
    let EntryLocation::Named(directory, name) = place else { return Err(GapKind::Replaced) };
    let target = rustix::fs::readlinkat(directory, name.as_slice(), Vec::with_capacity(256));
    target.map(std::ffi::CString::into_bytes).map_err(|error| match error {
        Errno::INVAL => GapKind::Replaced,
        other => GapKind::Stat(other),
    })
}
