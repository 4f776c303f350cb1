//! Gives a finished file its name, without ever writing through an existing one.
//!
//! Files are made under a temporary name in their own directory and renamed when complete. So a
//! killed restore leaves no partial file under a real name. An existing entry (also another name of a
//! hard-linked file, or a link) is replaced, never written to.

use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;

use super::directory::Directory;
use super::options::ExistingFiles;
use super::report::FailureReason;
use super::state::TargetState;
use crate::format::tar::{EntryKind, TarEntry};
use crate::fs::FileType;
use crate::fs::beneath::stat_at;

impl TargetState {
    /// Returns true if the policy keeps existing entries and this one is the same already.
    pub(crate) fn is_present(
        &self,
        directory: &Directory,
        name: &[u8],
        entry: &TarEntry,
    ) -> Result<bool, FailureReason> {
        if self.options.existing != ExistingFiles::Skip {
            return Ok(false);
        }
        let found = match stat_at(directory, name) {
            Ok(found) => found,
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(FailureReason::system("check the existing entry")(errno)),
        };
        if !self.is_exact(directory, name).map_err(FailureReason::system("check the existing entry"))? {
            return Err(FailureReason::NameCollision);
        }
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
    pub(crate) fn place(
        &self,
        directory: &Directory,
        temporary: &[u8],
        name: &[u8],
    ) -> Result<(), FailureReason> {
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
    pub(crate) fn clear_name(&self, directory: &Directory, name: &[u8]) -> Result<(), FailureReason> {
        let look = "check the existing entry";
        let found = match stat_at(directory, name) {
            Ok(found) => found,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(FailureReason::system(look)(errno)),
        };
        if !self.is_exact(directory, name).map_err(FailureReason::system(look))? {
            return Err(FailureReason::NameCollision);
        }
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
}
