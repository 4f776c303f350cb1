//! All findings of a verification, within a limit: those on objects that nothing needs give way to the others.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::{AffectedSnapshot, Fault, Finding, ObjectKind, PlanRef};
use crate::format::ids::ObjectHash;

/// Most findings that are kept; the others are counted.
pub const MAX_FINDINGS: usize = 10_000;

/// All findings, at most one per object: the first that is found.
#[derive(Debug, Default)]
pub struct Findings {
    found: BTreeMap<String, Finding>,
    /// Objects with a finding that no signed object names. Anyone with write access can make many of
    /// them, so they give way to the others.
    unnamed: Vec<String>,
    /// Those of which nothing is needed. They give way to all others.
    orphans: Vec<String>,
    left_out: LeftOut,
}

/// The number of findings that are not kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// All.
    pub all: u64,
    /// Those on objects that no snapshot names, and that nothing needs.
    pub orphans: u64,
}

impl Findings {
    /// Adds a finding, unless the object has one.
    pub fn add(
        &mut self,
        object: impl Into<String>,
        role: ObjectKind,
        fault: Fault,
        detail: impl Into<String>,
    ) {
        let object = object.into();
        if self.found.contains_key(&object) {
            return;
        }
        if self.found.len() >= MAX_FINDINGS {
            self.left_out.all += 1;
            let other = match self.orphans.pop() {
                Some(orphan) => {
                    self.left_out.orphans += 1;
                    orphan
                }
                None => match self.unnamed.pop() {
                    Some(other) => other,
                    None => return,
                },
            };
            self.found.remove(&other);
        }
        let remedy = role.remedy(fault).to_owned();
        let finding = Finding {
            object: object.clone(),
            role,
            fault,
            detail: detail.into(),
            healed: false,
            distrusted: false,
            obsolete: false,
            snapshots: Vec::new(),
            remedy,
        };
        self.found.insert(object, finding);
    }

    /// Adds a finding on an object that no signed object names, if there is room.
    pub fn add_unnamed(
        &mut self,
        object: impl Into<String>,
        role: ObjectKind,
        fault: Fault,
        detail: impl Into<String>,
    ) {
        let object = object.into();
        if self.found.len() >= MAX_FINDINGS && self.orphans.is_empty() {
            self.left_out.all += u64::from(!self.has(&object));
        } else if !self.has(&object) {
            self.add(object.as_str(), role, fault, detail);
            self.unnamed.push(object);
        }
    }

    /// Adds a finding on an object that no snapshot names and nothing needs, if there is room.
    pub fn add_orphan(
        &mut self,
        object: impl Into<String>,
        role: ObjectKind,
        fault: Fault,
        detail: impl Into<String>,
    ) {
        let object = object.into();
        if self.has(&object) {
            return;
        }
        if self.found.len() >= MAX_FINDINGS {
            self.leave_out(0, 1);
            return;
        }
        self.add(object.as_str(), role, fault, detail);
        if let Some(finding) = self.found.get_mut(&object) {
            finding.obsolete = true;
            match role {
                ObjectKind::Pack => {
                    "nothing: no snapshot needs it. If a run that was killed has stored it, kbak verify \
                     --distrust-key makes the next backup store its data anew"
                }
                _ => "nothing: no snapshot names it",
            }
            .clone_into(&mut finding.remedy);
        }
        self.orphans.push(object);
    }

    /// Counts findings that were not kept: on objects that may be needed, and on orphans.
    pub fn leave_out(&mut self, others: u64, orphans: u64) {
        self.left_out.all += others + orphans;
        self.left_out.orphans += orphans;
    }

    /// True if `object` has a finding.
    #[must_use]
    pub fn has(&self, object: &str) -> bool {
        self.found.contains_key(object)
    }

    /// Records that the fault of `object` affects a snapshot, and an item of it if that is known.
    pub fn mark_affected(
        &mut self,
        object: &str,
        plan: PlanRef,
        sequence: u64,
        hash: ObjectHash,
        item: Option<&str>,
    ) {
        let Some(finding) = self.found.get_mut(object) else { return };
        let at = finding.snapshots.iter().position(|one| (one.plan, one.hash) == (plan, hash));
        let at = at.unwrap_or_else(|| {
            finding.snapshots.push(AffectedSnapshot { plan, sequence, hash, items: BTreeSet::new() });
            finding.snapshots.len() - 1
        });
        finding.snapshots[at].items.extend(item.map(str::to_owned));
    }

    /// Records that restores are whole in spite of the fault of `object`.
    pub fn mark_restorable(&mut self, object: &str) {
        if let Some(finding) = self.found.get_mut(object) {
            finding.healed = true;
            finding.distrusted = false;
            finding.remedy =
                "nothing: restores use the copies; prune removes it when nothing needs it".into();
        }
    }

    /// Records that no run writes into the epoch of the bad pack `object` any more.
    pub fn mark_closed(&mut self, object: &str) {
        if let Some(finding) = self.found.get_mut(object) {
            "bring back its older version, if the bucket keeps versions; restores look for copies, and without one \
             these snapshots have lost its data. Its epoch is closed: the next backup stores nothing in it, and \
             snapshots of later epochs do not need it"
                .clone_into(&mut finding.remedy);
        }
    }

    /// Records that a signed record names the bad pack `object`. `opened` is true if an identity has proved which
    /// of its chunks have no copy; `newest` are the newest snapshots.
    pub fn mark_distrusted(&mut self, object: &str, newest: &BTreeSet<ObjectHash>, opened: bool) {
        let Some(finding) = self.found.get_mut(object).filter(|finding| !finding.healed) else { return };
        if finding.snapshots.iter().any(|snapshot| newest.contains(&snapshot.hash)) {
            "the next backup stores its data anew: a signed record names it already"
                .clone_into(&mut finding.remedy);
            return;
        }
        if opened {
            "bring back its older version, if the bucket keeps versions; otherwise these items are lost in these \
             snapshots, and newer ones do not need it"
                .clone_into(&mut finding.remedy);
            return;
        }
        finding.distrusted = true;
        "the newest snapshot is whole without it; kbak verify --identity OWNER-KEY tells whether copies make the \
         older ones whole"
            .clone_into(&mut finding.remedy);
    }

    /// Records which faulty hints none of the `newest` snapshots names.
    pub fn mark_obsolete(&mut self, newest: &BTreeSet<ObjectHash>) {
        let of_older = |finding: &&mut Finding| {
            let is_newest = |snapshot: &AffectedSnapshot| newest.contains(&snapshot.hash);
            finding.role == ObjectKind::Hint && !finding.snapshots.iter().any(is_newest)
        };
        for finding in self.found.values_mut().filter(of_older) {
            finding.obsolete = true;
            "nothing: the newest snapshot does not name it, and restores do not need it"
                .clone_into(&mut finding.remedy);
        }
    }

    /// Returns the findings by key, and the number of those not kept.
    #[must_use]
    pub fn finish(mut self) -> (Vec<Finding>, LeftOut) {
        for finding in self.found.values_mut() {
            finding.snapshots.sort_unstable();
        }
        (self.found.into_values().collect(), self.left_out)
    }
}
