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
    pub to: PathBuf,
    /// The path beneath it; empty for the folder itself.
    pub below: PathBuf,
}

impl<P: AsRef<OsStr> + ?Sized> From<&P> for Destination {
    fn from(path: &P) -> Self {
        Self { to: PathBuf::from(path), below: PathBuf::new() }
    }
}

impl Destination {
    /// Returns the whole path.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        if self.below.as_os_str().is_empty() { self.to.clone() } else { self.to.join(&self.below) }
    }

    /// Opens the folder. Creates it and its parents, except the parents of the first part.
    ///
    /// # Errors
    /// The kernel's error: `ELOOP` if the second part has a link.
    pub fn make(&self) -> Io<Root> {
        match rustix::fs::mkdir(&self.to, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        let mut root = Root::open(&self.to)?;
        for name in names(&self.below)? {
            match rustix::fs::mkdirat(&root, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
            root = step(&root, name)?;
        }
        Ok(root)
    }

    /// Returns the folder, or else the nearest existing one above it; with its path, and true if it
    /// is the folder itself.
    pub(crate) fn nearest(&self) -> Io<(Root, PathBuf, bool)> {
        let root = match Root::open(&self.to) {
            Err(Errno::NOENT) => {
                let there = self.to.ancestors().skip(1).find(|above| {
                    above.as_os_str().is_empty()
                        || rustix::fs::access(*above, rustix::fs::Access::EXISTS) != Err(Errno::NOENT)
                });
                let there = there.filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
                return Ok((Root::open(there)?, there.to_owned(), false));
            }
            root => root?,
        };
        let (mut found, mut path) = (root, self.to.clone());
        for name in names(&self.below)? {
            match step(&found, name) {
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
fn step(root: &Root, name: &OsStr) -> Io<Root> {
    root.folder(name.as_bytes()).map_err(|error| {
        let link = || stat_at(root, name.as_bytes()).is_ok_and(|there| there.file_type == FileType::Symlink);
        if error == Errno::NOTDIR && link() { Errno::LOOP } else { error }
    })
}

/// Returns the names of a path that only leads down.
fn names(below: &Path) -> Io<Vec<&OsStr>> {
    let down = |part| if let Component::Normal(name) = part { Ok(name) } else { Err(Errno::INVAL) };
    below.components().map(down).collect()
}
