//! What a target would say, before anything is made.

use std::path::Path;

use rustix::fs::Access;
use rustix::io::Errno;

use super::directory::is_empty;
use super::target::{ExistingFiles, TargetError};
use crate::source::volume::beneath::Root;

/// Whether a restore into the folder at `path` would begin: it is a folder that can be written and, if
/// nothing is said about files that are there, an empty one; or it can be made. Nothing is touched.
///
/// # Errors
/// [`TargetError::Open`] and [`TargetError::NotEmpty`], as [`super::Target::open`] gives them.
pub fn look(path: &Path, existing: ExistingFiles) -> Result<(), TargetError> {
    let open = |source: Errno| TargetError::Open { path: path.to_owned(), source };
    let writable = |path: &Path| rustix::fs::access(path, Access::WRITE_OK | Access::EXEC_OK).map_err(open);
    match Root::open(path) {
        Ok(root) => {
            writable(path)?;
            if existing == ExistingFiles::Refuse && !is_empty(&root).map_err(open)? {
                return Err(TargetError::NotEmpty(path.to_owned()));
            }
            Ok(())
        }
        Err(Errno::NOENT) => {
            // It is made, with the folders that lead to it, in the nearest that is there.
            let there = path.ancestors().skip(1).find(|above| {
                above.as_os_str().is_empty()
                    || rustix::fs::access(*above, Access::EXISTS) != Err(Errno::NOENT)
            });
            let there = there.filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Root::open(there).map_err(open)?;
            writable(there)
        }
        Err(error) => Err(open(error)),
    }
}
