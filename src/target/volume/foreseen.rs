//! Foresees which existing entries and which lack of space stop a restore. Changes nothing.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::directory::each_name;
use super::{destination::Destination, error::TargetError, options::ExistingFiles};
use crate::format::catalog::{CatalogLine, MemberType};
use crate::format::tar::ROOT;
use crate::format::tar::pax::format_time;
use crate::fs::beneath::{Mounts, Root, stat_fd};
use crate::fs::{FileType, Stat};

/// A target before a restore: its existing entries, and its free space.
#[derive(Debug)]
pub struct TargetPreview {
    /// The target; none if it does not exist.
    root: Option<Root>,
    existing: ExistingFiles,
    free: u64,
    needed: u64,
}

impl TargetPreview {
    /// Opens the target, or the nearest existing folder above it. Fails with [`TargetError::Open`].
    pub fn open(target: &Destination, existing: ExistingFiles) -> Result<Self, TargetError> {
        let failed = |source| TargetError::Open { path: target.path(), source };
        let (root, _, is_target) = target.open_nearest().map_err(failed)?;
        let room = rustix::fs::fstatvfs(&root).map_err(failed)?;
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        Ok(Self { root: is_target.then_some(root), existing, free, needed: 0 })
    }

    /// Adds a member to those that need space. Fails with [`TargetError::NoRoom`] at the first that has none.
    pub fn add(&mut self, member: &CatalogLine) -> Result<(), TargetError> {
        // Existing files give space back, or are kept.
        if self.existing != ExistingFiles::Refuse || member.kind != MemberType::File {
            return Ok(());
        }
        // Without holes: the stream has none.
        self.needed = self.needed.saturating_add(member.size.unwrap_or(0).min(member.len));
        if self.needed > self.free {
            let path = member.path.bytes().to_vec();
            return Err(TargetError::NoRoom { path, needs: self.needed, free: self.free });
        }
        Ok(())
    }

    /// True if an existing entry stops the restore of a member.
    #[must_use]
    pub fn is_in_the_way(&self, member: &CatalogLine) -> bool {
        let Some(root) = self.root.as_ref().filter(|_| self.existing != ExistingFiles::Refuse) else {
            return false;
        };
        let keeps = self.existing == ExistingFiles::Skip;
        let path = member.path.bytes();
        if path == ROOT {
            return false;
        }
        let fd = match open(root, path) {
            Ok(fd) => fd,
            // What is in the place of its directory is replaced, or kept.
            Err(Errno::NOTDIR | Errno::LOOP) => return keeps,
            Err(_) => return false,
        };
        let Ok(found) = stat_fd(&fd) else { return false };
        let is_directory = found.file_type == FileType::Directory;
        if member.kind == MemberType::Dir {
            return keeps && !is_directory;
        }
        match self.existing {
            ExistingFiles::Skip => !is_same(root, member, &found),
            ExistingFiles::Overwrite => is_directory && !is_empty(root, path),
            ExistingFiles::Refuse | ExistingFiles::DeleteExtra => false,
        }
    }
}

/// Opens an entry beneath a folder, a link itself.
fn open(root: &Root, path: &[u8]) -> rustix::io::Result<std::os::fd::OwnedFd> {
    root.open_beneath(path, OFlags::PATH, Mode::empty(), Mounts::Cross)
}

/// True if an existing entry counts as restored already: see `TargetState::is_present` and `make_link`.
fn is_same(root: &Root, member: &CatalogLine, found: &Stat) -> bool {
    let is_a = |file_type: FileType| found.file_type == file_type;
    let link = member.link.as_ref().map(|link| link.bytes());
    match member.kind {
        MemberType::File => {
            let is_same_time = member.mtime.as_ref().is_none_or(|mtime| *mtime == format_time(found.mtime));
            is_a(FileType::File) && member.size == Some(found.size) && is_same_time
        }
        MemberType::Symlink => {
            let read = || -> rustix::io::Result<Vec<u8>> {
                let link = open(root, member.path.bytes())?;
                Ok(rustix::fs::readlinkat(&link, c"", Vec::new())?.into_bytes())
            };
            is_a(FileType::Symlink) && read().is_ok_and(|read| Some(read.as_slice()) == link)
        }
        MemberType::Hardlink => {
            let target = link.and_then(|link| stat_fd(open(root, link).ok()?).ok());
            target.is_some_and(|target| (target.dev, target.ino) == (found.dev, found.ino))
        }
        MemberType::Fifo => is_a(FileType::Fifo),
        MemberType::Char => is_a(FileType::CharDevice),
        MemberType::Block => is_a(FileType::BlockDevice),
        MemberType::Dir | MemberType::Object | MemberType::Dump => true,
    }
}

/// True if a directory beneath a folder has no entries.
fn is_empty(root: &Root, path: &[u8]) -> bool {
    let mut empty = true;
    let listed =
        root.open_directory(path, false, Mounts::Cross).and_then(|fd| each_name(fd, |_| empty = false));
    listed.is_ok() && empty
}
