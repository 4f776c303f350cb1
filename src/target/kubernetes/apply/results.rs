//! Collects the outcomes of a restore.

use std::collections::HashMap;

use crate::report::event::Meter;
use crate::target::kubernetes::OutcomeSink;
use crate::target::kubernetes::apply::create::Attempt;
use crate::target::kubernetes::apply::second_write::Uids;
use crate::target::kubernetes::object::{Key, ObjectRef};
use crate::target::kubernetes::outcome::{Outcome, Refusal, RestoreReport};

/// The largest number of failures that are kept with their names.
pub(crate) const FAILURES: usize = 1000;
/// The largest number of objects that are kept with their names if they are missing for another reason.
const MISSING: usize = 100;
/// The largest number of warnings that are kept.
const WARNINGS: usize = 100;

pub(crate) struct Ledger<'a> {
    told: OutcomeSink<'a>,
    meter: &'a Meter,
    pub(crate) report: RestoreReport,
    pub(crate) uids: Uids,
    /// Objects to retry with their last outcome, by index of their kind. No inner map is empty.
    pub(crate) missing: HashMap<usize, HashMap<Key, (ObjectRef, Outcome)>>,
    /// True for each kind that has objects with pending second writes.
    pub(crate) unfinished: Vec<bool>,
}

impl<'a> Ledger<'a> {
    pub(crate) fn new(told: OutcomeSink<'a>, meter: &'a Meter, kinds: usize) -> Self {
        Self {
            told,
            meter,
            report: RestoreReport::default(),
            uids: Uids::default(),
            missing: HashMap::new(),
            unfinished: vec![false; kinds],
        }
    }

    pub(crate) fn left(&self) -> usize {
        self.missing.values().map(HashMap::len).sum()
    }

    fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.missing.values().flat_map(HashMap::values).map(|(_, outcome)| outcome)
    }

    /// True if a missing object was refused for such a reason.
    pub(crate) fn waits_for(&self, which: impl Fn(&Refusal) -> bool) -> bool {
        self.outcomes().any(|outcome| matches!(outcome, Outcome::Failed(refusal) if which(refusal)))
    }

    /// True if an object is missing because its kind is not served.
    pub(crate) fn waits_for_kinds(&self) -> bool {
        self.outcomes().any(|outcome| *outcome == Outcome::Unserved)
    }

    /// Records the result of one object: final, or to be retried in another round.
    pub(crate) fn settle(&mut self, place: usize, attempt: Attempt) {
        let Attempt { object, old_uid, new_uid, owes, suspended, outcome, unfinished, again, warnings } =
            attempt;
        for warning in warnings {
            if self.report.warnings.len() < WARNINGS {
                self.report.warnings.insert(warning);
            }
        }
        if again {
            self.missing.entry(place).or_default().insert(object.key(), (object, outcome));
            return;
        }
        self.unfinished[place] |= owes.any();
        self.uids.learn(&old_uid, &new_uid, owes);
        let made = matches!(outcome, Outcome::Created | Outcome::Patched | Outcome::Replaced);
        if let Some(refusal) = unfinished
            && self.report.unfinished.len() < FAILURES
        {
            self.report.unfinished.push((object.clone(), refusal));
        }
        self.report.suspended += u64::from(suspended && made);
        self.count(object, outcome);
    }

    /// Makes the last outcome of all missing objects final.
    pub(crate) fn give_up(&mut self) {
        for place in self.missing.keys().copied().collect::<Vec<_>>() {
            self.give_up_on(place, |_| true);
        }
    }

    /// Makes the last outcome of some missing objects of one kind final.
    pub(crate) fn give_up_on(&mut self, place: usize, which: impl Fn(&ObjectRef) -> bool) {
        let missing = self.missing.remove(&place).unwrap_or_default();
        let (over, left): (HashMap<_, _>, HashMap<_, _>) =
            missing.into_iter().partition(|(_, (object, _))| which(object));
        if !left.is_empty() {
            self.missing.insert(place, left);
        }
        over.into_values().for_each(|(object, outcome)| self.count(object, outcome));
    }

    fn count(&mut self, object: ObjectRef, outcome: Outcome) {
        (self.told)(&object, &outcome);
        self.meter.add_done(1);
        let report = &mut self.report;
        if !outcome.is_fine() && !matches!(outcome, Outcome::Failed(_)) && report.missing.len() < MISSING {
            report.missing.push((object.clone(), outcome.clone()));
        }
        match outcome {
            Outcome::Created => report.created += 1,
            Outcome::Existed => report.existed += 1,
            Outcome::Differs => report.differing += 1,
            Outcome::Patched => report.patched += 1,
            Outcome::Replaced => report.replaced += 1,
            Outcome::Skipped(why) => *report.skipped.entry(why).or_default() += 1,
            Outcome::Refused(gate) => *report.refused.entry(gate).or_default() += 1,
            Outcome::Held(release) => *report.held.entry(release).or_default() += 1,
            Outcome::Collides(_) => report.collided += 1,
            Outcome::Unserved => *report.unserved.entry(object.resource).or_default() += 1,
            Outcome::Failed(refusal) => {
                report.failed += 1;
                if report.failures.len() < FAILURES {
                    report.failures.push((object, refusal));
                }
            }
        }
    }
}
