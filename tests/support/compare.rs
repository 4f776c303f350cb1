//! Walks and compares two trees with code independent of the product: `std` for the walk, system
//! calls for what `std` lacks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom, Stat};

/// The attribute that differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attribute {
    Missing,
    Extra,
    Type,
    Mode,
    Owner,
    Group,
    Size,
    Time,
    Target,
    Device,
    Content,
    Holes,
    Xattrs,
    HardLinks,
}

/// A difference: attribute and path.
pub type Difference = (Attribute, String);

/// Everything about a tree that is compared.
pub struct Tree {
    entries: BTreeMap<Vec<u8>, Entry>,
}

struct Entry {
    stat: Stat,
    target: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    content: [u8; 32],
    extents: Vec<(u64, u64)>,
}

/// Returns all differences. Sockets and `lost+found` are left out of both.
pub fn differences(a: &std::path::Path, b: &std::path::Path) -> Vec<Difference> {
    differences_between(&read(a), &read(b))
}

/// Returns all differences between two reads.
pub fn differences_between(a: &Tree, b: &Tree) -> Vec<Difference> {
    let mut found = Vec::new();
    let show = |path: &[u8]| {
        let text = path.escape_ascii().to_string();
        if text.len() > 200 { format!("{}… ({} bytes)", &text[..200], path.len()) } else { text }
    };
    for path in a.entries.keys().filter(|path| !b.entries.contains_key(*path)) {
        found.push((Attribute::Missing, show(path)));
    }
    for path in b.entries.keys().filter(|path| !a.entries.contains_key(*path)) {
        found.push((Attribute::Extra, show(path)));
    }
    for (path, one) in &a.entries {
        if let Some(other) = b.entries.get(path) {
            compare(one, other, |what| found.push((what, show(path))));
        }
    }
    for names in links(a).symmetric_difference(&links(b)) {
        found.push((Attribute::HardLinks, names.iter().map(|name| show(name)).collect::<Vec<_>>().join(" ")));
    }
    found
}

fn compare(a: &Entry, b: &Entry, mut differs: impl FnMut(Attribute)) {
    let kind = |stat: &Stat| stat.st_mode & 0o170_000;
    let mut check = |what, differ: bool| {
        if differ {
            differs(what);
        }
    };
    check(Attribute::Type, kind(&a.stat) != kind(&b.stat));
    let is_link = FileType::from_raw_mode(a.stat.st_mode) == FileType::Symlink;
    check(Attribute::Mode, !is_link && a.stat.st_mode & 0o7777 != b.stat.st_mode & 0o7777);
    check(Attribute::Owner, a.stat.st_uid != b.stat.st_uid);
    check(Attribute::Group, a.stat.st_gid != b.stat.st_gid);
    let time = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec);
    check(Attribute::Time, time(&a.stat) != time(&b.stat));
    check(Attribute::Target, a.target != b.target);
    check(Attribute::Device, a.stat.st_rdev != b.stat.st_rdev);
    check(Attribute::Xattrs, a.xattrs != b.xattrs);
    if FileType::from_raw_mode(a.stat.st_mode) == FileType::RegularFile {
        check(Attribute::Size, a.stat.st_size != b.stat.st_size);
        check(Attribute::Content, a.content != b.content);
        check(Attribute::Holes, a.extents != b.extents);
    }
}

/// Returns the sets of paths that are one file.
fn links(tree: &Tree) -> BTreeSet<Vec<Vec<u8>>> {
    let mut by_inode: HashMap<u64, Vec<Vec<u8>>> = HashMap::new();
    for (path, entry) in &tree.entries {
        if FileType::from_raw_mode(entry.stat.st_mode) != FileType::Directory {
            by_inode.entry(entry.stat.st_ino).or_default().push(path.clone());
        }
    }
    by_inode.into_values().filter(|names| names.len() > 1).collect()
}

/// Reads a whole tree.
pub fn read(root: &std::path::Path) -> Tree {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(root, flags, Mode::empty()).expect("a folder");
    let mut tree = Tree { entries: BTreeMap::new() };
    let stat = rustix::fs::fstat(&fd).expect("stat");
    let xattrs = xattrs(b"/proc/self/fd/", &fd, b".");
    let entry = Entry { stat, target: Vec::new(), xattrs, content: [0; 32], extents: Vec::new() };
    tree.entries.insert(Vec::new(), entry);
    descend(&fd, &[], &mut tree);
    tree
}

/// Reads one directory at a time by descriptors, since paths here exceed the limit of one call.
fn descend(directory: &OwnedFd, path: &[u8], tree: &mut Tree) {
    for found in rustix::fs::Dir::read_from(directory).expect("a listing") {
        let found = found.expect("a name");
        let name = found.file_name().to_bytes().to_vec();
        let top = path.is_empty();
        if name == b"." || name == b".." || (top && name == b"lost+found") {
            continue;
        }
        let stat = rustix::fs::statat(directory, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW).expect("stat");
        let below = if top { name.clone() } else { [path, b"/", &name].concat() };
        let open =
            |flags| rustix::fs::openat(directory, name.as_slice(), flags | OFlags::NOFOLLOW, Mode::empty());
        let mut entry = Entry {
            stat,
            target: Vec::new(),
            xattrs: xattrs(b"/proc/self/fd/", directory, &name),
            content: [0; 32],
            extents: Vec::new(),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Socket => continue,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(directory, name.as_slice(), Vec::new());
                entry.target = target.expect("a target").into_bytes();
            }
            FileType::RegularFile => {
                if let Ok(fd) = open(OFlags::RDONLY) {
                    (entry.content, entry.extents) = content(fd, stat.st_size as u64);
                }
            }
            FileType::Directory => {
                if let Ok(fd) = open(OFlags::RDONLY | OFlags::DIRECTORY) {
                    descend(&fd, &below, tree);
                }
            }
            _ => {}
        }
        tree.entries.insert(below, entry);
    }
}

/// Returns the hash of the data and its places, and these places.
fn content(fd: OwnedFd, size: u64) -> ([u8; 32], Vec<(u64, u64)>) {
    let mut extents = Vec::new();
    let mut at = 0;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0u8; 1 << 20];
    while at < size {
        let Ok(start) = rustix::fs::seek(&fd, SeekFrom::Data(at)) else { break };
        let end = rustix::fs::seek(&fd, SeekFrom::Hole(start)).expect("a hole").min(size);
        extents.push((start, end));
        hasher.update(&start.to_le_bytes());
        let mut from = start;
        while from < end {
            let want = buffer.len().min((end - from) as usize);
            let got = rustix::io::pread(&fd, &mut buffer[..want], from).expect("read");
            assert!(got > 0, "shorter than it says");
            hasher.update(&buffer[..got]);
            from += got as u64;
        }
        at = end;
    }
    (*hasher.finalize().as_bytes(), extents)
}

fn xattrs(proc: &[u8], directory: impl AsFd, name: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    use std::os::fd::AsRawFd;
    let number = directory.as_fd().as_raw_fd().to_string();
    let path = [proc, number.as_bytes(), b"/", name].concat();
    let mut names = vec![0u8; 65_536];
    let len = rustix::fs::llistxattr(path.as_slice(), &mut names[..]).unwrap_or(0);
    let mut found = BTreeMap::new();
    for name in names[..len].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0u8; 65_536];
        if let Ok(len) = rustix::fs::lgetxattr(path.as_slice(), name, &mut value[..]) {
            value.truncate(len);
            found.insert(name.to_vec(), value);
        }
    }
    found
}
