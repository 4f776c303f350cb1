//! A finding: the fault of an object, the snapshots that it affects, and the remedy.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use crate::format::ids::{NameId, ObjectHash, WriterId};

/// Most findings that are kept; the others are counted.
pub const MAX_FINDINGS: usize = 10_000;

/// The fault of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// A signed object names it, but it does not exist.
    Missing,
    /// Its size differs from the signed one.
    Size,
    /// Its content does not match its name.
    Altered,
    /// No pinned key signed it, or not for this place.
    Signature,
    /// It is signed, but contradicts itself or its format.
    Malformed,
    /// It does not open with the keys of its epoch, or its content is not what the snapshot names.
    Unreadable,
    /// The chain of snapshots contradicts itself.
    Chain,
    /// The store shows an older state than was seen before.
    RolledBack,
    /// It was stored after the end of its epoch.
    Late,
    /// Only a newer kbak can read it.
    Newer,
}

impl Fault {
    /// Returns the fault as a predicate: the object "is missing".
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Size => "of another size",
            Self::Altered => "altered",
            Self::Signature => "not signed by a pinned key",
            Self::Malformed => "malformed",
            Self::Unreadable => "unreadable",
            Self::Chain => "a break in the chain",
            Self::RolledBack => "rolled back",
            Self::Late => "late",
            Self::Newer => "of a newer format",
        }
    }
}

/// The kind of an object, which decides the loss and the remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectKind {
    /// `kbak.json`.
    Marker,
    /// One of the two copies of an epoch.
    Epoch,
    /// A wrap that was added for an owner.
    Wrap,
    /// A manifest.
    Snapshot,
    /// A body, which a manifest names and a restore reads.
    Body,
    /// The list of packs that a snapshot needs.
    #[serde(rename = "needs")]
    PackRefs,
    /// Data or metadata of streams.
    Pack,
    /// An object that only speeds up the next backup: index, scan cache, state, mover record.
    Hint,
    /// A signed record.
    Record,
    /// The plan as a whole.
    Plan,
}

impl ObjectKind {
    fn remedy(self, fault: Fault) -> &'static str {
        if fault == Fault::Newer {
            return "use the kbak that wrote it, or a newer one";
        }
        match self {
            Self::Marker => {
                "put {\"kbak\":1} there again, without a newline: it is the same in every repository"
            }
            Self::Epoch => {
                "copy its twin over it (<plan>/<epoch>/epoch.json and epochs/<plan>-<epoch>-… are identical)"
            }
            Self::Wrap => "an owner adds the key again: kbak keys add",
            Self::Snapshot if fault == Fault::Chain => {
                "find out who removed or added snapshots; kbak snapshots lists those that count"
            }
            Self::Snapshot if fault == Fault::Late => {
                "it counts only for who names it by number or hash: find out who stored it so late"
            }
            Self::Snapshot => {
                "bring back its older version, if the bucket keeps versions; otherwise it is lost"
            }
            Self::Body if fault == Fault::Malformed => {
                "its list or catalog is wrong: restores look for the chunks elsewhere, and lack those that they do not \
                 find. kbak verify --distrust-key makes the next backup read and store their domain anew"
            }
            Self::PackRefs => {
                "bring back its older version, if the bucket keeps versions; restores do not need it, and the next \
                 backup stores the list of its own snapshot anew"
            }
            Self::Body => {
                "bring back its older version, if the bucket keeps versions; the next backup makes a new snapshot"
            }
            Self::Pack => {
                "bring back its older version, if the bucket keeps versions; otherwise kbak verify \
                 --distrust-key makes the next backup store its data anew"
            }
            Self::Hint if fault == Fault::Malformed => {
                "later backups may rely on it: kbak verify --distrust-key makes the next one read and store its \
                 domain anew"
            }
            Self::Hint => "nothing is lost: the next backup reads more and writes a new one",
            Self::Record if fault == Fault::Missing => {
                "the key that it revoked counts again unless the pinned signers say otherwise: an owner runs kbak \
                 keys cut-off once more; find out who removed it"
            }
            Self::Record => "it counts for nothing; find out who put it there",
            Self::Plan => {
                "somebody removed or replaced snapshots: look into the store's log and its versions"
            }
        }
    }
}

/// A plan of a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct PlanRef {
    /// The writer.
    pub writer: WriterId,
    /// The plan's id.
    pub plan: NameId,
}

/// A snapshot that a finding affects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct AffectedSnapshot {
    /// The snapshot's plan.
    #[serde(flatten)]
    pub plan: PlanRef,
    /// The snapshot's sequence number.
    pub sequence: u64,
    /// SHA-256 of its manifest.
    pub hash: ObjectHash,
    /// The items in it that cannot be restored whole, if an identity opened it.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub items: BTreeSet<String>,
}

/// The fault of one object, with its effects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The object's key in the store.
    pub object: String,
    /// The kind of object.
    pub role: ObjectKind,
    /// The fault.
    pub fault: Fault,
    /// Details, in one line.
    pub detail: String,
    /// True if every chunk of it that snapshots need has a copy elsewhere, so that a restore is whole.
    pub healed: bool,
    /// True if a signed record names the bad pack and the newest snapshot does not need it. Only an identity can
    /// tell if copies of its chunks make the older snapshots whole.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub distrusted: bool,
    /// True if it is a hint that no newest snapshot names: no restore and no later backup needs it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub obsolete: bool,
    /// The snapshots that it affects, oldest first.
    pub snapshots: Vec<AffectedSnapshot>,
    /// The recommended action.
    pub remedy: String,
}

impl Finding {
    /// True if nothing that counts is lost or wrong because of it: copies are there, newer snapshots are whole
    /// without it, or nothing needs it.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.healed || self.distrusted || self.obsolete
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}: {}", self.object, self.fault.word(), self.detail)
    }
}

/// All findings, at most one per object: the first that is found.
#[derive(Debug, Default)]
pub struct Findings {
    found: BTreeMap<String, Finding>,
    /// Objects with a finding that no signed object names. Anyone with write access can make many of
    /// them, so they give way to the others.
    unnamed: Vec<String>,
    left_out: u64,
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
            self.left_out += 1;
            match self.unnamed.pop() {
                Some(other) => self.found.remove(&other),
                None => return,
            };
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
        if self.found.len() >= MAX_FINDINGS {
            self.left_out += u64::from(!self.has(&object));
        } else if !self.has(&object) {
            self.unnamed.push(object.clone());
            self.add(object, role, fault, detail);
        }
    }

    /// Counts findings that were not kept.
    pub fn leave_out(&mut self, count: u64) {
        self.left_out += count;
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
    pub fn finish(mut self) -> (Vec<Finding>, u64) {
        for finding in self.found.values_mut() {
            finding.snapshots.sort_unstable();
        }
        (self.found.into_values().collect(), self.left_out)
    }
}
