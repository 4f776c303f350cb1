//! A whole run as one value, for the summary, `-o json` and metrics. A failed run stores it, encrypted.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::outcome::Outcome;

use crate::report::coverage::Coverage;
use crate::report::item_state::ItemState;

/// The report of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// The verb: `backup`, `restore`, `verify`, …
    pub verb: String,
    /// The version of kbak.
    pub version: String,
    /// The repository, without credentials.
    pub repository: String,
    /// The plan's name, if there is a plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// The start time.
    pub started: Timestamp,
    /// The end time.
    pub finished: Timestamp,
    /// The exit code.
    pub exit: Outcome,
    /// The outcome in one line: `snapshot 000042 committed with 1 gap`.
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
    /// The number of further warnings that are not listed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub warnings_left_out: u64,
    /// The bytes, packs and requests that were sent to the store.
    pub stored: Stored,
    /// The maximum of resident memory (VmHWM), in bytes, if the kernel reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_peak: Option<u64>,
    /// The time of the plan's newest complete snapshot, this run's included; for other verbs, that of this run, if
    /// it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Timestamp>,
    /// The time at which the next complete snapshot is due, if the plan has a schedule and the last one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_due: Option<Timestamp>,
    /// The result of the coverage check, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage: Option<Coverage>,
    /// The failure that ended the run early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureReport>,
}

/// True if a number is not shown.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
pub(crate) fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A snapshot that was made or read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotReport {
    /// The sequence number.
    pub sequence: u64,
    /// SHA-256 of its manifest, which names it: 64 hex digits.
    pub hash: String,
}

/// The result of one item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ItemReport {
    /// The item's name in the plan.
    pub item: String,
    /// The item's state.
    pub state: ItemState,
    /// The result in one line.
    pub summary: String,
    /// The unit of `done`.
    pub unit: String,
    /// The number of units that were processed.
    pub done: u64,
    /// Bytes that were read, or written by a restore.
    pub bytes: u64,
    /// Bytes that the store did not have yet.
    pub new_bytes: u64,
    /// The parts that are not safe.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<GapReport>,
    /// Objects that a restore did not simply create, at most ten thousand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<ObjectReport>,
    /// The newest snapshot in which it is safe, if this one has a gap: sequence and time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_good: Option<(u64, Timestamp)>,
    /// The remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// The outcome of one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectReport {
    /// The object's kind, namespace and name: `Deployment/shop/web`.
    pub object: String,
    /// A stable code: `existed`, `held`, `failed`.
    pub outcome: String,
    /// The reason in one line, if there is more to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// A part of an item that is not safe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapReport {
    /// A stable code: `dump-failed`, `permission`.
    pub code: String,
    /// The object that it concerns.
    pub object: String,
    /// The reason, in one line.
    pub reason: String,
}

/// A warning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The object that it concerns.
    pub object: String,
    /// The message, in one line.
    pub message: String,
    /// The remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// The bytes, packs and requests that were sent to the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The number of bytes.
    pub bytes: u64,
    /// The number of packs.
    pub packs: u64,
    /// The number of requests, by operation.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, u64>,
}

/// A failure with its four parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureReport {
    /// The name of the exit code.
    pub exit: Outcome,
    /// The number of the exit code.
    pub code: u8,
    /// The failed action and its object.
    pub what: String,
    /// Facts: label and value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<(String, String)>,
    /// Causes, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// The remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl RunReport {
    /// Returns the duration of the run.
    pub fn duration(&self) -> Duration {
        self.finished.duration_since(self.started).unsigned_abs()
    }

    /// Returns the facts of a label.
    pub fn facts_named(&self, label: &str) -> impl Iterator<Item = &str> {
        self.facts.iter().filter(move |(name, _)| name == label).map(|(_, text)| text.as_str())
    }

    /// Returns the items that are neither safe nor accepted by the plan.
    pub fn unsafe_items(&self) -> impl Iterator<Item = &ItemReport> {
        self.items.iter().filter(|item| !item.state.is_safe() && item.state != ItemState::Accepted)
    }
}
