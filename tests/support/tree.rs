//! Trees to back up: every attribute that a volume can hold, any number of entries, the same for one seed.

use std::ffi::OsStr;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use kbak::runtime::{Random as _, SeededRandom};
use rustix::fs::{CWD, Mode, Timespec, Timestamps, XattrFlags};

/// The content of a tree beside plain files.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// The same seed gives the same tree.
    pub seed: u64,
    /// The approximate number of entries.
    pub entries: usize,
    /// True if there are owners, devices and capabilities, which only root can make.
    pub root: bool,
}

/// Numbers that repeat by seed (xorshift64*).
#[derive(Debug, Clone)]
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// Builds the tree in a new folder `root`.
pub fn build(root: &Path, shape: Shape) {
    std::fs::create_dir_all(root).expect("a new folder");
    let mut numbers = Numbers::new(shape.seed);
    names(root, &mut numbers);
    modes(root, shape.root);
    links(root, &mut numbers);
    sparse(root, &mut numbers);
    xattrs(root, shape.root);
    times(root);
    if shape.root {
        owners(root);
        devices(root);
    }
    many(root, shape, &mut numbers);
    // Last, since every entry that is made changes the times of its directory.
    directory_times(root);
}

/// Writes `size` bytes that repeat by seed, and creates the folders above.
pub fn write_seeded(path: &Path, seed: u64, size: usize) {
    let mut bytes = vec![0; size];
    SeededRandom::new(seed).fill(&mut bytes);
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
    std::fs::write(path, bytes).expect("a file");
}

fn file(path: impl AsRef<Path>, content: &[u8]) -> PathBuf {
    let path = path.as_ref();
    std::fs::write(path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path.to_owned()
}

fn bytes(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

fn folder(root: &Path, name: &str) -> PathBuf {
    let path = root.join(name);
    std::fs::create_dir(&path).expect("a new folder");
    path
}

fn names(root: &Path, numbers: &mut Numbers) {
    let dir = folder(root, "names");
    for name in [
        &b"plain"[..],
        b" leading and trailing ",
        b"new\nline",
        b"tab\tand\x01control",
        b"quote'\"$`\\",
        b"-rf",
        b"--",
        b"...",
        b"..hidden",
        b"star*?[a]",
        b"100%=done",
        b"umlaut-\xc3\xa4\xc3\xb6",
        b"latin1-\xe4\xf6",
        b"\xff\xfe\x80",
        b"emoji-\xf0\x9f\x94\x92",
        b"PaxHeaders",
        b"a",
        b"a.b",
        b"a0",
        b"a!",
    ] {
        file(dir.join(bytes(name)), &numbers.bytes(37));
    }
    std::fs::create_dir(dir.join("a-dir")).expect("a folder");
    file(dir.join("a-dir").join("inside"), b"x");
    file(dir.join("a-dir!"), b"sorts before a-dir/inside as a whole, after it by components");
    for len in [99, 100, 101, 155, 156, 255] {
        file(dir.join("n".repeat(len)), format!("{len}").as_bytes());
    }
    deep(&dir, numbers);
}

/// Creates a path of 4,095 bytes from the root of the volume, the longest possible.
fn deep(dir: &Path, numbers: &mut Numbers) {
    let mut at = rustix::fs::open(dir, rustix::fs::OFlags::PATH, Mode::empty()).expect("open");
    let mut path_len = b"names".len();
    let step = |name: &[u8], at: &mut std::os::fd::OwnedFd| {
        rustix::fs::mkdirat(&*at, name, Mode::from_raw_mode(0o755)).expect("mkdir");
        *at = rustix::fs::openat(&*at, name, rustix::fs::OFlags::PATH, Mode::empty()).expect("open");
    };
    for number in 0..100 {
        step(b"d", &mut at);
        path_len += 2;
        if number == 50 {
            step(b"\xe4", &mut at);
            path_len += 2;
        }
    }
    let long = [b'L'; 250];
    while path_len + 1 + long.len() + 2 < 4095 {
        step(&long, &mut at);
        path_len += 1 + long.len();
    }
    let last = vec![b'f'; 4095 - path_len - 1];
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    let fd = rustix::fs::openat(&at, last, flags, Mode::from_raw_mode(0o644)).expect("the longest path");
    std::fs::File::from(fd).write_all(&numbers.bytes(10)).expect("write");
}

fn modes(root: &Path, is_root: bool) {
    let dir = folder(root, "modes");
    for mode in [0o000, 0o400, 0o644, 0o755, 0o777, 0o4755, 0o2755, 0o6711, 0o1644, 0o7777] {
        // A plain user could not read files without their own read permission.
        if !is_root && mode & 0o400 == 0 {
            continue;
        }
        let path = file(dir.join(format!("file-{mode:04o}")), b"mode");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
        if is_root || mode & 0o500 == 0o500 {
            let path = dir.join(format!("dir-{mode:04o}"));
            std::fs::create_dir(&path).expect("a folder");
            file(path.join("content"), b"in it");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
        }
    }
    folder(&dir, "empty-directory");
    file(dir.join("empty-file"), b"");
    rustix::fs::mknodat(CWD, dir.join("pipe"), rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o640), 0)
        .expect("mkfifo");
}

fn links(root: &Path, numbers: &mut Numbers) {
    let dir = folder(root, "links");
    let link = |target: &[u8], name: &str| {
        std::os::unix::fs::symlink(bytes(target), dir.join(name)).expect("symlink");
    };
    link(b"target", "relative");
    link(b"/etc/passwd", "absolute");
    link(b"../../../../../../etc/shadow", "climbing");
    link(b"nothing", "dangling");
    link(b"itself", "itself");
    link(b"latin1-\xe4", "not-utf8");
    link(b".", "to-dot");
    link(&[b't'; 100], "of-100");
    link(&[b't'; 101], "of-101");
    link(&[b"x/".repeat(2047), b"y".to_vec()].concat(), "of-4095");
    let target = file(dir.join("target"), &numbers.bytes(5000));
    for name in ["target-2", "z-last"] {
        std::fs::hard_link(&target, dir.join(name)).expect("link");
    }
    // The link target is the first path of the walk: here it is in an earlier directory.
    let early = folder(&dir, "a-folder");
    std::fs::hard_link(&target, early.join("first")).expect("link");
    std::fs::hard_link(dir.join("relative"), dir.join("relative-too")).expect("link to a link");
    let empty = file(dir.join("empty"), b"");
    std::fs::hard_link(empty, dir.join("empty-too")).expect("link");
}

fn sparse(root: &Path, numbers: &mut Numbers) {
    let dir = folder(root, "sparse");
    let new = |name: &str| std::fs::File::create(dir.join(name)).expect("a file");
    new("only-hole").set_len(1 << 20).expect("length");
    new("huge-hole").set_len(9 << 30).expect("length");
    let mut end = new("hole-then-data");
    end.seek(SeekFrom::Start(10 << 20)).expect("seek");
    end.write_all(&numbers.bytes(4096)).expect("write");
    let start = new("data-then-hole");
    start.write_all_at(&numbers.bytes(5000), 0).expect("write");
    start.set_len(3 << 20).expect("length");
    let many = new("many-holes");
    for number in 0..200u64 {
        many.write_all_at(&numbers.bytes(4096), number * 16384).expect("write");
    }
    many.set_len(200 * 16384 + 7).expect("length");
    let large = new("large-with-holes");
    for number in 0..5u64 {
        large.write_all_at(&numbers.bytes(300_000), number << 20).expect("write");
    }
    file(dir.join("large"), &numbers.bytes(3_000_001));
    file(dir.join("zeros"), &vec![0u8; 100_000]);
    // Forces write-back: before it a new file may show no blocks.
    for entry in std::fs::read_dir(&dir).expect("a folder") {
        std::fs::File::open(entry.expect("an entry").path()).expect("open").sync_all().expect("fsync");
    }
}

/// Returns a raw ACL: version 2, then (tag, permissions, id).
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut raw = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        raw.extend_from_slice(&tag.to_le_bytes());
        raw.extend_from_slice(&permissions.to_le_bytes());
        raw.extend_from_slice(&id.to_le_bytes());
    }
    raw
}

/// `u::rwx, u:1234:r, g::-, m::rw, o::-`.
pub fn acl_for_a_named_user() -> Vec<u8> {
    let none = u32::MAX;
    acl(&[(0x01, 6, none), (0x02, 4, 1234), (0x04, 0, none), (0x10, 6, none), (0x20, 0, none)])
}

fn xattrs(root: &Path, is_root: bool) {
    let dir = folder(root, "xattrs");
    let set = |path: &Path, name: &[u8], value: &[u8]| {
        rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    };
    let one = file(dir.join("user"), b"x");
    set(&one, b"user.plain", b"value");
    set(&one, b"user.empty", b"");
    set(&one, b"user.binary", b"\0\n=\xff 12 k=v\n");
    set(&one, b"user.odd=name%25%3D", b"escaped");
    set(&one, b"user.latin-\xe4", b"name is not utf-8");
    let large = file(dir.join("large-value"), b"x");
    // ext4 without large inodes has one block for all of them.
    set(&large, b"user.large", &[7u8; 3000]);
    let inside = folder(&dir, "folder");
    set(&inside, b"user.on-folder", b"yes");
    let shared = file(dir.join("acl"), b"x");
    set(&shared, b"system.posix_acl_access", &acl_for_a_named_user());
    let inherits = folder(&dir, "acl-folder");
    file(inherits.join("made-before"), b"without an ACL");
    set(&inherits, b"system.posix_acl_default", &acl_for_a_named_user());
    file(inherits.join("made-after"), b"with an ACL");
    if is_root {
        let able = file(dir.join("capable"), b"x");
        // Revision 2, effective; permitted CAP_NET_BIND_SERVICE.
        let value = [0x0200_0001u32, 1 << 10, 0, 0, 0].map(u32::to_le_bytes).concat();
        set(&able, b"security.capability", &value);
        let owned = file(dir.join("capable-of-another"), b"x");
        std::os::unix::fs::chown(&owned, Some(1234), Some(5678)).expect("chown");
        set(&owned, b"security.capability", &value);
    }
}

/// Sets the time of a path, or of the link itself if it is one.
pub fn set_mtime(path: &Path, seconds: i64, nanos: i64) {
    let omit = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    let times =
        Timestamps { last_access: omit, last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos } };
    rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).expect("utimensat");
}

fn times(root: &Path) {
    let dir = folder(root, "times");
    for (name, seconds, nanos) in [
        ("epoch", 0, 0),
        ("one-nano", 0, 1),
        ("before-1970", -1, 0),
        ("half-before-1970", -1, 500_000_000),
        ("1902", -2_145_000_000, 123_456_789),
        ("whole-second", 1_700_000_000, 0),
        ("all-nanos", 1_700_000_000, 999_999_999),
        ("after-2038", 4_000_000_000, 120),
        ("after-2242", 9_000_000_000, 5),
    ] {
        set_mtime(&file(dir.join(name), name.as_bytes()), seconds, nanos);
    }
    std::os::unix::fs::symlink("epoch", dir.join("link")).expect("symlink");
    set_mtime(&dir.join("link"), 1_000_000_000, 42);
}

fn owners(root: &Path) {
    let dir = folder(root, "owners");
    for (name, uid, gid) in [
        ("user", 1000, 1000),
        ("nobody", 65534, 65534),
        ("last-octal", 0o7_777_777, 0o7_777_777),
        ("first-pax", 0o10_000_000, 0o10_000_001),
        ("largest", u32::MAX - 1, u32::MAX - 1),
    ] {
        let path = file(dir.join(name), b"owned");
        std::os::unix::fs::chown(&path, Some(uid), Some(gid)).expect("chown");
        let setuid = file(dir.join(format!("{name}-setuid")), b"owned");
        std::os::unix::fs::chown(&setuid, Some(uid), Some(gid)).expect("chown");
        std::fs::set_permissions(&setuid, std::fs::Permissions::from_mode(0o6755)).expect("chmod");
        let folder = folder(&dir, &format!("{name}-folder"));
        std::os::unix::fs::chown(&folder, Some(uid), Some(gid)).expect("chown");
        let link = dir.join(format!("{name}-link"));
        std::os::unix::fs::symlink(name, &link).expect("symlink");
        std::os::unix::fs::lchown(&link, Some(uid), Some(gid)).expect("lchown");
    }
}

fn devices(root: &Path) {
    let dir = folder(root, "devices");
    for (name, kind, major, minor) in [
        ("null", rustix::fs::FileType::CharacterDevice, 1, 3),
        ("block", rustix::fs::FileType::BlockDevice, 259, 1_048_575),
        ("whiteout", rustix::fs::FileType::CharacterDevice, 0, 0),
    ] {
        let number = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(CWD, dir.join(name), kind, Mode::from_raw_mode(0o660), number).expect("mknod");
    }
}

/// Creates many files in many folders, of sizes from 0 to a few hundred KiB.
fn many(root: &Path, shape: Shape, numbers: &mut Numbers) {
    let top = folder(root, "many");
    let (mut made, mut dir) = (0, top.clone());
    let mut pattern = numbers.bytes(300_000);
    while made + 150 < shape.entries {
        if made % 500 == 0 {
            let depth = 1 + numbers.below(3);
            dir = top.clone();
            for _ in 0..depth {
                dir = dir.join(format!("d{:x}", numbers.below(12)));
            }
            std::fs::create_dir_all(&dir).expect("folders");
        }
        let size = match numbers.below(200) {
            0 => 300_000,
            1..20 => 20_000,
            20..40 => 0,
            _ => numbers.below(3000) as usize,
        };
        pattern[0] = pattern[0].wrapping_add(1);
        let path = file(dir.join(format!("f{made:x}-{:x}", numbers.below(1 << 20))), &pattern[..size]);
        set_mtime(&path, 1_600_000_000 + made as i64, numbers.below(1_000_000_000) as i64);
        if shape.root && numbers.below(10) == 0 {
            std::os::unix::fs::chown(&path, Some(1000 + made as u32 % 7), Some(100)).expect("chown");
        }
        made += 1;
    }
}

/// Sets an old time for every directory, different for each, deepest first.
fn directory_times(root: &Path) {
    let mut found = vec![root.to_owned()];
    let mut at = 0;
    while at < found.len() {
        for entry in std::fs::read_dir(&found[at]).expect("a folder") {
            let entry = entry.expect("an entry");
            let is_directory = entry.file_type().expect("a type").is_dir();
            // Directories deeper than the C library can open keep their times.
            if is_directory && entry.path().as_os_str().len() < 3500 {
                found.push(entry.path());
            }
        }
        at += 1;
    }
    for (number, path) in found.iter().enumerate().rev() {
        set_mtime(path, 1_500_000_000 + number as i64, 17);
    }
}
