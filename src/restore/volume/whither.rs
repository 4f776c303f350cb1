//! Where a restore of a folder goes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::{Errno, Result as Io};

use crate::source::volume::FileType;
use crate::source::volume::beneath::{Root, stat_at};

/// A folder that a person names, and, for one of several items, a folder beneath it. In the first part
/// links are followed, because the person may have put them there; in the second none is: what stands
/// there may have come from the backup a moment before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whither {
    /// What the person names.
    pub to: PathBuf,
    /// Beneath it; empty for the folder itself.
    pub below: PathBuf,
}

impl<P: AsRef<OsStr> + ?Sized> From<&P> for Whither {
    fn from(path: &P) -> Self {
        Self { to: PathBuf::from(path), below: PathBuf::new() }
    }
}

impl Whither {
    /// The whole path.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        if self.below.as_os_str().is_empty() { self.to.clone() } else { self.to.join(&self.below) }
    }

    /// Opens the folder, and makes it and those that lead to it, but those that lead to the first part.
    ///
    /// # Errors
    /// What the kernel says: `ELOOP` where a link stands in the second part.
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

    /// The folder, if it is there, and otherwise the nearest above it that is; with its path, and whether
    /// it is the folder itself.
    pub(super) fn nearest(&self) -> Io<(Root, PathBuf, bool)> {
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

/// A folder in another. The kernel says of a link only that it is no folder.
fn step(root: &Root, name: &OsStr) -> Io<Root> {
    root.folder(name.as_bytes()).map_err(|error| {
        let link = || stat_at(root, name.as_bytes()).is_ok_and(|there| there.file_type == FileType::Symlink);
        if error == Errno::NOTDIR && link() { Errno::LOOP } else { error }
    })
}

/// The names of a path that leads down and nowhere else.
fn names(below: &Path) -> Io<Vec<&OsStr>> {
    let down = |part| if let Component::Normal(name) = part { Ok(name) } else { Err(Errno::INVAL) };
    below.components().map(down).collect()
}
