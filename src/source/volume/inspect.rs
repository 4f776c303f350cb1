//! Makes a member from one name in a directory: attributes, link target, extended attributes,
//! holes, header.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result as Io};

use super::Volume;
use super::walk::{GapKind, LeftOut, Skip};
use crate::format::tar;
use crate::format::tar::{Entry, Kind, MAX_EXTENTS, Xattr};
use crate::fs::Root;
use crate::fs::stat::{FileType, Stat};
use crate::fs::{beneath, holes};

/// The longest list of names of extended attributes in Linux (`XATTR_LIST_MAX`), in bytes.
const MAX_LIST: usize = 65_536;

/// One entry of a volume with its header, as [`tar::encode`] gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The path relative to the root; [`tar::ROOT`] is the root itself.
    pub path: Vec<u8>,
    /// The type; a hard link names its carrier, a symbolic link its target.
    pub kind: Kind,
    /// The exact PAX and ustar blocks.
    pub header: Vec<u8>,
    /// The map of a file with holes, padded to a block; otherwise empty.
    pub map: Vec<u8>,
    /// The number of content bytes that follow header and map, before padding.
    pub content: u64,
    /// The attributes that the header was made from.
    pub stat: Stat,
}

impl Member {
    /// Returns the length in the stream: header, map, content and padding.
    #[must_use]
    pub fn encoded_len(&self) -> u64 {
        self.before_content() + self.content + tar::padding(self.content) as u64
    }

    /// Returns the length of header and map.
    #[must_use]
    pub fn before_content(&self) -> u64 {
        (self.header.len() + self.map.len()) as u64
    }

    /// Appends the bytes that a scan cache digests: the exact header, then ino, ctime seconds and ctime
    /// nanoseconds in little endian. Equal bytes of a [`super::Volume::settled`] file mean equal content.
    pub fn seen(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.header);
        out.extend_from_slice(&self.stat.ino.to_le_bytes());
        out.extend_from_slice(&self.stat.ctime.seconds.to_le_bytes());
        out.extend_from_slice(&self.stat.ctime.nanos.to_le_bytes());
    }

    /// Turns the member into a link to the path that already carries its inode.
    pub(super) fn into_link(self, carrier: Vec<u8>) -> Result<Self, GapKind> {
        let Self { path, stat, .. } = self;
        Self::encode(path, Kind::HardLink { carrier }, stat, Vec::new())
    }

    fn encode(path: Vec<u8>, kind: Kind, stat: Stat, xattrs: Vec<Xattr>) -> Result<Self, GapKind> {
        let Stat { mode, uid, gid, mtime, .. } = stat;
        let entry = Entry { path, kind, mode, uid, gid, mtime, names: None, xattrs };
        let encoded = tar::encode(&entry).map_err(GapKind::Encode)?;
        let Entry { path, kind, .. } = entry;
        Ok(Self { path, kind, header: encoded.header, map: encoded.map, content: encoded.content, stat })
    }
}

/// The place of an entry.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// The open directory itself.
    Itself(Arc<OwnedFd>),
    /// A name in an open directory.
    Named(Arc<OwnedFd>, Vec<u8>),
}

/// The memory limits of one inspection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    xattrs: usize,
    extents: usize,
}

impl Limits {
    /// Limits for members that wait in a queue.
    pub(super) const AHEAD: Self = Self { xattrs: 2048, extents: 64 };
    /// Limits for the one member that is processed now.
    pub(super) const FULL: Self = Self { xattrs: tar::MAX_PAX, extents: MAX_EXTENTS };
}

/// The result of an inspection.
#[derive(Debug)]
pub(super) enum Inspected {
    Member(Box<Member>, Vec<LeftOut>),
    Skipped(Skip),
    Gap(GapKind),
    /// The name no longer exists.
    Vanished,
    /// The member exceeds the limits: inspect it again when its turn comes.
    Heavy,
}

impl Volume {
    /// Inspects one place. `directory` is true if the planner took it for a directory. If the type
    /// changed since, the result is [`GapKind::Replaced`], because its content was not walked.
    pub(super) fn inspect(&self, place: &Place, path: &[u8], directory: bool, limits: Limits) -> Inspected {
        match self.look(place, path, directory, limits) {
            Ok(found) => found,
            Err(GapKind::Stat(Errno::NOENT)) => Inspected::Vanished,
            Err(gap) => Inspected::Gap(gap),
        }
    }

    fn look(
        &self,
        place: &Place,
        path: &[u8],
        directory: bool,
        limits: Limits,
    ) -> Result<Inspected, GapKind> {
        let stat = match place {
            Place::Itself(fd) => beneath::stat_fd(fd),
            Place::Named(fd, name) => beneath::stat_at(fd, name),
        }
        .map_err(GapKind::Stat)?;
        if directory != (stat.file_type == FileType::Directory) {
            return Err(GapKind::Replaced);
        }
        if stat.mount_root && !directory {
            return Ok(Inspected::Skipped(Skip::MountPoint));
        }
        let kind = match stat.file_type {
            FileType::Socket => return Ok(Inspected::Skipped(Skip::Socket)),
            FileType::Unknown => return Ok(Inspected::Skipped(Skip::UnknownType)),
            FileType::Directory => Kind::Directory,
            FileType::Fifo => Kind::Fifo,
            FileType::CharDevice => Kind::CharDevice(stat.rdev),
            FileType::BlockDevice => Kind::BlockDevice(stat.rdev),
            FileType::Symlink => Kind::Symlink { target: target(place)? },
            FileType::File => match self.file_kind(place, &stat, limits)? {
                Some(kind) => kind,
                None => return Ok(Inspected::Heavy),
            },
        };
        let mut left_out = Vec::new();
        let Some(xattrs) = self.xattrs(place, limits, &mut left_out) else { return Ok(Inspected::Heavy) };
        if stat.locked {
            left_out.push(LeftOut::LockedFlag);
        }
        let member = Member::encode(path.to_vec(), kind, stat, xattrs)?;
        Ok(Inspected::Member(Box::new(member), left_out))
    }

    /// Returns a plain file or one with holes; `None` if the map exceeds the limit.
    fn file_kind(&self, place: &Place, stat: &Stat, limits: Limits) -> Result<Option<Kind>, GapKind> {
        let plain = Kind::File { size: stat.size };
        let Place::Named(directory, name) = place else { return Ok(Some(plain)) };
        if !stat.may_have_holes() {
            return Ok(Some(plain));
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let Ok(fd) = rustix::fs::openat(directory, name.as_slice(), flags, Mode::empty()) else {
            // The later read meets the same error and reports it.
            return Ok(Some(plain));
        };
        let extents = if limits.extents < MAX_EXTENTS {
            holes::few_extents(&fd, stat.size, limits.extents).map_err(GapKind::Holes)?
        } else {
            Some(holes::extents(&fd, stat.size, limits.extents).map_err(GapKind::Holes)?)
        };
        let Some(extents) = extents else { return Ok(None) };
        let data: u64 = extents.iter().map(|extent| extent.len).sum();
        Ok(Some(if data == stat.size { plain } else { Kind::Sparse { size: stat.size, extents } }))
    }

    /// Returns the extended attributes that are kept, sorted; `None` if they exceed the limit.
    fn xattrs(&self, place: &Place, limits: Limits, left_out: &mut Vec<LeftOut>) -> Option<Vec<Xattr>> {
        let at = match place {
            Place::Itself(fd) => beneath::proc_path(fd, b"."),
            Place::Named(fd, name) => beneath::proc_path(fd, name),
        };
        let list = match list(&at) {
            Ok(list) => list,
            Err(Errno::OPNOTSUPP | Errno::NOENT) => return Some(Vec::new()),
            Err(_) => {
                left_out.push(LeftOut::UnreadableXattr);
                return Some(Vec::new());
            }
        };
        let mut taken = Vec::new();
        let mut total = 0;
        for name in list.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
            if let Some(why) = self.leaves_out(name) {
                left_out.push(why);
                continue;
            }
            match value(&at, name) {
                Ok(value) => {
                    total += name.len() + value.len();
                    taken.push(Xattr { name: name.to_vec(), value });
                }
                Err(Errno::NODATA | Errno::NOENT) => {}
                Err(_) => left_out.push(LeftOut::UnreadableXattr),
            }
            if total > limits.xattrs && limits.xattrs < Limits::FULL.xattrs {
                left_out.clear();
                return None;
            }
        }
        taken.sort();
        Some(taken)
    }

    fn leaves_out(&self, name: &[u8]) -> Option<LeftOut> {
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
    match list(&beneath::proc_path(root, b".")) {
        Ok(_) | Err(Errno::OPNOTSUPP | Errno::ACCESS | Errno::PERM) => Ok(()),
        Err(error) => Err(error),
    }
}

fn target(place: &Place) -> Result<Vec<u8>, GapKind> {
    let Place::Named(directory, name) = place else { return Err(GapKind::Replaced) };
    let target = rustix::fs::readlinkat(directory, name.as_slice(), Vec::with_capacity(256));
    target.map(std::ffi::CString::into_bytes).map_err(|error| match error {
        Errno::INVAL => GapKind::Replaced,
        other => GapKind::Stat(other),
    })
}

/// Returns the names of extended attributes, each with a NUL after it.
fn list(at: &[u8]) -> Io<Vec<u8>> {
    let mut small = [0u8; 512];
    match rustix::fs::llistxattr(at, &mut small[..]) {
        Ok(len) => Ok(small[..len].to_vec()),
        Err(Errno::RANGE) => {
            let mut large = vec![0u8; MAX_LIST];
            let len = rustix::fs::llistxattr(at, &mut large[..])?;
            large.truncate(len);
            Ok(large)
        }
        Err(error) => Err(error),
    }
}

fn value(at: &[u8], name: &[u8]) -> Io<Vec<u8>> {
    let mut small = [0u8; 512];
    match rustix::fs::lgetxattr(at, name, &mut small[..]) {
        Ok(len) => Ok(small[..len].to_vec()),
        Err(Errno::RANGE) => {
            let mut large = vec![0u8; tar::MAX_XATTR_VALUE];
            let len = rustix::fs::lgetxattr(at, name, &mut large[..])?;
            large.truncate(len);
            large.shrink_to_fit();
            Ok(large)
        }
        Err(error) => Err(error),
    }
}
