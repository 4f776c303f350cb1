//! What a restore did, what it could not keep, and what it could not do.

use rustix::io::Errno;

use crate::source::volume::Tally;
use crate::source::volume::tar::EncodeError;

/// What a restore into a folder came to.
#[derive(Debug, Default)]
pub struct Report {
    /// Directories of the stream, made or found.
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
    /// Files that were there already, with the same size and time, and were left.
    pub present: u64,
    /// Names deleted because the stream does not hold them.
    pub deleted: u64,
    /// Remains of an interrupted restore that were removed.
    pub cleaned: u64,
    /// Attributes that could not be kept, by kind.
    pub lost: Tally<Loss>,
    /// Entries that were not restored, by kind.
    pub failed: Tally<FailureKind>,
    /// The first entries that were not restored, with their reasons: at most [`NAMED`].
    pub failures: Vec<EntryFailure>,
    /// Whether deleting what the stream does not hold was left undone because entries failed.
    pub deletion_held_back: bool,
}

/// How many failures are kept with their reason.
pub const NAMED: usize = 100;

impl Report {
    /// Whether everything is there with every attribute.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty() && self.lost.is_empty() && !self.deletion_held_back
    }

    pub(super) fn fail(&mut self, path: &[u8], reason: Reason) {
        self.failed.add(reason.kind(), path);
        if self.failures.len() < NAMED {
            self.failures.push(EntryFailure { path: path.to_vec(), reason });
        }
    }
}

/// An attribute that could not be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Loss {
    /// The owner; only root may give files away.
    Owner,
    /// The group; only root and the group's members may set it.
    Group,
    /// Permission bits.
    Mode,
    /// Setuid, because the owner could not be restored: it would run as somebody else.
    Setuid,
    /// Setgid, because the group could not be restored.
    Setgid,
    /// The time, which the target stores less exactly or not at all.
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

impl Loss {
    /// For people.
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
    /// Which.
    pub path: Vec<u8>,
    /// Why.
    #[source]
    pub reason: Reason,
}

/// Why an entry was not restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// No stream can hold such an entry: a path that climbs, a link to nothing. A parser refuses
    /// it before; this is for entries that come from elsewhere.
    #[error("no stream can hold it: {0}")]
    Invalid(#[source] EncodeError),
    /// The target takes two names of the stream for one: upper and lower case, or two spellings
    /// of one letter. The first was kept.
    #[error("its name collides with another one on this target")]
    NameCollision,
    /// Something is there, and the policy is to leave it.
    #[error("something else is there, and existing files are left")]
    Different,
    /// A directory with content is where a file should be.
    #[error("a directory is in its place")]
    DirectoryInTheWay,
    /// A device, which is made only when allowed.
    #[error("devices are restored only with --allow devices")]
    DeviceNotAllowed,
    /// The directory that should hold it could not be made.
    #[error("its directory is missing")]
    NoDirectory,
    /// A path through a link or a file that is in the target.
    #[error("its path leads through something that is no directory")]
    ThroughNonDirectory,
    /// The member that carries the file is not in the target.
    #[error("the file that it is a link to is missing")]
    CarrierMissing,
    /// It is larger than a file can be here.
    #[error("it is larger than a file can be here")]
    TooLarge,
    /// The kernel refuses.
    #[error("cannot {doing}: {errno}")]
    System {
        /// What.
        doing: &'static str,
        /// Why.
        errno: Errno,
    },
}

/// [`Reason`] without its details, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureKind {
    /// [`Reason::Invalid`].
    Invalid,
    /// [`Reason::NameCollision`].
    NameCollision,
    /// [`Reason::Different`].
    Different,
    /// [`Reason::DirectoryInTheWay`].
    DirectoryInTheWay,
    /// [`Reason::DeviceNotAllowed`].
    DeviceNotAllowed,
    /// [`Reason::NoDirectory`].
    NoDirectory,
    /// [`Reason::ThroughNonDirectory`].
    ThroughNonDirectory,
    /// [`Reason::CarrierMissing`].
    CarrierMissing,
    /// [`Reason::TooLarge`].
    TooLarge,
    /// [`Reason::System`].
    System,
}

impl FailureKind {
    /// For programs.
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
            Self::CarrierMissing => "carrier-missing",
            Self::TooLarge => "too-large",
            Self::System => "system",
        }
    }
}

impl Reason {
    /// Which kind it is.
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
            Self::CarrierMissing => FailureKind::CarrierMissing,
            Self::TooLarge => FailureKind::TooLarge,
            Self::System { .. } => FailureKind::System,
        }
    }

    /// For `map_err`: what was being done.
    pub(super) fn system(doing: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| match errno {
            Errno::FBIG => Self::TooLarge,
            Errno::LOOP | Errno::NOTDIR | Errno::XDEV => Self::ThroughNonDirectory,
            errno => Self::System { doing, errno },
        }
    }
}
