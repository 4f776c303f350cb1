//! The destination of a folder's restore.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Access, FlockOperation};
use rustix::io::{Errno, Result as Io};

use super::directory::{create_missing, is_empty};
use super::{error::TargetError, options::ExistingFiles};
use crate::fs::FileType;
use crate::fs::beneath::{Root, stat_at};

/// A folder that a person names and, for one of several items, a folder beneath it. Links in the
/// first part are followed, because the person may have put them there. Links in the second part are
/// not: they may come from the backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The folder that the person names.
    pub base: PathBuf,
    /// The path beneath it; empty for the folder itself.
    pub subfolder: PathBuf,
}

impl<P: AsRef<OsStr> + ?Sized> From<&P> for Destination {
    fn from(path: &P) -> Self {
        Self { base: PathBuf::from(path), subfolder: PathBuf::new() }
    }
}

impl Destination {
    /// Returns the whole path.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let has_subfolder = !self.subfolder.as_os_str().is_empty();
        if has_subfolder { self.base.join(&self.subfolder) } else { self.base.clone() }
    }

    /// Opens the folder. Creates it and its parents, except the parents of the first part. Fails with `ELOOP`
    /// if the second part has a link.
    pub fn create(&self) -> Io<Root> {
        create_missing(rustix::fs::CWD, &self.base)?;
        let mut root = Root::open(&self.base)?;
        for name in component_names(&self.subfolder)? {
            create_missing(&root, name)?;
            root = open_subfolder(&root, name)?;
        }
        Ok(root)
    }

    /// Returns the folder, or else the nearest existing one above it; with its path, and true if it
    /// is the folder itself.
    pub(crate) fn open_nearest(&self) -> Io<(Root, PathBuf, bool)> {
        let root = match Root::open(&self.base) {
            Err(Errno::NOENT) => {
                let above = self.base.ancestors().skip(1).find(|above| {
                    above.as_os_str().is_empty()
                        || rustix::fs::access(*above, Access::EXISTS) != Err(Errno::NOENT)
                });
                let above = above.filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
                return Ok((Root::open(above)?, above.to_owned(), false));
            }
            root => root?,
        };
        let (mut found, mut path) = (root, self.base.clone());
        for name in component_names(&self.subfolder)? {
            match open_subfolder(&found, name) {
                Ok(next) => found = next,
                Err(Errno::NOENT) => return Ok((found, path, false)),
                Err(error) => return Err(error),
            }
            path.push(name);
        }
        Ok((found, path, true))
    }
}

/// Opens a folder in another. The kernel says of a link only that it is no folder; this gives `ELOOP`.
fn open_subfolder(root: &Root, name: &OsStr) -> Io<Root> {
    root.open_folder(name.as_bytes()).map_err(|error| {
        let link = || stat_at(root, name.as_bytes()).is_ok_and(|found| found.file_type == FileType::Symlink);
        if error == Errno::NOTDIR && link() { Errno::LOOP } else { error }
    })
}

/// Returns the names of a path that only leads down.
fn component_names(subfolder: &Path) -> Io<Vec<&OsStr>> {
    let down = |part| if let Component::Normal(name) = part { Ok(name) } else { Err(Errno::INVAL) };
    subfolder.components().map(down).collect()
}

/// Checks that a restore into the folder `target` would begin: it can be written and, if existing files are
/// refused, is empty; or it can be created. Changes nothing. Fails with [`TargetError::Open`] and
/// [`TargetError::NotEmpty`], as [`super::VolumeTarget::open`] gives them.
pub fn check_target(target: &Destination, existing: ExistingFiles) -> Result<(), TargetError> {
    let open = |source: Errno| TargetError::Open { path: target.path(), source };
    // A missing target is created, with its parents, in the nearest existing folder.
    let (root, path, itself) = target.open_nearest().map_err(open)?;
    rustix::fs::access(&path, Access::WRITE_OK | Access::EXEC_OK).map_err(open)?;
    // The lock ends with this function.
    if itself && rustix::fs::flock(&root, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK)
    {
        return Err(TargetError::Busy(path));
    }
    if itself && existing == ExistingFiles::Refuse && !is_empty(&root).map_err(open)? {
        return Err(TargetError::NotEmpty(path));
    }
    Ok(())
}
