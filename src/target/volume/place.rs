//! Gives a finished file its name, without ever writing through an existing one.
//!
//! Files are made under a temporary name in their own directory and renamed when complete. So a
//! killed restore leaves no partial file under a real name. An existing entry (also another name of a
//! hard-linked file, or a link) is replaced, never written to.

use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;

use crate::format::tar::{Entry, Kind};
use crate::fs::FileType;
use crate::fs::beneath::stat_at;
use crate::target::volume::directory::Directory;
use crate::target::volume::report::Reason;
use crate::target::volume::target::{ExistingFiles, Shared};

impl Shared {
    /// Returns true if the policy keeps existing entries and this one is the same already.
    pub(crate) fn is_present(
        &self,
        directory: &Directory,
        name: &[u8],
        entry: &Entry,
    ) -> Result<bool, Reason> {
        if self.options.existing != ExistingFiles::Skip {
            return Ok(false);
        }
        let there = match stat_at(directory, name) {
            Ok(there) => there,
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(Reason::system("look at what is there")(errno)),
        };
        if !self.is_exact(directory, name).map_err(Reason::system("look at what is there"))? {
            return Err(Reason::NameCollision);
        }
        let same = match &entry.kind {
            Kind::File { size } | Kind::Sparse { size, .. } => {
                there.file_type == FileType::File && there.size == *size && there.mtime == entry.mtime
            }
            Kind::Symlink { target } => rustix::fs::readlinkat(directory, name, Vec::new())
                .is_ok_and(|there| there.as_bytes() == target.as_slice()),
            Kind::Fifo => there.file_type == FileType::Fifo,
            Kind::CharDevice(device) => there.file_type == FileType::CharDevice && there.rdev == *device,
            Kind::BlockDevice(device) => there.file_type == FileType::BlockDevice && there.rdev == *device,
            Kind::Directory | Kind::HardLink { .. } => false,
        };
        if !same {
            return Err(Reason::Different);
        }
        self.report().present += 1;
        Ok(true)
    }

    /// Renames a complete entry from `temporary` to `name`. On failure the temporary name stays.
    pub(crate) fn place(&self, directory: &Directory, temporary: &[u8], name: &[u8]) -> Result<(), Reason> {
        match self.rename_new(directory, temporary, name) {
            Err(Errno::EXIST) => {}
            other => return other.map_err(Reason::system("give it its name")),
        }
        match self.options.existing {
            // The target was empty: this can only be another spelling of the name.
            ExistingFiles::Refuse => return Err(Reason::NameCollision),
            // It appeared after the check.
            ExistingFiles::Skip => return Err(Reason::Different),
            ExistingFiles::Overwrite | ExistingFiles::DeleteExtra => {}
        }
        self.make_way(directory, name)?;
        rustix::fs::renameat(directory, temporary, directory, name)
            .map_err(Reason::system("replace what is there"))
    }

    /// Makes sure that a rename can replace an existing entry.
    pub(crate) fn make_way(&self, directory: &Directory, name: &[u8]) -> Result<(), Reason> {
        let look = "look at what is there";
        let there = match stat_at(directory, name) {
            Ok(there) => there,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(Reason::system(look)(errno)),
        };
        if !self.is_exact(directory, name).map_err(Reason::system(look))? {
            return Err(Reason::NameCollision);
        }
        if there.file_type != FileType::Directory {
            return Ok(());
        }
        if self.options.existing == ExistingFiles::DeleteExtra {
            return self.remove_tree(directory, name);
        }
        match rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
            Ok(()) => Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY) => Err(Reason::DirectoryInTheWay),
            Err(errno) => Err(Reason::system("remove the directory in its place")(errno)),
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
