//! Sets owner, mode, extended attributes and times, in the order in which each survives the next.
//!
//! Changing the owner clears setuid, setgid and capabilities; changing the mode rewrites an ACL's
//! mask. So the order is owner, mode, extended attributes, times. The result is read back, and
//! differences are reported whatever the calls returned: network file systems map owners, others
//! round times.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::{Errno, Result};

use super::report::LostAttribute;
use crate::format::tar::TarEntry;
use crate::fs::beneath::{proc_fd, proc_path, stat_at, stat_fd};
use crate::fs::{FileType, Stat};

const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";
const CAPABILITY: &[u8] = b"security.capability";
const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Subject<'a> {
    /// An open file or directory.
    Open(BorrowedFd<'a>),
    /// The name of a pipe or device that this restore made in an open directory.
    Named(BorrowedFd<'a>, &'a [u8]),
    /// The name of a symbolic link, which has no mode.
    Link(BorrowedFd<'a>, &'a [u8]),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct AttributeOptions {
    /// True if attributes beyond `user.*`, ACLs and capabilities are set.
    pub(crate) other_xattrs: bool,
    /// True if the directory may have passed on an ACL, which must be removed.
    pub(crate) inherited_acl: bool,
    /// True if the file existed before: it may have attributes that the entry lacks.
    pub(crate) existed: bool,
}

/// Applies the attributes of `entry` to `subject`. Returns those that could not be kept.
pub(crate) fn apply(
    subject: Subject<'_>,
    entry: &TarEntry,
    options: AttributeOptions,
) -> Result<Vec<LostAttribute>> {
    let mut lost = Vec::new();
    let owned = Owned::by(subject, entry, options.existed)?;
    let mut mode = entry.mode;
    for (bit, differs, loss, special) in [
        (SETUID, owned.uid != entry.uid, LostAttribute::Owner, LostAttribute::Setuid),
        (SETGID, owned.gid != entry.gid, LostAttribute::Group, LostAttribute::Setgid),
    ] {
        if differs {
            lost.push(loss);
            if mode & bit != 0 && !matches!(subject, Subject::Link(..)) {
                lost.push(special);
                mode &= !bit;
            }
        }
    }
    // A mode that cannot be set is found by the comparison below.
    let _ = subject.set_mode(mode);
    if options.inherited_acl || options.existed {
        subject.remove_other_attributes(entry, options);
    }
    set_xattrs(subject, entry, mode, options, &mut lost);
    let _ = subject.set_mtime(entry);
    let actual = subject.stat()?;
    for (differs, loss) in
        [(actual.uid != entry.uid, LostAttribute::Owner), (actual.gid != entry.gid, LostAttribute::Group)]
    {
        if differs && !lost.contains(&loss) {
            lost.push(loss);
        }
    }
    if !matches!(subject, Subject::Link(..)) && actual.mode != mode && !lost.contains(&LostAttribute::Acl) {
        lost.push(LostAttribute::Mode);
    }
    if actual.mtime != entry.mtime {
        lost.push(LostAttribute::Time);
    }
    Ok(lost)
}

/// The owner of an entry, before its mode is set.
struct Owned {
    uid: u32,
    gid: u32,
}

impl Owned {
    /// Sets the owner, and reads it back if the call failed or the mode gives the owner's rights to others: otherwise
    /// the comparison at the end of [`apply`] is enough.
    fn by(subject: Subject<'_>, entry: &TarEntry, existed: bool) -> Result<Self> {
        let read = || subject.stat().map(|Stat { uid, gid, .. }| Self { uid, gid });
        let wanted = Self { uid: entry.uid, gid: entry.gid };
        if existed {
            let before = read()?;
            if (before.uid, before.gid) == (wanted.uid, wanted.gid) {
                return Ok(before);
            }
        }
        if subject.set_owner(entry)? && entry.mode & (SETUID | SETGID) == 0 { Ok(wanted) } else { read() }
    }
}

fn set_xattrs(
    subject: Subject<'_>,
    entry: &TarEntry,
    mode: u32,
    options: AttributeOptions,
    lost: &mut Vec<LostAttribute>,
) {
    for xattr in &entry.xattrs {
        let loss = match xattr.name.as_slice() {
            ACL_ACCESS | ACL_DEFAULT => LostAttribute::Acl,
            CAPABILITY => LostAttribute::Capability,
            name if name.starts_with(b"user.") => LostAttribute::UserXattr,
            _ => LostAttribute::OtherXattr,
        };
        let allowed = loss != LostAttribute::OtherXattr || options.other_xattrs;
        if allowed && subject.set_xattr(&xattr.name, &xattr.value).is_ok() {
            continue;
        }
        lost.push(loss);
        if xattr.name == ACL_ACCESS {
            // With an ACL, the mode's group bits are its mask. Without the ACL they would give the
            // group the rights of named users.
            let group = group_permissions(&xattr.value).unwrap_or(0) << 3;
            let _ = subject.set_mode(mode & !0o070 | mode & group);
        }
    }
}

/// Returns the permissions of the owning group in a raw ACL (`struct posix_acl_xattr_header`: version
/// 2 in little endian; then entries of tag 2, permissions 2, id 4 bytes).
fn group_permissions(acl: &[u8]) -> Option<u32> {
    const GROUP_OBJ: u16 = 0x04;
    let (version, entries) = acl.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != 2 {
        return None;
    }
    entries.chunks_exact(8).find_map(|entry| {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        (tag == GROUP_OBJ).then(|| u32::from(u16::from_le_bytes([entry[2], entry[3]]) & 0o7))
    })
}

impl Subject<'_> {
    pub(crate) fn stat(&self) -> Result<Stat> {
        match self {
            Self::Open(fd) => stat_fd(fd),
            Self::Named(directory, name) | Self::Link(directory, name) => stat_at(directory, name),
        }
    }

    /// Sets owner and group, or the group alone if only that is allowed. True if both were set.
    fn set_owner(&self, entry: &TarEntry) -> Result<bool> {
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        for owner in [Some(uid), None] {
            let done = match self {
                Self::Open(fd) => rustix::fs::fchown(fd, owner, Some(gid)),
                Self::Named(directory, name) | Self::Link(directory, name) => {
                    rustix::fs::chownat(directory, *name, owner, Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                }
            };
            match done {
                // Not allowed, not mapped in this user namespace, not known to this file system.
                Err(Errno::PERM | Errno::INVAL | Errno::OPNOTSUPP | Errno::ACCESS) => {}
                other => return other.map(|()| owner.is_some()),
            }
        }
        Ok(false)
    }

    fn set_mode(&self, mode: u32) -> Result<()> {
        let mode = Mode::from_raw_mode(mode);
        match self {
            Self::Link(..) => Ok(()),
            Self::Open(fd) => rustix::fs::fchmod(fd, mode),
            Self::Named(directory, name) => {
                // Before Linux 6.6, fchmodat cannot be told not to follow links. A descriptor opened
                // with O_PATH and without following stays the same if the name changes.
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd = rustix::fs::openat(directory, *name, flags, Mode::empty())?;
                if stat_fd(&fd)?.file_type == FileType::Symlink {
                    return Err(Errno::LOOP);
                }
                rustix::fs::chmod(proc_fd(&fd), mode)
            }
        }
    }

    fn set_mtime(&self, entry: &TarEntry) -> Result<()> {
        let omit = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
        let mtime = Timespec { tv_sec: entry.mtime.seconds, tv_nsec: i64::from(entry.mtime.nanos) };
        let times = Timestamps { last_access: omit, last_modification: mtime };
        match self {
            Self::Open(fd) => rustix::fs::futimens(fd, &times),
            Self::Named(directory, name) | Self::Link(directory, name) => {
                rustix::fs::utimensat(directory, *name, &times, AtFlags::SYMLINK_NOFOLLOW)
            }
        }
    }

    fn set_xattr(&self, name: &[u8], value: &[u8]) -> Result<()> {
        match self {
            Self::Open(fd) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            Self::Named(directory, file) | Self::Link(directory, file) => {
                rustix::fs::lsetxattr(proc_path(directory, file), name, value, XattrFlags::empty())
            }
        }
    }

    /// Removes ACLs that the entry lacks and, from a file that existed before, `user.*` attributes too.
    /// Pipes and devices inherit ACLs like files; symbolic links have none, and are always made anew.
    fn remove_other_attributes(&self, entry: &TarEntry, options: AttributeOptions) {
        let wanted = |name: &[u8]| entry.xattrs.iter().any(|xattr| xattr.name == name);
        let mut foreign: Vec<Vec<u8>> = vec![ACL_ACCESS.to_vec(), ACL_DEFAULT.to_vec()];
        if let (Self::Open(fd), true) = (self, options.existed) {
            let mut names = vec![0u8; 65_536];
            let len = rustix::fs::flistxattr(fd, &mut names[..]).unwrap_or(0);
            let user = names[..len].split(|&byte| byte == 0).filter(|name| name.starts_with(b"user."));
            foreign.extend(user.map(<[u8]>::to_vec));
        }
        for name in foreign.iter().filter(|name| !wanted(name)) {
            // Most of the time the attribute does not exist.
            let _ = match self {
                Self::Open(fd) => rustix::fs::fremovexattr(fd, name.as_slice()),
                Self::Named(directory, file) => {
                    rustix::fs::lremovexattr(proc_path(directory, file), name.as_slice())
                }
                Self::Link(..) => Ok(()),
            };
        }
    }
}

/// True if files made in this directory inherit an ACL.
pub(crate) fn has_default_acl(directory: impl AsFd) -> bool {
    let mut value = [0u8; 1];
    match rustix::fs::fgetxattr(directory, ACL_DEFAULT, &mut value[..]) {
        Ok(_) | Err(Errno::RANGE) => true,
        Err(_) => false,
    }
}
