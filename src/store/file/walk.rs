//! Lists files in the order of their keys, in the memory of one page.
//!
//! Keys are compared as in S3, byte by byte over the whole key. So a folder `a` sorts as `a/`: after `a-b`
//! and `a.b`, before `a0`. Names of folders are compared with that slash.

use std::collections::BinaryHeap;
use std::os::fd::{AsFd, BorrowedFd};

use jiff::Timestamp;
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::root::{self, Root, TEMPORARY};
use crate::format::layout::{self, MAX_KEY, ObjectKey};

/// The minimum number of names that one scan of a folder keeps.
const SCAN: usize = 256;

/// An entry under the prefix.
pub(super) enum WalkEntry {
    Object {
        key: ObjectKey,
        size: u64,
        /// `true` if it is a regular file, `false` if another type of file is in the place of an object.
        is_file: bool,
        modified: Timestamp,
    },
    /// A name that no repository has, or a link or special file in a place without objects. A folder
    /// ends with a slash and was not entered.
    Unknown(Vec<u8>),
}

/// One page, and the key after which the next one starts.
pub(super) struct WalkPage {
    pub(super) found: Vec<WalkEntry>,
    pub(super) next: Option<Vec<u8>>,
}

/// Decodes a page token: the bytes of a key in hex.
pub(super) fn read_token(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}

/// Returns at most `most` keys under `prefix` that come after `after`.
pub(super) fn page(root: &Root, prefix: &str, after: Option<&[u8]>, most: usize) -> Result<WalkPage, Errno> {
    let (path, start) = prefix.rsplit_once('/').map_or(("", prefix), |(path, start)| (path, start));
    let folder = match root.open_folder(path) {
        // A file has no keys under it; a link is an error.
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(WalkPage { found: Vec::new(), next: None }),
        other => other?,
    };
    let path = prefix.as_bytes()[..prefix.len() - start.len()].to_vec();
    let mut walk =
        Walk { after: after.unwrap_or_default(), most, found: Vec::new(), last: Vec::new(), full: false };
    walk.visit_folder(folder.as_fd(), &path, start.as_bytes())?;
    Ok(WalkPage { next: walk.full.then_some(walk.last), found: walk.found })
}

struct Walk<'a> {
    after: &'a [u8],
    most: usize,
    found: Vec<WalkEntry>,
    /// The key of the last entry found.
    last: Vec<u8>,
    /// `true` if there are more than `most` entries.
    full: bool,
}

impl Walk<'_> {
    /// Adds the entries of one folder whose names start with `start`. `path` is empty or ends with
    /// a slash. Scans the folder repeatedly and keeps the names of one scan at a time.
    fn visit_folder(&mut self, folder: BorrowedFd<'_>, path: &[u8], start: &[u8]) -> Result<(), Errno> {
        let mut floor = Vec::new();
        loop {
            let room = (self.most + 1).saturating_sub(self.found.len()).max(SCAN);
            let (names, more) = self.scan(folder, path, start, &floor, room)?;
            for name in names {
                self.visit(folder, path, &name)?;
                if self.full {
                    return Ok(());
                }
                floor = name;
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// Returns the first `room` names of a folder after `floor`, and `true` if there are more.
    fn scan(
        &self,
        folder: BorrowedFd<'_>,
        path: &[u8],
        start: &[u8],
        floor: &[u8],
        room: usize,
    ) -> Result<(Vec<Vec<u8>>, bool), Errno> {
        let mut smallest = BinaryHeap::new();
        let mut more = false;
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            let mut name = entry.file_name().to_bytes().to_vec();
            if name == b"." || name == b".." || name.starts_with(TEMPORARY.as_bytes()) {
                continue;
            }
            let is_folder = match entry.file_type() {
                FileType::Unknown => match fs::statat(folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
                    Err(Errno::NOENT) => continue,
                    Err(other) => return Err(other),
                },
                known => known == FileType::Directory,
            };
            // A folder with the name of an object is listed like that object and not entered.
            if is_folder && !is_object_name(&name) {
                name.push(b'/');
            }
            if name.as_slice() <= floor || !name.starts_with(start) || !self.is_ahead(path, &name) {
                continue;
            }
            smallest.push(name);
            if smallest.len() > room {
                smallest.pop();
                more = true;
            }
        }
        Ok((smallest.into_sorted_vec(), more))
    }

    /// Returns `true` if a name, or an entry in the folder of that name, comes after the token.
    fn is_ahead(&self, path: &[u8], name: &[u8]) -> bool {
        let key = [path, name].concat();
        key.as_slice() > self.after || (name.ends_with(b"/") && self.after.starts_with(&key))
    }

    fn visit(&mut self, folder: BorrowedFd<'_>, path: &[u8], name: &[u8]) -> Result<(), Errno> {
        let key = [path, name].concat();
        if let Some(inner) = name.strip_suffix(b"/") {
            return self.enter(folder, inner, key);
        }
        let Some(parsed) = parse(&key) else {
            self.take(key.clone(), WalkEntry::Unknown(key));
            return Ok(());
        };
        let found = match fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                let is_file = root::is_file(&stat);
                if is_file || is_object_name(name) {
                    let size = if is_file { root::size_of(&stat) } else { 0 };
                    WalkEntry::Object { key: parsed, size, is_file, modified: root::modified(&stat) }
                } else {
                    WalkEntry::Unknown(key.clone())
                }
            }
            Err(Errno::NOENT) => return Ok(()),
            Err(other) => return Err(other),
        };
        self.take(key, found);
        Ok(())
    }

    /// Enters a folder, unless its name cannot be part of a key.
    fn enter(&mut self, folder: BorrowedFd<'_>, name: &[u8], path: Vec<u8>) -> Result<(), Errno> {
        let may_hold_keys = parse(path.strip_suffix(b"/").unwrap_or(&path)).is_some() && path.len() < MAX_KEY;
        if may_hold_keys {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match fs::openat(folder, name, flags, Mode::empty()) {
                Ok(inner) => return self.visit_folder(inner.as_fd(), &path, b""),
                Err(Errno::NOENT) => return Ok(()),
                // It is no longer a folder since the scan.
                Err(Errno::LOOP | Errno::NOTDIR) => {}
                Err(other) => return Err(other),
            }
        }
        if path.as_slice() > self.after {
            self.take(path.clone(), WalkEntry::Unknown(path));
        }
        Ok(())
    }

    fn take(&mut self, key: Vec<u8>, found: WalkEntry) {
        if self.found.len() == self.most {
            self.full = true;
        } else {
            self.found.push(found);
            self.last = key;
        }
    }
}

fn is_object_name(name: &[u8]) -> bool {
    std::str::from_utf8(name).is_ok_and(layout::is_object_name)
}

fn parse(key: &[u8]) -> Option<ObjectKey> {
    std::str::from_utf8(key).ok().and_then(ObjectKey::parse)
}
