//! Finds the end of a file by reading it: the size that a file system says may be wrong.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::gap::GapKind;

/// The most bytes that are read to find the end of a file whose size is wrong. It may have none.
const MAX_UNSIZED: u64 = 16 << 30;
/// The number of bytes that are read at once to find the end of a file.
const MEASURED_AT_ONCE: usize = 256 << 10;

/// Returns the offset at which a file ends that has at least `from` bytes.
/// Fails with [`GapKind::NoEnd`] if it does not end within [`MAX_UNSIZED`] bytes after it.
pub(super) fn find_end(fd: &OwnedFd, from: u64) -> Result<u64, GapKind> {
    let mut first = [0u8; 1];
    if read_at(fd, &mut first, from)? == 0 {
        return Ok(from);
    }
    let mut buffer = vec![0u8; MEASURED_AT_ONCE];
    let mut end = from;
    while end - from < MAX_UNSIZED {
        let got = read_at(fd, &mut buffer, end)?;
        end += got as u64;
        if got < buffer.len() {
            return Ok(end);
        }
    }
    Err(GapKind::NoEnd)
}

/// Reads until `into` is full or the file ends.
pub(super) fn read_at(fd: &OwnedFd, into: &mut [u8], offset: u64) -> Result<usize, GapKind> {
    let mut filled = 0;
    while filled < into.len() {
        match rustix::io::pread(fd, &mut into[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(Errno::INTR) => {}
            Err(error) => return Err(GapKind::Read(error)),
        }
    }
    Ok(filled)
}
