//! Checks what links the snapshots of a plan: epochs, the chain, and the revocations that they name.

use std::collections::{BTreeMap, BTreeSet};

use super::Check;
use super::finding::{Fault, ObjectKind};
use crate::format::epoch::EpochError;
use crate::format::ids::{EpochId, ObjectHash, RecipientId};
use crate::format::layout::{self, EpochPath, ObjectKey};
use crate::format::manifest::ManifestError;
use crate::format::sign::{Namespace, Operation};
use crate::format::wrap::MAX_WRAP;
use crate::report::error::causes;
use crate::report::text::plural;
use crate::repository::chain::ChainFault;
use crate::repository::fetched::{self, Fetched};
use crate::repository::read::reader::StoredPlan;
use crate::repository::records::Records;
use crate::store::StoreError;

impl Check<'_> {
    /// Reports revocations that snapshots name and that are not in the store.
    pub(super) fn check_revocations(&mut self, plan: &StoredPlan, records: &Records) {
        let there: BTreeSet<ObjectHash> = records.revocations().into_iter().collect();
        let named: BTreeSet<ObjectHash> =
            self.chain.iter().flat_map(|snapshot| snapshot.envelope().trust.iter().copied()).collect();
        for gone in named.difference(&there) {
            let place = layout::record(plan.writer, Namespace::Trust.document_type(), *gone);
            let detail = "snapshots name this owner's revocation of a key";
            self.findings.add(place.as_str(), ObjectKind::Record, Fault::Missing, detail);
        }
    }

    /// Reports keys of later owners that receipts name and that are not in the store as they were put. An owner
    /// with another key that is there has lost nothing.
    pub(super) async fn check_wraps(
        &mut self,
        plan: &StoredPlan,
        records: &Records,
    ) -> Result<(), StoreError> {
        for stored in &plan.epochs.all {
            let (path, id) = (stored.epoch.path(), stored.epoch.epoch);
            let mut owners: BTreeMap<RecipientId, Vec<(ObjectKey, bool)>> = BTreeMap::new();
            for (owner, wrap) in records.added(plan.plan, id) {
                let key = path.wrap(wrap);
                let found = fetched::get(&self.view.store, &key, wrap, MAX_WRAP).await?;
                owners.entry(owner).or_default().push((key, matches!(found, Fetched::Valid(_))));
            }
            for wraps in owners.values().filter(|wraps| !wraps.iter().any(|(_, is_there)| *is_there)) {
                for (key, _) in wraps {
                    let detail = "a receipt names it: its owner cannot open this epoch";
                    self.findings.add(key.as_str(), ObjectKind::Wrap, Fault::Missing, detail);
                }
            }
        }
        Ok(())
    }

    /// Checks both copies of every epoch, and reports epochs that are named and missing.
    pub(super) fn epochs(&mut self, plan: &StoredPlan, named: impl Iterator<Item = EpochId>) {
        let revoked = |error: &EpochError| matches!(error, EpochError::Revoked { .. });
        for (key, error) in plan.epochs.rejected.iter().filter(|(_, error)| !revoked(error)) {
            self.findings.add(key.as_str(), ObjectKind::Epoch, epoch_fault(error), causes(error));
        }
        for missing in &plan.epochs.missing {
            self.findings.add(missing.place.as_str(), ObjectKind::Epoch, Fault::Missing, "its twin is there");
        }
        let before = plan.epochs.all.iter().flat_map(|stored| stored.epoch.previous_epochs.iter().copied());
        let all: BTreeSet<EpochId> = plan.epochs.gone.iter().copied().chain(before).chain(named).collect();
        for epoch in all {
            let path = EpochPath { writer: plan.writer, plan: plan.plan, epoch };
            let key = path.epoch_json();
            let of = |key: &ObjectKey| layout::parse_epoch(key).is_some_and(|(_, id)| id == epoch);
            let rejected = plan.epochs.rejected.iter().any(|(key, _)| of(key));
            if plan.epochs.get(epoch).is_some() || rejected {
                continue;
            }
            let detail = "something names this epoch, and neither it nor its twin is there";
            self.findings.add(key.as_str(), ObjectKind::Epoch, Fault::Missing, detail);
        }
        for user in 0..self.chain.len() {
            let key = self.chain[user].envelope().path().epoch_json();
            self.mark_affected_item(key.as_str(), user, None);
        }
    }

    pub(super) fn check_chain(&mut self, plan: &StoredPlan) {
        let revoked = |error: &ManifestError| matches!(error, ManifestError::Revoked);
        let of_revoked = plan.chain.rejected.iter().filter(|(_, error)| revoked(error)).count() as u64;
        if of_revoked > 0 {
            let what = plural(of_revoked, "snapshot of a revoked key", "snapshots of revoked keys");
            self.not_checked(format!("{what}: an owner says that they do not count"));
        }
        for (key, error) in plan.chain.rejected.iter().filter(|(_, error)| !revoked(error)) {
            let fault = match error {
                ManifestError::Name | ManifestError::NotAFile => Fault::Altered,
                ManifestError::Signed(error) if error.is_newer() => Fault::Newer,
                ManifestError::Signed(_) | ManifestError::WrongPath { .. } | ManifestError::Revoked => {
                    Fault::Signature
                }
                ManifestError::Contradiction(_) => Fault::Malformed,
            };
            self.findings.add(key.as_str(), ObjectKind::Snapshot, fault, causes(error));
        }
        for late in &plan.chain.late {
            let detail =
                format!("the store received it at {}, when no run of its epoch could go on", late.stored);
            self.findings.add(late.key.as_str(), ObjectKind::Snapshot, Fault::Late, detail);
        }
        for stored in &plan.epochs.all {
            if let Some(feature) = stored.epoch.missing_features().of(Operation::Verify).next() {
                let detail = format!("it requires the feature {feature} of whoever verifies");
                let key = stored.epoch.path().epoch_json();
                self.findings.add(key.as_str(), ObjectKind::Epoch, Fault::Newer, detail);
            }
        }
        for snapshot in &self.chain {
            if let Some(feature) = snapshot.manifest.missing_features().of(Operation::Verify).next() {
                let detail = format!("it requires the feature {feature} of whoever verifies");
                self.findings.add(snapshot.key.as_str(), ObjectKind::Snapshot, Fault::Newer, detail);
            }
        }
        for broken in plan.breaks() {
            let (seq, known) = match &broken {
                ChainFault::ParentMissing { seq, parent } => (*seq, names(plan, *parent)),
                ChainFault::Sequence { seq, .. } | ChainFault::BackInTime { seq, .. } => (*seq, false),
            };
            // The parent exists, and has a finding of its own.
            if known {
                continue;
            }
            for snapshot in self.chain.iter().filter(|snapshot| snapshot.envelope().seq == seq) {
                let key = snapshot.key.as_str();
                self.findings.add(key, ObjectKind::Snapshot, Fault::Chain, broken.to_string());
            }
        }
    }
}

/// True if a rejected manifest has the name of `hash`.
pub(super) fn names(plan: &StoredPlan, hash: ObjectHash) -> bool {
    let named =
        |key: &ObjectKey| layout::parse_snapshot_name(key.name()).is_some_and(|(_, name)| name == hash);
    plan.chain.rejected.iter().any(|(key, _)| named(key))
}

fn epoch_fault(error: &EpochError) -> Fault {
    match error {
        error if error.is_newer() => Fault::Newer,
        EpochError::NotAFile { .. } => Fault::Altered,
        EpochError::Document { .. } | EpochError::WrongPath { .. } | EpochError::Revoked { .. } => {
            Fault::Signature
        }
        EpochError::Newer { .. } => Fault::Newer,
        EpochError::Field { .. } | EpochError::Recipient { .. } => Fault::Malformed,
    }
}
