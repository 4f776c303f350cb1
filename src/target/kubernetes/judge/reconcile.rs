//! Decides about an existing object. The plan and the restore use the same function.

use serde_json::{Value, json};

use super::{PendingWrites, PreparedObject, SecondWrite, is_merged, side_effects};
use crate::kubernetes::count_step;
use crate::plan::ExistingPolicy;
use crate::target::kubernetes::{ObjectRef, Refusal, RefusalCause, RestoreConfig, change::merge, text};

/// The largest number of fields that are named.
const MAX_NAMED: usize = 8;

#[derive(Debug)]
pub(crate) enum ExistingAction {
    /// It equals the backup and is left unchanged.
    Unchanged,
    /// It differs from the backup but may be as a restore would create it; a dry run decides.
    MaybeAsCreated,
    /// It is replaced, unless a dry run shows that this would change nothing.
    MaybeReplace,
    /// It differs and is left unchanged.
    Differs,
    /// Others share it; this merge patch adds the fields of the backup.
    Merge(Value),
    /// It is changed to the backup's state, by this merge patch or by second writes alone.
    Patch(Option<Value>),
    /// It is replaced.
    Replace,
}

impl ExistingAction {
    /// Returns the second writes that an `existing` object still needs after the action.
    pub(crate) fn pending_writes(&self, second_write: &SecondWrite, existing: &Value) -> PendingWrites {
        match self {
            Self::Differs | Self::MaybeAsCreated => PendingWrites::default(),
            // The other users of a shared object decide its owners.
            Self::Unchanged | Self::Merge(_) => second_write.unfinished(existing),
            Self::Patch(_) => second_write.after_patch(existing),
            Self::MaybeReplace | Self::Replace => second_write.after_create(),
        }
    }
}

/// Compares an `existing` object with the one that would be created. If that would be suspended, it takes over
/// the suspension of the existing one.
pub(crate) fn reconcile(
    config: &RestoreConfig,
    object: &ObjectRef,
    prepared: &mut PreparedObject,
    existing: &Value,
) -> ExistingAction {
    if prepared.suspended {
        side_effects::keep_running(&prepared.kind, &mut prepared.body, existing);
    }
    let (comparison, second_write) = (prepared.compare(existing), &prepared.second_write);
    let owned = second_write.is_owned(existing);
    let is_same = comparison.is_same() && owned;
    let status = || second_write.lacks_status(existing);
    match (config.existing, comparison.patch) {
        (Some(ExistingPolicy::Replace), patch) if !is_same => {
            match owned && !sets_missing(existing, &patch) {
                true => ExistingAction::MaybeReplace,
                false => ExistingAction::Replace,
            }
        }
        (Some(ExistingPolicy::Replace), _) if status() => ExistingAction::Patch(None),
        // A patch keeps fields that only the cluster has.
        (Some(ExistingPolicy::Patch), patch) => {
            let patch = if owned { patch } else { with_owners(patch, &prepared.body) };
            let second = status() || (!owned && second_write.sets_owners());
            if patch.is_some() || second { ExistingAction::Patch(patch) } else { ExistingAction::Unchanged }
        }
        _ if is_same => ExistingAction::Unchanged,
        (_, patch) if is_merged(object) => patch.map_or(ExistingAction::Unchanged, ExistingAction::Merge),
        (_, patch) if owned && !sets_missing(existing, &patch) => ExistingAction::MaybeAsCreated,
        _ => ExistingAction::Differs,
    }
}

/// The reason of a volume that a restore must not take from a claim.
pub(crate) const VOLUME_IN_USE: &str = "VolumeInUse";

/// Refuses to give a volume to another claim than the one it is bound to: that claim would lose its data.
pub(crate) fn refuse_bound_volume(prepared: &PreparedObject, existing: &Value) -> Option<Refusal> {
    if prepared.kind.resource() != "persistentvolumes" || text(existing, "/status/phase") == "Released" {
        return None;
    }
    let claim =
        |of: &Value| format!("{}/{}", text(of, "/spec/claimRef/namespace"), text(of, "/spec/claimRef/name"));
    let (bound_to, wanted) = (claim(existing), claim(&prepared.body));
    let is_bound = !text(existing, "/spec/claimRef/uid").is_empty();
    let names_another = prepared.body.pointer("/spec/claimRef").is_some() && wanted != bound_to;
    (is_bound && names_another).then(|| {
        let message = format!("it is bound to the claim {bound_to}, and is not given to {wanted}");
        Refusal::not_sent(VOLUME_IN_USE, message).with_cause(RefusalCause::Other)
    })
}

impl PreparedObject {
    /// Returns the action for an existing object with its owners that the server would not change.
    pub(crate) fn unchanged(&self, existing: &Value) -> ExistingAction {
        match self.second_write.lacks_status(existing) {
            true => ExistingAction::Patch(None),
            false => ExistingAction::Unchanged,
        }
    }
}

/// True if a patch sets fields that `existing` lacks: no default or webhook explains that.
fn sets_missing(existing: &Value, patch: &Option<Value>) -> bool {
    patch.as_ref().is_some_and(|patch| lacks_fields(existing, patch))
}

/// Adds the owners of `body` to a patch: owners that a modifier chose are part of the object itself.
fn with_owners(patch: Option<Value>, body: &Value) -> Option<Value> {
    let Some(owners) = body.pointer("/metadata/ownerReferences") else { return patch };
    let mut patch = patch.unwrap_or_else(|| json!({}));
    merge(&mut patch, &json!({"metadata": {"ownerReferences": owners}}));
    Some(patch)
}

/// True if `existing` equals the object that would be created, including its owners.
pub(crate) fn matches_existing(prepared: &PreparedObject, existing: &Value) -> bool {
    prepared.compare(existing).is_same() && prepared.second_write.is_owned(existing)
}

/// Returns the names of fields that were sent but are missing in the `answer`. The server prunes fields
/// unknown to the definition or to the stored version, and reports only the former.
pub(crate) fn lost_fields(prepared: &PreparedObject, answer: &Value) -> Vec<String> {
    let mut fields = Vec::new();
    // The group of a custom resource has a dot.
    if prepared.kind.group.contains('.')
        && let Some(patch) = prepared.compare(answer).patch
    {
        collect_missing(answer, &patch, &mut String::new(), &mut fields);
    }
    fields
}

/// True if `existing` lacks fields that `wanted` sets.
pub(crate) fn lacks_fields(existing: &Value, wanted: &Value) -> bool {
    let mut fields = Vec::new();
    collect_missing(existing, wanted, &mut String::new(), &mut fields);
    !fields.is_empty()
}

/// Collects fields that `wanted` sets and `existing` lacks, below the path `at`. A field that the server or a
/// webhook changed is not lacking.
fn collect_missing(existing: &Value, wanted: &Value, at: &mut String, fields: &mut Vec<String>) {
    count_step();
    let length = at.len();
    match (existing, wanted) {
        (Value::Object(existing), Value::Object(wanted)) => {
            for (name, wanted) in wanted {
                if fields.len() >= MAX_NAMED {
                    return;
                }
                at.push_str(if length == 0 { "" } else { "." });
                at.push_str(name);
                match existing.get(name) {
                    Some(existing) => collect_missing(existing, wanted, at, fields),
                    None if wanted.is_null() || is_empty(wanted) => {}
                    None => fields.push(at.clone()),
                }
                at.truncate(length);
            }
        }
        (Value::Array(existing), Value::Array(wanted)) if existing.len() == wanted.len() => {
            for (number, (existing, wanted)) in existing.iter().zip(wanted).enumerate() {
                at.push_str(&format!("[{number}]"));
                collect_missing(existing, wanted, at, fields);
                at.truncate(length);
            }
        }
        _ => {}
    }
}

/// True if the value is equivalent to a missing field.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_missing_fields_count_as_unset() {
        let existing = json!({"spec": {"a": 1, "list": [{"name": "x", "port": 80}]}});
        for (wanted, lost) in [
            (json!({"spec": {"a": 2}}), false),
            (json!({"spec": {"b": 2}}), true),
            (json!({"spec": {"b": null, "c": "", "d": [], "e": {}}}), false),
            (json!({"spec": {"list": [{"name": "x", "port": 81}]}}), false),
            (json!({"spec": {"list": [{"name": "x", "keep": 1}]}}), true),
            (json!({"spec": {"list": [{"name": "x"}, {"name": "y"}]}}), false),
        ] {
            assert_eq!(lacks_fields(&existing, &wanted), lost, "{wanted}");
        }
    }
}
