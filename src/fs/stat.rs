//! The attributes of one file: those that a member keeps, and those that reveal a change.

use rustix::fs::{FileType as RawType, Statx, StatxFlags};

use crate::format::tar::{DeviceNumber, FileTime};

/// The type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileType {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A socket.
    Socket,
    /// A type that kbak does not know.
    Unknown,
}

impl From<RawType> for FileType {
    fn from(raw: RawType) -> Self {
        match raw {
            RawType::RegularFile => Self::File,
            RawType::Directory => Self::Directory,
            RawType::Symlink => Self::Symlink,
            RawType::Fifo => Self::Fifo,
            RawType::CharacterDevice => Self::CharDevice,
            RawType::BlockDevice => Self::BlockDevice,
            RawType::Socket => Self::Socket,
            RawType::Unknown => Self::Unknown,
        }
    }
}

/// The identity of a file, independent of its names and content: device, inode number and creation time. The
/// number alone is reused after a deletion. Some file systems have no creation time.
pub type Inode = (DeviceNumber, u64, Option<FileTime>);

/// The relevant fields of `statx`. Two equal values of the same path mean that the file was not
/// changed between them, as far as the kernel shows (its clock may tick slowly: see
/// `source::volume::timestamp_trust`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// The type.
    pub file_type: FileType,
    /// Permission bits with setuid, setgid and sticky: `0o7777` at most.
    pub mode: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// The size in bytes, holes included.
    pub size: u64,
    /// The number of allocated blocks of 512 bytes.
    pub blocks: u64,
    /// The time at which the content last changed.
    pub mtime: FileTime,
    /// The time at which content or attributes last changed.
    pub ctime: FileTime,
    /// The inode number.
    pub ino: u64,
    /// The device of the file system.
    pub dev: DeviceNumber,
    /// The creation time, where the file system has one.
    pub btime: Option<FileTime>,
    /// The number of names (hard links).
    pub nlink: u32,
    /// The device's own number, if it is one.
    pub rdev: DeviceNumber,
    /// True if something is mounted on this path.
    pub is_mount_root: bool,
    /// True if the immutable or append-only flag is set, which no tar stream carries.
    pub is_locked: bool,
}

impl Stat {
    /// Returns the identity of the file.
    pub fn inode(&self) -> Inode {
        (self.dev, self.ino, self.btime)
    }

    /// Returns true if it is no directory and has several names, so that others may be links to it.
    pub fn has_links(&self) -> bool {
        self.nlink > 1 && self.file_type != FileType::Directory
    }

    /// Returns true if `other` shows the same file, unchanged. Blocks and links are not compared:
    /// blocks change when delayed allocation is written back, and a new link changes ctime anyway.
    pub fn is_unchanged(&self, other: &Self) -> bool {
        self.file_type == other.file_type
            && self.inode() == other.inode()
            && self.size == other.size
            && self.mtime == other.mtime
            && self.ctime == other.ctime
            && self.mode == other.mode
            && self.uid == other.uid
            && self.gid == other.gid
    }

    /// Returns true if less is allocated than the size says, so that there may be holes.
    pub fn may_have_holes(&self) -> bool {
        self.file_type == FileType::File && self.blocks.saturating_mul(512) < self.size
    }
}

impl From<&Statx> for Stat {
    fn from(raw: &Statx) -> Self {
        use rustix::fs::StatxAttributes as Attributes;
        let time = |t: &rustix::fs::StatxTimestamp| FileTime { seconds: t.tv_sec, nanos: t.tv_nsec };
        let mode = u32::from(raw.stx_mode);
        let mask = StatxFlags::from_bits_retain(raw.stx_mask);
        Self {
            file_type: RawType::from_raw_mode(mode).into(),
            mode: mode & 0o7777,
            uid: raw.stx_uid,
            gid: raw.stx_gid,
            size: raw.stx_size,
            blocks: raw.stx_blocks,
            mtime: time(&raw.stx_mtime),
            ctime: time(&raw.stx_ctime),
            ino: raw.stx_ino,
            dev: DeviceNumber { major: raw.stx_dev_major, minor: raw.stx_dev_minor },
            btime: mask.contains(StatxFlags::BTIME).then(|| time(&raw.stx_btime)),
            nlink: raw.stx_nlink,
            rdev: DeviceNumber { major: raw.stx_rdev_major, minor: raw.stx_rdev_minor },
            is_mount_root: raw.stx_attributes.contains(Attributes::MOUNT_ROOT),
            is_locked: raw.stx_attributes.intersects(Attributes::IMMUTABLE | Attributes::APPEND),
        }
    }
}
