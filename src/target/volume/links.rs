//! Creates hard links, after all files are in place.

use rustix::fs::AtFlags;
use rustix::io::Errno;

use crate::format::tar::order;
use crate::fs::FileType;
use crate::fs::beneath::stat_at;
use crate::runtime::kill_point;
use crate::target::volume::directory::Directory;
use crate::target::volume::report::Reason;
use crate::target::volume::target::{ExistingFiles, Shared};

impl Shared {
    /// Makes `path` a further name of the file `carrier`. Links at the end of either are not
    /// followed: a hard link to a symbolic link is a second name of that link.
    pub(crate) fn link(&self, path: &[u8], carrier: &[u8]) -> Result<(), Reason> {
        let (from, carrier) = order::split(carrier).ok_or(Reason::CarrierMissing)?;
        let (_, name) = order::split(path).ok_or(Reason::NoDirectory)?;
        let from = self.open_directory(from).map_err(|errno| match errno {
            Errno::NOENT => Reason::CarrierMissing,
            errno => Reason::system("open the directory of the file that it is a link to")(errno),
        })?;
        let to = self.parent_of(path)?;
        match rustix::fs::linkat(&from, carrier, &to, name, AtFlags::empty()) {
            Ok(()) => {
                self.report().links += 1;
                kill_point("restore.link.made");
                return Ok(());
            }
            Err(Errno::EXIST) => {}
            Err(Errno::NOENT) => return Err(Reason::CarrierMissing),
            Err(errno) => return Err(Reason::system("make the link")(errno)),
        }
        if self.is_linked(&from, carrier, &to, name)? {
            self.report().present += 1;
            return Ok(());
        }
        match self.options.existing {
            ExistingFiles::Refuse => Err(Reason::NameCollision),
            ExistingFiles::Skip => Err(Reason::Different),
            ExistingFiles::Overwrite | ExistingFiles::DeleteExtra => {
                self.replace_by_link(&from, carrier, &to, name)
            }
        }
    }

    fn replace_by_link(
        &self,
        from: &Directory,
        carrier: &[u8],
        to: &Directory,
        name: &[u8],
    ) -> Result<(), Reason> {
        self.make_way(to, name)?;
        let (temporary, ()) = self.new_name("make the link", |temporary| {
            rustix::fs::linkat(from, carrier, to, temporary, AtFlags::empty())
        })?;
        let renamed = rustix::fs::renameat(to, temporary.as_slice(), to, name);
        // A rename onto another name of the same file does nothing and leaves both names.
        let _ = rustix::fs::unlinkat(to, temporary.as_slice(), AtFlags::empty());
        renamed.map_err(Reason::system("replace what is there"))?;
        self.report().links += 1;
        Ok(())
    }

    /// True if `name` is already a name of the same file.
    fn is_linked(
        &self,
        from: &Directory,
        carrier: &[u8],
        to: &Directory,
        name: &[u8],
    ) -> Result<bool, Reason> {
        let look = Reason::system("look at what is there");
        let (a, b) = (stat_at(from, carrier).map_err(&look)?, stat_at(to, name).map_err(&look)?);
        let same = (a.dev, a.ino) == (b.dev, b.ino) && a.file_type != FileType::Directory;
        Ok(same && self.is_exact(to, name).map_err(&look)?)
    }
}
