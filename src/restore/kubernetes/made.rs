//! How a restore knows again what a restore made: by what the server notes of who wrote an object.

use serde_json::Value;

use super::object::{Owner, each, text};

/// Under which name the server notes what a restore wrote.
pub(super) const MANAGER: &str = "kbak";

/// Whether it has none or only some of the owners that the backup names, and no others.
pub(super) fn owes_owners(there: &Value, owners: &[Owner]) -> bool {
    let mut has = 0;
    let known = each(there, "/metadata/ownerReferences").map(Owner::new).all(|owner| {
        has += 1;
        owners.iter().any(|one| (&one.kind, &one.name) == (&owner.kind, &owner.name))
    });
    known && (has == 0 || has < owners.len())
}

/// Whether a restore made it: the server notes who wrote an object.
pub(super) fn is_ours(there: &Value) -> bool {
    each(there, "/metadata/managedFields").any(|fields| text(fields, "/manager") == MANAGER)
}

/// Whether a restore made it and nobody has written to it since, except of its status: then it is as it
/// was made, even where an admission webhook made it differ from what was sent.
pub(super) fn is_as_made(there: &Value) -> bool {
    let quiet =
        |fields: &Value| text(fields, "/manager") == MANAGER || text(fields, "/subresource") == "status";
    is_ours(there) && each(there, "/metadata/managedFields").all(quiet)
}
