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

/// One entry of a volume. Its header is encoded for the digest and once more when it is stored: between, a group of
/// members would hold 1.5 KiB for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeMember {
    /// The entry that is stored. Its path is relative to the root; [`tar::ROOT`] is the root itself.
    pub entry: TarEntry,
    /// The digest of everything that the walk sees of it, for a scan cache ([`VolumeReader::with_digest`]). If the
    /// digest is equal, and [`VolumeReader::is_settled`], the content is equal.
    pub digest: MemberDigest,
    /// The number of bytes of header and map.
    before_content: u64,
    /// The number of content bytes that follow header and map, before padding.
    pub content: u64,
    /// The attributes that the header was made from.
    pub stat: Stat,
}

/// A digest of a member; zeros for none.
pub type MemberDigest = [u8; 16];

/// Returns the digest of some bytes.
type DigestFunction = dyn Fn(&[u8]) -> MemberDigest + Send + Sync;

/// Computes the digests of members.
pub(super) struct DigestMaker {
    /// The bytes before those of each member: the settings of the walk.
    pub(super) settings: Vec<u8>,
    pub(super) digest: Box<DigestFunction>,
}

impl std::fmt::Debug for DigestMaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DigestMaker")
    }
}

impl VolumeMember {
    /// Returns the length in the stream: header, map, content and padding.
    pub fn encoded_len(&self) -> u64 {
        self.before_content() + self.content + tar::padding(self.content) as u64
    }

    /// Returns the length of header and map.
    pub fn before_content(&self) -> u64 {
        self.before_content
    }

    /// Appends header and map to `out`.
    pub fn append_before_content(&self, out: &mut Vec<u8>) -> Result<(), GapKind> {
        tar::append(&self.entry, out).map_err(GapKind::Encode)?;
        Ok(())
    }

    /// Returns the length that the header declares, holes included; 0 for all but files.
    pub fn length(&self) -> u64 {
        match &self.entry.kind {
            EntryKind::File { size } | EntryKind::Sparse { size, .. } => *size,
            _ => 0,
        }
    }

    /// Returns true if the file system states the length that the header declares. Only then does it show
    /// later changes of the file.
    pub fn has_stated_length(&self) -> bool {
        match self.entry.kind {
            EntryKind::File { .. } | EntryKind::Sparse { .. } => self.length() == self.stat.size,
            _ => true,
        }
    }
}

/// The place of an entry.
#[derive(Debug, Clone)]
pub(super) enum EntryLocation {
    /// The open directory itself.
    Itself(Arc<OwnedFd>),
    /// The last name of the path, in an open directory.
    In(Arc<OwnedFd>),
}

/// Returns the last name of a path.
pub(super) fn name_of(path: &[u8]) -> &[u8] {
    tar::order::split(path).map_or(path, |(_, name)| name)
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
    /// changed since, the result is [`GapKind::Replaced`], because its content was not walked. A member has taken
    /// `path`. `buffer` is used again for the next one.
    pub(super) fn inspect(
        &self,
        place: &EntryLocation,
        path: &mut Vec<u8>,
        directory: bool,
        limits: InspectLimits,
        buffer: &mut Vec<u8>,
    ) -> Inspected {
        match self.try_inspect(place, path, directory, limits, buffer) {
            Ok(found) => found,
            Err(GapKind::Stat(Errno::NOENT)) => Inspected::Vanished,
            Err(gap) => Inspected::Gap(gap),
        }
    }

    fn try_inspect(
        &self,
        place: &EntryLocation,
        path: &mut Vec<u8>,
        directory: bool,
        limits: InspectLimits,
        buffer: &mut Vec<u8>,
    ) -> Result<Inspected, GapKind> {
        let stat = match place {
            EntryLocation::Itself(fd) => beneath::stat_fd(fd),
            EntryLocation::In(fd) => beneath::stat_at(fd, name_of(path)),
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
            FileType::Symlink => EntryKind::Symlink { target: read_link(place, path)? },
            FileType::File => match self.file_kind(place, path, &stat, limits)? {
                Some(kind) => kind,
                None => return Ok(Inspected::ExceedsLimits),
            },
        };
        let mut left_out = Vec::new();
        let Some(xattrs) = self.read_xattrs(place, path, limits, &mut left_out) else {
            return Ok(Inspected::ExceedsLimits);
        };
        if stat.is_locked {
            left_out.push(LeftOut::LockedFlag);
        }
        match self.encode(std::mem::take(path), kind, stat, xattrs, buffer) {
            Ok(member) => Ok(Inspected::Member(Box::new(member), left_out)),
            Err((entry, gap)) => {
                *path = entry.path;
                Err(gap)
            }
        }
    }

    /// Encodes a member for its lengths and its digest. Fails with the entry if it cannot be encoded.
    pub(super) fn encode(
        &self,
        path: Vec<u8>,
        kind: EntryKind,
        stat: Stat,
        xattrs: Vec<Xattr>,
        buffer: &mut Vec<u8>,
    ) -> Result<VolumeMember, (TarEntry, GapKind)> {
        let Stat { mode, uid, gid, mtime, .. } = stat;
        let entry = TarEntry { path, kind, mode, uid, gid, mtime, names: None, xattrs };
        buffer.clear();
        let settings = self.digest.as_ref().map_or(&[][..], |digest| &digest.settings);
        buffer.extend_from_slice(settings);
        let lengths = match tar::append(&entry, buffer) {
            Ok(lengths) => lengths,
            Err(error) => return Err((entry, GapKind::Encode(error))),
        };
        buffer.truncate(settings.len() + lengths.header);
        buffer.extend_from_slice(&stat.ino.to_le_bytes());
        buffer.extend_from_slice(&stat.ctime.seconds.to_le_bytes());
        buffer.extend_from_slice(&stat.ctime.nanos.to_le_bytes());
        let digest = self.digest.as_ref().map_or([0; 16], |maker| (maker.digest)(buffer));
        let before_content = (lengths.header + lengths.map) as u64;
        Ok(VolumeMember { entry, digest, before_content, content: lengths.content, stat })
    }

    /// Returns a plain file or one with holes; `None` if the map exceeds the limit.
    fn file_kind(
        &self,
        place: &EntryLocation,
        path: &[u8],
        stat: &Stat,
        limits: InspectLimits,
    ) -> Result<Option<EntryKind>, GapKind> {
        let plain = EntryKind::File { size: stat.size };
        let EntryLocation::In(directory) = place else { return Ok(Some(plain)) };
        // A member that is larger than it seems must be known as large from the beginning.
        let may_be_longer = stat.size == 0 && !self.inner.timestamp_trust.are_sizes_exact();
        if !stat.may_have_holes() && !may_be_longer {
            return Ok(Some(plain));
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let Ok(fd) = rustix::fs::openat(directory, name_of(path), flags, Mode::empty()) else {
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
        path: &[u8],
        limits: InspectLimits,
        left_out: &mut Vec<LeftOut>,
    ) -> Option<Vec<Xattr>> {
        let at = match place {
            EntryLocation::Itself(fd) => beneath::proc_path(fd, b"."),
            EntryLocation::In(fd) => beneath::proc_path(fd, name_of(path)),
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

fn read_link(place: &EntryLocation, path: &[u8]) -> Result<Vec<u8>, GapKind> {
    let EntryLocation::In(directory) = place else { return Err(GapKind::Replaced) };
    let target = rustix::fs::readlinkat(directory, name_of(path), Vec::with_capacity(256));
    target.map(std::ffi::CString::into_bytes).map_err(|error| match error {
        Errno::INVAL => GapKind::Replaced,
        other => GapKind::Stat(other),
    })
}
