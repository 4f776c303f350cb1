//! A folder as a stream of tar members: walked in one fixed order, read beneath its root, without
//! ever following a link out of it.
//!
//! [`VolumeReader::open`] takes a folder; [`VolumeReader::walk`] gives its [`VolumeMember`]s in the order of
//! [`crate::format::tar::order`], each with its exact header. [`VolumeReader::append`] reads a small member whole into a
//! caller's buffer, [`VolumeReader::read`] a large one block by block. The caller decides which members
//! to read: a scan cache compares [`VolumeMember::digest`].

mod gap;
mod inspect;
mod length;
mod planner;
mod read;
pub mod timestamp_trust;
mod walk;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::fs::{Root, Stat};
use crate::plan::VolumeSpec;
pub use gap::{EntryGap, GapKind, LeftOut, SkipReason, SkippedEntry};
use inspect::DigestMaker;
pub use inspect::{MemberDigest, VolumeMember};
pub use read::{ATTEMPTS, AppendResult, MemberReader, ReadConsistency};
use timestamp_trust::TimestampTrust;
pub use walk::{VolumeWalk, WalkEvent};

/// The options for reading a volume.
#[derive(Debug, Clone)]
pub struct VolumeOptions {
    /// The patterns to exclude, in the syntax of .gitignore, relative to the root. Later lines win,
    /// `!` includes again, but nothing below an excluded folder is included.
    pub exclude: Vec<String>,
    /// True if a `lost+found` directly in the root, which is the file system's, is included.
    pub lost_and_found: bool,
    /// True if `trusted.*` attributes are included. They belong to the kernel's own file systems,
    /// and reading them needs CAP_SYS_ADMIN.
    pub trusted_xattrs: bool,
    /// True if `security.selinux` is included. A volume is labelled anew where it is mounted.
    pub selinux: bool,
    /// The number of threads that inspect ahead; 0 does everything on the caller's thread.
    pub threads: usize,
}

impl Default for VolumeOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            exclude: Vec::new(),
            lost_and_found: false,
            trusted_xattrs: false,
            selinux: false,
            threads: threads.clamp(2, 8),
        }
    }
}

/// The reason why a volume cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenVolumeError {
    /// The folder itself cannot be opened.
    #[error("cannot open the folder")]
    Folder {
        /// Its path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The kernel or a seccomp filter refuses `openat2`, which keeps reads beneath the root.
    #[error("the kernel or a seccomp profile refuses openat2, which kbak needs (Linux 5.6 or newer)")]
    Openat2(#[source] std::io::Error),
    /// /proc is unusable; extended attributes of links and devices are read through it.
    #[error("/proc/self/fd cannot be used, and extended attributes are read through it: mount /proc")]
    Proc(#[source] std::io::Error),
    /// An exclude pattern is invalid.
    #[error("invalid exclude pattern {pattern:?}: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// The problem.
        reason: String,
    },
}

/// An open folder. Cheap to clone; all calls may come from any thread.
#[derive(Debug, Clone)]
pub struct VolumeReader {
    inner: Arc<OpenVolume>,
    digest: Option<Arc<DigestMaker>>,
}

#[derive(Debug)]
struct OpenVolume {
    root: Root,
    stat: Stat,
    /// True if the folder is the root of a file system, which owns its `lost+found`.
    is_fs_root: bool,
    exclude: Gitignore,
    options: VolumeOptions,
    timestamp_trust: TimestampTrust,
    euid: u32,
}

impl VolumeReader {
    /// Opens the folder at `path`; `path` itself may be a link.
    pub fn open(path: &Path, options: VolumeOptions) -> Result<Self, OpenVolumeError> {
        let folder = |source: std::io::Error| OpenVolumeError::Folder { path: path.to_owned(), source };
        let root = Root::open(path).map_err(|e| folder(e.into()))?;
        root.probe().map_err(|e| OpenVolumeError::Openat2(e.into()))?;
        let stat = root.stat().map_err(|e| folder(e.into()))?;
        inspect::probe_proc(&root).map_err(|e| OpenVolumeError::Proc(e.into()))?;
        let timestamp_trust = TimestampTrust::for_fs_type(root.fs_type().map_err(|e| folder(e.into()))?);
        let is_fs_root = stat.ino == EXT_ROOT || is_mounted(path);
        let exclude = parse_exclude_patterns(&options.exclude)?;
        let euid = rustix::process::geteuid().as_raw();
        Ok(Self {
            inner: Arc::new(OpenVolume { root, stat, is_fs_root, exclude, options, timestamp_trust, euid }),
            digest: None,
        })
    }

    /// Makes each member carry a digest, computed by `digest` of the settings of the walk, the exact header, the inode
    /// number, and the change time's seconds and nanoseconds in little endian.
    #[must_use]
    pub fn with_digest(self, digest: impl Fn(&[u8]) -> MemberDigest + Send + Sync + 'static) -> Self {
        let maker = DigestMaker { settings: self.settings(), digest: Box::new(digest) };
        Self { digest: Some(Arc::new(maker)), ..self }
    }

    /// Returns all settings that decide which members a walk of the same files gives, and how they
    /// are encoded.
    fn settings(&self) -> Vec<u8> {
        let options = &self.inner.options;
        let mut out = b"kbak tar 1".to_vec();
        for flag in
            [options.lost_and_found || !self.inner.is_fs_root, options.trusted_xattrs, options.selinux]
        {
            out.push(u8::from(flag));
        }
        for pattern in &options.exclude {
            out.extend_from_slice(&(pattern.len() as u64).to_le_bytes());
            out.extend_from_slice(pattern.as_bytes());
        }
        out
    }

    /// Returns the members, in order.
    pub fn walk(&self) -> VolumeWalk {
        VolumeWalk::start(self.clone())
    }

    /// Returns true if the times of a file with `stat` are certain to show any later change, for a
    /// read that began at `read_started` on the clock that stamps the files.
    ///
    /// See [`TimestampTrust`] for the time that each kind of file system needs.
    pub fn is_settled(&self, stat: &Stat, read_started: jiff::Timestamp) -> bool {
        self.inner.timestamp_trust.are_settled(stat, read_started)
    }
}

/// The inode number of the root folder in ext2, ext3 and ext4, which mostly have a `lost+found`.
const EXT_ROOT: u64 = 2;

/// Returns true if the parent folder is in another file system, or there is none.
fn is_mounted(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let (Ok(own), Ok(above)) = (std::fs::metadata(path), std::fs::metadata(path.join(".."))) else {
        return false;
    };
    own.dev() != above.dev() || own.ino() == above.ino()
}

/// Returns a declared folder's item name, path and read options; `None` if the volume has no path.
#[must_use]
pub fn declared_folder(volume: &VolumeSpec) -> Option<(String, PathBuf, VolumeOptions)> {
    let path = volume.path.clone()?;
    let name = volume.items().first()?.to_string();
    let options = VolumeOptions { exclude: volume.exclude.clone(), ..VolumeOptions::default() };
    Some((name, path, options))
}

pub(crate) fn parse_exclude_patterns(lines: &[String]) -> Result<Gitignore, OpenVolumeError> {
    let wrong = |pattern: &str, error: ignore::Error| OpenVolumeError::Pattern {
        pattern: pattern.to_owned(),
        reason: error.to_string(),
    };
    let mut builder = GitignoreBuilder::new("");
    for line in lines {
        builder.add_line(None, line).map_err(|error| wrong(line, error))?;
    }
    builder.build().map_err(|error| wrong("", error))
}
