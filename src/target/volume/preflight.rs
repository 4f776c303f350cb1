//! Checks a target before anything is changed.

use rustix::fs::Access;
use rustix::io::Errno;

use super::destination::Destination;
use super::directory::is_empty;
use super::error::TargetError;
use super::options::ExistingFiles;

/// Checks that a restore into the folder `target` would begin: it can be written and, if existing
/// files are refused, is empty; or it can be created. Changes nothing.
///
/// # Errors
/// [`TargetError::Open`] and [`TargetError::NotEmpty`], as [`super::VolumeTarget::open`] gives them.
pub fn check_target(target: &Destination, existing: ExistingFiles) -> Result<(), TargetError> {
    let open = |source: Errno| TargetError::Open { path: target.path(), source };
    // A missing target is created, with its parents, in the nearest existing folder.
    let (root, path, itself) = target.open_nearest().map_err(open)?;
    rustix::fs::access(&path, Access::WRITE_OK | Access::EXEC_OK).map_err(open)?;
    if itself && existing == ExistingFiles::Refuse && !is_empty(&root).map_err(open)? {
        return Err(TargetError::NotEmpty(path));
    }
    Ok(())
}
