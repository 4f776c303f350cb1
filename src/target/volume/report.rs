//! The report of a restore: counts, lost attributes, and entries that failed.

use rustix::io::Errno;

use crate::format::tar::EncodeError;
use crate::report::counts::Counts;

/// The result of a restore into a folder.
#[derive(Debug, Default)]
pub struct VolumeReport {
    /// Directories of the stream, created or found.
    pub directories: u64,
    /// Files written.
    pub files: u64,
    /// Bytes written into them, holes not counted.
    pub bytes: u64,
    /// Symbolic links made.
    pub symlinks: u64,
    /// Hard links made.
    pub links: u64,
    /// Pipes and devices made.
    pub special: u64,
    /// Entries that existed and were the same (files: in size and time), and were kept.
    pub present: u64,
    /// Names deleted because the stream does not hold them.
    pub deleted: u64,
    /// Temporary files of an interrupted restore that were removed.
    pub cleaned: u64,
    /// Attributes that could not be kept, by kind.
    pub lost: Counts<LostAttribute>,
    /// Entries that were not restored, by kind.
    pub failed: Counts<FailureKind>,
    /// The first entries that were not restored, with their reasons: at most [`NAMED`].
    pub failures: Vec<EntryFailure>,
    /// True if extra files were not deleted because entries failed or not all kept paths are named.
    pub deletion_held_back: bool,
}

/// Most failures that are kept with their reason.
pub const NAMED: usize = 100;

impl VolumeReport {
    /// True if everything was restored with every attribute.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty() && self.lost.is_empty() && !self.deletion_held_back
    }

    pub(crate) fn fail(&mut self, path: &[u8], reason: FailureReason) {
        self.failed.add(reason.kind(), path);
        if self.failures.len() < NAMED {
            self.failures.push(EntryFailure { path: path.to_vec(), reason });
        }
    }
}

/// An attribute that could not be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LostAttribute {
    /// The owner; only root may give files away.
    Owner,
    /// The group; only root and the group's members may set it.
    Group,
    /// Permission bits.
    Mode,
    /// Setuid, because the owner could not be restored: it would run as another user.
    Setuid,
    /// Setgid, because the group could not be restored.
    Setgid,
    /// The modification time, which the target stores less exactly or not at all.
    Time,
    /// A POSIX ACL. Its mask was not widened to the group.
    Acl,
    /// File capabilities; setting them needs CAP_SETFCAP.
    Capability,
    /// A `user.*` attribute.
    UserXattr,
    /// An attribute of another namespace, which is set only when allowed.
    OtherXattr,
}

impl LostAttribute {
    /// Returns the name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "the owner",
            Self::Group => "the group",
            Self::Mode => "the mode",
            Self::Setuid => "setuid",
            Self::Setgid => "setgid",
            Self::Time => "the time",
            Self::Acl => "an ACL",
            Self::Capability => "a file capability",
            Self::UserXattr => "a user attribute",
            Self::OtherXattr => "an extended attribute",
        }
    }
}

/// An entry that was not restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", String::from_utf8_lossy(path))]
pub struct EntryFailure {
    /// The entry's path.
    pub path: Vec<u8>,
    /// The reason.
    #[source]
    pub reason: FailureReason,
}

/// The reason why an entry was not restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FailureReason {
    /// No stream can hold such an entry: its path leads upwards, or its link has no target. A parser
    /// refuses it before; this is for entries from elsewhere.
    #[error("its entry in the stream is invalid: {0}")]
    Invalid(#[source] EncodeError),
    /// The target treats two names of the stream as one: upper and lower case, or two spellings of
    /// one letter. The first was kept.
    #[error("the target treats its name and another one as the same")]
    NameCollision,
    /// A different entry exists, and the policy keeps it.
    #[error("a different entry exists, and existing files are kept")]
    Different,
    /// A directory with content is in its place.
    #[error("a directory with its name exists and is not empty")]
    DirectoryInTheWay,
    /// A device; devices are made only if allowed.
    #[error("it is a device, and devices are restored only with --allow devices")]
    DeviceNotAllowed,
    /// The directory that holds it is missing or could not be created.
    #[error("its directory is missing")]
    NoDirectory,
    /// The path leads through a link or a file in the target.
    #[error("its path leads through a link or a file")]
    ThroughNonDirectory,
    /// The file that a hard link refers to is not in the target.
    #[error("the target of the hard link is missing")]
    LinkTargetMissing,
    /// The file is larger than the target's file system allows.
    #[error("it is larger than the target's file system allows")]
    TooLarge,
    /// The kernel refuses an operation.
    #[error("cannot {operation}: {errno}")]
    System {
        /// The operation.
        operation: &'static str,
        /// The kernel's error.
        errno: Errno,
    },
}

/// The result of restoring an entry or a part of it.
pub(crate) type EntryResult<T> = Result<T, FailureReason>;

/// [`FailureReason`] without its details, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the variants are those of FailureReason")]
pub enum FailureKind {
    Invalid,
    NameCollision,
    Different,
    DirectoryInTheWay,
    DeviceNotAllowed,
    NoDirectory,
    ThroughNonDirectory,
    LinkTargetMissing,
    TooLarge,
    System,
}

impl FailureKind {
    /// Returns the code for programs.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NameCollision => "name-collision",
            Self::Different => "different",
            Self::DirectoryInTheWay => "directory-in-the-way",
            Self::DeviceNotAllowed => "device-not-allowed",
            Self::NoDirectory => "no-directory",
            Self::ThroughNonDirectory => "through-non-directory",
            Self::LinkTargetMissing => "carrier-missing",
            Self::TooLarge => "too-large",
            Self::System => "system",
        }
    }
}

impl FailureReason {
    /// Returns the kind of the reason.
    #[must_use]
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Invalid(_) => FailureKind::Invalid,
            Self::NameCollision => FailureKind::NameCollision,
            Self::Different => FailureKind::Different,
            Self::DirectoryInTheWay => FailureKind::DirectoryInTheWay,
            Self::DeviceNotAllowed => FailureKind::DeviceNotAllowed,
            Self::NoDirectory => FailureKind::NoDirectory,
            Self::ThroughNonDirectory => FailureKind::ThroughNonDirectory,
            Self::LinkTargetMissing => FailureKind::LinkTargetMissing,
            Self::TooLarge => FailureKind::TooLarge,
            Self::System { .. } => FailureKind::System,
        }
    }

    /// Returns a function for `map_err` that adds the operation to an error.
    pub(crate) fn system(operation: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| match errno {
            Errno::FBIG => Self::TooLarge,
            Errno::LOOP | Errno::NOTDIR | Errno::XDEV => Self::ThroughNonDirectory,
            errno => Self::System { operation, errno },
        }
    }
}
