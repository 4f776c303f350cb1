//! Outcomes of objects, and the report of a restore.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{ObjectRef, Refusal, Skip, UnmatchedSelector, Warning};
use crate::plan::{Permission, SideEffect};

/// The outcome of an object. Each object has exactly one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome", content = "why")]
pub enum Outcome {
    /// The object was created.
    Created,
    /// It existed, as in the backup or as a restore created it, and was left unchanged.
    Existed,
    /// It existed, differs from the backup, and was left unchanged.
    Differs,
    /// It existed and was changed to the backup's state.
    Patched,
    /// It existed and was replaced.
    Replaced,
    /// It was skipped by a rule.
    Skipped(Skip),
    /// Not created: it needs this permission.
    Refused(Permission),
    /// Not created: a copy would do harm with it.
    Held(SideEffect),
    /// Not created: an object from another namespace was restored under the same name. Holds this one's
    /// namespace.
    Collides(String),
    /// The cluster does not serve the object's kind.
    Unserved,
    /// The server refused it in the last attempt.
    Failed(Refusal),
}

impl Outcome {
    /// True if the object exists as wanted or was skipped by a rule.
    #[must_use]
    pub fn is_fine(&self) -> bool {
        matches!(self, Self::Created | Self::Existed | Self::Patched | Self::Replaced | Self::Skipped(_))
    }
}

/// The result of a restore.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreReport {
    /// Objects created.
    pub created: u64,
    /// Objects that existed, as in the backup or as a restore created them.
    pub existed: u64,
    /// Objects that existed and were changed to the backup's state.
    pub patched: u64,
    /// Objects that existed and were replaced.
    pub replaced: u64,
    /// Objects that existed, differ from the backup, and were left unchanged.
    pub differing: u64,
    /// Objects skipped by rule.
    pub skipped: BTreeMap<Skip, u64>,
    /// Objects that need a permission.
    pub refused: BTreeMap<Permission, u64>,
    /// Objects held back.
    pub held: BTreeMap<SideEffect, u64>,
    /// Objects created suspended.
    pub suspended: u64,
    /// Objects not created because another object of the backup has the same name in the target.
    pub collided: u64,
    /// Objects of kinds that the cluster does not serve, by resource.
    pub unserved: BTreeMap<String, u64>,
    /// Objects that the server refused in the last attempt.
    pub failed: u64,
    /// The first thousand failures.
    pub failures: Vec<(ObjectRef, Refusal)>,
    /// The first hundred objects that are missing for another reason.
    pub missing: Vec<(ObjectRef, Outcome)>,
    /// Objects whose owners were set again.
    pub relinked: u64,
    /// Owner references left out because the owner does not exist.
    pub owners_lost: u64,
    /// Objects whose field managers were set again.
    pub managed: u64,
    /// Objects whose status was restored.
    pub status: u64,
    /// Objects with remaining work, such as status, managers or owners that could not be set.
    pub unfinished: Vec<(ObjectRef, Refusal)>,
    /// Number of rounds.
    pub rounds: u32,
    /// Warnings of the server and of kbak, each once, at most a hundred.
    pub warnings: BTreeSet<Warning>,
    /// Selectors that match no object of the snapshot.
    pub absent: Vec<UnmatchedSelector>,
    /// True if the target is another cluster than that of the backup and does not take its place.
    pub foreign: bool,
    /// True if the config says which effects a copy may have.
    pub has_release_choice: bool,
    /// True if the config says how existing objects are treated.
    pub has_existing_choice: bool,
}

impl RestoreReport {
    /// True if all selected objects are restored. Objects that are held back or differ count as missing,
    /// unless the config says how to treat them.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.failed == 0
            && self.unserved.is_empty()
            && self.refused.is_empty()
            && self.collided == 0
            && self.unfinished.is_empty()
            && self.absent.is_empty()
            && (self.held.is_empty() || self.has_release_choice)
            && (self.differing == 0 || self.has_existing_choice)
    }
}
