//! Entries that are not in the stream: those that could not be read, and those that a rule leaves out.

use rustix::io::Errno;

use crate::format::tar::EncodeError;

/// An entry that could not be included.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {kind}", String::from_utf8_lossy(path))]
pub struct EntryGap {
    /// The path. A directory may stand for all its content.
    pub path: Vec<u8>,
    /// The reason.
    #[source]
    pub kind: GapKind,
}

/// The reason why an entry could not be included.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GapKind {
    /// A directory cannot be opened: its content is missing.
    #[error("the directory cannot be opened")]
    OpenDirectory(#[source] Errno),
    /// A directory cannot be listed: its content is missing.
    #[error("the directory cannot be listed")]
    ReadDirectory(#[source] Errno),
    /// The names of a directory exceed the bound of [`crate::fs::listing::MAX_NAMES`].
    #[error("the directory holds more names than fit in memory")]
    TooManyNames,
    /// The attributes cannot be read.
    #[error("the attributes cannot be read")]
    Stat(#[source] Errno),
    /// The map of holes cannot be read.
    #[error("the holes cannot be found")]
    Holes(#[source] Errno),
    /// A file cannot be opened.
    #[error("the file cannot be opened")]
    Open(#[source] Errno),
    /// A file cannot be read.
    #[error("the file cannot be read")]
    Read(#[source] Errno),
    /// The path from the root exceeds `PATH_MAX`: its content is missing.
    #[error("the path is longer than 4095 bytes")]
    PathTooLong,
    /// Another file, or one of another type, took its place during the walk.
    #[error("it was replaced during the backup")]
    Replaced,
    /// A file with further names was deleted or replaced during the walk. Links to it may be in the
    /// stream already, so nothing else is stored under its path.
    #[error("it was deleted or replaced during the backup, and names that are linked to it may be missing")]
    LinkTargetGone,
    /// It changed each time it was read. The stored content has the declared length, and is mixed.
    #[error("it changed while it was read")]
    Changed,
    /// It is larger than the file system says, and does not end.
    #[error("it holds more than its size says, and its end was not found")]
    NoEnd,
    /// The file system says another size than it has, and it is too large to be read again with its own.
    #[error("the file system says a wrong size, and it is too large to be stored with its own")]
    WrongSize,
    /// The attributes do not fit into a header.
    #[error("its attributes cannot be stored")]
    Encode(#[source] EncodeError),
    /// A thread of the walk is gone, so all later entries are missing. This is a bug.
    #[error("the walk stopped early: this is a bug in kbak")]
    Stopped,
}

/// An entry that a rule leaves out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedEntry {
    /// The path.
    pub path: Vec<u8>,
    /// The rule.
    pub why: SkipReason,
}

/// The rule by which an entry is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SkipReason {
    /// A socket: its server creates a new one.
    Socket,
    /// A mount point. A directory's own member is kept, with the attributes that are visible.
    MountPoint,
    /// Another file system without a mount point, such as a btrfs subvolume. Its directory is kept.
    OtherFileSystem,
    /// The file system's own `lost+found`.
    LostAndFound,
    /// Neither file, directory, link, pipe, device nor socket.
    UnknownType,
}

impl std::fmt::Display for SkipReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Socket => "a socket",
            Self::MountPoint => "a mount point",
            Self::OtherFileSystem => "another file system",
            Self::LostAndFound => "the file system's lost+found",
            Self::UnknownType => "of unknown type",
        })
    }
}

/// A part left out of members, or an entry too common to name each time; counted, with the first paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftOut {
    /// The entry matches an exclude pattern.
    Excluded,
    /// The entry was removed between the listing of its directory and its inspection.
    Vanished,
    /// A `trusted.*` attribute.
    TrustedXattr,
    /// The `security.selinux` attribute.
    SelinuxXattr,
    /// An attribute of another namespace, which cannot be set again.
    OtherXattr,
    /// An attribute that could not be read.
    UnreadableXattr,
    /// The immutable or append-only flag.
    LockedFlag,
}
