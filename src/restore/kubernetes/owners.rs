//! Owners that a restore does not bring, because they are in the cluster.

use std::collections::HashMap;

use tokio::sync::Mutex;

use super::ground::look;
use super::object::{Key, Owner, key, paths, text};
use super::outcome::Refusal;
use super::target::Target;
use crate::source::kubernetes::{ApiError, Cluster};

/// How many are remembered; further ones are asked for again.
const REMEMBERED: usize = 50_000;

/// Asks the cluster for owners by their names, each once.
#[derive(Debug, Default)]
pub(super) struct Owners {
    known: Mutex<HashMap<Key, Option<Box<str>>>>,
}

impl Owners {
    /// The UID that `owner` of an object in `namespace` has now; none if it is not there or is being
    /// deleted, and why it cannot be seen, where that is so. Who has its name has its place: what a restore brings stands in the
    /// place of what was there as well.
    pub(super) async fn uid(
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
