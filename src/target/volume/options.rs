//! Options of a restore into a folder.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use ignore::gitignore::Gitignore;

use crate::format::tar::order;

/// The policy for files that exist already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExistingFiles {
    /// The target must be empty.
    #[default]
    Refuse,
    /// Existing files stay; one that differs in size or time is reported. This resumes a restore.
    Skip,
    /// Existing files are replaced.
    Overwrite,
    /// Existing files are replaced. At the end, everything below [`TargetOptions::deletion_scope`]
    /// that the stream does not hold is deleted.
    DeleteExtra,
}

/// Options of a restore into a folder.
#[derive(Debug, Clone)]
pub struct TargetOptions {
    /// The policy for files that exist already.
    pub existing: ExistingFiles,
    /// Paths below which [`ExistingFiles::DeleteExtra`] deletes: the selected ones, or `.` if
    /// the stream is the whole volume. Only the caller knows them: the default is empty and is
    /// refused.
    pub deletion_scope: Vec<Vec<u8>>,
    /// Entries that it never deletes.
    pub deletion_exceptions: DeletionExceptions,
    /// True if devices are made.
    pub allow_devices: bool,
    /// True if attributes other than `user.*`, POSIX ACLs and `security.capability` are set.
    pub allow_other_xattrs: bool,
    /// Threads that write files; 0 does everything on the caller's thread.
    pub threads: usize,
    /// Most bytes of content that wait for the threads.
    pub buffer: usize,
    /// Bytes of content after which another thread begins to write everything to the disk. The kernel alone waits
    /// until a tenth of the memory is unwritten, or for half a minute: the disk would idle until the end.
    pub sync_every: usize,
}

impl Default for TargetOptions {
    fn default() -> Self {
        Self {
            existing: ExistingFiles::Refuse,
            deletion_scope: Vec::new(),
            deletion_exceptions: DeletionExceptions::default(),
            allow_devices: false,
            allow_other_xattrs: false,
            threads: std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8),
            buffer: 8 << 20,
            sync_every: 128 << 20,
        }
    }
}

/// Entries of the target that a restore must not delete, because the backup does not hold them for a
/// known reason: unreadable, left out by rule, or part of another item.
#[derive(Debug, Clone)]
pub struct DeletionExceptions {
    /// Paths to keep, each with all below it.
    pub paths: Vec<Vec<u8>>,
    /// The patterns that the backup excluded.
    pub excluded: Gitignore,
    /// True if all such entries are known by name; otherwise nothing is deleted.
    pub all_named: bool,
}

impl Default for DeletionExceptions {
    fn default() -> Self {
        Self { paths: Vec::new(), excluded: Gitignore::empty(), all_named: true }
    }
}

impl DeletionExceptions {
    pub(super) fn covers(&self, path: &[u8], is_directory: bool) -> bool {
        let name = Path::new(OsStr::from_bytes(path));
        self.paths.iter().any(|kept| kept == path || order::is_below(path, kept))
            || (!self.excluded.is_empty() && self.excluded.matched(name, is_directory).is_ignore())
    }

    /// True if an entry below `path` may have to stay.
    pub(super) fn may_cover_below(&self, path: &[u8]) -> bool {
        !self.excluded.is_empty() || self.paths.iter().any(|kept| order::is_below(kept, path))
    }
}
