//! What becomes of an object that is there already. The plan and the restore ask the same function.

use serde_json::{Value, json};

use super::super::change::{Change, beside, merge};
use super::super::config::{Existing, RestoreConfig};
use super::super::made::{Wants, is_as_made};
use super::super::object::ObjectRef;
use super::{Ready, harm, merges};

/// Fields that are named.
const NAMED: usize = 8;

/// What becomes of it.
#[derive(Debug)]
pub(in super::super) enum Meeting {
    /// It is as in the backup, and is left alone.
    Leave,
    /// It is as a restore made it, though otherwise than in the backup: the server knows why.
    AsMade,
    /// It is otherwise, and is left alone.
    Differs,
    /// Others share it; this merge patch adds what the backup says.
    Merge(Value),
    /// It is brought to what the backup says, by this merge patch, or by second writes alone.
    Patch(Option<Value>),
    /// It is replaced.
    Replace,
}

/// Holds the object that is `there` against the one that would be created. `suspended`: that one would not
/// run by itself; but it runs or rests as the one that is there does.
pub(in super::super) fn meeting(
    config: &RestoreConfig,
    object: &ObjectRef,
    ready: &mut Ready,
    wants: &Wants,
    suspended: bool,
    there: &Value,
) -> Meeting {
    if suspended {
        harm::keep_running(&ready.kind, &mut ready.body, there);
    }
    let beside = beside(&ready.kind, ready.moved, &ready.body, there);
    let owned = wants.is_owned(there);
    let is_same = beside.is_same() && owned;
    let status = || wants.lacks_status(there);
    match (config.existing, beside.patch) {
        (Some(Existing::Replace), _) if !is_same => Meeting::Replace,
        (Some(Existing::Replace), _) if status() => Meeting::Patch(None),
        // What only the cluster has stays where it is patched.
        (Some(Existing::Patch), patch) => {
            let patch = if owned { patch } else { with_owners(patch, &ready.body) };
            let second = status() || (!owned && wants.links());
            if patch.is_some() || second { Meeting::Patch(patch) } else { Meeting::Leave }
        }
        _ if is_same => Meeting::Leave,
        (_, patch) if merges(object) => patch.map_or(Meeting::Leave, Meeting::Merge),
        (_, patch)
            if owned
                && is_as_made(there)
                && !patch.as_ref().is_some_and(|patch| leaves_unset(there, patch)) =>
        {
            Meeting::AsMade
        }
        _ => Meeting::Differs,
    }
}

/// A patch that sets the owners of `body`, too: those that a modifier chose come with the object itself.
fn with_owners(patch: Option<Value>, body: &Value) -> Option<Value> {
    let Some(owners) = body.pointer("/metadata/ownerReferences") else { return patch };
    let mut patch = patch.unwrap_or_else(|| json!({}));
    merge(&mut patch, &json!({"metadata": {"ownerReferences": owners}}));
    Some(patch)
}

/// Whether the one that is `there` is what would be created, with its owners.
pub(in super::super) fn is_there(ready: &Ready, wants: &Wants, there: &Value) -> bool {
    beside(&ready.kind, ready.moved, &ready.body, there).is_same() && wants.is_owned(there)
}

/// What of the body that was sent is not in the `answer` to it: the server leaves out what its definition
/// of the kind, or of the version that it stores, does not know; of the latter it says nothing. Names of
/// fields.
pub(in super::super) fn lost(ready: &Ready, answer: &Value) -> Vec<String> {
    let mut fields = Vec::new();
    // Definitions are of groups with a dot.
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

/// Fields where `there` has nothing and `wanted` says something. What the server or a webhook made
/// otherwise is there.
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

/// What is as good as not said.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// Whether `changes` say that it would come back suspended.
pub(in super::super) fn suspended(changes: &[Change]) -> bool {
    changes.iter().any(|change| matches!(change, Change::Suspended { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_otherwise_is_there_and_what_is_missing_is_not() {
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
