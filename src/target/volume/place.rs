//! Gives a finished file its names, without ever writing through an existing one.
//!
//! Files are made under a temporary name in their own directory and renamed when complete. So a
//! killed restore leaves no partial file under a real name. An existing entry (also another name of a
//! hard-linked file, or a link) is replaced, never written to. Hard links come after all files.

use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;

use super::report::{EntryResult, FailureReason};
use super::{directory::Directory, options::ExistingFiles, state::TargetState};
use crate::format::tar::{EntryKind, TarEntry, order};
use crate::fs::beneath::stat_at;
use crate::fs::{FileType, Stat};
use crate::runtime::kill_point;

/// A name in an open directory.
type Location<'a> = (&'a Directory, &'a [u8]);

impl TargetState {
    /// Returns true if the policy keeps existing entries and this one is the same already.
    pub(crate) fn is_present(
        &self,
        directory: &Directory,
        name: &[u8],
        entry: &TarEntry,
    ) -> EntryResult<bool> {
        if self.options.existing != ExistingFiles::Skip {
            return Ok(false);
        }
        let Some(found) = self.find_exact(directory, name)? else { return Ok(false) };
        let same = match &entry.kind {
            EntryKind::File { size } | EntryKind::Sparse { size, .. } => {
                found.file_type == FileType::File && found.size == *size && found.mtime == entry.mtime
            }
            EntryKind::Symlink { target } => rustix::fs::readlinkat(directory, name, Vec::new())
                .is_ok_and(|found| found.as_bytes() == target.as_slice()),
            EntryKind::Fifo => found.file_type == FileType::Fifo,
            EntryKind::CharDevice(device) => found.file_type == FileType::CharDevice && found.rdev == *device,
            EntryKind::BlockDevice(device) => {
                found.file_type == FileType::BlockDevice && found.rdev == *device
            }
            EntryKind::Directory | EntryKind::HardLink { .. } => false,
        };
        if !same {
            return Err(FailureReason::Different);
        }
        self.report().present += 1;
        Ok(true)
    }

    /// Renames a complete entry from `temporary` to `name`. On failure the temporary name stays.
    pub(crate) fn place(&self, directory: &Directory, temporary: &[u8], name: &[u8]) -> EntryResult<()> {
        match self.rename_new(directory, temporary, name) {
            Err(Errno::EXIST) => {}
            other => return other.map_err(FailureReason::system("rename it to its final name")),
        }
        match self.options.existing {
            // The target was empty: this can only be another spelling of the name.
            ExistingFiles::Refuse => return Err(FailureReason::NameCollision),
            // It appeared after the check.
            ExistingFiles::Skip => return Err(FailureReason::Different),
            ExistingFiles::Overwrite | ExistingFiles::DeleteExtra => {}
        }
        self.clear_name(directory, name)?;
        rustix::fs::renameat(directory, temporary, directory, name)
            .map_err(FailureReason::system("replace the existing entry"))
    }

    /// Makes sure that a rename can replace an existing entry.
    pub(crate) fn clear_name(&self, directory: &Directory, name: &[u8]) -> EntryResult<()> {
        let Some(found) = self.find_exact(directory, name)? else { return Ok(()) };
        if found.file_type != FileType::Directory {
            return Ok(());
        }
        if self.options.existing == ExistingFiles::DeleteExtra {
            return self.remove_tree(directory, name);
        }
        match rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
            Ok(()) => Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY) => Err(FailureReason::DirectoryInTheWay),
            Err(errno) => Err(FailureReason::system("remove the existing directory")(errno)),
        }
    }

    /// Returns the existing entry of exactly this name. Another spelling of it is an error.
    fn find_exact(&self, directory: &Directory, name: &[u8]) -> EntryResult<Option<Stat>> {
        let failed = FailureReason::system("check the existing entry");
        match stat_at(directory, name) {
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(failed(errno)),
            Ok(found) if self.is_exact(directory, name).map_err(&failed)? => Ok(Some(found)),
            Ok(_) => Err(FailureReason::NameCollision),
        }
    }

    /// Renames an entry unless the new name exists.
    fn rename_new(&self, directory: &Directory, from: &[u8], to: &[u8]) -> Result<(), Errno> {
        match rustix::fs::renameat_with(directory, from, directory, to, RenameFlags::NOREPLACE) {
            // NFS and some FUSE file systems lack this flag: a hard link fails the same way.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            other => return other,
        }
        match rustix::fs::linkat(directory, from, directory, to, AtFlags::empty()) {
            Ok(()) => return rustix::fs::unlinkat(directory, from, AtFlags::empty()),
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(error) => return Err(error),
        }
        // Hard links are not supported either: check first. Only another process could interfere.
        match stat_at(directory, to) {
            Ok(_) => Err(Errno::EXIST),
            Err(Errno::NOENT) => rustix::fs::renameat(directory, from, directory, to),
            Err(error) => Err(error),
        }
    }

    /// Makes `path` a further name of the file `link_target`. Links at the end of either are not
    /// followed: a hard link to a symbolic link is a second name of that link.
    pub(crate) fn make_link(&self, path: &[u8], link_target: &[u8]) -> EntryResult<()> {
        let (from, link_target) = order::split(link_target).ok_or(FailureReason::LinkTargetMissing)?;
        let (_, name) = order::split(path).ok_or(FailureReason::NoDirectory)?;
        let from = self.open_directory(from).map_err(|errno| match errno {
            Errno::NOENT => FailureReason::LinkTargetMissing,
            errno => FailureReason::system("open the directory of the link's target")(errno),
        })?;
        let to = self.parent_of(path)?;
        match rustix::fs::linkat(&from, link_target, &to, name, AtFlags::empty()) {
            Ok(()) => {
                self.report().links += 1;
                kill_point("restore.link.made");
                return Ok(());
            }
            Err(Errno::EXIST) => {}
            Err(Errno::NOENT) => return Err(FailureReason::LinkTargetMissing),
            Err(errno) => return Err(FailureReason::system("create the hard link")(errno)),
        }
        let (from, to) = ((&from, link_target), (&to, name));
        if self.is_linked(from, to)? {
            self.report().present += 1;
            return Ok(());
        }
        match self.options.existing {
            ExistingFiles::Refuse => Err(FailureReason::NameCollision),
            ExistingFiles::Skip => Err(FailureReason::Different),
            ExistingFiles::Overwrite | ExistingFiles::DeleteExtra => self.replace_by_link(from, to),
        }
    }

    fn replace_by_link(&self, from: Location<'_>, (to, name): Location<'_>) -> EntryResult<()> {
        self.clear_name(to, name)?;
        let (temporary, ()) = self.new_name("create the hard link", |temporary| {
            rustix::fs::linkat(from.0, from.1, to, temporary, AtFlags::empty())
        })?;
        let renamed = rustix::fs::renameat(to, temporary.as_slice(), to, name);
        // A rename onto another name of the same file does nothing and leaves both names.
        let _ = rustix::fs::unlinkat(to, temporary.as_slice(), AtFlags::empty());
        renamed.map_err(FailureReason::system("replace the existing entry"))?;
        self.report().links += 1;
        Ok(())
    }

    /// True if `to` is already a name of the same file.
    fn is_linked(&self, from: Location<'_>, to: Location<'_>) -> EntryResult<bool> {
        let check = FailureReason::system("check the existing entry");
        let (a, b) = (stat_at(from.0, from.1).map_err(&check)?, stat_at(to.0, to.1).map_err(&check)?);
        let same = (a.dev, a.ino) == (b.dev, b.ino) && a.file_type != FileType::Directory;
        Ok(same && self.is_exact(to.0, to.1).map_err(&check)?)
    }
}
