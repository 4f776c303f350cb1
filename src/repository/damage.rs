//! Snapshots that lie there and do not count, and what that means for whoever asks for one: a store
//! in which something is damaged is never taken for one that holds less.

use futures::TryStreamExt as _;

use crate::format::ids::EpochId;
use crate::format::layout::{self, EpochPath, ObjectKey};
use crate::report::failure::{Exit, Failure};
use crate::report::text::plural;
use crate::store::StoreError;
use crate::store::listing::list_all;

use super::chain::Snapshot;
use super::open::{PlanView, View, Which};

/// The most objects that one failure names.
const NAMED: usize = 5;

/// Snapshots that nobody can read, because nothing says what their epoch is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hidden {
    /// The epoch.
    pub epoch: EpochId,
    /// Where they lie.
    pub place: String,
    /// How many.
    pub count: u64,
    /// The greatest of their numbers.
    pub newest: u64,
}

impl View {
    /// The snapshots that lie under lost epochs.
    pub(super) async fn hidden(&self, plan: &PlanView) -> Result<Vec<Hidden>, StoreError> {
        let mut all = Vec::new();
        for epoch in plan.lost_epochs() {
            let place = EpochPath { writer: plan.writer, plan: plan.plan, epoch }.snapshots_prefix();
            let (mut count, mut newest) = (0, 0);
            let mut read = list_all(self.store.clone(), place.clone(), self.reporter.clone());
            while let Some(entry) = read.try_next().await? {
                let Some(seq) = number(&entry.key) else { continue };
                count += 1;
                newest = seq.max(newest);
            }
            if count > 0 {
                all.push(Hidden { epoch, place, count, newest });
            }
        }
        Ok(all)
    }

    /// Says which epochs of a plan do not count, and what is lost with each.
    pub(super) fn warn_of_lost(&self, plan: &PlanView) {
        for epoch in plan.lost_epochs() {
            let lost = match plan.hidden.iter().find(|hidden| hidden.epoch == epoch) {
                Some(hidden) => format!("nothing in it does, and {} there", lie(hidden.count)),
                None => "nothing in it does".to_owned(),
            };
            let what = format!("neither copy of its epoch.json counts, so {lost}: see kbak verify");
            self.reporter.warn(format!("epoch {epoch} of plan {}", plan.plan), what);
        }
    }

    /// Nothing is there that `which` names. If that may be because something does not count, it is
    /// said so.
    pub(super) fn none(&self, plans: &[PlanView], which: &Which) -> Failure {
        let rejected: Vec<_> = plans.iter().flat_map(|plan| &plan.chain.rejected).collect();
        if let Some((object, error)) = rejected.first() {
            let what = format!("no snapshot {} that a pinned key signed", which.snapshot);
            return Failure::new(Exit::Damaged, what)
                .fact(object.to_string(), error.to_string())
                .remedy("is this the right kbak.pub? kbak verify shows every object that is wrong");
        }
        let what = format!("no snapshot {} in {}", which.snapshot, self.store.describe());
        if plans.iter().any(|plan| !plan.hidden.is_empty()) {
            return unread(what, plans.iter().filter(|plan| !plan.hidden.is_empty()));
        }
        let count: usize = plans.iter().map(|plan| plan.chain.len()).sum();
        let unpinned = plans.iter().flat_map(|plan| &plan.epochs.rejected).next();
        let exit = if unpinned.is_some() { Exit::Damaged } else { Exit::Usage };
        let mut failure = Failure::new(exit, what).fact("snapshots there", count.to_string());
        if let Some((object, error)) = unpinned {
            failure = failure.fact(object.to_string(), error.to_string());
        }
        failure.remedy("kbak snapshots lists what there is; --signer says whose snapshots count")
    }
}

impl PlanView {
    /// Whether snapshots lie there, and none of them counts.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        self.chain.is_empty() && !(self.hidden.is_empty() && self.chain.rejected.is_empty())
    }

    /// What lies there with a greater number than `snapshot` and does not count, and why.
    #[must_use]
    pub fn newer_damage(&self, snapshot: &Snapshot) -> Vec<(String, String)> {
        let seq = snapshot.envelope().seq;
        let newer = |key: &ObjectKey| number(key).is_some_and(|named| named > seq);
        let manifests = self.chain.rejected.iter().filter(|(key, _)| newer(key));
        let manifests = manifests.map(|(key, error)| (key.to_string(), error.to_string()));
        let hidden = self.hidden.iter().filter(|hidden| hidden.newest > seq).map(|hidden| {
            let why = "its epoch is gone or does not count, and its snapshots with it";
            (hidden.place.clone(), why.to_owned())
        });
        manifests.chain(hidden).collect()
    }
}

/// The latest of those that can be read is not the latest when something newer is damaged: what was
/// lost with it must not go unsaid. Nor is it the only one that could be meant when nothing can be
/// read of another plan.
///
/// # Errors
/// When that is so.
pub(super) fn refuse_latest(plans: &[PlanView], at: &PlanView, snapshot: &Snapshot) -> Result<(), Failure> {
    let wrong = at.newer_damage(snapshot);
    if !wrong.is_empty() {
        return Err(older(snapshot, wrong));
    }
    if !plans.iter().any(PlanView::is_unread) {
        return Ok(());
    }
    let what = "the snapshots of another plan lie there too, and none of them can be read";
    let failure = unread(what.to_owned(), plans.iter().filter(|plan| plan.is_unread()));
    Err(failure.remedy(format!(
        "to use the one plan that can be read, say --plan-id {}; kbak verify shows everything that is wrong",
        at.plan
    )))
}

fn older(snapshot: &Snapshot, wrong: Vec<(String, String)>) -> Failure {
    let seq = snapshot.envelope().seq;
    let what = format!("snapshot {seq:06} is the newest that counts, and something newer lies there");
    let finished = format!("finished {}", snapshot.envelope().finished);
    let mut failure = Failure::new(Exit::Damaged, what).fact(format!("snapshot {seq:06}"), finished);
    for (object, why) in wrong.into_iter().take(NAMED) {
        failure = failure.fact(object, why);
    }
    failure.remedy(format!(
        "to use it all the same, say {seq} instead of latest; kbak verify shows everything that is wrong"
    ))
}

/// What is wrong with plans of which snapshots lie there that cannot be read.
pub fn unread<'a>(what: String, plans: impl Iterator<Item = &'a PlanView>) -> Failure {
    let mut failure = Failure::new(Exit::Damaged, what);
    let mut facts = Vec::new();
    for plan in plans {
        for hidden in &plan.hidden {
            let why = format!(
                "{} there, up to {:06}, and neither copy of epoch.json counts",
                lie(hidden.count),
                hidden.newest
            );
            facts.push((format!("plan {}, epoch {}", plan.plan, hidden.epoch), why));
        }
        let epochs = plan.epochs.rejected.iter().map(|(key, error)| (key, error.to_string()));
        let manifests = plan.chain.rejected.iter().map(|(key, error)| (key, error.to_string()));
        facts.extend(epochs.chain(manifests).map(|(key, why)| (key.to_string(), why)));
    }
    for (object, why) in facts.into_iter().take(NAMED) {
        failure = failure.fact(object, why);
    }
    failure.remedy(
        "bring back what kbak verify names, from older versions in the bucket or from a copy of it; \
         epochs/<epoch>.json and <epoch>/epoch.json are identical, and one of them is enough",
    )
}

fn number(key: &ObjectKey) -> Option<u64> {
    layout::parse_snapshot_name(key.name()).map(|(seq, _)| seq)
}

fn lie(count: u64) -> String {
    plural(count, "snapshot lies", "snapshots lie")
}
