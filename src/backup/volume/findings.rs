//! The gaps and left-out entries of a walk: the first are named, the others counted by code.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::io::Errno;

use crate::format::body::Gap;
use crate::format::name::Name;
use crate::runtime::lock;
use crate::source::volume::{GapKind, LeftOut, Skip};

/// Most gaps, and most notes, that are named; the others are counted by code.
const NAMED: usize = 1000;
/// Most carriers of stored links that are remembered; with more, any carrier may have links.
const LINKED: usize = 100_000;

/// Gaps and notes, collected from the walk and from jobs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Findings(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    gaps: Kinds,
    notes: Kinds,
    lost_carriers: HashSet<Vec<u8>>,
    /// Deleted carriers. Only at the end is it known whether a stored link needs them.
    deleted: Vec<Vec<u8>>,
    /// Hashes of the carriers that stored links name.
    linked: HashSet<u64>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Kinds {
    named: Vec<Gap>,
    more: BTreeMap<&'static str, u64>,
    tally: Tally,
}

/// Number of findings by code.
pub type Tally = BTreeMap<&'static str, u64>;

impl Kinds {
    fn add(&mut self, code: &'static str, path: &[u8], reason: String) {
        self.add_counted(code, 1, path, reason);
    }

    fn add_counted(&mut self, code: &'static str, count: u64, path: &[u8], reason: String) {
        *self.tally.entry(code).or_default() += count;
        if self.named.len() < NAMED {
            self.named.push(Gap { code: code.into(), object: Name::from(path), reason });
        } else {
            *self.more.entry(code).or_default() += count;
        }
    }

    fn finish(self) -> Vec<Gap> {
        let more = self.more.into_iter().map(|(code, count)| Gap {
            code: code.into(),
            object: Name::from(""),
            reason: format!("{count} more"),
        });
        self.named.into_iter().chain(more).collect()
    }
}

impl Findings {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.0)
    }

    /// Records that something is missing from the snapshot.
    pub fn gap(&self, path: &[u8], kind: &GapKind) {
        let reason = match std::error::Error::source(kind) {
            Some(cause) => format!("{kind}: {cause}"),
            None => kind.to_string(),
        };
        self.lock().gaps.add(gap_code(kind), path, reason);
    }

    /// Records that a file could not be stored. If it `carries`, further members may link to its content.
    pub fn lose(&self, path: &[u8], gap: &GapKind, carries: bool) {
        let deleted = matches!(gap, GapKind::Open(Errno::NOENT));
        if carries {
            let mut inner = self.lock();
            inner.lost_carriers.insert(path.to_vec());
            if deleted {
                inner.deleted.push(path.to_vec());
                return;
            }
        }
        if deleted {
            self.vanished(path);
        } else {
            self.gap(path, gap);
        }
    }

    /// Records that a link to `carrier` is stored.
    pub fn link(&self, carrier: &[u8]) {
        let mut inner = self.lock();
        if inner.linked.len() < LINKED {
            let hash = inner.hasher.hash_one(carrier);
            inner.linked.insert(hash);
        }
    }

    /// True if a stored link may name `carrier`.
    fn is_linked(&self, carrier: &[u8]) -> bool {
        let inner = self.lock();
        inner.linked.len() == LINKED || inner.linked.contains(&inner.hasher.hash_one(carrier))
    }

    /// True if the file at `path`, to which members may link, could not be stored.
    #[must_use]
    pub fn lost_carrier(&self, path: &[u8]) -> bool {
        self.lock().lost_carriers.contains(path)
    }

    /// Records that an entry is left out by rule.
    pub fn skip(&self, path: &[u8], why: Skip) {
        let code = match why {
            Skip::Socket => "socket",
            Skip::MountPoint => "mount-point",
            Skip::OtherFileSystem => "other-file-system",
            Skip::LostAndFound => "lost-and-found",
            Skip::UnknownType => "unknown-type",
        };
        self.lock().notes.add(code, path, why.to_string());
    }

    /// Records that a file was deleted between walk and read, which is no loss.
    fn vanished(&self, path: &[u8]) {
        self.lock().notes.add("vanished", path, "deleted while the backup ran".into());
    }

    /// Records entries that are only counted, with one example.
    pub fn left_out(&self, kind: LeftOut, count: u64, example: &[u8]) {
        let (code, what) = match kind {
            LeftOut::Excluded => ("excluded", "match an exclude pattern"),
            LeftOut::Vanished => ("vanished", "were deleted while the backup ran"),
            LeftOut::TrustedXattr => ("trusted-xattr", "trusted.* attributes are not kept"),
            LeftOut::SelinuxXattr => ("selinux-label", "labels are not kept; a volume is labelled anew"),
            LeftOut::OtherXattr => ("other-xattr", "attributes that cannot be set again"),
            LeftOut::UnreadableXattr => ("unreadable-xattr", "attributes that could not be read"),
            LeftOut::LockedFlag => ("locked-flag", "immutable or append-only flags are not kept"),
        };
        self.lock().notes.add_counted(code, count, example, format!("{count}: {what}"));
    }

    /// Returns the gaps, the notes, and the number of notes by code.
    #[must_use]
    pub fn finish(&self) -> (Vec<Gap>, Vec<Gap>, Tally) {
        let deleted = std::mem::take(&mut self.lock().deleted);
        for path in deleted {
            // Links stored after the loss carry the content themselves.
            if self.is_linked(&path) {
                self.gap(&path, &GapKind::CarrierGone);
            } else {
                self.vanished(&path);
            }
        }
        let mut inner = self.lock();
        let (gaps, notes) = (std::mem::take(&mut inner.gaps), std::mem::take(&mut inner.notes));
        let tally = notes.tally.clone();
        (gaps.finish(), notes.finish(), tally)
    }
}

fn gap_code(kind: &GapKind) -> &'static str {
    match kind {
        GapKind::OpenDirectory(_) | GapKind::ReadDirectory(_) | GapKind::TooManyNames => "unreadable-folder",
        GapKind::Stat(_) | GapKind::Holes(_) | GapKind::Open(_) | GapKind::Read(_) => "unreadable-file",
        GapKind::PathTooLong => "path-too-long",
        GapKind::Replaced | GapKind::CarrierGone | GapKind::Changed => "changed-while-read",
        GapKind::Encode(_) => "unstorable-attributes",
        _ => "walk-stopped",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deleted_file_is_a_gap_only_if_a_stored_link_names_it() {
        let findings = Findings::default();
        let gone = GapKind::Open(Errno::NOENT);
        findings.link(b"linked");
        for (path, carries) in [("alone", false), ("free", true), ("linked", true)] {
            findings.lose(path.as_bytes(), &gone, carries);
            assert_eq!(findings.lost_carrier(path.as_bytes()), carries);
        }
        let (gaps, notes, _) = findings.finish();
        let names = |found: Vec<Gap>| found.into_iter().map(|gap| gap.object).collect::<Vec<_>>();
        assert_eq!(names(gaps), [Name::from("linked")]);
        assert_eq!(names(notes), [Name::from("alone"), Name::from("free")]);
    }
}
