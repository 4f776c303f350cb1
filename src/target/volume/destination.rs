//! The destination of a folder's restore.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::{Errno, Result as Io};

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
        if self.subfolder.as_os_str().is_empty() {
            self.base.clone()
        } else {
            self.base.join(&self.subfolder)
        }
    }

    /// Opens the folder. Creates it and its parents, except the parents of the first part.
    ///
    /// # Errors
    /// The kernel's error: `ELOOP` if the second part has a link.
    pub fn create(&self) -> Io<Root> {
        match rustix::fs::mkdir(&self.base, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        let mut root = Root::open(&self.base)?;
        for name in component_names(&self.subfolder)? {
            match rustix::fs::mkdirat(&root, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
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
                        || rustix::fs::access(*above, rustix::fs::Access::EXISTS) != Err(Errno::NOENT)
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
