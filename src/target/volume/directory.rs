//! Directories of the target: opens and creates them, removes what an earlier run left in them.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, RawDir};
use rustix::io::{Errno, Result};

use super::report::{EntryResult, FailureReason};
use super::state::{TargetState, is_temporary};
use super::{attributes::has_default_acl, options::ExistingFiles};
use crate::format::tar::order;
use crate::fs::beneath::{Mounts, proc_fd, stat_at, stat_fd};
use crate::fs::{FileType, Root};
use crate::runtime::kill_point;

const OWNER_ONLY: Mode = Mode::RWXU;

#[derive(Debug)]
pub(crate) struct Directory {
    fd: OwnedFd,
    /// True if entries made in it inherit an ACL that they should not have.
    pub(crate) inherited_acl: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DirectoryOrigin {
    New,
    Existing,
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Directory {
    fn new(fd: OwnedFd) -> Self {
        let inherited_acl = has_default_acl(&fd);
        Self { fd, inherited_acl }
    }
}

impl TargetState {
    /// Opens a directory of the target. If its owner is this user, who has no access (an earlier
    /// restore finished it), access is granted; its mode is set again at the end.
    pub(crate) fn open_directory(&self, path: &[u8]) -> Result<Directory> {
        let opened = self.root.open_directory(path, false, Mounts::Cross);
        let fd = match opened {
            Err(Errno::ACCESS) if self.euid != 0 => self.grant_access(path)?,
            other => other?,
        };
        if self.euid != 0 {
            let stat = stat_fd(&fd)?;
            if stat.uid == self.euid && stat.mode & 0o700 != 0o700 {
                rustix::fs::fchmod(&fd, Mode::from_raw_mode(stat.mode | 0o700))?;
            }
        }
        Ok(Directory::new(fd))
    }

    fn grant_access(&self, path: &[u8]) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let fd = self.root.open_beneath(path, flags, Mode::empty(), Mounts::Cross)?;
        if stat_fd(&fd)?.uid != self.euid {
            return Err(Errno::ACCESS);
        }
        rustix::fs::chmod(proc_fd(&fd), OWNER_ONLY)?;
        self.root.open_directory(path, false, Mounts::Cross)
    }

    /// Returns the directory that holds `path`. Parents that the stream does not hold are created
    /// with mode 0700, never more than `path` has components.
    pub(crate) fn parent_of(&self, path: &[u8]) -> EntryResult<Directory> {
        let (parent, _) = order::split(path).ok_or(FailureReason::NoDirectory)?;
        match self.open_directory(parent) {
            Err(Errno::NOENT) => {}
            other => return other.map_err(FailureReason::system("open its directory")),
        }
        // From the top down; each is opened beneath the root again.
        let ends = parent.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([parent.len()]) {
            let (above, name) = order::split(&parent[..end]).ok_or(FailureReason::NoDirectory)?;
            let above = self.open_directory(above).map_err(FailureReason::system("open its directory"))?;
            create_missing(&above, name).map_err(FailureReason::system("create its directory"))?;
        }
        self.open_directory(parent).map_err(FailureReason::system("open its directory"))
    }

    /// Creates the directory of a member, or uses the existing one if the policy allows.
    pub(crate) fn make_directory(&self, parent: &Directory, name: &[u8]) -> EntryResult<DirectoryOrigin> {
        let make = || rustix::fs::mkdirat(parent, name, OWNER_ONLY);
        match make() {
            Ok(()) => {
                kill_point("restore.directory.made");
                return Ok(DirectoryOrigin::New);
            }
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(FailureReason::system("create the directory")(errno)),
        }
        let found = stat_at(parent, name).map_err(FailureReason::system("check the existing entry"))?;
        let is_directory = found.file_type == FileType::Directory;
        if self.options.existing == ExistingFiles::Refuse {
            // The target was empty, so this is another spelling of the same name, or the lost+found
            // that every new file system has.
            let own = is_directory && name == b"lost+found";
            return if own { Ok(DirectoryOrigin::Existing) } else { Err(FailureReason::NameCollision) };
        }
        if !self.is_exact(parent, name).map_err(FailureReason::system("check the existing entry"))? {
            return Err(FailureReason::NameCollision);
        }
        if is_directory {
            return Ok(DirectoryOrigin::Existing);
        }
        if self.options.existing == ExistingFiles::Skip {
            return Err(FailureReason::Different);
        }
        rustix::fs::unlinkat(parent, name, AtFlags::empty())
            .and_then(|()| make())
            .map_err(FailureReason::system("replace the existing entry with a directory"))?;
        Ok(DirectoryOrigin::New)
    }

    /// True if the entry that opens by `name` has exactly this name. On a target that folds case or
    /// spellings of one letter, it may be another member of the stream.
    pub(crate) fn is_exact(&self, directory: impl AsFd, name: &[u8]) -> Result<bool> {
        let directory = directory.as_fd();
        let swapped: Vec<u8> = name.iter().map(swap_case).collect();
        if swapped != name {
            match (stat_at(directory, &swapped), stat_at(directory, name)) {
                (Ok(a), Ok(b)) if (a.dev, a.ino) == (b.dev, b.ino) => {}
                // Case is not folded here.
                _ => return Ok(true),
            }
        } else if name.is_ascii() {
            return Ok(true);
        }
        let mut found = false;
        each_name(directory, |other| found |= other == name)?;
        Ok(found)
    }

    /// Removes the temporary files that a killed restore left in a directory.
    pub(crate) fn remove_temporary_files(&self, directory: impl AsFd) -> Result<()> {
        let directory = directory.as_fd();
        let mut leftovers = Vec::new();
        each_name(directory, |name| {
            if is_temporary(name) && !self.is_own_temporary(name) {
                leftovers.push(name.to_vec());
            }
        })?;
        for name in leftovers {
            rustix::fs::unlinkat(directory, name, AtFlags::empty())?;
            self.report().cleaned += 1;
        }
        Ok(())
    }
}

/// Creates a directory (mode 0700) unless the name exists.
pub(crate) fn create_missing(parent: impl AsFd, name: impl rustix::path::Arg) -> Result<()> {
    match rustix::fs::mkdirat(parent, name, OWNER_ONLY) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Calls `each` with every name in a directory but `.` and `..`.
pub(crate) fn each_name(directory: impl AsFd, mut each: impl FnMut(&[u8])) -> Result<()> {
    // A descriptor of its own, so that each listing starts at the beginning.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(directory, c".", flags, Mode::empty())?;
    let mut buffer = vec![MaybeUninit::uninit(); 32 << 10];
    let mut names = RawDir::new(fd, &mut buffer);
    while let Some(entry) = names.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            each(name);
        }
    }
    Ok(())
}

/// True if a target holds only `lost+found` and temporary files of a killed restore.
pub(crate) fn is_empty(root: &Root) -> Result<bool> {
    let mut empty = true;
    each_name(root, |name| empty &= is_temporary(name) || name == b"lost+found")?;
    Ok(empty)
}

fn swap_case(byte: &u8) -> u8 {
    if byte.is_ascii_lowercase() { byte.to_ascii_uppercase() } else { byte.to_ascii_lowercase() }
}
