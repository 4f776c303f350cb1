//! The plan of a restore: decides for every object before any write. The decisions are hashed, so that a
//! later run can be checked against them.

mod build;
mod counts;
mod decide;
mod rights;
mod totals;

use std::collections::BTreeMap;

use serde::Serialize;

use super::{ObjectRef, Refusal, Skip, UnmatchedSelector, change::Change};
use crate::plan::{Permission, SideEffect};

pub use build::plan_resources;
pub use totals::{ActionTotal, ChangeTotal};

/// The action for an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case", tag = "action", content = "why")]
pub enum Action {
    /// The object is created.
    Create,
    /// It exists already as in the backup.
    Leave,
    /// The existing object is changed to the backup's state.
    Patch,
    /// The existing object is replaced.
    Replace,
    /// The object is skipped by a rule.
    Skip(Skip),
    /// The object is restored only with this permission.
    Refuse(Permission),
    /// The object is restored only if a copy may have this effect.
    Hold(SideEffect),
    /// The object cannot be restored.
    Conflict(Conflict),
}

/// The reason why an object cannot be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Conflict {
    /// An existing object of its name differs and is left unchanged.
    Differs,
    /// Another object of the backup would have the same name.
    Collides,
    /// The cluster does not serve its kind, and this restore does not bring it.
    Unserved,
    /// Its namespace does not exist, and this restore does not create it.
    NoNamespace,
    /// The user who restores may not create or change it.
    NoRight,
    /// The object cannot be sent.
    Unfit,
}

/// The condition that an object waits for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case", tag = "for", content = "name")]
pub enum Wait {
    /// The namespace must be created first.
    Namespace(String),
    /// The namespace is being deleted.
    #[serde(rename = "terminating")]
    NamespaceTerminating(String),
    /// An object of the same name is being deleted.
    #[serde(rename = "ending")]
    ObjectTerminating(String),
    /// The definition must be created first.
    Definition(String),
    /// A webhook of the cluster does not answer.
    Webhook(String),
    /// A Service must become ready.
    Backend(String),
}

impl Wait {
    /// True if neither this restore nor the start of a pod ends it.
    fn is_for_others(&self) -> bool {
        matches!(self, Self::NamespaceTerminating(_) | Self::ObjectTerminating(_) | Self::Webhook(_))
    }
}

impl std::fmt::Display for Wait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Namespace(name) => write!(f, "Namespace {name}"),
            Self::NamespaceTerminating(name) => {
                write!(f, "the end of Namespace {name}, which is being deleted")
            }
            Self::ObjectTerminating(object) => write!(f, "the end of {object}, which is being deleted"),
            Self::Definition(name) => write!(f, "CustomResourceDefinition {name}"),
            Self::Webhook(name) => write!(f, "webhook {name}, which does not answer"),
            Self::Backend(name) => write!(f, "{name} to be ready"),
        }
    }
}

/// The extent to which an object was checked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case", tag = "grade", content = "before")]
pub enum Grade {
    /// Checked locally and against the existing object, but not by the server.
    Offline,
    /// Accepted by the server in a dry run, with every field.
    DryRun,
    /// Refused by the server in a dry run.
    Refused,
    /// The server cannot check it before this condition holds.
    #[serde(rename = "not-before")]
    BlockedBy(Wait),
}

/// The decision about one object.
#[derive(Debug, Clone, Serialize)]
pub struct Decision {
    /// The object's name in the target cluster.
    #[serde(flatten)]
    pub object: ObjectRef,
    /// The action for the object.
    #[serde(flatten)]
    pub action: Action,
    /// The changes made to the object.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// The conditions that the object waits for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<Wait>,
    /// The extent to which it was checked.
    #[serde(flatten)]
    pub grade: Grade,
    /// The reason against it, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// The part of the backup that the object will lack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<Refusal>,
    /// The fields that the restore drops because the server refuses them, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<String>,
    /// True if a second write follows: owners, field managers, status. Also true for an existing object that
    /// an earlier restore did not finish.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub second: bool,
    /// Hash of the object that would be sent; empty if none would.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub digest: String,
}

impl Decision {
    /// Returns the decision to create an object with these changes, which was not checked yet.
    fn create(object: ObjectRef, changes: Vec<Change>) -> Self {
        Self {
            object,
            action: Action::Create,
            changes,
            waits: Vec::new(),
            grade: Grade::Offline,
            refusal: None,
            incomplete: None,
            dropped: Vec::new(),
            second: false,
            digest: String::new(),
        }
    }
}

/// The plan as a whole.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Plan {
    /// SHA-256 over all decisions in order, and the settings that matter.
    pub hash: String,
    /// True if the target is another cluster than that of the backup and does not take its place.
    pub foreign: bool,
    /// The UID of the backup's cluster, and of the target.
    pub clusters: (Option<String>, Option<String>),
    /// Objects by action.
    pub sums: Vec<ActionTotal>,
    /// Changes, by kind.
    pub changes: Vec<ChangeTotal>,
    /// Number of waiting objects, by condition.
    pub waits: BTreeMap<String, u64>,
    /// True if an object waits for something that this restore does not bring.
    #[serde(skip)]
    pub waits_for_others: bool,
    /// Number of objects, by extent of the check.
    pub grades: BTreeMap<&'static str, u64>,
    /// The first objects that the server refused in a dry run, and the reasons.
    pub refused: Vec<(ObjectRef, String)>,
    /// The number of all of them.
    pub refused_count: u64,
    /// The first objects of which fields are dropped because the server refuses them, and the fields in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<(ObjectRef, String)>,
    /// The number of all such fields.
    pub dropped_count: u64,
    /// The first objects that will lack a part of the backup, and the part.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub incomplete: Vec<(ObjectRef, String)>,
    /// The number of these objects.
    #[serde(skip_serializing_if = "crate::report::run::is_zero")]
    pub incomplete_count: u64,
    /// Objects that are created or changed, without those that need only second writes.
    pub writes: u64,
    /// Objects that need a second write: owners, field managers, status.
    pub second_writes: u64,
    /// Bytes to send.
    pub bytes: u64,
    /// References to owners that will not exist; the objects lose them.
    pub owners_lost: u64,
    /// Selectors that match no object of the snapshot.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<UnmatchedSelector>,
    /// Notes for the reader of the plan.
    pub notes: Vec<String>,
    /// True if the config says which effects a copy may have.
    #[serde(skip)]
    pub has_release_choice: bool,
    /// True if the config says how existing objects are treated.
    #[serde(skip)]
    pub has_existing_choice: bool,
}

impl Plan {
    /// True if a restore by this plan restores all selected objects, as far as can be foreseen. Objects that
    /// are held back or differ count as missing, unless the config says how to treat them; so do objects that wait
    /// for something that this restore does not bring.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let is_fine = |action: &Action| match action {
            Action::Create | Action::Leave | Action::Patch | Action::Replace | Action::Skip(_) => true,
            Action::Hold(_) => self.has_release_choice,
            Action::Conflict(Conflict::Differs) => self.has_existing_choice,
            Action::Refuse(_) | Action::Conflict(_) => false,
        };
        self.absent.is_empty()
            && self.refused.is_empty()
            && !self.waits_for_others
            && self.incomplete_count == 0
            && self.sums.iter().all(|sum| is_fine(&sum.action))
    }

    /// Returns the number of objects whose action matches.
    #[must_use]
    pub fn count(&self, which: impl Fn(&Action) -> bool) -> u64 {
        self.sums.iter().filter(|sum| which(&sum.action)).map(|sum| sum.count).sum()
    }
}
