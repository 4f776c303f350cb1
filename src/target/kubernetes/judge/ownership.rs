//! Detects objects that a restore created and the second writes that they still need, by the field managers
//! that the server records.

use std::collections::HashSet;

use serde_json::Value;

use crate::kubernetes::{KindInfo, count_step};
use crate::target::kubernetes::{OwnerReference, OwnerSet, change::differs, each, each_mut, text};

pub(crate) const FIELD_MANAGER: &str = "kbak";

/// The fields of an object that a second write sets.
#[derive(Debug, Default)]
pub(crate) struct SecondWrite {
    /// The owners in the backup, as the target names them.
    pub(crate) owners: Vec<OwnerReference>,
    /// True if a modifier set the owners; they are then part of the create.
    modified: bool,
    /// The managers of its fields, if any used apply: only those need a second write.
    managers: HashSet<FieldManager>,
    /// The status, if its restore was requested.
    status: Option<Value>,
    /// True if the backup has another version of the API, in which the status may differ.
    other_version: bool,
}

/// A field manager's name, operation, subresource and time.
#[derive(Debug, PartialEq, Eq, Hash)]
struct FieldManager([String; 4]);

impl FieldManager {
    fn new(entry: &Value) -> Self {
        count_step();
        Self(["/manager", "/operation", "/subresource", "/time"].map(|part| text(entry, part).to_owned()))
    }
}

/// The difference between the owners of an existing object and those in the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OwnerComparison {
    /// They are the same.
    Same,
    /// Some are missing, and there are no others.
    Missing,
    /// There are other owners.
    Different,
}

/// The second writes that an object still needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PendingWrites {
    pub(crate) owners: bool,
    pub(crate) managers: bool,
    pub(crate) status: bool,
}

impl PendingWrites {
    pub(crate) fn any(self) -> bool {
        self != Self::default()
    }
}

impl SecondWrite {
    /// Returns the second writes for a `stored` object; `owners` are named as in the target. `status`:
    /// restore its status.
    pub(crate) fn new(stored: &Value, owners: Vec<OwnerReference>, status: bool) -> Self {
        let managers = || each(stored, "/metadata/managedFields");
        let applied = managers().any(|one| text(one, "/operation") == "Apply");
        Self {
            owners,
            modified: false,
            managers: managers().filter(|_| applied).map(FieldManager::new).collect(),
            status: stored.get("status").filter(|_| status).cloned(),
            other_version: false,
        }
    }

    /// Removes the writes that the create of `body` already does.
    pub(super) fn without_created(mut self, body: &Value, kind: &KindInfo, other_version: bool) -> Self {
        self.other_version = other_version;
        self.status = self.status.filter(|_| kind.has("status"));
        if body.pointer("/metadata/ownerReferences").is_some() {
            self.owners = each(body, "/metadata/ownerReferences").map(OwnerReference::new).collect();
            self.modified = true;
        }
        self
    }

    /// Returns the writes for an object that was just created or replaced.
    pub(crate) fn after_create(&self) -> PendingWrites {
        let managers = !self.managers.is_empty();
        PendingWrites { owners: self.sets_owners(), managers, status: self.status.is_some() }
    }

    pub(crate) fn sets_owners(&self) -> bool {
        !self.owners.is_empty() && !self.modified
    }

    /// Returns the writes that a patch of the object does not cover.
    pub(super) fn after_patch(&self, existing: &Value) -> PendingWrites {
        let owners = self.sets_owners() && self.compare_owners(existing) != OwnerComparison::Same;
        let unfinished = self.unfinished(existing);
        let managers = unfinished.managers || (owners && self.may_manage(existing));
        PendingWrites {
            owners,
            managers,
            status: self.lacks_status(existing) || (self.other_version && unfinished.status),
        }
    }

    /// Returns the writes that an earlier restore did not finish on an object left unchanged. Managers are
    /// written last and remove the restore's own entry.
    pub(super) fn unfinished(&self, existing: &Value) -> PendingWrites {
        if !may_be_from_restore(existing) {
            return PendingWrites::default();
        }
        let owners = self.sets_owners() && self.compare_owners(existing) == OwnerComparison::Missing;
        let managed = each(existing, "/metadata/managedFields").any(|one| text(one, "/operation") == "Apply");
        let has_status = each(existing, "/metadata/managedFields").any(is_of_status);
        PendingWrites {
            owners,
            managers: self.may_manage(existing) && (owners || (has_restore_manager(existing) && !managed)),
            status: self.status.is_some() && !has_status,
        }
    }

    /// Compares the owners of `existing` with those in the backup. In another cluster their UIDs differ, and
    /// their versions may.
    fn compare_owners(&self, existing: &Value) -> OwnerComparison {
        let owners: Vec<OwnerReference> =
            each(existing, "/metadata/ownerReferences").map(OwnerReference::new).collect();
        // An owner may be listed twice, also by the UID of a deleted one.
        let all_in = |these: &[OwnerReference], those: &[OwnerReference]| {
            let those = OwnerSet::new(those);
            these.iter().all(|owner| those.contains(owner))
        };
        match (all_in(&owners, &self.owners), all_in(&self.owners, &owners)) {
            (true, true) => OwnerComparison::Same,
            (true, false) if !self.modified => OwnerComparison::Missing,
            _ => OwnerComparison::Different,
        }
    }

    /// True if `existing` has its owners, or if a restore created it and still has to set the missing ones.
    /// Those are set whatever the config says.
    pub(crate) fn is_owned(&self, existing: &Value) -> bool {
        match self.compare_owners(existing) {
            OwnerComparison::Same => true,
            OwnerComparison::Missing => may_be_from_restore(existing),
            OwnerComparison::Different => false,
        }
    }

    /// True if managers are to be written and no other manager has written since, whose entry would be lost.
    fn may_manage(&self, existing: &Value) -> bool {
        let known = |entry: &Value| {
            text(entry, "/manager") == FIELD_MANAGER
                || is_of_status(entry)
                || self.managers.contains(&FieldManager::new(entry))
        };
        !self.managers.is_empty() && each(existing, "/metadata/managedFields").all(known)
    }

    /// True if the status is to be restored and `existing` has another one.
    pub(crate) fn lacks_status(&self, existing: &Value) -> bool {
        self.status.clone().filter(|_| !self.other_version).is_some_and(|mut status| {
            reset_observed_generation(&mut status, &existing["metadata"]["generation"]);
            differs(&status, &existing["status"])
        })
    }
}

/// Sets observed generations to the new object's generation, because generations start again.
pub(crate) fn reset_observed_generation(status: &mut Value, generation: &Value) {
    if generation.is_null() {
        return;
    }
    let now = |of: &mut Value| {
        if let Some(seen) = of.get_mut("observedGeneration") {
            seen.clone_from(generation);
        }
    };
    now(status);
    each_mut(status, "/conditions").for_each(now);
}

/// True if the server records a restore as a writer of the object.
pub(crate) fn has_restore_manager(existing: &Value) -> bool {
    each(existing, "/metadata/managedFields").any(|fields| text(fields, "/manager") == FIELD_MANAGER)
}

/// True if a restore may have created it: the server records no writer for an object without fields.
pub(crate) fn may_be_from_restore(existing: &Value) -> bool {
    has_restore_manager(existing) || each(existing, "/metadata/managedFields").next().is_none()
}

fn is_of_status(fields: &Value) -> bool {
    text(fields, "/subresource") == "status"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn owners_are_compared_by_kind_name_and_role() {
        let owner = |name: &str, controller: bool| match controller {
            true => json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "controller": true}),
            false => json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": name}),
        };
        let object = |owners: &[Value]| json!({"metadata": {"ownerReferences": owners}});
        let (a, b, controls) = (owner("a", false), owner("b", false), owner("a", true));
        for (wanted, existing, owned) in [
            (vec![], vec![], OwnerComparison::Same),
            (vec![a.clone(), b.clone()], vec![b.clone(), a.clone()], OwnerComparison::Same),
            (vec![a.clone(), b.clone()], vec![b.clone()], OwnerComparison::Missing),
            (vec![a.clone()], vec![b.clone()], OwnerComparison::Different),
            (vec![a.clone()], vec![controls], OwnerComparison::Different),
            (vec![], vec![a.clone()], OwnerComparison::Different),
            (vec![a.clone(), b.clone()], vec![a.clone(), a.clone()], OwnerComparison::Missing),
            (vec![a.clone(), a.clone()], vec![a], OwnerComparison::Same),
        ] {
            let second_write = SecondWrite {
                owners: wanted.iter().map(OwnerReference::new).collect(),
                ..SecondWrite::default()
            };
            assert_eq!(second_write.compare_owners(&object(&existing)), owned, "{wanted:?}");
        }
    }

    #[test]
    fn patch_keeps_pending_writes_of_an_earlier_restore() {
        let applied = json!({"manager": "argo", "operation": "Apply"});
        let object = |manager: &Value, status: u32| json!({"metadata": {"managedFields": [manager]}, "status": {"a": status}});
        let second_write = SecondWrite::new(&object(&applied, 1), Vec::new(), true);
        let ours = object(&json!({"manager": FIELD_MANAGER, "operation": "Update"}), 2);
        let pending = |existing: &Value| second_write.after_patch(existing);
        assert_eq!(pending(&ours), PendingWrites { owners: false, managers: true, status: true });
        assert_eq!(
            pending(&object(&applied, 2)),
            PendingWrites { owners: false, managers: false, status: true }
        );
        let other_version =
            SecondWrite { other_version: true, ..SecondWrite::new(&object(&applied, 1), Vec::new(), true) };
        assert_eq!(other_version.after_patch(&ours), pending(&ours), "no manager set the status");
        let with_status = json!({"metadata": {"managedFields": [{"manager": FIELD_MANAGER}, {"manager": "a", "subresource": "status"}]}});
        assert!(!other_version.after_patch(&with_status).status, "the status may differ in this version");
    }

    #[test]
    fn observed_generations_are_set_to_the_new_one() {
        let mut status =
            json!({"observedGeneration": 9, "conditions": [{"observedGeneration": 8}, {"type": "x"}]});
        reset_observed_generation(&mut status, &json!(1));
        assert_eq!(
            status,
            json!({"observedGeneration": 1, "conditions": [{"observedGeneration": 1}, {"type": "x"}]})
        );
    }
}
