//! Reads extended attributes by path. Paths lead through /proc: see [`super::beneath::proc_path`].

use rustix::io::{Errno, Result};

use crate::format::tar::MAX_XATTR_VALUE;

/// The longest list of names of extended attributes in Linux (`XATTR_LIST_MAX`), in bytes.
const MAX_LIST: usize = 65_536;

/// Returns the names of the attributes, each with a NUL after it. Links are not followed.
pub(crate) fn list(path: &[u8]) -> Result<Vec<u8>> {
    read(MAX_LIST, |buffer| rustix::fs::llistxattr(path, buffer))
}

/// Returns the value of one attribute. Links are not followed.
pub(crate) fn value(path: &[u8], name: &[u8]) -> Result<Vec<u8>> {
    read(MAX_XATTR_VALUE, |buffer| rustix::fs::lgetxattr(path, name, buffer))
}

/// Reads into a small buffer first, then into one of `max` bytes.
fn read(max: usize, get: impl Fn(&mut [u8]) -> Result<usize>) -> Result<Vec<u8>> {
    let mut small = [0u8; 512];
    match get(&mut small) {
        Ok(len) => Ok(small[..len].to_vec()),
        Err(Errno::RANGE) => {
            let mut large = vec![0u8; max];
            let len = get(&mut large)?;
            large.truncate(len);
            large.shrink_to_fit();
            Ok(large)
        }
        Err(error) => Err(error),
    }
}
