//! The ustar block: 512 bytes of fixed fields.
//!
//! ```text
//!   0 name 100   100 mode 8   108 uid 8   116 gid 8   124 size 12   136 mtime 12   148 chksum 8
//! 156 typeflag 1   157 linkname 100   257 magic "ustar\0" 6   263 version "00" 2
//! 265 uname 32   297 gname 32   329 devmajor 8   337 devminor 8   345 prefix 155   500 zeros 12
//! ```
//!
//! Numbers are octal with leading zeros and a final NUL. The checksum is the sum of all bytes, with
//! the field itself as spaces, written as six octal digits, NUL, space. `prefix` is never used: a
//! long path goes into the PAX header, which almost every member has anyway for its nanoseconds.

use super::{BLOCK, EntryKind, ROOT, TarEntry};

/// The largest uid and gid in 7 octal digits.
pub const MAX_ID: u32 = 0o7_777_777;
/// The largest device number in 7 octal digits.
pub const MAX_DEVICE: u32 = 0o7_777_777;
/// The largest size and the latest time in seconds that fit in 11 octal digits.
pub const MAX_LONG: u64 = 0o77_777_777_777;
/// The name in the block of every PAX header. A tool without PAX support makes one file of them all.
pub const PAX_NAME: &[u8] = b"./PaxHeaders/kbak";
/// The prefix of the path in the ustar block of a file with holes; the real name is in `GNU.sparse.name`. A
/// tool that knows no maps writes the raw bytes to this path, not over the real name.
pub const SPARSE_PREFIX: &[u8] = b"GNUSparseFile.0/";

const NAME: usize = 100;
const OWNER: usize = 32;

/// The position of each field in the block.
pub mod field {
    use std::ops::Range;
    /// The path, or its beginning.
    pub const NAME: Range<usize> = 0..100;
    /// Permissions.
    pub const MODE: Range<usize> = 100..108;
    /// The owner's number.
    pub const UID: Range<usize> = 108..116;
    /// The group's number.
    pub const GID: Range<usize> = 116..124;
    /// The number of bytes that follow, without padding.
    pub const SIZE: Range<usize> = 124..136;
    /// The modification time, in seconds since 1970.
    pub const MTIME: Range<usize> = 136..148;
    /// The sum of all bytes.
    pub const CHECKSUM: Range<usize> = 148..156;
    /// The type of the entry.
    pub const TYPE: usize = 156;
    /// The link target, or its beginning.
    pub const LINK: Range<usize> = 157..257;
    /// `ustar\0` and `00`.
    pub const MAGIC: Range<usize> = 257..265;
    /// The owner's name.
    pub const USER: Range<usize> = 265..297;
    /// The group's name.
    pub const GROUP: Range<usize> = 297..329;
    /// The device's major number.
    pub const MAJOR: Range<usize> = 329..337;
    /// The device's minor number.
    pub const MINOR: Range<usize> = 337..345;
}

/// `ustar`, NUL, version `00`.
pub const MAGIC: &[u8; 8] = b"ustar\x0000";

/// The fields of a ustar block. A value that does not fit is cut or 0, and is in the PAX header.
#[derive(Debug, Default)]
pub struct UstarFields {
    /// The complete path, before it is cut.
    pub name: Vec<u8>,
    /// The complete link target, before it is cut.
    pub link: Vec<u8>,
    user: Vec<u8>,
    group: Vec<u8>,
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    mtime: i64,
    kind: u8,
    device: (u32, u32),
}

impl UstarFields {
    /// Returns the fields of `entry`, whose map and content are `stored` bytes.
    #[must_use]
    pub fn new(entry: &TarEntry, stored: u64) -> Self {
        let (kind, link, device): (u8, &[u8], _) = match &entry.kind {
            EntryKind::File { .. } | EntryKind::Sparse { .. } => (b'0', b"", (0, 0)),
            EntryKind::HardLink { link_target } => (b'1', link_target, (0, 0)),
            EntryKind::Symlink { target } => (b'2', target, (0, 0)),
            EntryKind::CharDevice(device) => (b'3', b"", (device.major, device.minor)),
            EntryKind::BlockDevice(device) => (b'4', b"", (device.major, device.minor)),
            EntryKind::Directory => (b'5', b"", (0, 0)),
            EntryKind::Fifo => (b'6', b"", (0, 0)),
        };
        let names = entry.names.clone().unwrap_or_default();
        Self {
            name: ustar_name(entry),
            link: link.to_vec(),
            user: names.user,
            group: names.group,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            size: stored,
            mtime: entry.mtime.seconds,
            kind,
            device,
        }
    }

    /// Returns the fields of a PAX header with `len` bytes of records.
    #[must_use]
    pub fn pax(len: usize) -> Self {
        Self { name: PAX_NAME.to_vec(), mode: 0o644, size: len as u64, kind: b'x', ..Self::default() }
    }

    /// Appends the block to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut block = [0u8; BLOCK];
        write_text(&mut block[field::NAME], &self.name);
        write_octal(&mut block[field::MODE], u64::from(self.mode));
        write_octal(&mut block[field::UID], u64::from(if self.uid > MAX_ID { 0 } else { self.uid }));
        write_octal(&mut block[field::GID], u64::from(if self.gid > MAX_ID { 0 } else { self.gid }));
        write_octal(&mut block[field::SIZE], if self.size > MAX_LONG { 0 } else { self.size });
        let mtime = u64::try_from(self.mtime).ok().filter(|seconds| *seconds <= MAX_LONG);
        write_octal(&mut block[field::MTIME], mtime.unwrap_or(0));
        block[field::TYPE] = self.kind;
        write_text(&mut block[field::LINK], &self.link);
        block[field::MAGIC].copy_from_slice(MAGIC);
        if fits_owner_field(&self.user) {
            write_text(&mut block[field::USER], &self.user);
        }
        if fits_owner_field(&self.group) {
            write_text(&mut block[field::GROUP], &self.group);
        }
        write_octal(&mut block[field::MAJOR], u64::from(self.device.0));
        write_octal(&mut block[field::MINOR], u64::from(self.device.1));
        let sum = checksum(&block);
        write_octal(&mut block[field::CHECKSUM.start..field::CHECKSUM.end - 1], u64::from(sum));
        block[field::CHECKSUM.end - 1] = b' ';
        out.extend_from_slice(&block);
    }
}

/// Returns the sum of a block, with spaces in place of the checksum.
#[must_use]
pub fn checksum(block: &[u8; BLOCK]) -> u32 {
    let spaces = u32::from(b' ') * 8;
    let outside = block[..field::CHECKSUM.start].iter().chain(&block[field::CHECKSUM.end..]);
    outside.map(|&byte| u32::from(byte)).sum::<u32>() + spaces
}

/// Returns true if a path or target fits in its field of 100 bytes: short enough, and ASCII, which
/// means the same in every character set.
#[must_use]
pub fn fits_name_field(bytes: &[u8]) -> bool {
    bytes.len() <= NAME && bytes.is_ascii()
}

/// Returns true if an owner's name fits in its field, which ends with a NUL.
#[must_use]
pub fn fits_owner_field(bytes: &[u8]) -> bool {
    bytes.len() < OWNER && bytes.is_ascii()
}

/// Returns the path as tar spells it: directories end with a slash, the root is `./`.
fn ustar_name(entry: &TarEntry) -> Vec<u8> {
    let mut name = Vec::with_capacity(entry.path.len() + SPARSE_PREFIX.len());
    if matches!(entry.kind, EntryKind::Sparse { .. }) {
        name.extend_from_slice(SPARSE_PREFIX);
    }
    name.extend_from_slice(if entry.path == ROOT { b"." } else { &entry.path });
    if entry.kind == EntryKind::Directory {
        name.push(b'/');
    }
    name
}

fn write_text(field: &mut [u8], value: &[u8]) {
    let len = value.len().min(field.len());
    field[..len].copy_from_slice(&value[..len]);
}

/// Writes `value` as octal digits with leading zeros and a final NUL. The caller ensures that it fits.
fn write_octal(field: &mut [u8], mut value: u64) {
    let digits = field.len() - 1;
    for at in (0..digits).rev() {
        field[at] = b'0' + (value % 8) as u8;
        value /= 8;
    }
    field[digits] = 0;
}
