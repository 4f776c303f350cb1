//! File operations of a store: every path is opened component by component beneath the open root.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Mutex;

use bytes::Bytes;
use jiff::Timestamp;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use super::direct;
use crate::format::{ids::to_hex, layout::ObjectKey};
use crate::runtime::{BufferPool, kill_point, lock};
use crate::store::{KEPT_BUFFERS, PutOutcome};

/// The prefix of temporary names. No key has a segment that starts with a dot.
pub(super) const TEMPORARY: &str = ".kbak-";

/// The age in seconds after which a temporary file counts as abandoned.
const ABANDONED_SECONDS: i64 = 24 * 3600;

/// The most times that a put creates its folder when other processes remove it.
const MAX_TRIES: u32 = 8;

/// The most folders that are remembered as durable; beyond it, the memory is cleared.
const MAX_DURABLE: usize = 4096;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Returns a name for a temporary file.
pub(super) fn temporary_name(random: [u8; 16]) -> String {
    format!("{TEMPORARY}{}", to_hex(&random))
}

/// The result of reading an object.
pub(super) enum ReadResult {
    Bytes(Bytes),
    TooLarge { limit: u64 },
    NotAFile,
    Short { wanted: u64, got: u64 },
}

/// The open root of a store.
pub(super) struct Root {
    root: OwnedFd,
    /// The folders whose entries, on all levels up to the root, this process has synced.
    durable: Mutex<HashSet<String>>,
    /// The buffers of objects that are read, and of direct writes.
    buffers: BufferPool,
    /// True if the file system takes large objects past the page cache.
    is_direct: bool,
}

impl Root {
    pub(super) fn open(path: &Path, create: bool) -> Result<Self, Errno> {
        if create {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(|error| errno(&error))?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::open(path, flags, Mode::empty())?;
        let is_direct = direct::is_supported(&root);
        Ok(Self { root, durable: Mutex::default(), buffers: BufferPool::new(KEPT_BUFFERS), is_direct })
    }

    /// Opens the root, or the folder beneath it at `path`, which has no slash at its ends.
    pub(super) fn open_folder(&self, path: &str) -> Result<OwnedFd, Errno> {
        let mut folder = fs::openat(&self.root, ".", FOLDER, Mode::empty())?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            folder = match fs::openat(&folder, name, FOLDER, Mode::empty()) {
                // The kernel returns this for links as well as for files.
                Err(Errno::NOTDIR) if is_link(&folder, name) => return Err(Errno::LOOP),
                other => other?,
            };
        }
        Ok(folder)
    }

    /// Opens the folder of a key that is about to be written, and creates it if it is missing. On
    /// return, the folder itself survives a power cut.
    fn folder_for_writing(&self, path: &str) -> Result<OwnedFd, Errno> {
        let is_durable = lock(&self.durable).contains(path);
        let mut folder = fs::openat(&self.root, ".", FOLDER, Mode::empty())?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let inner = match fs::openat(&folder, name, FOLDER, Mode::empty()) {
                Err(Errno::NOENT) => {
                    match fs::mkdirat(&folder, name, Mode::RWXU) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(other) => return Err(other),
                    }
                    fs::fsync(&folder)?;
                    fs::openat(&folder, name, FOLDER, Mode::empty())?
                }
                other => other?,
            };
            // Another process may just have created it without a sync.
            if !is_durable {
                fs::fsync(&folder)?;
            }
            folder = inner;
        }
        if !is_durable {
            sweep(&folder);
            let mut durable = lock(&self.durable);
            if durable.len() >= MAX_DURABLE {
                durable.clear();
            }
            durable.insert(path.to_owned());
        }
        Ok(folder)
    }

    pub(super) fn put(
        &self,
        key: &ObjectKey,
        bytes: &[u8],
        temporary: &str,
        stamp: Option<Timestamp>,
    ) -> Result<PutOutcome, Errno> {
        let (path, name) = split(key);
        let mut tries = 1;
        loop {
            let folder = self.folder_for_writing(path);
            match folder.and_then(|folder| self.put_into(&folder, name, bytes, temporary, stamp)) {
                // A concurrent delete of the last object in the folder has removed the folder too.
                Err(Errno::NOENT) if tries < MAX_TRIES => tries += 1,
                put => return put,
            }
        }
    }

    /// Puts an object into its folder.
    fn put_into(
        &self,
        folder: &OwnedFd,
        name: &str,
        bytes: &[u8],
        temporary: &str,
        stamp: Option<Timestamp>,
    ) -> Result<PutOutcome, Errno> {
        if fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            // The process that put it may not have synced the folder yet, and this put acknowledges it.
            fs::fsync(folder)?;
            return Ok(PutOutcome::Existed);
        }
        let written = self.write(folder, temporary, bytes, stamp);
        kill_point("store.file.written");
        let placed = written.and_then(|()| rename_into_place(folder, temporary, name));
        kill_point("store.file.placed");
        if placed != Ok(PutOutcome::Created) {
            // The first error is returned; a file left behind is removed by a later sweep.
            let _ = fs::unlinkat(folder, temporary, AtFlags::empty());
        }
        let put = placed?;
        fs::fsync(folder)?;
        Ok(put)
    }

    /// Writes a new file. On return its content survives a power cut.
    fn write(
        &self,
        folder: impl AsFd,
        name: &str,
        bytes: &[u8],
        stamp: Option<Timestamp>,
    ) -> Result<(), Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR)?);
        let written = if self.is_direct { direct::write(&file, bytes, &self.buffers)? } else { 0 };
        file.seek(SeekFrom::Start(written as u64)).map_err(|error| errno(&error))?;
        file.write_all(&bytes[written..]).map_err(|error| errno(&error))?;
        if let Some(at) = stamp {
            let nanos = i64::from(at.subsec_nanosecond());
            let (tv_sec, tv_nsec) =
                if nanos < 0 { (at.as_second() - 1, nanos + 1_000_000_000) } else { (at.as_second(), nanos) };
            let time = Timespec { tv_sec, tv_nsec };
            fs::futimens(&file, &Timestamps { last_access: time, last_modification: time })?;
        }
        file.sync_all().map_err(|error| errno(&error))
    }

    /// Opens the file of an object. Returns `None` if it is not a regular file. The type is checked
    /// first, because opening a pipe or a device can affect its other end.
    fn open_file(&self, key: &ObjectKey) -> Result<Option<(File, Stat)>, Errno> {
        let (path, name) = split(key);
        let folder = self.open_folder(path)?;
        if !is_file(&fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?) {
            return Ok(None);
        }
        // Non-blocking, so that a pipe that replaced the file since does not block.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match fs::openat(&folder, name, flags, Mode::empty()) {
            // A link or a socket has replaced the file since.
            Err(Errno::LOOP | Errno::NXIO) => return Ok(None),
            other => other?,
        };
        let stat = fs::fstat(&file)?;
        Ok(is_file(&stat).then(|| (File::from(file), stat)))
    }

    pub(super) fn get(&self, key: &ObjectKey, limit: u64) -> Result<ReadResult, Errno> {
        let Some((file, stat)) = self.open_file(key)? else { return Ok(ReadResult::NotAFile) };
        let size = size_of(&stat);
        if size > limit {
            return Ok(ReadResult::TooLarge { limit });
        }
        let direct = if self.is_direct { direct::read(&file, size, &self.buffers)? } else { None };
        match direct.map(|bytes| (bytes.len() as u64, bytes)) {
            Some((got, bytes)) if got == size => Ok(ReadResult::Bytes(bytes)),
            Some((got, _)) => Ok(ReadResult::Short { wanted: size, got }),
            None => read(&file, 0..size, &self.buffers),
        }
    }

    pub(super) fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<ReadResult, Errno> {
        let Some((file, stat)) = self.open_file(key)? else { return Ok(ReadResult::NotAFile) };
        let end = range.end.min(size_of(&stat));
        if range.start >= end {
            return Ok(ReadResult::Bytes(Bytes::new()));
        }
        read(&file, range.start..end, &self.buffers)
    }

    pub(super) fn delete(&self, key: &ObjectKey) -> Result<(), Errno> {
        let (path, name) = split(key);
        let folder = match self.open_folder(path) {
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        match fs::unlinkat(&folder, name, AtFlags::empty()) {
            Ok(()) => fs::fsync(&folder)?,
            Err(Errno::NOENT) => return Ok(()),
            Err(other) => return Err(other),
        }
        self.remove_empty(path);
        Ok(())
    }

    /// Removes a folder that is empty, and the empty ones above it. Best effort.
    fn remove_empty(&self, mut path: &str) {
        while !path.is_empty() {
            let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
            // Forgotten first, so that the next put that creates it syncs it.
            lock(&self.durable).remove(path);
            let Ok(folder) = self.open_folder(above) else { return };
            if fs::unlinkat(&folder, name, AtFlags::REMOVEDIR).is_err() {
                return;
            }
            path = above;
        }
    }

    /// Returns the time with which the file system stamps a new file.
    pub(super) fn now(&self, temporary: &str) -> Result<Timestamp, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(&self.root, temporary, flags, Mode::RUSR | Mode::WUSR)?;
        let stat = fs::fstat(&file);
        fs::unlinkat(&self.root, temporary, AtFlags::empty())?;
        Ok(modified(&stat?))
    }
}

/// Splits a key into its folder and its name.
fn split(key: &ObjectKey) -> (&str, &str) {
    key.as_str().rsplit_once('/').unwrap_or(("", key.as_str()))
}

/// Renames the temporary file to its name, if that is free.
fn rename_into_place(folder: impl AsFd, temporary: &str, name: &str) -> Result<PutOutcome, Errno> {
    let folder = folder.as_fd();
    match fs::renameat_with(folder, temporary, folder, name, RenameFlags::NOREPLACE) {
        Ok(()) => return Ok(PutOutcome::Created),
        Err(Errno::EXIST) => return Ok(PutOutcome::Existed),
        // A file system without the flag (NFS): a hard link never replaces a file either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
        Err(other) => return Err(other),
    }
    match fs::linkat(folder, temporary, folder, name, AtFlags::empty()) {
        Ok(()) => fs::unlinkat(folder, temporary, AtFlags::empty()).map(|()| PutOutcome::Created),
        Err(Errno::EXIST) => Ok(PutOutcome::Existed),
        Err(other) => Err(other),
    }
}

/// Removes temporary files of ended processes from a folder. Best effort: no operation depends on it.
fn sweep(folder: &OwnedFd) {
    let Ok(entries) = fs::Dir::read_from(folder) else { return };
    let names = entries.flatten().filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned));
    let Ok(here) = fs::fstat(folder) else { return };
    for name in names.filter(|name| name.starts_with(TEMPORARY)) {
        // The same clock stamped the folder, at its newest entry or later.
        let old = fs::statat(folder, &*name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| is_file(&stat) && here.st_mtime - stat.st_mtime > ABANDONED_SECONDS);
        if old {
            let _ = fs::unlinkat(folder, &*name, AtFlags::empty());
        }
    }
}

fn read(file: &File, range: Range<u64>, buffers: &BufferPool) -> Result<ReadResult, Errno> {
    let wanted = range.end - range.start;
    let mut bytes = buffers.take(usize::try_from(wanted).map_err(|_| Errno::FBIG)?);
    // Read into memory that nothing has filled before.
    let mut at = file;
    at.seek(SeekFrom::Start(range.start)).map_err(|error| errno(&error))?;
    at.take(wanted).read_to_end(&mut bytes).map_err(|error| errno(&error))?;
    let got = bytes.len() as u64;
    Ok(if got < wanted { ReadResult::Short { wanted, got } } else { ReadResult::Bytes(bytes.into_bytes()) })
}

fn is_link(folder: &OwnedFd, name: &str) -> bool {
    let stat = fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

pub(super) fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

pub(super) fn size_of(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// Returns the time of the last change of content, or 1970 if it is out of range.
pub(super) fn modified(stat: &Stat) -> Timestamp {
    let nanos = i32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    Timestamp::new(stat.st_mtime, nanos).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
