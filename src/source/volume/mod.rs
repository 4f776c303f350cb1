//! A folder as a stream of tar members: walked in one fixed order, read beneath its root, without
//! ever following a link out of it.
//!
//! [`Volume::open`] takes a folder; [`Volume::walk`] gives its [`Member`]s in the order of
//! [`tar::order`], each with its exact header; [`Volume::append`] reads a small member whole into
//! a caller's buffer, [`Volume::read`] a large one block by block. Whoever drives this decides
//! what to read at all: [`Member::seen`] is what a scan cache compares.

pub mod beneath;
pub mod holes;
pub mod inspect;
pub mod listing;
pub mod planner;
pub mod read;
pub mod settled;
pub mod stat;
pub mod tally;
pub mod tar;
pub mod walk;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

pub use beneath::Root;
pub use inspect::Member;
pub use read::{ATTEMPTS, Appended, Content, Reading};
pub use stat::{FileType, Inode, Stat, Time};
pub use tally::Tally;
pub use walk::{Gap, GapKind, LeftOut, Skip, Skipped, Walk, Walked};

/// What a volume takes along, and how it is read.
#[derive(Debug, Clone)]
pub struct VolumeOptions {
    /// What to leave out, in the syntax of .gitignore, relative to the root; later lines win, `!`
    /// takes back, and nothing below a folder that is left out comes back.
    pub exclude: Vec<String>,
    /// Whether a `lost+found` directly in the root of a file system is taken. It is the file system's
    /// own.
    pub lost_and_found: bool,
    /// Whether `trusted.*` attributes are taken (they belong to the kernel's own file systems, and
    /// reading them needs CAP_SYS_ADMIN).
    pub trusted_xattrs: bool,
    /// Whether `security.selinux` is taken. A volume is labelled anew where it is mounted.
    pub selinux: bool,
    /// How many threads look ahead; 0 does everything on the caller's thread.
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

/// Why a volume cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The folder itself.
    #[error("cannot open the folder")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The kernel or a seccomp filter refuses what keeps reads beneath the root.
    #[error("openat2 is refused here; it needs Linux 5.6 and a seccomp profile that knows it")]
    Openat2(#[source] std::io::Error),
    /// Extended attributes of links and devices are read through /proc.
    #[error("/proc/self/fd cannot be used; extended attributes are read through it")]
    Proc(#[source] std::io::Error),
    /// A pattern is none.
    #[error("exclude {pattern:?}: {reason}")]
    Pattern {
        /// Which.
        pattern: String,
        /// Why.
        reason: String,
    },
}

/// A folder that is being read. Cheap to clone; all calls may come from any thread.
#[derive(Debug, Clone)]
pub struct Volume {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: Root,
    stat: Stat,
    /// Whether the folder is the root of a file system, where `lost+found` is the file system's own.
    tops: bool,
    exclude: Gitignore,
    options: VolumeOptions,
    trust: settled::Trust,
    euid: u32,
}

impl Volume {
    /// Opens the folder at `path`; `path` itself may be a link.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(path: &Path, options: VolumeOptions) -> Result<Self, OpenError> {
        let folder = |source: std::io::Error| OpenError::Folder { path: path.to_owned(), source };
        let root = Root::open(path).map_err(|e| folder(e.into()))?;
        root.probe().map_err(|e| OpenError::Openat2(e.into()))?;
        let stat = root.stat().map_err(|e| folder(e.into()))?;
        inspect::probe_proc(&root).map_err(|e| OpenError::Proc(e.into()))?;
        let trust = settled::Trust::of(root.magic().map_err(|e| folder(e.into()))?);
        let tops = stat.ino == EXT_ROOT || is_mounted(path);
        let exclude = patterns(&options.exclude)?;
        let euid = rustix::process::geteuid().as_raw();
        Ok(Self { inner: Arc::new(Inner { root, stat, tops, exclude, options, trust, euid }) })
    }

    /// The attributes of the root.
    #[must_use]
    pub fn root_stat(&self) -> &Stat {
        &self.inner.stat
    }

    /// Everything that decides which members a walk of the same files gives, and how they are
    /// encoded: part of what a scan cache is bound to.
    #[must_use]
    pub fn parameters(&self) -> Vec<u8> {
        let options = &self.inner.options;
        let mut out = b"kbak tar 1".to_vec();
        for flag in [options.lost_and_found || !self.inner.tops, options.trusted_xattrs, options.selinux] {
            out.push(u8::from(flag));
        }
        for pattern in &options.exclude {
            out.extend_from_slice(&(pattern.len() as u64).to_le_bytes());
            out.extend_from_slice(pattern.as_bytes());
        }
        out
    }

    /// The members, in order.
    #[must_use]
    pub fn walk(&self) -> Walk {
        Walk::start(self.clone())
    }

    /// Whether a file that looked like `stat` can be trusted to show any later change by its
    /// times, if reading it began at `read_started` on the clock that stamps the files.
    ///
    /// See [`settled::Trust`] for the margin of each kind of file system.
    #[must_use]
    pub fn settled(&self, stat: &Stat, read_started: jiff::Timestamp) -> bool {
        self.inner.trust.settled(stat, read_started)
    }

    /// How far the times of this file system can be trusted.
    #[must_use]
    pub fn trust(&self) -> settled::Trust {
        self.inner.trust
    }
}

/// The number of the root folder in ext2, ext3 and ext4, whose `lost+found` it mostly is.
const EXT_ROOT: u64 = 2;

/// Whether the folder above lies in another file system, or there is none above.
fn is_mounted(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let (Ok(own), Ok(above)) = (std::fs::metadata(path), std::fs::metadata(path.join(".."))) else {
        return false;
    };
    own.dev() != above.dev() || own.ino() == above.ino()
}

pub(crate) fn patterns(lines: &[String]) -> Result<Gitignore, OpenError> {
    let wrong = |pattern: &str, error: ignore::Error| OpenError::Pattern {
        pattern: pattern.to_owned(),
        reason: error.to_string(),
    };
    let mut builder = GitignoreBuilder::new("");
    for line in lines {
        builder.add_line(None, line).map_err(|error| wrong(line, error))?;
    }
    builder.build().map_err(|error| wrong("", error))
}
