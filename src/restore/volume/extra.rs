//! Deleting what the stream does not hold, when that was asked for.
//!
//! For each path of the stream eight bytes of a keyed hash are kept, 8 MB for a million files. Two
//! paths with one hash could only spare a file that should go, never the other way.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result as Io};

use super::directory::{Directory, each_name};
use super::report::Reason;
use super::target::Shared;
use crate::source::volume::FileType;
use crate::source::volume::beneath::{Mounts, stat_at};
use crate::source::volume::tar::{MAX_PATH, ROOT};

/// How deep a tree may be that is removed: each level holds a descriptor and its names.
const MAX_DEPTH: usize = 512;

/// The paths that a stream holds.
#[derive(Debug)]
pub(super) struct Seen {
    key: [u8; 32],
    hashes: Vec<u64>,
}

impl Seen {
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self { key, hashes: Vec::new() }
    }

    pub(super) fn add(&mut self, path: &[u8]) {
        self.hashes.push(self.hash(path));
    }

    fn hash(&self, path: &[u8]) -> u64 {
        let hash = blake3::keyed_hash(&self.key, path);
        let (first, _) = hash.as_bytes().split_at(8);
        u64::from_le_bytes(first.try_into().unwrap_or_default())
    }

    fn sort(&mut self) {
        self.hashes.sort_unstable();
    }

    fn holds(&self, path: &[u8]) -> bool {
        self.hashes.binary_search(&self.hash(path)).is_ok()
    }
}

impl Shared {
    /// Deletes everything below the paths `within` that was not seen. Crosses no mount point.
    pub(super) fn delete_extra(&self, seen: &mut Seen, within: &[Vec<u8>]) {
        seen.sort();
        let mut todo = within.to_vec();
        while let Some(path) = todo.pop() {
            if let Err(errno) = self.delete_extra_in(seen, &path, &mut todo) {
                self.fail(&path, Reason::system("delete what the backup does not hold")(errno));
            }
        }
    }

    fn delete_extra_in(&self, seen: &Seen, path: &[u8], todo: &mut Vec<Vec<u8>>) -> Io<()> {
        let directory = match self.root.open_directory(path, false, Mounts::Stop) {
            Ok(directory) => directory,
            // A mount point, or a selected path that is no directory.
            Err(Errno::XDEV | Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut extra = Vec::new();
        each_name(directory.as_fd(), |name| {
            let below = if path == ROOT { name.to_vec() } else { [path, b"/", name].concat() };
            if below == b"lost+found" {
                return;
            }
            if !seen.holds(&below) {
                extra.push(name.to_vec());
            } else if below.len() <= MAX_PATH
                && stat_at(&directory, name).is_ok_and(|there| there.file_type == FileType::Directory)
            {
                todo.push(below);
            }
        })?;
        for name in extra {
            self.remove_at(directory.as_fd(), &name, 0)?;
        }
        Ok(())
    }

    /// Removes a directory with all its content.
    pub(super) fn remove_tree(&self, directory: &Directory, name: &[u8]) -> Result<(), Reason> {
        self.remove_at(directory.as_fd(), name, 0).map_err(Reason::system("remove what is in its place"))
    }

    /// Removes a name with all below it. Links are removed, not followed. A mount point stays, and
    /// with it the directories above it.
    fn remove_at(&self, directory: BorrowedFd<'_>, name: &[u8], depth: usize) -> Io<()> {
        if depth > MAX_DEPTH {
            return Err(Errno::NAMETOOLONG);
        }
        match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) => {
                self.report().deleted += 1;
                return Ok(());
            }
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error),
        }
        let below = match self.below(directory, name) {
            Ok(below) => below,
            Err(Errno::XDEV) => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        each_name(&below, |name| names.push(name.to_vec()))?;
        for inner in names {
            self.remove_at(below.as_fd(), &inner, depth + 1)?;
        }
        match rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
            Ok(()) => {
                self.report().deleted += 1;
                Ok(())
            }
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY | Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn below(&self, directory: BorrowedFd<'_>, name: &[u8]) -> Io<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        rustix::fs::openat2(directory, name, flags, Mode::empty(), resolve)
    }
}
