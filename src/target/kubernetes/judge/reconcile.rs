//! Decides about an existing object. The plan and the restore use the same function.

use serde_json::{Value, json};

use crate::target::kubernetes::apply::ownership::{SecondWrite, is_as_made};
use crate::target::kubernetes::change::{Change, beside, merge};
use crate::target::kubernetes::config::{Existing, RestoreConfig};
use crate::target::kubernetes::judge::{Ready, merges, side_effects};
use crate::target::kubernetes::object::ObjectRef;

/// The largest number of fields that are named.
const NAMED: usize = 8;

/// The treatment of an existing object.
#[derive(Debug)]
pub(crate) enum ExistingAction {
    /// It equals the backup and is left unchanged.
    Leave,
    /// It differs from the backup but may be as a restore created it; a dry run decides.
    AsMade,
    /// It differs and is left unchanged.
    Differs,
    /// Others share it; this merge patch adds the fields of the backup.
    Merge(Value),
    /// It is changed to the backup's state, by this merge patch or by second writes alone.
    Patch(Option<Value>),
    /// It is replaced.
    Replace,
}

/// Compares the object that is `there` with the one that would be created. `suspended`: that one would be
/// suspended, so it takes over the suspension of the existing one.
pub(crate) fn reconcile(
    config: &RestoreConfig,
    object: &ObjectRef,
    ready: &mut Ready,
    wants: &SecondWrite,
    suspended: bool,
    there: &Value,
) -> ExistingAction {
    if suspended {
        side_effects::keep_running(&ready.kind, &mut ready.body, there);
    }
    let beside = beside(&ready.kind, ready.moved, &ready.body, there);
    let owned = wants.is_owned(there);
    let is_same = beside.is_same() && owned;
    let status = || wants.lacks_status(there);
    match (config.existing, beside.patch) {
        (Some(Existing::Replace), _) if !is_same => ExistingAction::Replace,
        (Some(Existing::Replace), _) if status() => ExistingAction::Patch(None),
        // A patch keeps fields that only the cluster has.
        (Some(Existing::Patch), patch) => {
            let patch = if owned { patch } else { with_owners(patch, &ready.body) };
            let second = status() || (!owned && wants.links());
            if patch.is_some() || second { ExistingAction::Patch(patch) } else { ExistingAction::Leave }
        }
        _ if is_same => ExistingAction::Leave,
        (_, patch) if merges(object) => patch.map_or(ExistingAction::Leave, ExistingAction::Merge),
        (_, patch)
            if owned
                && is_as_made(there)
                && !patch.as_ref().is_some_and(|patch| leaves_unset(there, patch)) =>
        {
            ExistingAction::AsMade
        }
        _ => ExistingAction::Differs,
    }
}

/// Adds the owners of `body` to a patch: owners that a modifier chose are part of the object itself.
fn with_owners(patch: Option<Value>, body: &Value) -> Option<Value> {
    let Some(owners) = body.pointer("/metadata/ownerReferences") else { return patch };
    let mut patch = patch.unwrap_or_else(|| json!({}));
    merge(&mut patch, &json!({"metadata": {"ownerReferences": owners}}));
    Some(patch)
}

/// True if `there` equals the object that would be created, including its owners.
pub(crate) fn is_there(ready: &Ready, wants: &SecondWrite, there: &Value) -> bool {
    beside(&ready.kind, ready.moved, &ready.body, there).is_same() && wants.is_owned(there)
}

/// Returns the names of fields that were sent but are missing in the `answer`. The server prunes fields
/// unknown to the definition or to the stored version, and reports only the former.
pub(crate) fn lost(ready: &Ready, answer: &Value) -> Vec<String> {
    let mut fields = Vec::new();
    // The group of a custom resource has a dot.
    if ready.kind.group.contains('.')
        && let Some(patch) = beside(&ready.kind, ready.moved, &ready.body, answer).patch
    {
        unset(answer, &patch, "", &mut fields);
    }
    fields
}

fn leaves_unset(there: &Value, wanted: &Value) -> bool {
    let mut fields = Vec::new();
    unset(there, wanted, "", &mut fields);
    !fields.is_empty()
}

/// Collects fields that `wanted` sets and `there` lacks. A field that the server or a webhook changed is not
/// lacking.
fn unset(there: &Value, wanted: &Value, at: &str, fields: &mut Vec<String>) {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => {
            for (name, wanted) in wanted {
                let at = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                match there.get(name) {
                    Some(there) => unset(there, wanted, &at, fields),
                    None if wanted.is_null() || is_empty(wanted) || fields.len() >= NAMED => {}
                    None => fields.push(at),
                }
            }
        }
        (Value::Array(there), Value::Array(wanted)) if there.len() == wanted.len() => {
            for (number, (there, wanted)) in there.iter().zip(wanted).enumerate() {
                unset(there, wanted, &format!("{at}[{number}]"), fields);
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

/// True if `changes` suspend the object.
pub(crate) fn suspended(changes: &[Change]) -> bool {
    changes.iter().any(|change| matches!(change, Change::Suspended { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_missing_fields_count_as_unset() {
        let there = json!({"spec": {"a": 1, "list": [{"name": "x", "port": 80}]}});
        for (wanted, lost) in [
            (json!({"spec": {"a": 2}}), false),
            (json!({"spec": {"b": 2}}), true),
            (json!({"spec": {"b": null, "c": "", "d": [], "e": {}}}), false),
            (json!({"spec": {"list": [{"name": "x", "port": 81}]}}), false),
            (json!({"spec": {"list": [{"name": "x", "keep": 1}]}}), true),
            (json!({"spec": {"list": [{"name": "x"}, {"name": "y"}]}}), false),
        ] {
            assert_eq!(leaves_unset(&there, &wanted), lost, "{wanted}");
        }
    }
}
