//! Deletes files that the stream does not hold, if that was requested.
//!
//! Each path of the stream is kept as eight bytes of a keyed hash: 8 MB for a million files. A hash
//! collision can only spare a file, never delete one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result as Io};

use super::directory::{Directory, each_name};
use super::report::{EntryResult, FailureReason};
use super::state::TargetState;
use crate::format::tar::{MAX_PATH, ROOT, order};
use crate::fs::FileType;
use crate::fs::beneath::{Mounts, stat_at};

/// Most levels of a tree that is removed: each level holds a descriptor and its names.
const MAX_DEPTH: usize = 512;

/// Hashes of the paths that a stream holds.
#[derive(Debug)]
pub(crate) struct StreamPaths {
    key: [u8; 32],
    hashes: Vec<u64>,
}

impl StreamPaths {
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Self { key, hashes: Vec::new() }
    }

    pub(crate) fn add(&mut self, path: &[u8]) {
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

    fn contains(&self, path: &[u8]) -> bool {
        self.hashes.binary_search(&self.hash(path)).is_ok()
    }
}

impl TargetState {
    /// Deletes everything below the paths in `scope` that is not in `stream_paths`. Crosses no mount point.
    pub(crate) fn delete_extra(&self, stream_paths: &mut StreamPaths, scope: &[Vec<u8>]) {
        stream_paths.sort();
        let mut todo = scope.to_vec();
        // Directories to remove once they are empty.
        let mut emptied_directories = Vec::new();
        while let Some(path) = todo.pop() {
            if let Err(errno) = self.delete_extra_in(stream_paths, &path, &mut todo, &mut emptied_directories)
            {
                self.fail(&path, FailureReason::system("delete the extra entry")(errno));
            }
        }
        for path in emptied_directories.iter().rev() {
            if let Err(errno) = self.remove_emptied_directory(path) {
                self.fail(path, FailureReason::system("delete the extra entry")(errno));
            }
        }
    }

    fn remove_emptied_directory(&self, path: &[u8]) -> Io<()> {
        let Some((parent, name)) = order::split(path) else { return Ok(()) };
        let directory = self.root.open_directory(parent, false, Mounts::Stop)?;
        self.remove_if_empty(directory.as_fd(), name)
    }

    /// Removes a directory unless something is in it or mounted on it.
    fn remove_if_empty(&self, parent: BorrowedFd<'_>, name: &[u8]) -> Io<()> {
        match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) => {
                self.report().deleted += 1;
                Ok(())
            }
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY | Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn delete_extra_in(
        &self,
        stream_paths: &StreamPaths,
        path: &[u8],
        todo: &mut Vec<Vec<u8>>,
        emptied_directories: &mut Vec<Vec<u8>>,
    ) -> Io<()> {
        let exceptions = &self.options.deletion_exceptions;
        if path != ROOT && exceptions.covers(path, true) {
            return Ok(());
        }
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
            let is_directory =
                stat_at(&directory, name).is_ok_and(|found| found.file_type == FileType::Directory);
            if exceptions.covers(&below, is_directory) {
                return;
            }
            let enters = is_directory && below.len() <= MAX_PATH;
            match stream_paths.contains(&below) {
                true if enters => todo.push(below),
                true => {}
                false if enters && exceptions.may_cover_below(&below) => {
                    emptied_directories.push(below.clone());
                    todo.push(below);
                }
                false => extra.push(name.to_vec()),
            }
        })?;
        for name in extra {
            self.remove_at(directory.as_fd(), &name, 0)?;
        }
        Ok(())
    }

    pub(crate) fn remove_tree(&self, directory: &Directory, name: &[u8]) -> EntryResult<()> {
        self.remove_at(directory.as_fd(), name, 0).map_err(FailureReason::system("remove the existing entry"))
    }

    /// Removes a name with all below it. Links are removed, not followed. A mount point stays, and so
    /// do the directories above it.
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
        let below = match self.open_subdirectory(directory, name) {
            Ok(below) => below,
            Err(Errno::XDEV) => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        each_name(&below, |name| names.push(name.to_vec()))?;
        for inner in names {
            self.remove_at(below.as_fd(), &inner, depth + 1)?;
        }
        self.remove_if_empty(directory, name)
    }

    fn open_subdirectory(&self, directory: BorrowedFd<'_>, name: &[u8]) -> Io<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        rustix::fs::openat2(directory, name, flags, Mode::empty(), resolve)
    }
}
