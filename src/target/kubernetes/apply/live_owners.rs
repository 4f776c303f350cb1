//! Looks up owners that the restore does not create because they exist in the cluster.

use std::collections::HashMap;

use tokio::sync::Mutex;

use crate::kubernetes::{ApiError, Cluster};
use crate::target::kubernetes::cluster_state::look;
use crate::target::kubernetes::object::{Key, Owner, key, paths, text};
use crate::target::kubernetes::outcome::Refusal;
use crate::target::kubernetes::served_kinds::Target;

/// The largest number of owners that are cached; others are looked up again.
const REMEMBERED: usize = 50_000;

/// Looks up owners by name, each once.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    known: Mutex<HashMap<Key, Option<Box<str>>>>,
}

impl Owners {
    /// Returns the current UID of `owner` of an object in `namespace`: none if it does not exist or is being
    /// deleted, a refusal if it cannot be read. An object of the same name counts as the owner, since a
    /// restore also replaces objects by name.
    pub(crate) async fn uid(
        &self,
        cluster: &Cluster,
        target: &Target,
        owner: &Owner,
        namespace: &str,
    ) -> Result<Result<Option<String>, Refusal>, ApiError> {
        let Some(kind) = target.named(&owner.api_version, &owner.kind) else { return Ok(Ok(None)) };
        let namespace = if kind.namespaced { namespace } else { "" };
        let Some(paths) = paths(kind, namespace, &owner.name) else { return Ok(Ok(None)) };
        let key = key(&kind.resource(), namespace, &owner.name);
        if let Some(known) = self.known.lock().await.get(&key) {
            return Ok(Ok(known.as_deref().map(str::to_owned)));
        }
        let there = match look(cluster, &paths.one).await? {
            Ok(there) => Some(there),
            Err(status) if status.code == 404 => None,
            Err(status) => return Ok(Err(Refusal::new(kind, &status))),
        };
        let stays = there.filter(|there| there.pointer("/metadata/deletionTimestamp").is_none());
        let uid = stays.map(|there| text(&there, "/metadata/uid").to_owned()).filter(|uid| !uid.is_empty());
        let mut known = self.known.lock().await;
        if known.len() < REMEMBERED {
            known.insert(key, uid.as_deref().map(Into::into));
        }
        Ok(Ok(uid))
    }
}
