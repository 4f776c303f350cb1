//! What a walk could not take, or left out: named as far as names are few, counted beyond.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::format::body::Gap;
use crate::format::name::Name;
use crate::source::volume::{GapKind, LeftOut, Skip};

/// So many are named one by one; the rest is counted by code.
const NAMED: usize = 1000;

/// Collected from the walk and from jobs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Findings(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    gaps: Kinds,
    notes: Kinds,
    lost_carriers: HashSet<Vec<u8>>,
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

    /// A file whose content further members link to could not be stored.
    pub fn lose_carrier(&self, path: Vec<u8>) {
        self.lock().lost_carriers.insert(path);
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
    pub fn vanished(&self, path: &[u8]) {
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
