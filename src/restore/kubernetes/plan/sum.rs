//! Decisions, summed up as they come: so many may be that none is kept.

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{Action, Decision, Grade};
use crate::restore::kubernetes::object::ObjectRef;

/// Names that a sum keeps.
const EXAMPLES: usize = 10;
/// Changes that are told apart.
const CHANGES: usize = 500;

/// Objects of which the same becomes.
#[derive(Debug, Clone, Serialize)]
pub struct Sum {
    /// What.
    #[serde(flatten)]
    pub action: Action,
    /// How many.
    pub count: u64,
    /// By kind.
    pub kinds: BTreeMap<String, u64>,
    /// By namespace; empty for cluster-scoped objects.
    pub namespaces: BTreeMap<String, u64>,
    /// The first of them, with what stands against them.
    pub examples: Vec<(ObjectRef, Option<String>)>,
}

/// The same change in objects of one kind.
#[derive(Debug, Clone, Serialize)]
pub struct ChangeSum {
    /// The kind.
    pub kind: String,
    /// The change, in words.
    pub change: String,
    /// How many.
    pub count: u64,
    /// One of them.
    pub example: ObjectRef,
}

/// What is summed up.
#[derive(Default)]
pub(super) struct Sums {
    sums: BTreeMap<Action, Sum>,
    changes: BTreeMap<(String, String), ChangeSum>,
    changes_left_out: u64,
    waits: BTreeMap<String, u64>,
    grades: BTreeMap<&'static str, u64>,
    refused: Vec<(ObjectRef, String)>,
    hash: Sha256,
}

impl Sums {
    /// Something that counts besides the decisions.
    pub(super) fn mix(&mut self, value: &impl Serialize) {
        // Serialising names and flags into memory does not fail.
        let text = serde_json::to_string(value).unwrap_or_default();
        self.hash.update(text.as_bytes());
        self.hash.update(b"\n");
    }

    pub(super) fn add(&mut self, decision: &Decision) {
        // How far it was checked is not part of what is done.
        let sent = (&decision.digest, decision.second);
        self.mix(&(&decision.object, &decision.action, &decision.changes, &decision.waits, sent));
        let sum = self.sums.entry(decision.action.clone()).or_insert_with(|| Sum {
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
            let first = ChangeSum { kind, change: text, count: 0, example };
            self.changes.entry(key).or_insert(first).count += 1;
        }
        for wait in &decision.waits {
            *self.waits.entry(wait.to_string()).or_default() += 1;
        }
        if let (Grade::Refused, Some(refusal)) = (&decision.grade, &decision.refusal)
            && self.refused.len() < EXAMPLES
        {
            self.refused.push((decision.object.clone(), refusal.to_string()));
        }
        let grade = match decision.grade {
            Grade::Offline => "checked offline",
            Grade::DryRun => "taken by the server in a dry run",
            Grade::Refused => "refused by the server in a dry run",
            Grade::NotBefore(_) => "not checked by the server: something has to be there first",
        };
        if matches!(decision.action, Action::Create | Action::Patch | Action::Replace | Action::Conflict(_)) {
            *self.grades.entry(grade).or_default() += 1;
        }
    }

    pub(super) fn finish(self) -> Summed {
        let mut notes = Vec::new();
        if self.changes_left_out > 0 {
            notes.push(format!("{} more changes are in -o json", self.changes_left_out));
        }
        Summed {
            hash: self.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
            sums: self.sums.into_values().collect(),
            changes: self.changes.into_values().collect(),
            waits: self.waits,
            grades: self.grades,
            refused: self.refused,
            notes,
        }
    }
}

/// The sums.
pub(super) struct Summed {
    pub(super) hash: String,
    pub(super) sums: Vec<Sum>,
    pub(super) changes: Vec<ChangeSum>,
    pub(super) waits: BTreeMap<String, u64>,
    pub(super) grades: BTreeMap<&'static str, u64>,
    pub(super) refused: Vec<(ObjectRef, String)>,
    pub(super) notes: Vec<String>,
}
