//! Looks up owners that the restore does not create because they exist in the cluster.

use std::collections::HashMap;

use tokio::sync::Mutex;

use crate::kubernetes::{ApiError, Cluster};
use crate::target::kubernetes::{
    ObjectKey, OwnerReference, Refusal, ServedKinds, api_paths, get_object, object_key, text,
};

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
