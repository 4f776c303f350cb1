//! What a walk could not take, or left out: named as far as names are few, counted beyond.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::format::body::Gap;
use crate::format::name::Name;
use crate::source::volume::{GapKind, LeftOut, Skip};

/// So many are named one by one; the rest is counted by code.
const NAMED: usize = 1000;
/// So many carriers are remembered; with more, each may have links.
const LINKED: usize = 100_000;

/// Collected from the walk and from jobs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Findings(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    gaps: Kinds,
    notes: Kinds,
    lost_carriers: HashSet<Vec<u8>>,
    /// Those that were deleted: only at the end it shows whether that is a loss.
    deleted: Vec<Vec<u8>>,
    /// Carriers that stored links name, by a hash.
    linked: HashSet<u64>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Kinds {
    named: Vec<Gap>,
    more: BTreeMap<&'static str, u64>,
    tally: Tally,
}

/// How often each code came up.
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is missing from the snapshot.
    pub fn gap(&self, path: &[u8], kind: &GapKind) {
        let reason = match std::error::Error::source(kind) {
            Some(cause) => format!("{kind}: {cause}"),
            None => kind.to_string(),
        };
        self.lock().gaps.add(gap_code(kind), path, reason);
    }

    /// A file could not be stored; further members may link to its content, if it `carries`.
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

    /// A link to `carrier` is stored.
    pub fn link(&self, carrier: &[u8]) {
        let mut inner = self.lock();
        if inner.linked.len() < LINKED {
            let hash = inner.hasher.hash_one(carrier);
            inner.linked.insert(hash);
        }
    }

    /// Whether a stored link may name it.
    fn is_linked(&self, carrier: &[u8]) -> bool {
        let inner = self.lock();
        inner.linked.len() == LINKED || inner.linked.contains(&inner.hasher.hash_one(carrier))
    }

    /// Whether that file could not be stored.
    #[must_use]
    pub fn lost_carrier(&self, path: &[u8]) -> bool {
        self.lock().lost_carriers.contains(path)
    }

    /// Something is left out by rule.
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

    /// A file was deleted between walk and read: no loss.
    fn vanished(&self, path: &[u8]) {
        self.lock().notes.add("vanished", path, "deleted while the backup ran".into());
    }

    /// Something is left out and only counted.
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

    /// Gaps, notes, and how often each note's code came up.
    #[must_use]
    pub fn finish(&self) -> (Vec<Gap>, Vec<Gap>, Tally) {
        let deleted = std::mem::take(&mut self.lock().deleted);
        for path in deleted {
            // Links that came later carry the content themselves.
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
    fn a_deleted_file_is_a_loss_only_where_a_link_to_it_is_stored() {
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
