//! Directories of the target: opens and creates them, removes what an earlier run left in them.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, RawDir};
use rustix::io::{Errno, Result};

use crate::format::tar::order;
use crate::fs::FileType;
use crate::fs::beneath::{Mounts, Root, proc_fd, stat_at, stat_fd};
use crate::runtime::kill_point;
use crate::target::volume::attributes::hands_down_acl;
use crate::target::volume::report::Reason;
use crate::target::volume::target::{ExistingFiles, Shared};

/// Prefix of temporary names; 16 hexadecimal digits of the run, `-`, and a number follow.
pub(crate) const TEMPORARY: &[u8] = b".kbak-restore-";
const OWNER_ONLY: Mode = Mode::RWXU;

/// An open directory of the target.
#[derive(Debug)]
pub(crate) struct Directory {
    fd: OwnedFd,
    /// True if entries made in it inherit an ACL that they should not have.
    pub(crate) inherited_acl: bool,
}

/// The origin of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Made {
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
        let inherited_acl = hands_down_acl(&fd);
        Self { fd, inherited_acl }
    }
}

impl Shared {
    /// Opens a directory of the target. If its owner is this user, who has no access (an earlier
    /// restore finished it), access is granted; its mode is set again at the end.
    pub(crate) fn open_directory(&self, path: &[u8]) -> Result<Directory> {
        let opened = self.root.open_directory(path, false, Mounts::Cross);
        let fd = match opened {
            Err(Errno::ACCESS) if self.euid != 0 => self.open_up(path)?,
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

    fn open_up(&self, path: &[u8]) -> Result<OwnedFd> {
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
    pub(crate) fn parent_of(&self, path: &[u8]) -> std::result::Result<Directory, Reason> {
        let (parent, _) = order::split(path).ok_or(Reason::NoDirectory)?;
        match self.open_directory(parent) {
            Err(Errno::NOENT) => {}
            other => return other.map_err(Reason::system("open its directory")),
        }
        // From the top down; each is opened beneath the root again.
        let ends = parent.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([parent.len()]) {
            let (above, name) = order::split(&parent[..end]).ok_or(Reason::NoDirectory)?;
            let above = self.open_directory(above).map_err(Reason::system("open its directory"))?;
            match rustix::fs::mkdirat(&above, name, OWNER_ONLY) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(Reason::system("make its directory")(errno)),
            }
        }
        self.open_directory(parent).map_err(Reason::system("open its directory"))
    }

    /// Creates the directory of a member, or uses the existing one if the policy allows.
    pub(crate) fn make_directory(
        &self,
        parent: &Directory,
        name: &[u8],
    ) -> std::result::Result<Made, Reason> {
        let make = || rustix::fs::mkdirat(parent, name, OWNER_ONLY);
        match make() {
            Ok(()) => {
                kill_point("restore.directory.made");
                return Ok(Made::New);
            }
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(Reason::system("make the directory")(errno)),
        }
        let there = stat_at(parent, name).map_err(Reason::system("look at what is there"))?;
        let is_directory = there.file_type == FileType::Directory;
        if self.options.existing == ExistingFiles::Refuse {
            // The target was empty, so this is another spelling of the same name, or the lost+found
            // that every new file system has.
            let own = is_directory && name == b"lost+found";
            return if own { Ok(Made::Existing) } else { Err(Reason::NameCollision) };
        }
        if !self.is_exact(parent, name).map_err(Reason::system("look at what is there"))? {
            return Err(Reason::NameCollision);
        }
        if is_directory {
            return Ok(Made::Existing);
        }
        if self.options.existing == ExistingFiles::Skip {
            return Err(Reason::Different);
        }
        rustix::fs::unlinkat(parent, name, AtFlags::empty())
            .and_then(|()| make())
            .map_err(Reason::system("replace what is there by a directory"))?;
        Ok(Made::New)
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
        each_name(directory, |there| found |= there == name)?;
        Ok(found)
    }

    /// Removes the temporary files that a killed restore left in a directory.
    pub(crate) fn clean(&self, directory: impl AsFd) -> Result<()> {
        let directory = directory.as_fd();
        let mut remains = Vec::new();
        each_name(directory, |name| {
            if is_temporary(name) && !self.is_own_temporary(name) {
                remains.push(name.to_vec());
            }
        })?;
        for name in remains {
            rustix::fs::unlinkat(directory, name, AtFlags::empty())?;
            self.report().cleaned += 1;
        }
        Ok(())
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

/// True if a name is one that this program gives to incomplete files.
pub(crate) fn is_temporary(name: &[u8]) -> bool {
    let Some(rest) = name.strip_prefix(TEMPORARY) else { return false };
    let hex = |bytes: &[u8]| !bytes.is_empty() && bytes.iter().all(u8::is_ascii_hexdigit);
    rest.len() > 17 && hex(&rest[..16]) && rest[16] == b'-' && hex(&rest[17..])
}

fn swap_case(byte: &u8) -> u8 {
    if byte.is_ascii_lowercase() { byte.to_ascii_uppercase() } else { byte.to_ascii_lowercase() }
}
