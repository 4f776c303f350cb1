//! The order of a volume's paths, and the rules for valid paths.
//!
//! Paths are compared component by component as unsigned bytes, a directory before its content.
//! That is the order of a depth-first walk that sorts each directory. It differs from comparing
//! whole paths: `a/b` comes before `a.c`, though `.` is less than `/`.

use std::cmp::Ordering;

use super::{MAX_PATH, ROOT};

/// The reason why bytes are not a path beneath a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The path is empty.
    #[error("is empty")]
    Empty,
    /// Longer than [`MAX_PATH`].
    #[error("is longer than {MAX_PATH} bytes")]
    TooLong,
    /// Starts with a slash.
    #[error("is absolute")]
    Absolute,
    /// Has a component `..`.
    #[error("climbs out by a component `..`")]
    Parent,
    /// Has a component `.`, or is the root where a file is meant.
    #[error("has a component `.`")]
    Dot,
    /// Has two slashes in a row, or one at its end.
    #[error("has an empty component")]
    EmptyComponent,
    /// Holds a NUL.
    #[error("holds a NUL")]
    Nul,
}

/// Checks that `path` is one that a root can hold; [`ROOT`] is. Fails with the rule that it breaks.
pub fn check_path(path: &[u8]) -> Result<(), PathError> {
    if path == ROOT {
        return Ok(());
    }
    if path.is_empty() {
        return Err(PathError::Empty);
    }
    if path.len() > MAX_PATH {
        return Err(PathError::TooLong);
    }
    if path.contains(&0) {
        return Err(PathError::Nul);
    }
    if path[0] == b'/' {
        return Err(PathError::Absolute);
    }
    for component in path.split(|&byte| byte == b'/') {
        match component {
            b"" => return Err(PathError::EmptyComponent),
            b"." => return Err(PathError::Dot),
            b".." => return Err(PathError::Parent),
            _ => {}
        }
    }
    Ok(())
}

/// Compares two paths. [`ROOT`] comes before all others.
#[must_use]
pub fn compare(a: &[u8], b: &[u8]) -> Ordering {
    // A slash ends a component, so it sorts below every byte that a component can hold.
    let key = |byte: &u8| if *byte == b'/' { 0 } else { u16::from(*byte) + 1 };
    match (a == ROOT, b == ROOT) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => a.iter().map(key).cmp(b.iter().map(key)),
    }
}

/// Returns true if `path` is below `above`. Everything but the root is below [`ROOT`].
#[must_use]
pub fn is_below(path: &[u8], above: &[u8]) -> bool {
    if above == ROOT {
        return path != ROOT;
    }
    path.len() > above.len() && path.starts_with(above) && path[above.len()] == b'/'
}

/// Returns the directory that holds `path`, and its last component. The root has none.
#[must_use]
pub fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path == ROOT {
        return None;
    }
    Some(match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (ROOT, path),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_sorts_before_its_content_and_content_before_the_next_name() {
        let sorted: &[&[u8]] = &[b".", b"a", b"a/b", b"a/b/c", b"a/c", b"a.c", b"a0", b"b", b"\xff"];
        for (at, a) in sorted.iter().enumerate() {
            for (other, b) in sorted.iter().enumerate() {
                assert_eq!(compare(a, b), at.cmp(&other), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn invalid_paths_are_refused() {
        for (path, error) in [
            (&b""[..], PathError::Empty),
            (b"/etc", PathError::Absolute),
            (b"a/../b", PathError::Parent),
            (b"..", PathError::Parent),
            (b"./a", PathError::Dot),
            (b"a//b", PathError::EmptyComponent),
            (b"a/", PathError::EmptyComponent),
            (b"a\0b", PathError::Nul),
        ] {
            assert_eq!(check_path(path), Err(error), "{path:?}");
        }
        assert_eq!(check_path(&vec![b'a'; MAX_PATH]), Ok(()));
        assert_eq!(check_path(&vec![b'a'; MAX_PATH + 1]), Err(PathError::TooLong));
        assert_eq!(check_path(b"..a/b..c/..."), Ok(()));
    }
}
