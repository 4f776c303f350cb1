//! Finds the holes of a file with `SEEK_DATA` and `SEEK_HOLE`.

use std::ops::ControlFlow;
use std::os::fd::AsFd;

use rustix::fs::SeekFrom;
use rustix::io::{Errno, Result};

use crate::format::tar::Extent;

/// Returns the data extents of a file of `size` bytes, at most `max` of them. If there would be more, the
/// smallest holes count as data, so that memory is bounded. The same layout gives the same extents. A file
/// system that knows no holes gives one extent.
pub fn find_extents(fd: impl AsFd, size: u64, max: usize) -> Result<Vec<Extent>> {
    let mut smallest = 1u64;
    let found = scan(fd, size, |found| {
        while found.len() > max {
            smallest = smallest.saturating_mul(2);
            for extent in std::mem::take(found) {
                push(found, extent, smallest);
            }
        }
        ControlFlow::Continue(smallest)
    })?;
    Ok(found.unwrap_or_default())
}

/// Returns the data extents, or `None` if there are more than `max`.
pub fn find_few_extents(fd: impl AsFd, size: u64, max: usize) -> Result<Option<Vec<Extent>>> {
    scan(fd, size, |found| if found.len() > max { ControlFlow::Break(()) } else { ControlFlow::Continue(1) })
}

/// Asks `next` after each extent whether to continue, and for the size from which a hole counts.
fn scan(
    fd: impl AsFd,
    size: u64,
    mut next: impl FnMut(&mut Vec<Extent>) -> ControlFlow<(), u64>,
) -> Result<Option<Vec<Extent>>> {
    let fd = fd.as_fd();
    let mut found: Vec<Extent> = Vec::new();
    let (mut at, mut smallest) = (0, 1);
    while at < size {
        let start = match rustix::fs::seek(fd, SeekFrom::Data(at)) {
            Ok(start) if start < size => start,
            Ok(_) | Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some(vec![Extent { offset: 0, len: size }])),
            Err(error) => return Err(error),
        };
        let end = match rustix::fs::seek(fd, SeekFrom::Hole(start)) {
            Ok(end) => end.min(size),
            // The file was truncated meanwhile; its reader will notice.
            Err(Errno::NXIO) => size,
            Err(error) => return Err(error),
        };
        if end <= start {
            break;
        }
        push(&mut found, Extent { offset: start, len: end - start }, smallest);
        match next(&mut found) {
            ControlFlow::Continue(from) => smallest = from,
            ControlFlow::Break(()) => return Ok(None),
        }
        at = end;
    }
    Ok(Some(found))
}

/// Appends an extent, merged with the last if the hole between them is smaller than `smallest`.
fn push(found: &mut Vec<Extent>, extent: Extent, smallest: u64) {
    let end = extent.offset + extent.len;
    match found.last_mut() {
        Some(last) if extent.offset - (last.offset + last.len) < smallest => last.len = end - last.offset,
        _ => found.push(extent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_below_the_smallest_size_become_data() {
        let mut found = Vec::new();
        for (offset, len) in [(0, 10), (12, 10), (100, 10), (110, 5)] {
            push(&mut found, Extent { offset, len }, 4);
        }
        assert_eq!(found, [Extent { offset: 0, len: 22 }, Extent { offset: 100, len: 15 }]);
    }
}
