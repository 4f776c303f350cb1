//! The one tar dialect that kbak writes and reads: POSIX.1-2001 (PAX) over ustar headers, with
//! GNU.sparse 1.0 for files with holes.
//!
//! Encoding is a pure function: the same [`TarEntry`] always gives the same bytes, because chunk ids, scan
//! caches and repositories depend on them. Reading ([`parse`]) decodes a header, encodes the result, and
//! refuses it if the bytes differ. So a header that this module would not write is never accepted.
//!
//! A member is, in this order:
//!
//! 1. the *header*: one PAX extended header (its ustar block, its records, padding) if the entry
//!    needs one, then the member's ustar block;
//! 2. for a file with holes the *map*: decimal numbers with newlines (how many extents, then
//!    offset and length of each), padded;
//! 3. the *content*: the bytes of a file, or of its extents one after the other;
//! 4. zeros up to a multiple of 512.
//!
//! PAX records are in one fixed order: `hdrcharset`, `path` or the four of `GNU.sparse`,
//! `linkpath`, `size`, `uid`, `gid`, `uname`, `gname`, `mtime`, then `SCHILY.xattr.*` sorted by
//! name. A record is written only when the ustar block cannot hold the value. There is neither
//! atime (reading changes it) nor ctime (it cannot be restored).
//!
//! Sources: POSIX.1-2017 `pax`, "pax Interchange Format"; GNU tar manual, "Storing Sparse Files,
//! PAX Format, Version 1.0"; the `SCHILY.xattr` keywords of star, whose `=` and `%` GNU tar writes
//! as `%3D` and `%25`.

pub mod decode;
pub mod header;
pub mod order;
pub mod parse;
pub mod pax;
pub mod sparse;

/// The block size of tar, in bytes.
pub const BLOCK: usize = 512;
/// The end of a stream: two blocks of zeros.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];
/// The longest path or link target: `PATH_MAX` without its NUL. Longer ones cannot be opened in one call.
pub const MAX_PATH: usize = 4095;
/// The longest name of an extended attribute in Linux (`XATTR_NAME_MAX`).
pub const MAX_XATTR_NAME: usize = 255;
/// The longest value of an extended attribute in Linux (`XATTR_SIZE_MAX`).
pub const MAX_XATTR_VALUE: usize = 65_536;
/// The largest size of all records in one PAX header, in bytes.
pub const MAX_PAX: usize = 1 << 20;
/// The most extents in a map. The smallest holes beyond it are stored as zeros (see `fs::holes`).
pub const MAX_EXTENTS: usize = 65_536;
/// The largest file: file offsets are signed.
pub const MAX_SIZE: u64 = i64::MAX as u64;
/// The path of the volume's root.
pub const ROOT: &[u8] = b".";

/// A time as the file system stores it: seconds since 1970 (negative before) and nanoseconds that
/// count forward from there (0 to 999,999,999). The range is wider than that of calendar types,
/// because file systems hold such times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FileTime {
    /// Whole seconds since 1970-01-01T00:00:00Z, rounded down.
    pub seconds: i64,
    /// Nanoseconds after `seconds`, less than 1,000,000,000.
    pub nanos: u32,
}

impl FileTime {
    /// Returns nanoseconds since 1970, for comparison with other clocks.
    #[must_use]
    pub fn total_nanos(self) -> i128 {
        i128::from(self.seconds) * 1_000_000_000 + i128::from(self.nanos)
    }
}

/// The number of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceNumber {
    /// The major number: the driver.
    pub major: u32,
    /// The minor number: one of the driver's devices.
    pub minor: u32,
}

/// A run of bytes that is not a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The offset of its first byte.
    pub offset: u64,
    /// The number of bytes, more than 0.
    pub len: u64,
}

/// The type of an entry, with the fields that only this type has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file of which every byte is stored.
    File {
        /// The size in bytes.
        size: u64,
    },
    /// A regular file with holes.
    Sparse {
        /// The size in bytes, holes included.
        size: u64,
        /// The data between the holes: ascending, not touching, within `size`.
        extents: Vec<Extent>,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// The target, as the bytes in the link.
        target: Vec<u8>,
    },
    /// A further name of a file.
    HardLink {
        /// The path of the member that holds the content. It comes earlier in the order.
        link_target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice(DeviceNumber),
    /// A block device.
    BlockDevice(DeviceNumber),
}

/// One file with the attributes that tar carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarEntry {
    /// The path relative to the root: components separated by single slashes, none at either end.
    /// [`ROOT`] is the root itself. Any bytes but NUL.
    pub path: Vec<u8>,
    /// The type.
    pub kind: EntryKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// The owner's number; `u32::MAX` is refused.
    pub uid: u32,
    /// The group's number; `u32::MAX` is refused.
    pub gid: u32,
    /// The time at which the content last changed.
    pub mtime: FileTime,
    /// Names of owner and group, for people; a restore uses the numbers.
    pub names: Option<OwnerNames>,
    /// Extended attributes, sorted by name, each once. POSIX ACLs are the raw `system.posix_acl_*`.
    pub xattrs: Vec<Xattr>,
}

/// Names of owner and group; empty if unknown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnerNames {
    /// The owner's name.
    pub user: Vec<u8>,
    /// The group's name.
    pub group: Vec<u8>,
}

/// One extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Xattr {
    /// The name with its namespace, such as `user.note`.
    pub name: Vec<u8>,
    /// The value: any bytes.
    pub value: Vec<u8>,
}

/// The encoded bytes that precede a member's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedEntry {
    /// PAX header and ustar block: a multiple of [`BLOCK`].
    pub header: Vec<u8>,
    /// The map of a file with holes, padded; empty for all others.
    pub map: Vec<u8>,
    /// The number of content bytes that follow.
    pub content: u64,
}

/// The lengths in bytes of what [`EncodedEntry`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodedLengths {
    /// Length of the header.
    pub header: usize,
    /// Length of the map.
    pub map: usize,
    /// The number of content bytes that follow.
    pub content: u64,
}

/// The reason why an entry cannot be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The path is not one that a root can hold.
    #[error("the path {0}")]
    Path(order::PathError),
    /// The target of a symbolic link is empty, longer than [`MAX_PATH`], or holds a NUL.
    #[error("the symbolic link's target is empty, longer than {MAX_PATH} bytes, or holds a NUL")]
    SymlinkTarget,
    /// The target of a hard link is not a valid path, or does not come before the link.
    #[error("the hard link's target does not come before it")]
    HardLinkTarget,
    /// A number is out of its range.
    #[error("{field} is out of range")]
    Range {
        /// The field.
        field: &'static str,
    },
    /// The extended attributes are not sorted, or one is too long or has a bad name.
    #[error("extended attributes are unsorted, too long, or have an empty name or one with a NUL")]
    Xattr,
    /// All records together exceed [`MAX_PAX`].
    #[error("extended header of {0} bytes, at most {MAX_PAX}")]
    TooLong(usize),
    /// The extents are empty, not ascending, touch one another, pass the size, or leave no hole.
    #[error("the map of holes is not in order")]
    Map,
}

/// Returns the number of zeros that follow `len` bytes up to the next block.
#[must_use]
pub fn padding(len: u64) -> usize {
    let over = usize::try_from(len % BLOCK as u64).unwrap_or(0);
    if over == 0 { 0 } else { BLOCK - over }
}

/// Encodes `entry`: its header, its map, and the number of content bytes that follow.
/// Fails if the entry breaks a limit of this module or a rule of its fields.
pub fn encode(entry: &TarEntry) -> Result<EncodedEntry, EncodeError> {
    let mut header = Vec::with_capacity(3 * BLOCK);
    let lengths = append(entry, &mut header)?;
    let map = header.split_off(lengths.header);
    Ok(EncodedEntry { header, map, content: lengths.content })
}

/// Appends the header and the map of `entry` to `out`, and returns their lengths. Fails as [`encode`] does; `out` may
/// then hold a part.
pub fn append(entry: &TarEntry, out: &mut Vec<u8>) -> Result<EncodedLengths, EncodeError> {
    check_entry(entry)?;
    let (map, content) = match &entry.kind {
        EntryKind::File { size } => (Vec::new(), *size),
        EntryKind::Sparse { size, extents } => sparse::encode_map(*size, extents)?,
        _ => (Vec::new(), 0),
    };
    let stored = content.checked_add(map.len() as u64).ok_or(EncodeError::Range { field: "size" })?;
    let start = out.len();
    let fields = header::UstarFields::new(entry, stored);
    pax::append_header(entry, stored, &fields, out)?;
    fields.write(out);
    let header = out.len() - start;
    out.extend_from_slice(&map);
    Ok(EncodedLengths { header, map: map.len(), content })
}

/// Checks that an entry can be encoded, as far as its fields alone show.
pub fn check_entry(entry: &TarEntry) -> Result<(), EncodeError> {
    order::check_path(&entry.path).map_err(EncodeError::Path)?;
    if entry.path == ROOT && entry.kind != EntryKind::Directory {
        return Err(EncodeError::Path(order::PathError::Dot));
    }
    match &entry.kind {
        EntryKind::Symlink { target }
            if target.is_empty() || target.len() > MAX_PATH || target.contains(&0) =>
        {
            return Err(EncodeError::SymlinkTarget);
        }
        EntryKind::HardLink { link_target } => {
            order::check_path(link_target).map_err(|_| EncodeError::HardLinkTarget)?;
            if link_target == ROOT || order::compare(link_target, &entry.path).is_ge() {
                return Err(EncodeError::HardLinkTarget);
            }
        }
        EntryKind::File { size } | EntryKind::Sparse { size, .. } if *size > MAX_SIZE => {
            return Err(EncodeError::Range { field: "size" });
        }
        EntryKind::CharDevice(device) | EntryKind::BlockDevice(device)
            if device.major > header::MAX_DEVICE || device.minor > header::MAX_DEVICE =>
        {
            return Err(EncodeError::Range { field: "device number" });
        }
        _ => {}
    }
    for (field, id) in [("uid", entry.uid), ("gid", entry.gid)] {
        if id == u32::MAX {
            return Err(EncodeError::Range { field });
        }
    }
    if entry.mode > 0o7777 {
        return Err(EncodeError::Range { field: "mode" });
    }
    if entry.mtime.nanos >= 1_000_000_000 {
        return Err(EncodeError::Range { field: "mtime" });
    }
    check_xattrs(&entry.xattrs)
}

fn check_xattrs(xattrs: &[Xattr]) -> Result<(), EncodeError> {
    let sorted = xattrs.windows(2).all(|pair| pair[0].name < pair[1].name);
    let sane = xattrs.iter().all(|xattr| {
        (1..=MAX_XATTR_NAME).contains(&xattr.name.len())
            && !xattr.name.contains(&0)
            && xattr.value.len() <= MAX_XATTR_VALUE
    });
    if sorted && sane { Ok(()) } else { Err(EncodeError::Xattr) }
}
