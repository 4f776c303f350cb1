//! Totals up decisions as they are made; there may be too many to keep.

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{Action, Decision, Grade, Plan};
use crate::target::kubernetes::ObjectRef;

/// The largest number of names that a sum keeps.
const EXAMPLES: usize = 10;
/// The largest number of distinct changes that are kept.
const CHANGES: usize = 500;

/// Objects with the same action.
#[derive(Debug, Clone, Serialize)]
pub struct ActionTotal {
    /// The action.
    #[serde(flatten)]
    pub action: Action,
    /// Number of objects.
    pub count: u64,
    /// Number of objects, by kind.
    pub kinds: BTreeMap<String, u64>,
    /// Number of objects, by namespace; empty for cluster-scoped objects.
    pub namespaces: BTreeMap<String, u64>,
    /// The first of them, with the reasons against them.
    pub examples: Vec<(ObjectRef, Option<String>)>,
}

/// One change that objects of one kind share.
#[derive(Debug, Clone, Serialize)]
pub struct ChangeTotal {
    /// The kind.
    pub kind: String,
    /// The change, in words.
    pub change: String,
    /// Number of objects.
    pub count: u64,
    /// The first object with the change.
    pub example: ObjectRef,
}

#[derive(Default)]
pub(crate) struct Totals {
    sums: BTreeMap<Action, ActionTotal>,
    changes: BTreeMap<(String, String), ChangeTotal>,
    changes_left_out: u64,
    waits: BTreeMap<String, u64>,
    waits_for_others: bool,
    grades: BTreeMap<&'static str, u64>,
    refused: Vec<(ObjectRef, String)>,
    incomplete: Vec<(ObjectRef, String)>,
    incomplete_count: u64,
    refused_count: u64,
    dropped: Vec<(ObjectRef, String)>,
    dropped_count: u64,
    hash: Sha256,
}

impl Totals {
    /// Adds to the hash a value that matters besides the decisions.
    pub(crate) fn hash_value(&mut self, value: &impl Serialize) {
        // Serializing names and flags into memory does not fail.
        let text = serde_json::to_string(value).unwrap_or_default();
        self.hash.update(text.as_bytes());
        self.hash.update(b"\n");
    }

    pub(crate) fn add(&mut self, decision: &Decision) {
        // The extent of the check does not change what a restore does.
        let lacks = decision.incomplete.as_ref().map(|refusal| &refusal.reason);
        let sent = (&decision.digest, decision.second, lacks);
        self.hash_value(&(&decision.object, &decision.action, &decision.changes, &decision.waits, sent));
        let sum = self.sums.entry(decision.action.clone()).or_insert_with(|| ActionTotal {
            action: decision.action.clone(),
            count: 0,
            kinds: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            examples: Vec::new(),
        });
        sum.count += 1;
        *sum.kinds.entry(decision.object.kind.clone()).or_default() += 1;
        *sum.namespaces.entry(decision.object.namespace.clone()).or_default() += 1;
        if sum.examples.len() < EXAMPLES {
            let why = decision.refusal.as_ref().map(ToString::to_string);
            sum.examples.push((decision.object.clone(), why));
        }
        for change in &decision.changes {
            let key = (decision.object.kind.clone(), change.to_string());
            if self.changes.len() >= CHANGES && !self.changes.contains_key(&key) {
                self.changes_left_out += 1;
                continue;
            }
            let (kind, text) = key.clone();
            let example = decision.object.clone();
            let first = ChangeTotal { kind, change: text, count: 0, example };
            self.changes.entry(key).or_insert(first).count += 1;
        }
        for wait in &decision.waits {
            *self.waits.entry(wait.to_string()).or_default() += 1;
            self.waits_for_others |= wait.is_for_others();
        }
        self.add_server_answer(decision);
        if let Some(refusal) = &decision.incomplete {
            self.incomplete_count += 1;
            if self.incomplete.len() < EXAMPLES {
                self.incomplete.push((decision.object.clone(), refusal.message.clone()));
            }
        }
        let grade = match decision.grade {
            Grade::Offline => "checked offline",
            Grade::DryRun => "taken by the server in a dry run",
            Grade::Refused => "refused by the server in a dry run",
            Grade::BlockedBy(_) => "not checked by the server: something has to be there first",
        };
        if matches!(decision.action, Action::Create | Action::Patch | Action::Replace | Action::Conflict(_)) {
            *self.grades.entry(grade).or_default() += 1;
        }
    }

    /// Adds what the server refuses in a dry run: objects, and fields that a restore then drops.
    fn add_server_answer(&mut self, decision: &Decision) {
        if let (Grade::Refused, Some(refusal)) = (&decision.grade, &decision.refusal) {
            self.refused_count += 1;
            if self.refused.len() < EXAMPLES {
                self.refused.push((decision.object.clone(), refusal.to_string()));
            }
        }
        for what in &decision.dropped {
            self.dropped_count += 1;
            if self.dropped.len() < EXAMPLES {
                self.dropped.push((decision.object.clone(), what.clone()));
            }
        }
    }

    /// Returns a plan with the totals and the hash; its other fields are empty.
    pub(crate) fn finish(self) -> Plan {
        let mut plan = Plan {
            hash: self.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
            sums: self.sums.into_values().collect(),
            changes: self.changes.into_values().collect(),
            waits: self.waits,
            waits_for_others: self.waits_for_others,
            grades: self.grades,
            refused: self.refused,
            refused_count: self.refused_count,
            dropped: self.dropped,
            dropped_count: self.dropped_count,
            incomplete: self.incomplete,
            incomplete_count: self.incomplete_count,
            ..Plan::default()
        };
        if self.changes_left_out > 0 {
            plan.notes.push(format!("{} more changes are in -o json", self.changes_left_out));
        }
        plan
    }
}
