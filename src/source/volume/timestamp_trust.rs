//! Decides when a file's times are certain to show its next change.
//!
//! A scan cache skips a file whose attributes are equal to those of last time. That is right only if any
//! change after the last read must have changed them. It need not: a kernel clock ticks coarsely, a store
//! through a memory map is stamped when it is written back (about 30 s), a network file system serves cached
//! attributes. So a file counts only if it was unchanged for long enough before the read began.

use jiff::Timestamp;

use crate::fs::stat::Stat;

/// The time for which a file must have been unchanged before its timestamps are trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampTrust {
    /// 120 s: a local disk file system.
    Local,
    /// 1 h: a network, FUSE or unknown file system.
    Network,
    /// No time is enough: mapped writes leave no stamp (tmpfs, ramfs), or there is none (FAT, exFAT).
    Never,
}

/// The magic numbers of `statfs(2)` for local disk file systems.
const LOCAL: &[u64] = &[
    0xEF53,      // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683E, // btrfs
    0x2FC1_2FC1, // zfs
    0xF2F5_2010, // f2fs
    0xCA45_1A4E, // bcachefs
    0x794C_7630, // overlayfs: stamps are those of the layer that holds the file
    0x3153_464A, // jfs
];
const NEVER: &[u64] = &[
    0x0102_1994, // tmpfs
    0x8584_58F6, // ramfs
    0x4D44,      // vfat, msdos
    0x2011_BAB0, // exfat
];

impl TimestampTrust {
    /// Returns the trust for the `f_type` of `statfs(2)`. NFS, SMB, CephFS, 9p, Lustre, FUSE
    /// (including virtiofs and gluster) and all that is not listed here are [`TimestampTrust::Network`].
    #[must_use]
    pub fn for_fs_type(fs_type: u64) -> Self {
        if LOCAL.contains(&fs_type) {
            Self::Local
        } else if NEVER.contains(&fs_type) {
            Self::Never
        } else {
            Self::Network
        }
    }

    /// Returns the seconds for which a file must be unchanged; `None` means for ever.
    #[must_use]
    pub fn min_age(self) -> Option<u32> {
        match self {
            Self::Local => Some(120),
            Self::Network => Some(3600),
            Self::Never => None,
        }
    }

    /// True if the file system gives each file its exact size: it holds their content itself.
    #[must_use]
    pub fn are_sizes_exact(self) -> bool {
        self != Self::Network
    }

    /// True if a file with these times was unchanged for long enough before `read_started`.
    #[must_use]
    pub fn are_settled(self, stat: &Stat, read_started: Timestamp) -> bool {
        let newest = stat.mtime.max(stat.ctime).total_nanos();
        self.min_age().is_some_and(|seconds| {
            newest + i128::from(seconds) * 1_000_000_000 <= read_started.as_nanosecond()
        })
    }
}
