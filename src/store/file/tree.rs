//! File operations of a store: every path is opened component by component beneath the open root.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::Path;
use std::sync::Mutex;

use bytes::Bytes;
use jiff::Timestamp;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use crate::format::ids::to_hex;
use crate::format::layout::ObjectKey;
use crate::runtime::kill_point;
use crate::runtime::lock;
use crate::store::Put;

/// The prefix of temporary names. No key has a segment that starts with a dot.
pub(super) const TEMPORARY: &str = ".kbak-";

/// The age in seconds after which a temporary file counts as abandoned.
const ABANDONED_SECONDS: i64 = 24 * 3600;

/// The most times that a put creates its folder when other processes remove it.
const MOST_TRIES: u32 = 8;

/// The most folders that are remembered as durable; beyond it, the memory is cleared.
const MOST_REMEMBERED: usize = 4096;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Returns a name for a temporary file.
pub(super) fn temporary_name(random: [u8; 16]) -> String {
    format!("{TEMPORARY}{}", to_hex(&random))
}

/// The result of reading an object.
pub(super) enum Read {
    Bytes(Bytes),
    TooLarge { limit: u64 },
    NotAFile,
    Short { wanted: u64, got: u64 },
}

/// The open root of a store.
pub(super) struct Tree {
    root: OwnedFd,
    /// The folders whose entries, on all levels up to the root, this process has synced.
    durable: Mutex<HashSet<String>>,
}

impl Tree {
    pub(super) fn open(path: &Path, create: bool) -> Result<Self, Errno> {
        if create {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(|error| errno(&error))?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { root: fs::open(path, flags, Mode::empty())?, durable: Mutex::default() })
    }

    /// Opens the root, or the folder beneath it at `path`, which has no slash at its ends.
    pub(super) fn folder(&self, path: &str) -> Result<OwnedFd, Errno> {
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
        let known = lock(&self.durable).contains(path);
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
            if !known {
                fs::fsync(&folder)?;
            }
            folder = inner;
        }
        if !known {
            sweep(&folder);
            let mut durable = lock(&self.durable);
            if durable.len() >= MOST_REMEMBERED {
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
    ) -> Result<Put, Errno> {
        let (path, name) = split(key);
        let mut tries = 1;
        loop {
            let folder = self.folder_for_writing(path);
            match folder.and_then(|folder| put_into(&folder, name, bytes, temporary, stamp)) {
                // A concurrent delete of the last object in the folder has removed the folder too.
                Err(Errno::NOENT) if tries < MOST_TRIES => tries += 1,
                put => return put,
            }
        }
    }

    /// Opens the file of an object. Returns `None` if it is not a regular file. The type is checked
    /// first, because opening a pipe or a device can affect its other end.
    fn file(&self, key: &ObjectKey) -> Result<Option<(File, Stat)>, Errno> {
        let (path, name) = split(key);
        let folder = self.folder(path)?;
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

    pub(super) fn get(&self, key: &ObjectKey, limit: u64) -> Result<Read, Errno> {
        let Some((file, stat)) = self.file(key)? else { return Ok(Read::NotAFile) };
        let size = size_of(&stat);
        if size > limit {
            return Ok(Read::TooLarge { limit });
        }
        read(&file, 0..size)
    }

    pub(super) fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Read, Errno> {
        let Some((file, stat)) = self.file(key)? else { return Ok(Read::NotAFile) };
        let end = range.end.min(size_of(&stat));
        if range.start >= end {
            return Ok(Read::Bytes(Bytes::new()));
        }
        read(&file, range.start..end)
    }

    pub(super) fn delete(&self, key: &ObjectKey) -> Result<(), Errno> {
        let (path, name) = split(key);
        let folder = match self.folder(path) {
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

    /// Removes a folder that is empty, and the empty ones above it: a store keeps folders only for its
    /// objects. Best effort.
    fn remove_empty(&self, mut path: &str) {
        while !path.is_empty() {
            let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
            // Forgotten first, so that the next put that creates it syncs it.
            lock(&self.durable).remove(path);
            let Ok(folder) = self.folder(above) else { return };
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

/// Puts an object into its folder.
fn put_into(
    folder: &OwnedFd,
    name: &str,
    bytes: &[u8],
    temporary: &str,
    stamp: Option<Timestamp>,
) -> Result<Put, Errno> {
    if fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
        // The process that put it may not have synced the folder yet, and this put acknowledges it.
        fs::fsync(folder)?;
        return Ok(Put::Existed);
    }
    let written = write(folder, temporary, bytes, stamp);
    kill_point("store.file.written");
    let placed = written.and_then(|()| place(folder, temporary, name));
    kill_point("store.file.placed");
    if placed != Ok(Put::Created) {
        // The first error is returned; a file left behind is removed by a later sweep.
        let _ = fs::unlinkat(folder, temporary, AtFlags::empty());
    }
    let put = placed?;
    fs::fsync(folder)?;
    Ok(put)
}

fn write(folder: impl AsFd, name: &str, bytes: &[u8], stamp: Option<Timestamp>) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all(bytes).map_err(|error| errno(&error))?;
    if let Some(at) = stamp {
        let nanos = i64::from(at.subsec_nanosecond());
        let (tv_sec, tv_nsec) =
            if nanos < 0 { (at.as_second() - 1, nanos + 1_000_000_000) } else { (at.as_second(), nanos) };
        let time = Timespec { tv_sec, tv_nsec };
        fs::futimens(&file, &Timestamps { last_access: time, last_modification: time })?;
    }
    file.sync_all().map_err(|error| errno(&error))
}

/// Renames the temporary file to its name, if that is free.
fn place(folder: impl AsFd, temporary: &str, name: &str) -> Result<Put, Errno> {
    let folder = folder.as_fd();
    match fs::renameat_with(folder, temporary, folder, name, RenameFlags::NOREPLACE) {
        Ok(()) => return Ok(Put::Created),
        Err(Errno::EXIST) => return Ok(Put::Existed),
        // A file system without the flag (NFS): a hard link never replaces a file either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
        Err(other) => return Err(other),
    }
    match fs::linkat(folder, temporary, folder, name, AtFlags::empty()) {
        Ok(()) => fs::unlinkat(folder, temporary, AtFlags::empty()).map(|()| Put::Created),
        Err(Errno::EXIST) => Ok(Put::Existed),
        Err(other) => Err(other),
    }
}

/// Removes temporary files of ended processes from a folder. Best effort: it frees space, and no
/// operation depends on it.
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

fn read(file: &File, range: Range<u64>) -> Result<Read, Errno> {
    let wanted = range.end - range.start;
    let mut bytes = vec![0u8; usize::try_from(wanted).map_err(|_| Errno::FBIG)?];
    let mut got = 0usize;
    while got < bytes.len() {
        match file.read_at(&mut bytes[got..], range.start + got as u64) {
            Ok(0) => return Ok(Read::Short { wanted, got: got as u64 }),
            Ok(count) => got += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(errno(&error)),
        }
    }
    Ok(Read::Bytes(bytes.into()))
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
