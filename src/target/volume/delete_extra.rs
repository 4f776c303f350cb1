//! Deletes files that the stream does not hold, if that was requested.
//!
//! Each path of the stream is kept as eight bytes of a keyed hash: 8 MB for a million files. A hash
//! collision can only spare a file, never delete one.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use ignore::gitignore::Gitignore;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result as Io};

use crate::format::tar::{MAX_PATH, ROOT, order};
use crate::fs::FileType;
use crate::fs::beneath::{Mounts, stat_at};
use crate::target::volume::directory::{Directory, each_name};
use crate::target::volume::report::Reason;
use crate::target::volume::target::Shared;

/// Most levels of a tree that is removed: each level holds a descriptor and its names.
const MAX_DEPTH: usize = 512;

/// Entries of the target that a restore must not delete, because the backup does not hold them for a
/// known reason: unreadable, left out by rule, or part of another item.
#[derive(Debug, Clone)]
pub struct Keep {
    /// Paths to keep, each with all below it.
    pub paths: Vec<Vec<u8>>,
    /// The patterns that the backup excluded.
    pub excluded: Gitignore,
    /// True if all such entries are known by name; otherwise nothing is deleted.
    pub all_named: bool,
}

impl Default for Keep {
    fn default() -> Self {
        Self { paths: Vec::new(), excluded: Gitignore::empty(), all_named: true }
    }
}

impl Keep {
    fn keeps(&self, path: &[u8], is_directory: bool) -> bool {
        let name = Path::new(OsStr::from_bytes(path));
        self.paths.iter().any(|kept| kept == path || order::is_below(path, kept))
            || (!self.excluded.is_empty() && self.excluded.matched(name, is_directory).is_ignore())
    }

    /// True if an entry below `path` may have to stay.
    fn may_keep_below(&self, path: &[u8]) -> bool {
        !self.excluded.is_empty() || self.paths.iter().any(|kept| order::is_below(kept, path))
    }
}

/// Hashes of the paths that a stream holds.
#[derive(Debug)]
pub(crate) struct Seen {
    key: [u8; 32],
    hashes: Vec<u64>,
}

impl Seen {
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

    fn holds(&self, path: &[u8]) -> bool {
        self.hashes.binary_search(&self.hash(path)).is_ok()
    }
}

impl Shared {
    /// Deletes everything below the paths `within` that is not in `seen`. Crosses no mount point.
    pub(crate) fn delete_extra(&self, seen: &mut Seen, within: &[Vec<u8>]) {
        seen.sort();
        let mut todo = within.to_vec();
        // Directories to remove once they are empty.
        let mut hollow = Vec::new();
        while let Some(path) = todo.pop() {
            if let Err(errno) = self.delete_extra_in(seen, &path, &mut todo, &mut hollow) {
                self.fail(&path, Reason::system("delete what the backup does not hold")(errno));
            }
        }
        for path in hollow.iter().rev() {
            if let Err(errno) = self.remove_hollow(path) {
                self.fail(path, Reason::system("delete what the backup does not hold")(errno));
            }
        }
    }

    fn remove_hollow(&self, path: &[u8]) -> Io<()> {
        let Some((parent, name)) = order::split(path) else { return Ok(()) };
        let directory = self.root.open_directory(parent, false, Mounts::Stop)?;
        match rustix::fs::unlinkat(&directory, name, AtFlags::REMOVEDIR) {
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
        seen: &Seen,
        path: &[u8],
        todo: &mut Vec<Vec<u8>>,
        hollow: &mut Vec<Vec<u8>>,
    ) -> Io<()> {
        let keep = &self.options.keep;
        if path != ROOT && keep.keeps(path, true) {
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
                stat_at(&directory, name).is_ok_and(|there| there.file_type == FileType::Directory);
            if keep.keeps(&below, is_directory) {
                return;
            }
            let enters = is_directory && below.len() <= MAX_PATH;
            match seen.holds(&below) {
                true if enters => todo.push(below),
                true => {}
                false if enters && keep.may_keep_below(&below) => {
                    hollow.push(below.clone());
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

    /// Removes a directory with all its content.
    pub(crate) fn remove_tree(&self, directory: &Directory, name: &[u8]) -> Result<(), Reason> {
        self.remove_at(directory.as_fd(), name, 0).map_err(Reason::system("remove what is in its place"))
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
