//! The second write: owners, field managers, status.
//!
//! An owner is referenced by UID, and a new cluster assigns new ones. An object created with the old UID
//! would be garbage collected within seconds, because no such owner exists (velero#4707). So objects are
//! created without owners. Once all exist, each gets its owners with their new UIDs in one merge patch. A
//! create assigns all fields to its writer, so managers need a second write, too. They go into the same
//! patch, unless a manager applied an owner: that patch would take the owner from it, so a third write gives
//! it back.

use std::collections::HashMap;

use bytes::Bytes;
use http::Method;
use serde_json::{Map, Value, json};

use super::attempt::MERGE_PATCH;
use crate::kubernetes::{ApiError, Cluster, KindInfo};
use crate::target::kubernetes::{
    FIELD_MANAGER, LiveOwners, ObjectRef, OwnerReference, PendingWrites, Refusal, RestoreConfig,
    RestoreError, ServedKinds, each, get_object, has_restore_manager, is_object, map_mut,
    reset_observed_generation,
};

/// New UIDs by old UID. Kubernetes API servers assign UUIDs, which are kept in 16 bytes; other text is kept
/// unchanged.
#[derive(Debug, Default)]
pub(crate) struct UidMap {
    known: HashMap<u128, (Uid, PendingWrites)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Uid {
    Uuid(u128),
    Text(Box<str>),
}

impl Uid {
    fn new(text: &str) -> Self {
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        let uid = u128::from_str_radix(&digits, 16).map_or_else(|_| Self::Text(text.into()), Self::Uuid);
        // The short form is used only if it converts back to the same text.
        if uid.text() == text { uid } else { Self::Text(text.into()) }
    }

    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.to_string(),
            Self::Uuid(number) => {
                let hex = format!("{number:032x}");
                format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
            }
        }
    }
}

impl UidMap {
    /// Returns 16 bytes that identify a UID.
    pub(crate) fn key(text: &str) -> u128 {
        match Uid::new(text) {
            Uid::Uuid(number) => number,
            Uid::Text(text) => {
                let hash = blake3::hash(text.as_bytes());
                u128::from_be_bytes(hash.as_bytes()[..16].try_into().unwrap_or_default())
            }
        }
    }

    /// Records that the object with UID `old` now has UID `new`, and its pending second writes `owes`. Does
    /// nothing if either UID is empty.
    pub(crate) fn insert(&mut self, old: &str, new: &str, pending: PendingWrites) {
        if !old.is_empty() && !new.is_empty() {
            self.known.insert(Self::key(old), (Uid::new(new), pending));
        }
    }

    fn get(&self, old: &str) -> Option<String> {
        self.known.get(&Self::key(old)).map(|(uid, _)| uid.text())
    }

    pub(crate) fn pending(&self, old: &str) -> PendingWrites {
        self.known.get(&Self::key(old)).map(|(_, pending)| *pending).unwrap_or_default()
    }
}

/// The server's answer to one write.
type Written = Result<Result<(), Refusal>, RestoreError>;

#[derive(Debug, Default)]
pub(crate) struct SecondWriteResult {
    pub(crate) relinked: bool,
    pub(crate) managed: bool,
    pub(crate) status: bool,
    pub(crate) owners_lost: u64,
    pub(crate) refused: Option<(ObjectRef, Refusal)>,
}

/// The current owners of an object.
#[derive(Debug, Default)]
struct ResolvedOwners {
    all: Vec<Value>,
    /// New UIDs by old UID.
    uids: HashMap<String, String>,
    /// Number of owners that do not exist.
    lost: u64,
    /// The refusal for an owner that could not be looked up.
    unreadable: Option<Refusal>,
}

/// Pointer to the owner references that a field manager applied.
const OWNERS: &str = "/fieldsV1/f:metadata/f:ownerReferences";
/// Start of the key of an owner reference.
const OWNER_KEY: &str = "k:{\"uid\":\"";

/// Returns the field managers of an object with new owner UIDs. The server drops an entry for a field that
/// the object does not have, and the manager no longer owns that field.
fn managers_with_new_uids(stored: &Value, uids: &HashMap<String, String>) -> Value {
    let mut managers = stored.pointer("/metadata/managedFields").cloned().unwrap_or_default();
    for manager in managers.as_array_mut().into_iter().flatten() {
        let Some(owners) = map_mut(manager, OWNERS) else { continue };
        for (key, fields) in std::mem::take(owners) {
            let old = key.strip_prefix(OWNER_KEY).and_then(|rest| rest.strip_suffix("\"}"));
            let key = match old {
                Some(old) => uids.get(old).map(|new| format!("{OWNER_KEY}{new}\"}}")),
                None => Some(key),
            };
            owners.extend(key.map(|key| (key, fields)));
        }
    }
    managers
}

/// Returns the managers to write; none if they stay unchanged. An object that lacks owners gets an entry of
/// the restore, unless the object that is `existing` has one. The server records no manager that set no field.
fn managers_to_write(
    stored: &Value,
    pending: PendingWrites,
    owners: &ResolvedOwners,
    existing: Option<&Value>,
    kind: &KindInfo,
) -> Option<Value> {
    let mut found = match existing {
        _ if pending.managers => managers_with_new_uids(stored, &owners.uids),
        Some(existing) if !has_restore_manager(existing) => {
            existing.pointer("/metadata/managedFields").cloned().unwrap_or_else(|| json!([]))
        }
        _ => return None,
    };
    if let Value::Array(all) = &mut found
        && owners.lost > 0
    {
        all.push(pending_owners_entry(&kind.api_version()));
    }
    Some(found)
}

fn has_owners(existing: &Value) -> bool {
    each(existing, "/metadata/ownerReferences").next().is_some()
}

/// Returns the manager entry of an object that lacks owners. A later restore finds it and sets those that
/// exist by then.
fn pending_owners_entry(api_version: &str) -> Value {
    json!({
        "manager": FIELD_MANAGER,
        "operation": "Update",
        "apiVersion": api_version,
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:metadata": {"f:ownerReferences": {}}},
    })
}

/// Does the second writes of an object that a restore created.
pub(crate) struct SecondWriter<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) config: &'a RestoreConfig,
    pub(crate) target: &'a ServedKinds,
    pub(crate) uids: &'a UidMap,
    pub(crate) live_owners: &'a LiveOwners,
}

impl SecondWriter<'_> {
    /// Does the writes. `stored` is the line, `named` the name and `kind` the kind in the target.
    pub(crate) async fn write(
        &self,
        stored: &Value,
        pending: PendingWrites,
        named: &ObjectRef,
        kind: &KindInfo,
    ) -> Result<SecondWriteResult, RestoreError> {
        let mut second = SecondWriteResult::default();
        let refused = self.write_pending(stored, pending, named, kind, &mut second).await?;
        second.refused = refused.err().map(|refusal| (named.clone(), refusal));
        Ok(second)
    }

    /// Does the pending writes, each only if the previous one succeeded: owners, status, managers. Managers
    /// come last and tell a later restore that no write is pending.
    async fn write_pending(
        &self,
        stored: &Value,
        pending: PendingWrites,
        named: &ObjectRef,
        kind: &KindInfo,
        second: &mut SecondWriteResult,
    ) -> Written {
        let Some(paths) = named.api_paths(kind) else { return Ok(Ok(())) };
        let owners = match pending.owners {
            true => self.resolve_owners(stored, &named.namespace).await?,
            false => ResolvedOwners::default(),
        };
        second.owners_lost = owners.lost;
        let status = stored.get("status").filter(|_| pending.status && kind.has("status")).cloned();
        let existing = match owners.lost {
            0 => None,
            _ => get_object(self.cluster, &paths.object).await?.ok(),
        };
        let hidden = owners.unreadable.is_some();
        if owners.all.is_empty() && !hidden && existing.as_ref().is_some_and(has_owners) {
            let what = "it has other owners, and those of the backup do not exist";
            return Ok(Err(Refusal::not_sent("OtherOwners", what)));
        }
        let managers = managers_to_write(stored, pending, &owners, existing.as_ref(), kind);
        let (mut first, mut then) = (Map::new(), Map::new());
        let relinks = !owners.all.is_empty();
        if relinks {
            first.insert("ownerReferences".into(), Value::from(owners.all));
        }
        if let Some(managers) = managers {
            // The writer of an owner reference owns that field, whatever the same patch says about managers.
            let apart = relinks && each(&managers, "").any(|one| one.pointer(OWNERS).is_some());
            let of = if apart || status.is_some() { &mut then } else { &mut first };
            of.insert("managedFields".into(), managers);
        }
        if !first.is_empty() {
            let written = self.patch(&paths.object, &json!({ "metadata": first }), kind).await?;
            let Ok(()) = written else { return Ok(written) };
            second.relinked = relinks;
        }
        if let Some(status) = status {
            let written = self.write_status(status, &paths.object, kind).await?;
            let Ok(()) = written else { return Ok(written) };
            second.status = true;
        }
        if !then.is_empty() {
            let written = self.patch(&paths.object, &json!({ "metadata": then }), kind).await?;
            let Ok(()) = written else { return Ok(written) };
        }
        second.managed = pending.managers;
        // An owner could not be looked up, so this write is to be retried.
        Ok(owners.unreadable.map_or(Ok(()), Err))
    }

    async fn write_status(&self, mut status: Value, path: &str, kind: &KindInfo) -> Written {
        match get_object(self.cluster, path).await? {
            Ok(existing) => reset_observed_generation(&mut status, &existing["metadata"]["generation"]),
            Err(refused) => return Ok(Err(Refusal::new(kind, &refused))),
        }
        self.patch(&format!("{path}/status"), &json!({ "status": status }), kind).await
    }

    async fn resolve_owners(&self, stored: &Value, namespace: &str) -> Result<ResolvedOwners, ApiError> {
        let mut owners = ResolvedOwners::default();
        for reference in each(stored, "/metadata/ownerReferences") {
            let owner = OwnerReference::for_target(reference, self.config, self.target);
            let now = match self.uids.get(&owner.uid) {
                Some(now) => Some(now),
                None => {
                    match self.live_owners.find_uid(self.cluster, self.target, &owner, namespace).await? {
                        Ok(uid) => uid,
                        Err(refusal) => {
                            owners.unreadable = Some(refusal);
                            None
                        }
                    }
                }
            };
            let Some(now) = now else {
                owners.lost += 1;
                continue;
            };
            let mut reference = reference.clone();
            reference["uid"] = Value::from(now.clone());
            // The owner's old version may no longer be served.
            reference["apiVersion"] = Value::from(owner.api_version);
            reference["name"] = Value::from(owner.name);
            owners.all.push(reference);
            owners.uids.insert(owner.uid, now);
        }
        Ok(owners)
    }

    async fn patch(&self, path: &str, patch: &Value, kind: &KindInfo) -> Written {
        let body = Bytes::from(patch.to_string());
        let query = format!("fieldManager={FIELD_MANAGER}");
        let sent = self.cluster.send(Method::PATCH, path, &query, MERGE_PATCH, body).await;
        match sent {
            Ok(answer) => {
                let existing: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                Ok(if is_object(&existing) { Ok(()) } else { Err(Refusal::no_object()) })
            }
            // The object was deleted, or an operator rejects the change.
            Err(error) => {
                let status = error.refusal()?;
                Ok(Err(Refusal::new(kind, &status)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_of_any_form_are_found() {
        let (old, new) = ("0a0b0c0d-0000-1111-2222-333344445555", "10b0c0d0-0000-1111-2222-333344445555");
        let mut uids = UidMap::default();
        let pending = PendingWrites { owners: true, ..PendingWrites::default() };
        uids.insert(old, new, pending);
        uids.insert("no uuid", "other", PendingWrites::default());
        assert_eq!((uids.get(old).as_deref(), uids.get("no uuid").as_deref()), (Some(new), Some("other")));
        assert_eq!(uids.get("gone"), None);
        assert!(uids.pending(old) == pending && !uids.pending("no uuid").any());
    }

    #[test]
    fn field_managers_get_the_new_uids_of_owners() {
        let (old, new) = ("0a0b0c0d-0000-1111-2222-333344445555", "10b0c0d0-0000-1111-2222-333344445555");
        let uids = HashMap::from([(old.to_owned(), new.to_owned())]);
        let key = |uid: &str| format!("k:{{\"uid\":\"{uid}\"}}");
        let stored = |owners: Value| {
            let fields = json!({"f:data": {"f:a": {}}, "f:metadata": {"f:ownerReferences": owners}});
            json!([{"manager": "helm", "operation": "Apply", "fieldsV1": fields}, {"manager": "other"}])
        };
        let before = stored(json!({".": {}, key(old): {}, key("gone"): {}}));
        let after = managers_with_new_uids(&json!({"metadata": {"managedFields": before}}), &uids);
        assert_eq!(after, stored(json!({".": {}, key(new): {}})));
    }
}
