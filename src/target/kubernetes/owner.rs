//! Owner references, compared across clusters, and owners that a restore does not create because they exist.

use std::collections::HashMap;

use serde_json::Value;
use tokio::sync::Mutex;

use super::{ObjectKey, Refusal, RestoreConfig, ServedKinds, api_paths, get_object, object_key, text};
use crate::kubernetes::{ApiError, Cluster};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnerReference {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    /// True if the owner controls the object, and true if the object blocks the owner's deletion.
    role: [bool; 2],
}

impl OwnerReference {
    pub(crate) fn new(reference: &Value) -> Self {
        let part = |at: &str| text(reference, at).to_owned();
        let role = ["controller", "blockOwnerDeletion"].map(|flag| reference[flag] == Value::Bool(true));
        Self {
            api_version: part("/apiVersion"),
            kind: part("/kind"),
            name: part("/name"),
            uid: part("/uid"),
            role,
        }
    }

    /// Returns an owner from the backup as the target names it: in a served version, with its namespace
    /// mapped.
    pub(crate) fn for_target(reference: &Value, config: &RestoreConfig, target: &ServedKinds) -> Self {
        let mut owner = Self::new(reference);
        if let Some(version) = target.version_of(&owner.api_version, &owner.kind) {
            owner.api_version = version;
        }
        if (owner.api_version.as_str(), owner.kind.as_str()) == ("v1", "Namespace")
            && let Some(to) = config.mapping.namespaces.get(&owner.name)
        {
            owner.name.clone_from(to);
        }
        owner
    }

    /// True if `other` names the same owner, in any cluster and version.
    pub(crate) fn same_owner(&self, other: &Self) -> bool {
        let group = |owner: &Self| owner.api_version.rsplit_once('/').map(|(group, _)| group.to_owned());
        let named = (&self.kind, &self.name) == (&other.kind, &other.name) && group(self) == group(other);
        let same = !self.uid.is_empty() && self.uid == other.uid;
        (same || named) && self.role == other.role
    }
}

/// The largest number of owners that are cached; others are looked up again.
const MAX_CACHED: usize = 50_000;

/// Looks up owners by name, each once.
#[derive(Debug, Default)]
pub(crate) struct LiveOwners {
    known: Mutex<HashMap<ObjectKey, Option<Box<str>>>>,
}

impl LiveOwners {
    /// Returns the current UID of `owner` of an object in `namespace`: none if it does not exist or is being
    /// deleted, a refusal if it cannot be read. An object of the same name counts as the owner, since a
    /// restore also replaces objects by name.
    pub(crate) async fn find_uid(
        &self,
        cluster: &Cluster,
        target: &ServedKinds,
        owner: &OwnerReference,
        namespace: &str,
    ) -> Result<Result<Option<String>, Refusal>, ApiError> {
        let Some(kind) = target.find_by_kind(&owner.api_version, &owner.kind) else { return Ok(Ok(None)) };
        let namespace = if kind.namespaced { namespace } else { "" };
        let Some(paths) = api_paths(kind, namespace, &owner.name) else { return Ok(Ok(None)) };
        let key = object_key(&kind.resource(), namespace, &owner.name);
        if let Some(known) = self.known.lock().await.get(&key) {
            return Ok(Ok(known.as_deref().map(str::to_owned)));
        }
        let existing = match get_object(cluster, &paths.object).await? {
            Ok(existing) => Some(existing),
            Err(status) if status.code == 404 => None,
            Err(status) => return Ok(Err(Refusal::new(kind, &status))),
        };
        let stays = existing.filter(|existing| existing.pointer("/metadata/deletionTimestamp").is_none());
        let uid =
            stays.map(|existing| text(&existing, "/metadata/uid").to_owned()).filter(|uid| !uid.is_empty());
        let mut known = self.known.lock().await;
        if known.len() < MAX_CACHED {
            known.insert(key, uid.as_deref().map(Into::into));
        }
        Ok(Ok(uid))
    }
}
