//! Counts over the decisions of a plan.

use std::collections::{HashMap, HashSet};

use super::{Action, Conflict, Decision};
use crate::kubernetes::{ApiError, Cluster};
use crate::target::kubernetes::{
    LiveOwners, ObjectKey, OwnerReference, PendingWrites, Refusal, ServedKinds, apply::second_write::UidMap,
    is_merged, is_shared_namespace,
};

/// The largest number of owners that are looked up in the cluster.
const MAX_OWNER_LOOKUPS: usize = 10_000;

#[derive(Default)]
pub(super) struct PlanCounts {
    pub(super) writes: u64,
    pub(super) second_writes: u64,
    /// Second writes to objects that are otherwise left unchanged.
    pub(super) finished: u64,
    pub(super) bytes: u64,
    pub(super) helm_moved: u64,
    names: HashSet<ObjectKey>,
    /// Backup UIDs of objects that will exist.
    restored_uids: HashSet<u128>,
    /// Backup UIDs of owners, and the number of objects that name them.
    owners: HashMap<u128, u64>,
    /// Owners that may exist in the cluster, with the namespace of one object that they own.
    possible_owners: HashMap<u128, (OwnerReference, String)>,
}

/// Data about an object that is kept for the counts after the object is dropped.
#[derive(Default)]
pub(super) struct ObjectFacts {
    pub(super) from: String,
    pub(super) old_uid: u128,
    pub(super) owners: Vec<OwnerReference>,
    pub(super) pending: PendingWrites,
    pub(super) is_second_write_only: bool,
    pub(super) helm_moved: bool,
    pub(super) bytes: u64,
}

impl PlanCounts {
    /// Counts an object. Returns false if it is a namespace that was counted before.
    pub(super) fn add(&mut self, decision: &mut Decision, facts: &ObjectFacts) -> bool {
        let sent = matches!(decision.action, Action::Create | Action::Patch | Action::Replace);
        let exists = sent || matches!(decision.action, Action::Leave | Action::Conflict(Conflict::Differs));
        if exists && !self.names.insert(decision.object.key()) && !is_merged(&decision.object) {
            decision.action = Action::Conflict(Conflict::Collides);
            let message = format!("that of namespace {} is not restored, another has its name", facts.from);
            decision.refusal = Some(Refusal::not_sent("Collides", message));
            return !is_shared_namespace(&decision.object);
        }
        self.helm_moved += u64::from(facts.helm_moved);
        if exists {
            self.restored_uids.insert(facts.old_uid);
        }
        if sent && !facts.is_second_write_only {
            self.writes += 1;
            self.bytes += facts.bytes;
        }
        self.second_writes += u64::from(decision.second);
        self.finished += u64::from(decision.second && !sent);
        let owners = if facts.pending.owners { facts.owners.as_slice() } else { &[] };
        for owner in owners {
            let uid = UidMap::key(&owner.uid);
            *self.owners.entry(uid).or_default() += 1;
            if !self.restored_uids.contains(&uid) && self.possible_owners.len() < MAX_OWNER_LOOKUPS {
                let of = || (owner.clone(), decision.object.namespace.clone());
                self.possible_owners.entry(uid).or_insert_with(of);
            }
        }
        true
    }

    /// Returns the number of references whose owner is neither restored nor in the cluster.
    pub(super) async fn owners_lost(&self, cluster: &Cluster, target: &ServedKinds) -> Result<u64, ApiError> {
        let live_owners = LiveOwners::default();
        let mut lost = 0;
        for (uid, number) in self.owners.iter().filter(|(uid, _)| !self.restored_uids.contains(*uid)) {
            let existing = match self.possible_owners.get(uid) {
                Some((owner, namespace)) => {
                    live_owners.find_uid(cluster, target, owner, namespace).await?.unwrap_or_default()
                }
                None => None,
            };
            lost += if existing.is_some() { 0 } else { *number };
        }
        Ok(lost)
    }
}
