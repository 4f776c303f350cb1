//! What becomes of an object that is there already. The plan and the restore ask the same function.

use serde_json::Value;

use super::super::change::{Change, beside};
use super::super::config::{Existing, RestoreConfig};
use super::super::create::is_as_made;
use super::super::object::ObjectRef;
use super::{Ready, harm, merges};

/// What becomes of it.
#[derive(Debug)]
pub(in super::super) enum Meeting {
    /// It is as in the backup, or as a restore made it, and is left alone.
    Leave,
    /// It is otherwise, and is left alone.
    Differs,
    /// It is brought to what the backup says, by this merge patch.
    Patch(Value),
    /// It is replaced.
    Replace,
}

/// Holds the object that is `there` against the one that would be created. `suspended`: that one would not
/// run by itself; but it runs or rests as the one that is there does.
pub(in super::super) fn meeting(
    config: &RestoreConfig,
    object: &ObjectRef,
    ready: &mut Ready,
    suspended: bool,
    there: &Value,
) -> Meeting {
    if suspended {
        harm::keep_running(&ready.kind, &mut ready.body, there);
    }
    let beside = beside(&ready.kind, ready.moved, &ready.body, there);
    if beside.is_same() {
        return Meeting::Leave;
    }
    match config.existing {
        Some(Existing::Replace) => Meeting::Replace,
        // What only the cluster has stays where it is patched.
        existing if existing == Some(Existing::Patch) || merges(object) => {
            beside.patch.map_or(Meeting::Leave, Meeting::Patch)
        }
        _ if is_as_made(there) => Meeting::Leave,
        _ => Meeting::Differs,
    }
}

/// Whether `changes` say that it would come back suspended.
pub(in super::super) fn suspended(changes: &[Change]) -> bool {
    changes.iter().any(|change| matches!(change, Change::Suspended { .. }))
}
