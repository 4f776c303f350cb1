//! Opens paths beneath a folder, and never outside it. All errors are those of the kernel.
//!
//! The kernel resolves each path from the folder's descriptor and refuses every link and every step
//! out of it (`openat2(2)`: RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_MAGICLINKS). So there
//! is no time between check and use. Calls that take no such flags (`statx`, `mkdirat`, `renameat`,
//! …) get only a directory opened this way and one component.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::{Errno, Result};

use super::stat::Stat;
use crate::format::tar::ROOT;

/// The most tries of a resolution that a concurrent rename stopped (EAGAIN, see `openat2(2)`).
const TRIES: usize = 64;

/// A folder beneath which paths are opened.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

/// The rule for paths that lead onto another file system or over a mount point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mounts {
    /// Such paths are allowed.
    Cross,
    /// Such paths fail with `EXDEV`.
    Stop,
}

impl Root {
    /// Opens the folder at `path`; links in `path` itself are followed.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: rustix::fs::open(path, flags, Mode::empty())? })
    }

    /// Opens a path relative to the folder. Adds `O_CLOEXEC` and `O_NOFOLLOW`, and `O_NOCTTY` unless `O_PATH`
    /// is set, with which `openat2` refuses it. Fails with `EXDEV` for a path that leads out (or onto another
    /// mount), `ELOOP` for one through a link.
    pub fn open_beneath(&self, path: &[u8], flags: OFlags, mode: Mode, mounts: Mounts) -> Result<OwnedFd> {
        let mut flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        if !flags.contains(OFlags::PATH) {
            flags |= OFlags::NOCTTY;
        }
        let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        if mounts == Mounts::Stop {
            resolve |= ResolveFlags::NO_XDEV;
        }
        for _ in 0..TRIES {
            match rustix::fs::openat2(&self.fd, path, flags, mode, resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// Opens a directory for listing and as a base. With `noatime` its access time is left
    /// unchanged where the kernel allows it.
    pub fn open_directory(&self, path: &[u8], noatime: bool, mounts: Mounts) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        if noatime {
            match self.open_beneath(path, flags | OFlags::NOATIME, Mode::empty(), mounts) {
                Err(Errno::PERM) => {}
                other => return other,
            }
        }
        self.open_beneath(path, flags, Mode::empty(), mounts)
    }

    /// Opens a folder in it, as the root of further paths; a link is refused.
    pub fn open_folder(&self, name: &[u8]) -> Result<Self> {
        self.open_directory(name, false, Mounts::Cross).map(|fd| Self { fd })
    }

    /// Checks that `openat2` works here.
    /// Fails with `ENOSYS` from an old kernel, `EPERM` from a seccomp filter that does not know it.
    pub fn probe(&self) -> Result<()> {
        self.open_beneath(ROOT, OFlags::PATH | OFlags::DIRECTORY, Mode::empty(), Mounts::Stop).map(drop)
    }

    /// Returns the attributes of the folder itself.
    pub fn stat(&self) -> Result<Stat> {
        stat_fd(&self.fd)
    }

    /// Returns the type of its file system: `f_type` of `statfs(2)`.
    pub fn fs_type(&self) -> Result<u64> {
        Ok(rustix::fs::fstatfs(&self.fd)?.f_type as u64)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The fields that are requested from `statx`.
const FIELDS: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// Returns the attributes of an open file.
pub fn stat_fd(fd: impl AsFd) -> Result<Stat> {
    rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, FIELDS).map(|raw| Stat::from(&raw))
}

/// Returns the attributes of one name in a directory, of a link itself; starts no automount.
pub fn stat_at(directory: impl AsFd, name: &[u8]) -> Result<Stat> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(directory, name, flags, FIELDS).map(|raw| Stat::from(&raw))
}

/// Returns a path for calls that take no descriptors: it leads through /proc to the open directory,
/// and from there by one component. Only for calls that do not follow a link at the end.
#[must_use]
pub fn proc_path(directory: impl AsFd, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

/// Returns a path that leads through /proc to an open file, also one opened with `O_PATH`.
#[must_use]
pub fn proc_fd(fd: impl AsFd) -> Vec<u8> {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()).into_bytes()
}
