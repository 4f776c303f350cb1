//! A whole run as one value: what the summary prints, `-o json` gives, metrics are made of, and a
//! failed run leaves, encrypted, in the store.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::failure::{Exit, Failure};
use crate::coverage::Coverage;
pub use crate::format::manifest::ItemState;

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// `backup`, `restore`, `verify`, …
    pub verb: String,
    /// The version of kbak.
    pub version: String,
    /// The repository, without credentials.
    pub repository: String,
    /// The plan's name, where there is a plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// Its exit code.
    pub exit: Exit,
    /// What happened, in one line: `snapshot 000042 committed with 1 gap`.
    pub verdict: String,
    /// The snapshot that was made or read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotReport>,
    /// Items in the plan's order.
    #[serde(default)]
    pub items: Vec<ItemReport>,
    /// Facts about the run as a whole, in order: label and value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<(String, String)>,
    /// Warnings, in the order in which they came.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Notice>,
    /// How many more warnings there were than are listed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub warnings_left_out: u64,
    /// What was sent to the store.
    pub stored: Stored,
    /// The most memory that was resident (VmHWM), in bytes, where the kernel says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_peak: Option<u64>,
    /// When the plan's newest whole snapshot was taken, this run's included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Timestamp>,
    /// What else the cluster holds than the plan declares, where that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage: Option<Coverage>,
    /// What ended the run early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureReport>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotReport {
    /// Its sequence.
    pub sequence: u64,
    /// SHA-256 of its manifest, which names it: 64 hex digits.
    pub hash: String,
}

/// An item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ItemReport {
    /// Its name in the plan.
    pub item: String,
    /// How it fares.
    pub state: ItemState,
    /// What happened to it, in one line.
    pub summary: String,
    /// What `done` counts.
    pub unit: String,
    /// How many.
    pub done: u64,
    /// Bytes that were read, or written by a restore.
    pub bytes: u64,
    /// Bytes that the store did not have yet.
    pub new_bytes: u64,
    /// What is not safe.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<GapReport>,
    /// Objects that a restore did not plainly create, up to ten thousand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<ObjectReport>,
    /// The newest snapshot in which it is safe, where this one has a gap: sequence and time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_good: Option<(u64, Timestamp)>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// What became of one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectReport {
    /// Its kind, namespace and name: `Deployment/shop/web`.
    pub object: String,
    /// A stable code: `existed`, `held`, `failed`.
    pub outcome: String,
    /// Why, in one line, where there is more to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// Something that is not safe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapReport {
    /// A stable code: `dump-failed`, `permission`.
    pub code: String,
    /// What it concerns.
    pub object: String,
    /// Why, in one line.
    pub reason: String,
}

/// A warning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// What it concerns.
    pub object: String,
    /// What, in one line.
    pub message: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// What was sent to the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Bytes.
    pub bytes: u64,
    /// Packs.
    pub packs: u64,
    /// Requests by kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, u64>,
}

/// A failure with its four parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureReport {
    /// The exit code's name.
    pub exit: Exit,
    /// The exit code.
    pub code: u8,
    /// What failed, on which object.
    pub what: String,
    /// Facts: label and value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<(String, String)>,
    /// Causes, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl From<&Failure> for FailureReport {
    fn from(failure: &Failure) -> Self {
        Self {
            exit: failure.exit,
            code: failure.exit.code(),
            what: failure.what.clone(),
            facts: failure.facts.clone(),
            causes: failure.causes(),
            remedy: failure.remedy.clone(),
        }
    }
}

impl RunReport {
    /// How long it took.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.finished.duration_since(self.started).unsigned_abs()
    }

    /// Items with a gap that nobody accepted.
    pub fn unsafe_items(&self) -> impl Iterator<Item = &ItemReport> {
        self.items.iter().filter(|item| !item.state.is_safe() && item.state != ItemState::Accepted)
    }
}
