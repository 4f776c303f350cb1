//! The plan of a restore: a pass over the streams decides for every object, before anything is
//! written. What it decides is hashed, so that a later run can be held to it.

mod sum;
mod survey;

use std::collections::BTreeMap;

use serde::Serialize;

use super::change::Change;
use super::config::{Allow, Release};
use super::decide::Skip;
use super::fits::Absent;
use super::object::ObjectRef;
use super::outcome::Refusal;

pub use sum::{ChangeSum, Sum};
pub use survey::plan_resources;

/// What becomes of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case", tag = "action", content = "why")]
pub enum Action {
    /// It is created.
    Create,
    /// It is there already as in the backup.
    Leave,
    /// What is there is brought to what the backup says.
    Patch,
    /// What is there is replaced.
    Replace,
    /// It is left out.
    Skip(Skip),
    /// It comes only if it is allowed.
    Refuse(Allow),
    /// It comes only if a copy may.
    Hold(Release),
    /// Something stands against it.
    Conflict(Conflict),
}

/// What stands against an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Conflict {
    /// Another one is there under its name, and is left alone.
    Differs,
    /// Two objects of the backup would have the same name.
    Collides,
    /// The cluster does not serve its kind, and nothing in this restore brings it.
    Unserved,
    /// Its namespace is not there, and this restore does not bring it.
    NoNamespace,
    /// It cannot be sent.
    Unfit,
}

/// What an object waits for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case", tag = "for", content = "name")]
pub enum Wait {
    /// A namespace that comes first.
    Namespace(String),
    /// A namespace that is being deleted.
    Terminating(String),
    /// An object of its name that is being deleted.
    Ending(String),
    /// A definition that comes first.
    Definition(String),
    /// A webhook of the cluster that does not answer.
    Webhook(String),
    /// A Service that must be ready.
    Backend(String),
}

impl std::fmt::Display for Wait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Namespace(name) => write!(f, "Namespace {name}"),
            Self::Terminating(name) => write!(f, "the end of Namespace {name}, which is being deleted"),
            Self::Ending(object) => write!(f, "the end of {object}, which is being deleted"),
            Self::Definition(name) => write!(f, "CustomResourceDefinition {name}"),
            Self::Webhook(name) => write!(f, "webhook {name}, which does not answer"),
            Self::Backend(name) => write!(f, "{name} to be ready"),
        }
    }
}

/// How far an object was checked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case", tag = "grade", content = "before")]
pub enum Grade {
    /// By itself and against what is there; the server has not seen it.
    Offline,
    /// The server took it in a dry run, with every field.
    DryRun,
    /// The server refused it in a dry run.
    Refused,
    /// The server cannot tell before this is there.
    NotBefore(Wait),
}

/// One object, decided.
#[derive(Debug, Clone, Serialize)]
pub struct Decision {
    /// Which.
    #[serde(flatten)]
    pub object: ObjectRef,
    /// What becomes of it.
    #[serde(flatten)]
    pub action: Action,
    /// What is changed in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// What it waits for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<Wait>,
    /// How far it was checked.
    #[serde(flatten)]
    pub grade: Grade,
    /// What stands against it, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// Whether a second write follows: owners, managers of fields, status. Also of an object that is there
    /// and to which the restore that made it did not come.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub second: bool,
    /// Of what would be sent; empty if nothing would.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub digest: String,
}

/// The plan as a whole.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// SHA-256 over all decisions in order, and what else counts.
    pub hash: String,
    /// Whether the cluster is another one than that of the backup, and does not take its place.
    pub foreign: bool,
    /// The UID of the cluster in the backup, and of the one that is restored into.
    pub clusters: (Option<String>, Option<String>),
    /// Objects by what becomes of them.
    pub sums: Vec<Sum>,
    /// What is changed, by kind.
    pub changes: Vec<ChangeSum>,
    /// How many wait for what.
    pub waits: BTreeMap<String, u64>,
    /// How far objects were checked.
    pub grades: BTreeMap<&'static str, u64>,
    /// The first of those that the server refused in a dry run, and why.
    pub refused: Vec<(ObjectRef, String)>,
    /// Objects that will be there.
    pub writes: u64,
    /// Objects that need a second write: owners, managers of fields, status.
    pub second_writes: u64,
    /// Bytes that are sent.
    pub bytes: u64,
    /// Owners that will not be there; their children lose them.
    pub owners_lost: u64,
    /// What was asked for and nothing in the snapshot fits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<Absent>,
    /// What the plan's reader should know.
    pub notes: Vec<String>,
}

impl Plan {
    /// How many objects this becomes of.
    #[must_use]
    pub fn count(&self, which: impl Fn(&Action) -> bool) -> u64 {
        self.sums.iter().filter(|sum| which(&sum.action)).map(|sum| sum.count).sum()
    }
}
