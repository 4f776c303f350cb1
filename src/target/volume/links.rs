//! Creates hard links, after all files are in place.

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::directory::Directory;
use super::options::ExistingFiles;
use super::report::FailureReason;
use super::state::TargetState;
use crate::format::tar::order;
use crate::fs::FileType;
use crate::fs::beneath::stat_at;
use crate::runtime::kill_point;

/// A name in an open directory.
type Location<'a> = (&'a Directory, &'a [u8]);

impl TargetState {
    /// Makes `path` a further name of the file `link_target`. Links at the end of either are not
    /// followed: a hard link to a symbolic link is a second name of that link.
    pub(crate) fn make_link(&self, path: &[u8], link_target: &[u8]) -> Result<(), FailureReason> {
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

    fn replace_by_link(&self, from: Location<'_>, (to, name): Location<'_>) -> Result<(), FailureReason> {
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
    fn is_linked(&self, from: Location<'_>, to: Location<'_>) -> Result<bool, FailureReason> {
        let check = FailureReason::system("check the existing entry");
        let (a, b) = (stat_at(from.0, from.1).map_err(&check)?, stat_at(to.0, to.1).map_err(&check)?);
        let same = (a.dev, a.ino) == (b.dev, b.ino) && a.file_type != FileType::Directory;
        Ok(same && self.is_exact(to.0, to.1).map_err(&check)?)
    }
}
