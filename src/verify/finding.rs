//! A finding: the fault of an object, the snapshots that it affects, and the remedy.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use crate::format::ids::{NameId, ObjectHash, WriterId};

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
    pub(super) fn remedy(self, fault: Fault) -> &'static str {
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
    /// True if it is a hint that no newest snapshot names, or an object that no snapshot names: no restore and no
    /// later backup needs it.
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
