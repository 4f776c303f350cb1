//! Files that hold secrets: mode 0600, written atomically, refused if others can read them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::format::ids::to_hex;

/// The largest secret file, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// An error while reading or writing a secret file. It never contains the file's content.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// An error of the operating system.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// `read`, `write`, `replace` or `create`.
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Others can read the file.
    #[error("{} is readable by others (mode {mode:04o})", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The path is a folder, a device or a pipe.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// The file is too long for a key.
    #[error("{} is longer than {MAX_FILE} bytes", .0.display())]
    TooLong(PathBuf),
    /// The file exists and must not be overwritten.
    #[error("{} exists and is not overwritten", .0.display())]
    Exists(PathBuf),
}

impl FileError {
    /// True if the file does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// True if the file or its folder cannot be changed by this user: a mounted Secret.
    pub fn is_read_only(&self) -> bool {
        use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), PermissionDenied | ReadOnlyFilesystem))
    }
}

/// The content of a secret file, and a warning about it.
#[derive(Debug)]
pub struct SecretFile {
    /// The content; wiped when dropped.
    pub bytes: Zeroizing<Vec<u8>>,
    /// A warning about the file's permissions.
    pub warning: Option<String>,
}

fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError::Io { operation, path, source }
}

/// Reads a secret file. Refuses one that its group or others can read. If the kubelet mounted it, it only
/// warns: files of a Secret are 0644 or 0440 by default.
pub fn read(path: &Path) -> Result<SecretFile, FileError> {
    let file = File::open(path).map_err(io_error("read", path))?;
    let meta = file.metadata().map_err(io_error("read", path))?;
    if !meta.is_file() {
        return Err(FileError::NotAFile(path.to_owned()));
    }
    let mode = meta.mode() & 0o7777;
    let mut warning = None;
    if mode & 0o077 != 0 {
        if !is_mounted_secret(path) {
            return Err(FileError::Exposed { path: path.to_owned(), mode });
        }
        if mode & 0o007 != 0 {
            let path = path.display();
            warning =
                Some(format!("{path} has mode {mode:04o}: set defaultMode: 0400 (0440 with an fsGroup)"));
        }
    }
    let mut bytes =
        Zeroizing::new(Vec::with_capacity(usize::try_from(meta.len().min(MAX_FILE)).unwrap_or(0)));
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(io_error("read", path))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(FileError::TooLong(path.to_owned()));
    }
    Ok(SecretFile { bytes, warning })
}

/// Returns the folder of a file: `.` for a bare name, whose parent is an empty path.
#[must_use]
pub fn folder_of(file: &Path) -> &Path {
    or_current(file.parent().unwrap_or(Path::new("")))
}

/// Returns `.` for an empty path.
fn or_current(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() { Path::new(".") } else { folder }
}

/// True if the file is in a mounted Secret: the kubelet puts a link `..data` beside it, which
/// it replaces atomically. No person makes such a folder.
fn is_mounted_secret(path: &Path) -> bool {
    let data = folder_of(path).join("..data");
    fs::symlink_metadata(data).is_ok_and(|meta| meta.file_type().is_symlink())
}

/// Checks that no file exists at `path`, and that its folder exists or can be created.
pub fn check_free(path: &Path) -> Result<(), FileError> {
    if fs::symlink_metadata(path).is_ok() {
        return Err(FileError::Exists(path.to_owned()));
    }
    for folder in folder_of(path).ancestors().map(or_current) {
        match fs::metadata(folder) {
            Ok(meta) if meta.is_dir() => return Ok(()),
            Ok(_) => return Err(io_error("write", path)(io::ErrorKind::NotADirectory.into())),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("write", path)(error));
            }
            // A link that leads nowhere: no folder can be created in its place.
            Err(error) if fs::symlink_metadata(folder).is_ok() => return Err(io_error("write", path)(error)),
            Err(_) => {}
        }
    }
    Ok(())
}

/// Creates a file with `mode`; an existing file is not changed.
pub fn create(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), FileError> {
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(mode).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(FileError::Exists(path.to_owned()));
        }
        Err(error) => return Err(io_error("write", path)(error)),
    };
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| sync_folder(path));
    written.map_err(|error| {
        let _ = fs::remove_file(path);
        io_error("write", path)(error)
    })
}

/// Replaces a 0600 file atomically: writes a temporary file in the same folder, then fsync,
/// rename, fsync of the folder. `random` names the temporary file.
pub fn replace(path: &Path, random: [u8; 8], bytes: &[u8]) -> Result<(), FileError> {
    replace_with_mode(path, 0o600, random, bytes)
}

/// Replaces a file as [`replace`] does, and keeps its permissions. Follows a link to it.
pub fn replace_public(path: &Path, random: [u8; 8], bytes: &[u8]) -> Result<(), FileError> {
    let path = fs::canonicalize(path).map_err(io_error("replace", path))?;
    let mode = fs::metadata(&path).map_err(io_error("replace", &path))?.permissions().mode() & 0o777;
    replace_with_mode(&path, mode, random, bytes)
}

fn replace_with_mode(path: &Path, mode: u32, random: [u8; 8], bytes: &[u8]) -> Result<(), FileError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", to_hex(&random)));
    let temporary = path.with_file_name(name);
    create(&temporary, mode, bytes)?;
    let renamed = fs::rename(&temporary, path).and_then(|()| sync_folder(path));
    renamed.map_err(|error| {
        let _ = fs::remove_file(&temporary);
        io_error("replace", path)(error)
    })
}

/// Locks the folder of `path` exclusively until the returned file is dropped. Waits for other holders. The
/// folder itself is locked, so that no lock file remains. None if the file system has no locks.
pub fn lock_beside(path: &Path) -> Option<File> {
    let folder = File::open(folder_of(path)).ok()?;
    rustix::io::retry_on_intr(|| rustix::fs::flock(&folder, rustix::fs::FlockOperation::LockExclusive))
        .ok()?;
    Some(folder)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

/// New files and folders that are deleted on drop unless kept: `init` writes them before it touches a store.
#[derive(Debug, Default)]
pub struct NewFiles {
    files: Vec<PathBuf>,
    /// The deepest of nested folders comes first.
    folders: Vec<PathBuf>,
}

impl NewFiles {
    /// Creates a folder that only this user can enter, with those above it, unless it exists.
    pub fn create_folder(&mut self, folder: &Path) -> Result<(), FileError> {
        let missing = folder.ancestors().map(or_current).take_while(|folder| !folder.exists());
        self.folders.extend(missing.map(Path::to_owned));
        let created = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        created.map_err(io_error("create", folder))
    }

    /// Creates one more file.
    pub fn create(&mut self, path: &Path, mode: u32, bytes: &[u8]) -> Result<(), FileError> {
        create(path, mode, bytes)?;
        self.files.push(path.to_owned());
        Ok(())
    }

    /// Keeps files and folders, and returns the files' paths.
    #[must_use]
    pub fn keep(mut self) -> Vec<PathBuf> {
        self.folders.clear();
        std::mem::take(&mut self.files)
    }
}

impl Drop for NewFiles {
    fn drop(&mut self) {
        for path in &self.files {
            let _ = fs::remove_file(path);
        }
        for folder in &self.folders {
            // A folder that holds something else by now stays.
            let _ = fs::remove_dir(folder);
        }
    }
}
