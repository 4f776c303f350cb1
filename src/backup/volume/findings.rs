//! The gaps and left-out entries of a walk: the first are named, the others counted by code.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::io::Errno;

use crate::format::body::Gap;
use crate::format::name::Name;
use crate::runtime::lock;
use crate::source::volume::{GapKind, LeftOut, SkipReason};

/// Most gaps, and most notes, that are named; the others are counted by code.
const NAMED: usize = 1000;
/// Most targets of stored links that are remembered; with more, any file may have links.
const LINKED: usize = 100_000;

/// Gaps and notes, collected from the walk and from jobs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct VolumeFindings(Arc<Mutex<Collected>>);

#[derive(Debug, Default)]
struct Collected {
    gaps: FindingList,
    notes: FindingList,
    unstored_link_targets: HashSet<Vec<u8>>,
    /// Deleted link targets. Only at the end is it known whether a stored link needs them.
    deleted: Vec<Vec<u8>>,
    /// Hashes of the targets that stored links name.
    linked: HashSet<u64>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct FindingList {
    named: Vec<Gap>,
    more: BTreeMap<&'static str, u64>,
    counts: CountByCode,
}

/// Number of findings by code.
pub type CountByCode = BTreeMap<&'static str, u64>;

impl FindingList {
    fn add(&mut self, code: &'static str, path: &[u8], reason: String) {
        self.add_counted(code, 1, path, reason);
    }

    fn add_counted(&mut self, code: &'static str, count: u64, path: &[u8], reason: String) {
        *self.counts.entry(code).or_default() += count;
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

impl VolumeFindings {
    fn lock(&self) -> MutexGuard<'_, Collected> {
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

    /// Records that a file could not be stored. If it `has_links`, further members may link to its content.
    pub fn record_unstored(&self, path: &[u8], gap: &GapKind, has_links: bool) {
        let deleted = matches!(gap, GapKind::Open(Errno::NOENT));
        if has_links {
            let mut inner = self.lock();
            inner.unstored_link_targets.insert(path.to_vec());
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

    /// Records that a link to `link_target` is stored.
    pub fn record_link(&self, link_target: &[u8]) {
        let mut inner = self.lock();
        if inner.linked.len() < LINKED {
            let hash = inner.hasher.hash_one(link_target);
            inner.linked.insert(hash);
        }
    }

    /// True if a stored link may name `link_target`.
    fn is_linked(&self, link_target: &[u8]) -> bool {
        let inner = self.lock();
        inner.linked.len() == LINKED || inner.linked.contains(&inner.hasher.hash_one(link_target))
    }

    /// True if the file at `path`, to which members may link, could not be stored.
    #[must_use]
    pub fn is_unstored_link_target(&self, path: &[u8]) -> bool {
        self.lock().unstored_link_targets.contains(path)
    }

    /// Records that an entry is left out by rule.
    pub fn skip(&self, path: &[u8], why: SkipReason) {
        let code = match why {
            SkipReason::Socket => "socket",
            SkipReason::MountPoint => "mount-point",
            SkipReason::OtherFileSystem => "other-file-system",
            SkipReason::LostAndFound => "lost-and-found",
            SkipReason::UnknownType => "unknown-type",
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
            LeftOut::SelinuxXattr => {
                ("selinux-label", "SELinux labels are not kept: a volume is relabelled when it is mounted")
            }
            LeftOut::OtherXattr => ("other-xattr", "attributes that cannot be set again"),
            LeftOut::UnreadableXattr => ("unreadable-xattr", "attributes that could not be read"),
            LeftOut::LockedFlag => ("locked-flag", "immutable or append-only flags are not kept"),
        };
        self.lock().notes.add_counted(code, count, example, format!("{count}: {what}"));
    }

    /// Returns the gaps, the notes, and the number of notes by code.
    #[must_use]
    pub fn finish(&self) -> (Vec<Gap>, Vec<Gap>, CountByCode) {
        let deleted = std::mem::take(&mut self.lock().deleted);
        for path in deleted {
            // Links stored after the loss hold the content themselves.
            if self.is_linked(&path) {
                self.gap(&path, &GapKind::LinkTargetGone);
            } else {
                self.vanished(&path);
            }
        }
        let mut inner = self.lock();
        let (gaps, notes) = (std::mem::take(&mut inner.gaps), std::mem::take(&mut inner.notes));
        let counts = notes.counts.clone();
        (gaps.finish(), notes.finish(), counts)
    }
}

fn gap_code(kind: &GapKind) -> &'static str {
    match kind {
        GapKind::OpenDirectory(_) | GapKind::ReadDirectory(_) | GapKind::TooManyNames => "unreadable-folder",
        GapKind::Stat(_)
        | GapKind::Holes(_)
        | GapKind::Open(_)
        | GapKind::Read(_)
        | GapKind::NoEnd
        | GapKind::WrongSize => "unreadable-file",
        GapKind::PathTooLong => "path-too-long",
        GapKind::Replaced | GapKind::LinkTargetGone | GapKind::Changed => "changed-while-read",
        GapKind::Encode(_) => "unstorable-attributes",
        _ => "walk-stopped",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deleted_file_is_a_gap_only_if_a_stored_link_names_it() {
        let findings = VolumeFindings::default();
        let gone = GapKind::Open(Errno::NOENT);
        findings.record_link(b"linked");
        for (path, has_links) in [("alone", false), ("free", true), ("linked", true)] {
            findings.record_unstored(path.as_bytes(), &gone, has_links);
            assert_eq!(findings.is_unstored_link_target(path.as_bytes()), has_links);
        }
        let (gaps, notes, _) = findings.finish();
        let names = |found: Vec<Gap>| found.into_iter().map(|gap| gap.object).collect::<Vec<_>>();
        assert_eq!(names(gaps), [Name::from("linked")]);
        assert_eq!(names(notes), [Name::from("alone"), Name::from("free")]);
    }
}
