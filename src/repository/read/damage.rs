//! Snapshots in the store that cannot be read, and the errors for requests that they affect. A
//! damaged store is never taken for one that holds fewer snapshots.

use super::reader::{RepositoryReader, SnapshotSelector, StoredPlan, UnreadableSnapshots};
use crate::format::layout::{self, EpochPath, ObjectKey};
use crate::format::manifest::ManifestError;
use crate::format::sign::Namespace;
use crate::report::text::plural;
use crate::repository::chain::{MAX_SNAPSHOTS, Snapshot};
use crate::repository::{error::RepositoryError, signed_listing::SignedFolder};
use crate::store::StoreError;

impl RepositoryReader {
    /// Finds the snapshots under lost epochs.
    pub(crate) async fn hidden(&self, plan: &StoredPlan) -> Result<Vec<UnreadableSnapshots>, StoreError> {
        let mut all = Vec::new();
        for epoch in plan.lost_epochs() {
            let place = EpochPath { writer: plan.writer, plan: plan.plan, epoch }.snapshots_prefix();
            let (store, signers, reporter) = (&self.store, &self.signers, &self.reporter);
            let folder = SignedFolder { store, prefix: &place, writer: plan.writer, signers, reporter };
            let (signed, _) = folder.list(|_| Some(Namespace::Manifest), MAX_SNAPSHOTS).await?;
            let numbers: Vec<u64> = signed.iter().filter_map(|object| number(&object.entry.key)).collect();
            let (count, newest) = (numbers.len() as u64, numbers.into_iter().max().unwrap_or(0));
            if count > 0 {
                all.push(UnreadableSnapshots { epoch, place, count, newest });
            }
        }
        Ok(all)
    }

    /// Warns of each lost epoch of a plan and of the snapshots lost with it.
    pub(crate) fn warn_of_lost(&self, plan: &StoredPlan) {
        for epoch in plan.lost_epochs() {
            let lost = match plan.hidden.iter().find(|hidden| hidden.epoch == epoch) {
                Some(hidden) => format!("nothing in it does, and {} there", stored_snapshots(hidden.count)),
                None => "nothing in it does".to_owned(),
            };
            let what = format!("neither copy of its epoch.json counts, so {lost}: see kbak verify");
            self.reporter.warn(format!("epoch {epoch} of plan {}", plan.plan), what);
        }
    }

    /// Returns the error for a snapshot that is not found. It names damage that may be the reason.
    pub(crate) fn not_found(&self, plans: &[StoredPlan], which: &SnapshotSelector) -> RepositoryError {
        let snapshot = which.snapshot.clone();
        let shown =
            |object: &ObjectKey, error: &dyn std::fmt::Display| (object.to_string(), error.to_string());
        if let Some((object, error)) = plans.iter().flat_map(|plan| &plan.chain.rejected).next() {
            return RepositoryError::NotSigned { snapshot, rejected: shown(object, error) };
        }
        let unsigned = plans.iter().flat_map(|plan| [&plan.chain.unsigned, &plan.epochs.unsigned]);
        if let Some(object) = unsigned.filter_map(|unsigned| unsigned.first.as_ref()).next()
            && plans.iter().all(|plan| plan.chain.is_empty())
        {
            let why = "no pinned key signed it".to_owned();
            return RepositoryError::NotSigned { snapshot, rejected: (object.to_string(), why) };
        }
        let store = self.store.describe();
        if plans.iter().any(|plan| !plan.hidden.is_empty()) {
            let message = format!("no snapshot {snapshot} in {store}");
            return unreadable(message, plans.iter().filter(|plan| !plan.hidden.is_empty()));
        }
        let count = plans.iter().map(|plan| plan.chain.len()).sum();
        let rejected = plans.iter().flat_map(|plan| &plan.epochs.rejected).next();
        let rejected = rejected.map(|(object, error)| shown(object, error));
        RepositoryError::NotFound { snapshot, store, count, rejected }
    }
}

impl StoredPlan {
    /// True if the plan has stored snapshots and none of them can be read.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        self.chain.is_empty() && !(self.hidden.is_empty() && self.chain.rejected.is_empty())
    }

    /// Returns invalid objects with a greater sequence than `snapshot`, each with the reason.
    #[must_use]
    pub fn newer_damage(&self, snapshot: &Snapshot) -> Vec<(String, String)> {
        let seq = snapshot.envelope().seq;
        let newer = |key: &ObjectKey| number(key).is_some_and(|named| named > seq);
        // A revoked key's snapshots are known to be no good, and must not block those that are.
        let counts = |error: &ManifestError| !matches!(error, ManifestError::Revoked);
        let manifests = self.chain.rejected.iter().filter(|(key, error)| newer(key) && counts(error));
        let manifests = manifests.map(|(key, error)| (key.to_string(), error.to_string()));
        let hidden = self.hidden.iter().filter(|hidden| hidden.newest > seq).map(|hidden| {
            let why = "its epoch is gone or does not count, and its snapshots with it";
            (hidden.place.clone(), why.to_owned())
        });
        let late = self.chain.late.iter().filter(|late| late.envelope().seq > seq).map(|late| {
            let why = format!("it was stored at {}, after the end of its epoch", late.stored);
            (late.key.to_string(), why)
        });
        manifests.chain(hidden).chain(late).collect()
    }
}

/// Refuses `latest` if the newest readable snapshot may not be the one meant: something newer is damaged, or
/// no snapshot of another plan can be read.
pub(crate) fn check_latest(
    plans: &[StoredPlan],
    at: &StoredPlan,
    snapshot: &Snapshot,
) -> Result<(), RepositoryError> {
    let damaged = at.newer_damage(snapshot);
    if !damaged.is_empty() {
        let envelope = snapshot.envelope();
        let finished = envelope.finished.to_string();
        return Err(RepositoryError::NewerDamaged { seq: envelope.seq, finished, damaged });
    }
    if !plans.iter().any(StoredPlan::is_unreadable) {
        return Ok(());
    }
    let message = "the snapshots of another plan lie there too, and none of them can be read".to_owned();
    let objects = invalid_objects(plans.iter().filter(|plan| plan.is_unreadable()));
    Err(RepositoryError::Unreadable { message, objects, readable: Some(at.plan) })
}

/// Returns an error that lists the invalid objects of plans whose snapshots cannot be read.
pub fn unreadable<'a>(message: String, plans: impl Iterator<Item = &'a StoredPlan>) -> RepositoryError {
    RepositoryError::Unreadable { message, objects: invalid_objects(plans), readable: None }
}

fn invalid_objects<'a>(plans: impl Iterator<Item = &'a StoredPlan>) -> Vec<(String, String)> {
    let mut objects = Vec::new();
    for plan in plans {
        for hidden in &plan.hidden {
            let why = format!(
                "{} there, up to {:06}, and neither copy of epoch.json counts",
                stored_snapshots(hidden.count),
                hidden.newest
            );
            objects.push((format!("plan {}, epoch {}", plan.plan, hidden.epoch), why));
        }
        let epochs = plan.epochs.rejected.iter().map(|(key, error)| (key, error.to_string()));
        let manifests = plan.chain.rejected.iter().map(|(key, error)| (key, error.to_string()));
        objects.extend(epochs.chain(manifests).map(|(key, why)| (key.to_string(), why)));
    }
    objects
}

fn number(key: &ObjectKey) -> Option<u64> {
    layout::parse_snapshot_name(key.name()).map(|(seq, _)| seq)
}

fn stored_snapshots(count: u64) -> String {
    plural(count, "snapshot lies", "snapshots lie")
}
