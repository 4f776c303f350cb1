//! Writes resources as files: `<folder>/<group>/<Kind>/<namespace>/<name>.yaml`.
//!
//! Names come from the backup and are not trusted: a name becomes one path component, different for each
//! name. Every folder is opened beneath its parent without following links (openat2), and no file is
//! overwritten.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt as _;
use rustix::fs::{Access, AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde_json::Value;

use super::{
    ObjectRef, ResourceStreams, RestoreConfig, RestoreError, SelectionUsage, StoredObject, UnmatchedSelector,
    open_lines, text,
};
use crate::fs::beneath::{Mounts, Root};
use crate::kubernetes::KindInfo;
use crate::target::volume::Destination;

/// The longest path component without its extension, in bytes; Linux allows 255 with it.
const MAX_COMPONENT: usize = 200;
/// Folders of the core group and of cluster-scoped objects. No group or namespace has these names.
const CORE: &str = "core";
const CLUSTER: &str = "_cluster";

/// The format of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// YAML as kubectl reads it: words with another meaning in YAML 1.1 are quoted.
    Yaml,
    /// The stored bytes.
    Json,
}

/// The result of writing files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WrittenFiles {
    /// Number of files.
    pub files: u64,
    /// Size of the files in bytes.
    pub bytes: u64,
    /// Selectors that match no object of the snapshot.
    pub absent: Vec<UnmatchedSelector>,
}

/// The reason why not all files were written.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The backup cannot be read.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The file exists already. Files are never overwritten.
    #[error("{0} exists already")]
    Exists(PathBuf),
    /// This file or folder cannot be created or written.
    #[error("cannot write {0}")]
    Io(PathBuf, #[source] std::io::Error),
    /// The object cannot be written as YAML.
    #[error("cannot write {0} as YAML")]
    Format(PathBuf),
}

/// Writes each object of `streams` to its own file beneath `folder`, which is created if needed. Objects that
/// `config` does not select are left out; the others are not changed. Fails with [`DirectoryError`]; files
/// written so far stay.
pub async fn write_directory(
    streams: &dyn ResourceStreams,
    folder: &Path,
    format: FileFormat,
    config: &RestoreConfig,
) -> Result<WrittenFiles, DirectoryError> {
    let io = |error| DirectoryError::Io(folder.to_owned(), error);
    std::fs::create_dir_all(folder).map_err(io)?;
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let root = Arc::new(rustix::fs::open(folder, flags, Mode::empty()).map_err(|error| io(error.into()))?);
    let (mut written, usage) = (WrittenFiles::default(), SelectionUsage::new(config));
    for kind in streams.kinds().into_iter().filter(|kind| config.selects_kind(&kind.resource())) {
        let mut lines = open_lines(streams, &kind).await?;
        while let Some((number, line)) = lines.try_next().await? {
            let (object, path) = file_path(&kind, &line, format)
                .map_err(|problem| RestoreError::damaged(&kind, number, problem))?;
            let known = object.known();
            if !usage.selects(&ObjectRef::stored(&kind, known), kind.namespaced, known) {
                continue;
            }
            let (root, shown) = (root.clone(), folder.join(path.join("/")));
            // A file system may block, and must not block the runtime's threads.
            let write = move || write_file(&root, &path, &shown, &object, &line, format);
            let bytes = tokio::task::spawn_blocking(write).await;
            written.files += 1;
            written.bytes += bytes.map_err(|error| io(std::io::Error::other(error)))??;
        }
    }
    written.absent = usage.unmatched();
    Ok(written)
}

/// Returns the selectors that match no object of the snapshot; writes no files. Fails as [`write_directory`] does if
/// the folder cannot be written, or if a file exists.
pub async fn preview_directory(
    streams: &dyn ResourceStreams,
    folder: &Path,
    format: FileFormat,
    config: &RestoreConfig,
) -> Result<Vec<UnmatchedSelector>, DirectoryError> {
    let root = open_existing(folder).map_err(|error| DirectoryError::Io(folder.to_owned(), error.into()))?;
    let (root, usage) = (root.map(Arc::new), SelectionUsage::new(config));
    for kind in streams.kinds().into_iter().filter(|kind| config.selects_kind(&kind.resource())) {
        let mut lines = open_lines(streams, &kind).await?;
        while let Some((number, line)) = lines.try_next().await? {
            let (object, path) = file_path(&kind, &line, format)
                .map_err(|problem| RestoreError::damaged(&kind, number, problem))?;
            let known = object.known();
            if !usage.selects(&ObjectRef::stored(&kind, known), kind.namespaced, known) {
                continue;
            }
            let Some(root) = root.clone() else { continue };
            let path = path.join("/");
            let shown = folder.join(&path);
            // A file system may block, and must not block the runtime's threads.
            let look = move || root.open_beneath(path.as_bytes(), OFlags::PATH, Mode::empty(), Mounts::Cross);
            let io = |error| DirectoryError::Io(shown.clone(), error);
            match tokio::task::spawn_blocking(look).await.map_err(|error| io(std::io::Error::other(error)))? {
                Ok(_) => return Err(DirectoryError::Exists(shown)),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(io(error.into())),
            }
        }
    }
    Ok(usage.unmatched())
}

/// Opens a folder that can be written; none if it does not exist and can be created.
fn open_existing(folder: &Path) -> Result<Option<Root>, Errno> {
    let (root, path, is_folder) = Destination::from(folder).open_nearest()?;
    rustix::fs::access(&path, Access::WRITE_OK | Access::EXEC_OK)?;
    Ok(is_folder.then_some(root))
}

/// Returns the object of a line and the components of its path.
fn file_path(
    kind: &KindInfo,
    line: &[u8],
    format: FileFormat,
) -> Result<(StoredObject, Vec<String>), &'static str> {
    let object = StoredObject::parse(line)?;
    let name = text(object.known(), "/metadata/name");
    if name.is_empty() {
        return Err("it is not an object with a name");
    }
    let ending = match format {
        FileFormat::Yaml => "yaml",
        FileFormat::Json => "json",
    };
    let group = if kind.group.is_empty() { CORE.to_owned() } else { path_component(&kind.group) };
    let namespace = match text(object.known(), "/metadata/namespace") {
        "" => CLUSTER.to_owned(),
        namespace => path_component(namespace),
    };
    let file = format!("{}.{ending}", path_component(name));
    Ok((object, vec![group, path_component(&kind.kind), namespace, file]))
}

/// Turns a name into one path component. Unusual characters, a leading dot or underscore and the percent sign
/// become `%XX`; a name that is too long is cut and gets a hash.
fn path_component(name: &str) -> String {
    let mut escaped = String::new();
    for (index, byte) in name.bytes().enumerate() {
        let plain =
            byte.is_ascii_alphanumeric() || b"-:".contains(&byte) || (index > 0 && b"._".contains(&byte));
        if plain {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    if escaped.len() > MAX_COMPONENT {
        let hash = blake3::hash(name.as_bytes()).to_hex();
        escaped.truncate(MAX_COMPONENT - 33);
        escaped.push('~');
        escaped.push_str(&hash[..32]);
    }
    escaped
}

fn write_file(
    root: &OwnedFd,
    path: &[String],
    shown: &Path,
    object: &StoredObject,
    line: &Bytes,
    format: FileFormat,
) -> Result<u64, DirectoryError> {
    let io = |error: std::io::Error| DirectoryError::Io(shown.to_owned(), error);
    let text = match (format, object) {
        (FileFormat::Yaml, StoredObject::Whole(object)) => {
            yaml(object).ok_or_else(|| DirectoryError::Format(shown.to_owned()))?.into_bytes()
        }
        // JSON is YAML, too: an object that is nested too deep to be parsed is written as it was stored.
        (FileFormat::Json, _) | (FileFormat::Yaml, StoredObject::TooDeep(_)) => {
            [line.as_ref(), b"\n"].concat()
        }
    };
    let Some((file, folders)) = path.split_last() else { return Ok(0) };
    let mut folder: Option<OwnedFd> = None;
    for name in folders {
        let at = folder.as_ref().map_or(root.as_fd(), AsFd::as_fd);
        match rustix::fs::mkdirat(at, name.as_str(), Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(io(error.into())),
        }
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let next = open_beneath(at, name, flags, Mode::empty()).map_err(|error| io(error.into()))?;
        folder = Some(next);
    }
    let at = folder.as_ref().map_or(root.as_fd(), AsFd::as_fd);
    // Files may hold Secrets, so only the current user may access them.
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let created = match open_beneath(at, file, flags, Mode::RUSR | Mode::WUSR) {
        Ok(created) => created,
        Err(Errno::EXIST) => return Err(DirectoryError::Exists(shown.to_owned())),
        Err(error) => return Err(io(error.into())),
    };
    File::from(created).write_all(&text).map_err(|error| {
        // A partial file would pass for a complete one, and block the next attempt.
        let _ = rustix::fs::unlinkat(at, file.as_str(), AtFlags::empty());
        io(error)
    })?;
    Ok(text.len() as u64)
}

fn open_beneath(at: impl AsFd, name: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(at, name, flags, mode, resolve)
}

/// Returns the object in YAML that means the same in YAML 1.1 and 1.2.
pub(crate) fn yaml(object: &Value) -> Option<String> {
    let options = serde_saphyr::ser_options! {
        // Long lines are not folded, because parsers differ in folding.
        folded_wrap_chars: usize::MAX,
    };
    serde_saphyr::to_string_with_options(object, options).ok()
}

#[cfg(test)]
mod tests {
    use super::path_component;

    #[test]
    fn each_name_becomes_its_own_path_component() {
        for (name, wanted) in [
            ("web", "web"),
            ("..", "%2E."),
            ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd"),
            ("_cluster", "%5Fcluster"),
            ("a%2Fb", "a%252Fb"),
            ("system:node", "system:node"),
            ("a\0b\n", "a%00b%0A"),
        ] {
            assert_eq!(path_component(name), wanted);
        }
        let (a, b) = (path_component(&"x".repeat(300)), path_component(&format!("{}y", "x".repeat(299))));
        assert!(a != b && a.len() <= 200 && b.len() <= 200);
    }
}
