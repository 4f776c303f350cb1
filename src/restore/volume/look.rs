//! What a target would say, before anything is made.

use rustix::fs::Access;
use rustix::io::Errno;

use super::directory::is_empty;
use super::target::{ExistingFiles, TargetError};
use super::whither::Whither;

/// Whether a restore into the folder `target` would begin: it is a folder that can be written and, if
/// nothing is said about files that are there, an empty one; or it can be made. Nothing is touched.
///
/// # Errors
/// [`TargetError::Open`] and [`TargetError::NotEmpty`], as [`super::Target::open`] gives them.
pub fn look(target: &Whither, existing: ExistingFiles) -> Result<(), TargetError> {
    let open = |source: Errno| TargetError::Open { path: target.path(), source };
    // If it is not there, it is made, with the folders that lead to it, in the nearest that is.
    let (root, path, itself) = target.nearest().map_err(open)?;
    rustix::fs::access(&path, Access::WRITE_OK | Access::EXEC_OK).map_err(open)?;
    if itself && existing == ExistingFiles::Refuse && !is_empty(&root).map_err(open)? {
        return Err(TargetError::NotEmpty(path));
    }
    Ok(())
}
