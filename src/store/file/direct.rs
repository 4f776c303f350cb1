//! Writes and reads large objects past the page cache (`O_DIRECT`).
//!
//! Nothing reads a pack soon after it was written, nor twice. In the page cache it would take the place of the files
//! that applications use, and its copy into fresh pages took a tenth of a first backup (docs/performance.md).

use std::fs::File;

use bytes::Bytes;
use rustix::fs::{self, OFlags};
use rustix::io::Errno;

use crate::runtime::BufferPool;

/// Objects shorter than this are written and read as usual.
const LARGE: usize = 1 << 20;
/// The bytes of one write.
const PART: usize = 1 << 20;
/// Offsets, lengths and memory are multiples of this: no disk has larger blocks.
const ALIGNMENT: usize = 4096;

/// The magic numbers of `statfs(2)` for file systems that are known to do so without a copy.
const SUPPORTED: &[u64] = &[
    0xEF53,      // ext4
    0x5846_5342, // xfs
];

/// True if files in this folder can be written and read so.
pub(super) fn is_supported(folder: impl std::os::fd::AsFd) -> bool {
    fs::fstatfs(folder).is_ok_and(|stat| SUPPORTED.contains(&(stat.f_type as u64)))
}

/// Writes the front of a large object into an empty file, and returns its length; the rest is written as usual.
/// That is 0 for a small object, and where the disk takes no such writes.
pub(super) fn write(file: &File, bytes: &[u8], buffers: &BufferPool) -> Result<usize, Errno> {
    if bytes.len() < LARGE {
        return Ok(0);
    }
    let written = while_direct(file, || write_parts(file, bytes, buffers))?;
    Ok(written.unwrap_or(0))
}

/// Reads a large object of `size` bytes; fewer if it ends early. Returns `None` for a small object, and where the
/// disk takes no such reads.
pub(super) fn read(file: &File, size: u64, buffers: &BufferPool) -> Result<Option<Bytes>, Errno> {
    let size = usize::try_from(size).map_err(|_| Errno::FBIG)?;
    if size < LARGE {
        return Ok(None);
    }
    Ok(while_direct(file, || read_whole(file, size, buffers))?.flatten())
}

/// Runs `job` while the file's reads and writes pass by the page cache; `None` if they cannot.
fn while_direct<T>(file: &File, job: impl FnOnce() -> Result<T, Errno>) -> Result<Option<T>, Errno> {
    let flags = fs::fcntl_getfl(file)?;
    if fs::fcntl_setfl(file, flags | OFlags::DIRECT).is_err() {
        return Ok(None);
    }
    let done = job();
    fs::fcntl_setfl(file, flags)?;
    done.map(Some)
}

fn read_whole(file: &File, size: usize, buffers: &BufferPool) -> Result<Option<Bytes>, Errno> {
    let length = size.next_multiple_of(ALIGNMENT);
    let mut buffer = buffers.take_filled(length + ALIGNMENT);
    let start = buffer.as_ptr().align_offset(ALIGNMENT);
    let memory = buffer.get_mut(start..start.saturating_add(length)).ok_or(Errno::NOMEM)?;
    let mut filled = 0;
    while filled < size {
        match rustix::io::pread(file, &mut memory[filled..], filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(Errno::INVAL | Errno::NOTSUP) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(buffer.into_bytes().slice(start..start + filled.min(size))))
}

fn write_parts(file: &File, bytes: &[u8], buffers: &BufferPool) -> Result<usize, Errno> {
    let mut buffer = buffers.take_filled(PART + ALIGNMENT);
    let start = buffer.as_ptr().align_offset(ALIGNMENT);
    let memory = buffer.get_mut(start..start.saturating_add(PART)).ok_or(Errno::NOMEM)?;
    let mut written = 0;
    while bytes.len() - written >= ALIGNMENT {
        let length = PART.min(bytes.len() - written) / ALIGNMENT * ALIGNMENT;
        let part = &mut memory[..length];
        part.copy_from_slice(&bytes[written..written + length]);
        match rustix::io::pwrite(file, part, written as u64) {
            // A short write ends between blocks: what it left is written again as usual.
            Ok(count) if count < length => return Ok(written + count / ALIGNMENT * ALIGNMENT),
            Ok(_) => written += length,
            Err(Errno::INTR) => {}
            Err(Errno::INVAL | Errno::NOTSUP) => return Ok(written),
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn objects_of_any_length_are_written_and_read_whole() {
        let folder = tempfile::tempdir().unwrap();
        let pool = BufferPool::new(8 << 20);
        for length in [LARGE - 1, LARGE, LARGE + 1, 2 * PART + ALIGNMENT - 1, 3 * PART + ALIGNMENT] {
            let path = folder.path().join(length.to_string());
            let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
            let bytes: Vec<u8> = (0..length).map(|at| (at / 3 + at / ALIGNMENT) as u8).collect();
            let written = write(&file, &bytes, &pool).unwrap();
            assert!(written <= length && written.is_multiple_of(ALIGNMENT), "{written} of {length} B");
            file.write_all_at(&bytes[written..], written as u64).unwrap();
            assert!(std::fs::read(&path).unwrap() == bytes, "{length} B");
            if let Some(whole) = read(&file, length as u64, &pool).unwrap() {
                assert!(whole == bytes, "{length} B");
                let longer = read(&file, length as u64 + 5000, &pool).unwrap();
                assert_eq!(longer.map(|bytes| bytes.len()), Some(length), "it ends early");
            }
        }
    }
}
