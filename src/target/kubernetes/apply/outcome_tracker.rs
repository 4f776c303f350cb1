//! Collects the outcomes of a restore.

use std::collections::HashMap;

use super::{attempt::RestoreAttempt, second_write::UidMap};
use crate::report::event::Meter;
use crate::target::kubernetes::{ObjectKey, ObjectRef, Outcome, OutcomeSink, Refusal, RestoreReport};

/// The largest number of failures that are kept with their names.
pub(crate) const MAX_FAILURES: usize = 1000;
/// The largest number of objects that are kept with their names if they are missing for another reason.
const MAX_MISSING: usize = 100;
const MAX_WARNINGS: usize = 100;

pub(crate) struct OutcomeTracker<'a> {
    on_outcome: OutcomeSink<'a>,
    meter: &'a Meter,
    pub(crate) report: RestoreReport,
    pub(crate) uids: UidMap,
    /// Objects to retry with their last outcome, by index of their kind. No inner map is empty.
    pub(crate) missing: HashMap<usize, HashMap<ObjectKey, (ObjectRef, Outcome)>>,
    /// True for each kind that has objects with pending second writes.
    pub(crate) unfinished: Vec<bool>,
}

impl<'a> OutcomeTracker<'a> {
    pub(crate) fn new(on_outcome: OutcomeSink<'a>, meter: &'a Meter, kinds: usize) -> Self {
        Self {
            on_outcome,
            meter,
            report: RestoreReport::default(),
            uids: UidMap::default(),
            missing: HashMap::new(),
            unfinished: vec![false; kinds],
        }
    }

    pub(crate) fn missing_count(&self) -> usize {
        self.missing.values().map(HashMap::len).sum()
    }

    fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.missing.values().flat_map(HashMap::values).map(|(_, outcome)| outcome)
    }

    /// True if a missing object was refused for such a reason.
    pub(crate) fn has_refusal(&self, which: impl Fn(&Refusal) -> bool) -> bool {
        self.outcomes().any(|outcome| matches!(outcome, Outcome::Failed(refusal) if which(refusal)))
    }

    /// True if an object is missing because its kind is not served.
    pub(crate) fn has_unserved(&self) -> bool {
        self.outcomes().any(|outcome| *outcome == Outcome::Unserved)
    }

    /// Records the result of one object: final, or to be retried in another round.
    pub(crate) fn record(&mut self, index: usize, attempt: RestoreAttempt) {
        let RestoreAttempt { object, outcome, pending, .. } = attempt;
        for warning in attempt.warnings {
            if self.report.warnings.len() < MAX_WARNINGS {
                self.report.warnings.insert(warning);
            }
        }
        if attempt.retry {
            self.missing.entry(index).or_default().insert(object.key(), (object, outcome));
            return;
        }
        self.unfinished[index] |= pending.any();
        self.uids.insert(&attempt.old_uid, &attempt.new_uid, pending);
        self.report.suspended += u64::from(attempt.suspended && outcome == Outcome::Created);
        if let Some(refusal) = attempt.unfinished
            && self.report.unfinished.len() < MAX_FAILURES
        {
            self.report.unfinished.push((object.clone(), refusal));
        }
        self.count(object, outcome);
    }

    pub(crate) fn finalize_missing(&mut self) {
        for index in self.missing.keys().copied().collect::<Vec<_>>() {
            self.finalize_missing_of(index, |_| true);
        }
    }

    /// Makes the last outcome of some missing objects of one kind final.
    pub(crate) fn finalize_missing_of(&mut self, index: usize, which: impl Fn(&ObjectRef) -> bool) {
        let missing = self.missing.remove(&index).unwrap_or_default();
        let (done, rest): (HashMap<_, _>, HashMap<_, _>) =
            missing.into_iter().partition(|(_, (object, _))| which(object));
        if !rest.is_empty() {
            self.missing.insert(index, rest);
        }
        done.into_values().for_each(|(object, outcome)| self.count(object, outcome));
    }

    fn count(&mut self, object: ObjectRef, outcome: Outcome) {
        (self.on_outcome)(&object, &outcome);
        self.meter.add_done(1);
        let report = &mut self.report;
        let is_missing = !outcome.is_fine() && !matches!(outcome, Outcome::Failed(_));
        if is_missing && report.missing.len() < MAX_MISSING {
            report.missing.push((object.clone(), outcome.clone()));
        }
        match outcome {
            Outcome::Created => report.created += 1,
            Outcome::Existed => report.existed += 1,
            Outcome::Differs => report.differing += 1,
            Outcome::Patched => report.patched += 1,
            Outcome::Replaced => report.replaced += 1,
            Outcome::Skipped(skip) => *report.skipped.entry(skip).or_default() += 1,
            Outcome::Refused(permission) => *report.refused.entry(permission).or_default() += 1,
            Outcome::Held(effect) => *report.held.entry(effect).or_default() += 1,
            Outcome::Collides(_) => report.collided += 1,
            Outcome::Unserved => *report.unserved.entry(object.resource).or_default() += 1,
            Outcome::Failed(refusal) => {
                report.failed += 1;
                if report.failures.len() < MAX_FAILURES {
                    report.failures.push((object, refusal));
                }
            }
        }
    }
}
