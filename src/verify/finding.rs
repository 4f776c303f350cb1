//! What is wrong with an object, what that touches, and what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use crate::format::ids::{NameId, ObjectHash, WriterId};

/// The most findings that are kept; the rest is counted.
pub const MAX_FINDINGS: usize = 10_000;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// It is named by something signed, and is not there.
    Missing,
    /// It has another size than what is signed says.
    Size,
    /// Its bytes are not those that its name promises.
    Altered,
    /// No pinned key signed it, or not for this place.
    Signature,
    /// It is signed, and contradicts itself or its form.
    Malformed,
    /// It does not open with the keys of its epoch, or what is in it is not what the snapshot names.
    Unreadable,
    /// The chain of snapshots contradicts itself.
    Chain,
    /// The store shows an older past than was seen before.
    RolledBack,
    /// Only a newer kbak can read it.
    Newer,
}

impl Fault {
    /// In one word.
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
            Self::Newer => "of a newer format",
        }
    }
}

/// What kind of object it is, which decides what is lost with it and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// `kbak.json`.
    Marker,
    /// One of the two copies of an epoch.
    Epoch,
    /// A key that was added for an owner.
    Wrap,
    /// A manifest.
    Snapshot,
    /// What a manifest names and a restore reads: a body.
    Body,
    /// The list of packs that a snapshot needs.
    Needs,
    /// Data or metadata of streams.
    Pack,
    /// What only speeds up the next backup: index, scan cache, state, mover record.
    Hint,
    /// A signed statement.
    Record,
    /// The plan as a whole.
    Plan,
}

impl Role {
    fn remedy(self, fault: Fault) -> &'static str {
        if fault == Fault::Newer {
            return "use the kbak that wrote it, or a newer one";
        }
        match self {
            Self::Marker => {
                "put {\"kbak\":1} there again, without a newline: it is the same in every repository"
            }
            Self::Epoch => "copy its twin over it (epochs/<epoch>.json and <epoch>/epoch.json are identical)",
            Self::Wrap => "an owner adds the key again: kbak keys add",
            Self::Snapshot if fault == Fault::Chain => {
                "find out who removed or added snapshots; kbak snapshots lists those that count"
            }
            Self::Snapshot => {
                "bring back its older version, if the bucket keeps versions; otherwise it is lost"
            }
            Self::Body | Self::Needs => {
                "bring back its older version, if the bucket keeps versions; the next backup makes a new snapshot"
            }
            Self::Pack => {
                "bring back its older version, if the bucket keeps versions; otherwise kbak verify \
                 --distrust-key makes the next backup store its data anew"
            }
            Self::Hint => "nothing is lost: the next backup reads more and writes a new one",
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

/// A snapshot that a finding touches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Touched {
    /// Of which plan.
    #[serde(flatten)]
    pub plan: PlanRef,
    /// Its sequence.
    pub sequence: u64,
    /// SHA-256 of its manifest.
    pub hash: ObjectHash,
    /// The items in it that cannot be restored whole, where an identity let kbak look.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub items: BTreeSet<String>,
}

/// One object that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its key in the store.
    pub object: String,
    /// What it is.
    pub role: Role,
    /// What is wrong.
    pub fault: Fault,
    /// How it shows, in one line.
    pub detail: String,
    /// Every chunk that snapshots need of it lies elsewhere too, so that a restore is whole.
    pub healed: bool,
    /// The snapshots that it touches, oldest first.
    pub snapshots: Vec<Touched>,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}: {}", self.object, self.fault.word(), self.detail)
    }
}

/// All findings, one an object: the first that shows.
#[derive(Debug, Default)]
pub struct Findings {
    found: BTreeMap<String, Finding>,
    /// Objects with a finding that nothing signed names. Anyone who may write can make many of them, so
    /// they make way for the others.
    unnamed: Vec<String>,
    left_out: u64,
}

impl Findings {
    /// Adds one, unless the object has one.
    pub fn add(&mut self, object: impl Into<String>, role: Role, fault: Fault, detail: impl Into<String>) {
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
            snapshots: Vec::new(),
            remedy,
        };
        self.found.insert(object, finding);
    }

    /// Adds one of an object that nothing signed names, if there is room.
    pub fn add_unnamed(
        &mut self,
        object: impl Into<String>,
        role: Role,
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

    /// So many more were not kept.
    pub fn leave_out(&mut self, count: u64) {
        self.left_out += count;
    }

    /// Whether an object has one.
    #[must_use]
    pub fn has(&self, object: &str) -> bool {
        self.found.contains_key(object)
    }

    /// Says that a snapshot, and an item of it if that is known, is touched by what is wrong with
    /// `object`.
    pub fn touch(
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
            finding.snapshots.push(Touched { plan, sequence, hash, items: BTreeSet::new() });
            finding.snapshots.len() - 1
        });
        finding.snapshots[at].items.extend(item.map(str::to_owned));
    }

    /// Says that a restore is whole in spite of what is wrong with `object`.
    pub fn heal(&mut self, object: &str) {
        if let Some(finding) = self.found.get_mut(object) {
            finding.healed = true;
            finding.remedy =
                "nothing: restores use the copies; prune removes it when nothing needs it".into();
        }
    }

    /// The findings by key, and how many more there were.
    #[must_use]
    pub fn finish(mut self) -> (Vec<Finding>, u64) {
        for finding in self.found.values_mut() {
            finding.snapshots.sort_unstable();
        }
        (self.found.into_values().collect(), self.left_out)
    }
}
