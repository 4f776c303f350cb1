//! Entries and attributes that a walk leaves out by rule.

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
