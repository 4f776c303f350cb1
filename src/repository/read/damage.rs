//! Snapshots in the store that cannot be read, and the errors for requests that they affect. A
//! damaged store is never taken for one that holds fewer snapshots.

use futures::TryStreamExt as _;

use crate::cli::failure::{Exit, Failure};
use crate::format::ids::EpochId;
use crate::format::layout::{self, EpochPath, ObjectKey};
use crate::report::text::plural;
use crate::store::StoreError;
use crate::store::listing::list_all;

use crate::repository::chain::Snapshot;
use crate::repository::read::open::{PlanView, View, Which};

/// The most objects that one failure lists.
const NAMED: usize = 5;

/// Snapshots that cannot be read, because no valid copy of their epoch.json exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hidden {
    /// The epoch.
    pub epoch: EpochId,
    /// The prefix of their keys.
    pub place: String,
    /// The number of snapshots.
    pub count: u64,
    /// The greatest of their sequences.
    pub newest: u64,
}

impl View {
    /// Finds the snapshots under lost epochs.
    pub(crate) async fn hidden(&self, plan: &PlanView) -> Result<Vec<Hidden>, StoreError> {
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

    /// Warns of each lost epoch of a plan and of the snapshots lost with it.
    pub(crate) fn warn_of_lost(&self, plan: &PlanView) {
        for epoch in plan.lost_epochs() {
            let lost = match plan.hidden.iter().find(|hidden| hidden.epoch == epoch) {
                Some(hidden) => format!("nothing in it does, and {} there", lie(hidden.count)),
                None => "nothing in it does".to_owned(),
            };
            let what = format!("neither copy of its epoch.json counts, so {lost}: see kbak verify");
            self.reporter.warn(format!("epoch {epoch} of plan {}", plan.plan), what);
        }
    }

    /// Returns the failure for a snapshot that is not found. It names damage that may be the reason.
    pub(crate) fn none(&self, plans: &[PlanView], which: &Which) -> Failure {
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
    /// True if the plan has stored snapshots and none of them can be read.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        self.chain.is_empty() && !(self.hidden.is_empty() && self.chain.rejected.is_empty())
    }

    /// Returns invalid objects with a greater sequence than `snapshot`, each with the reason.
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

/// Refuses `latest` if the newest readable snapshot may not be the one meant: something newer
/// is damaged, or no snapshot of another plan can be read.
///
/// # Errors
/// In these two cases.
pub(crate) fn refuse_latest(plans: &[PlanView], at: &PlanView, snapshot: &Snapshot) -> Result<(), Failure> {
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

/// Returns a failure that lists the invalid objects of plans whose snapshots cannot be read.
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
