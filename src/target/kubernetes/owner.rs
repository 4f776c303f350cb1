//! Owner references, compared across clusters, and owners that a restore does not create because they exist.

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use tokio::sync::Mutex;

use super::{ObjectKey, Refusal, RestoreConfig, ServedKinds, api_paths, get_object, object_key, text};
use crate::kubernetes::{ApiError, Cluster, count_step};

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

    /// Returns the group, kind, name and role, by which an owner is known in any cluster and version.
    fn name_key(&self) -> (&str, &str, &str, [bool; 2]) {
        let group = self.api_version.rsplit_once('/').map_or("", |(group, _)| group);
        (group, &self.kind, &self.name, self.role)
    }
}

/// Owners by name and by UID. Lists of owners are compared by it, since anybody may write a long one.
pub(crate) struct OwnerSet<'a> {
    names: HashSet<(&'a str, &'a str, &'a str, [bool; 2])>,
    uids: HashSet<(&'a str, [bool; 2])>,
}

impl<'a> OwnerSet<'a> {
    pub(crate) fn new(owners: &'a [OwnerReference]) -> Self {
        let with_uid = owners.iter().filter(|owner| !owner.uid.is_empty());
        Self {
            names: owners.iter().map(OwnerReference::name_key).collect(),
            uids: with_uid.map(|owner| (owner.uid.as_str(), owner.role)).collect(),
        }
    }

    /// True if one of the owners is the same, in any cluster and version, with the same role.
    pub(crate) fn contains(&self, owner: &OwnerReference) -> bool {
        count_step();
        self.names.contains(&owner.name_key()) || self.uids.contains(&(owner.uid.as_str(), owner.role))
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
