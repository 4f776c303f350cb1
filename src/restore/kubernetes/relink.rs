//! Owners, set again.
//!
//! An owner is named by UID, and a new cluster gives new ones. An object created with the old UID
//! would be collected as garbage within seconds, because no such owner exists (velero#4707). So
//! objects are created without owners, and once all are there each gets its owners with their new
//! UIDs, in one merge patch.

use std::collections::HashMap;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::target::segment;
use super::{RestoreError, RestoreReport};
use crate::source::kubernetes::{Cluster, KindInfo};

/// Old UIDs and what stands in their place. UIDs are UUIDs wherever a Kubernetes API server gives
/// them, and are kept as such in 16 bytes; any other text is kept as it is.
#[derive(Debug, Default)]
pub(super) struct Uids {
    known: HashMap<u128, (Uid, bool)>,
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
        // Kept short only if the text comes back as it was.
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

    fn key(text: &str) -> u128 {
        match Self::new(text) {
            Self::Uuid(number) => number,
            Self::Text(text) => {
                let mut bytes = [0u8; 16];
                bytes.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
                u128::from_be_bytes(bytes)
            }
        }
    }
}

impl Uids {
    /// The object with UID `old` is now the one with UID `new`; `ours` if a restore made it and its
    /// owners are still to be set. Does nothing without both.
    pub(super) fn learn(&mut self, old: &str, new: &str, ours: bool) {
        if !old.is_empty() && !new.is_empty() {
            self.known.insert(Uid::key(old), (Uid::new(new), ours));
        }
    }

    fn get(&self, old: &str) -> Option<String> {
        self.known.get(&Uid::key(old)).map(|(uid, _)| uid.text())
    }

    fn is_ours(&self, old: &str) -> bool {
        self.known.get(&Uid::key(old)).is_some_and(|(_, ours)| *ours)
    }
}

/// An object's owners with the UIDs they have now, and how many have none.
fn owners(object: &Value, uids: &Uids) -> (Vec<Value>, u64) {
    let stored = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let mut lost = 0;
    let found = stored.into_iter().flatten().filter_map(|owner| {
        let new = owner.get("uid").and_then(Value::as_str).and_then(|old| uids.get(old));
        let Some(new) = new else {
            lost += 1;
            return None;
        };
        let mut owner = owner.clone();
        owner["uid"] = Value::from(new);
        Some(owner)
    });
    (found.collect(), lost)
}

/// Gives one object of a stored line its owners, if a restore created it.
pub(super) async fn relink(
    cluster: &Cluster,
    target: &KindInfo,
    line: &[u8],
    uids: &Uids,
) -> Result<RestoreReport, RestoreError> {
    let mut report = RestoreReport::default();
    let Ok(object) = serde_json::from_slice::<Value>(line) else { return Ok(report) };
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    if !uids.is_ours(text("/metadata/uid")) {
        return Ok(report);
    }
    let (owners, lost) = owners(&object, uids);
    report.owners_lost = lost;
    if owners.is_empty() {
        return Ok(report);
    }
    let namespace = target.namespaced.then(|| segment(text("/metadata/namespace"))).flatten();
    let Some(name) = segment(text("/metadata/name")) else { return Ok(report) };
    let path = format!("{}/{name}", target.path(namespace.as_deref()));
    let patch = Bytes::from(json!({"metadata": {"ownerReferences": owners}}).to_string());
    match cluster.send(Method::PATCH, &path, "", "application/merge-patch+json", patch).await {
        Ok(_) => report.relinked = 1,
        // It is gone again, or an operator changed its mind about it: its owners are lost.
        Err(error) if error.status().is_some_and(|status| status.code != 401) => {
            report.owners_lost += owners.len() as u64;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_get_their_new_uids_and_the_lost_are_counted() {
        let (old, new) = ("0a0b0c0d-0000-1111-2222-333344445555", "10b0c0d0-0000-1111-2222-333344445555");
        let mut uids = Uids::default();
        uids.learn(old, new, true);
        uids.learn("no uuid", "other", false);
        let owner = |uid: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": uid});
        let object = json!({"metadata": {"ownerReferences": [owner(old), owner("gone"), owner("no uuid")]}});
        let (found, lost) = owners(&object, &uids);
        assert_eq!((found, lost), (vec![owner(new), owner("other")], 1));
        assert!(uids.is_ours(old) && !uids.is_ours("no uuid"));
    }
}
