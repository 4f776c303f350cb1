//! Owner references, compared across clusters, and owners that a restore does not create because they exist.

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use tokio::sync::Mutex;

use super::{ObjectKey, Refusal, RestoreConfig, ServedKinds, api_paths, get_object, object_key, text};
use crate::kubernetes::{ApiError, Cluster, KindInfo, ListedObjects, count_step};

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

/// The owners of one kind and namespace that are looked up one by one, before the names of all are listed.
const MAX_SINGLE: u32 = 64;
/// The most names that are kept of all lists.
const MAX_NAMES: usize = 100_000;

/// Looks up owners by name, each once. Anybody may write many owners into one object, which do not exist: after some
/// requests the names of a kind in a namespace are listed.
#[derive(Debug, Default)]
pub(crate) struct LiveOwners {
    known: Mutex<HashMap<ObjectKey, Option<Box<str>>>>,
    names: Mutex<HashMap<(String, String), Names>>,
}

/// The names of a kind in a namespace.
#[derive(Debug)]
enum Names {
    /// They are not known, and so many owners were looked up.
    LookedUp(u32),
    Listed(HashSet<Box<str>>),
    /// They cannot be listed, or are too many.
    Unlisted,
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
        if self.is_absent(cluster, kind, namespace, &owner.name).await? {
            return Ok(Ok(None));
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

    /// True if a list says that there is no such object. Fails if the cluster cannot be reached.
    async fn is_absent(
        &self,
        cluster: &Cluster,
        kind: &KindInfo,
        namespace: &str,
        name: &str,
    ) -> Result<bool, ApiError> {
        let mut all = self.names.lock().await;
        let kept: usize = all.values().map(Names::count).sum();
        let names = all.entry((kind.resource(), namespace.to_owned())).or_insert(Names::LookedUp(0));
        if let Names::LookedUp(number) = names {
            *number += 1;
            if *number > MAX_SINGLE {
                *names = list(cluster, kind, namespace, MAX_NAMES.saturating_sub(kept)).await?;
            }
        }
        Ok(matches!(names, Names::Listed(names) if !names.contains(name)))
    }
}

impl Names {
    fn count(&self) -> usize {
        match self {
            Self::Listed(names) => names.len(),
            Self::LookedUp(_) | Self::Unlisted => 0,
        }
    }
}

/// Lists the names of a kind in a namespace, if they are at most `most`.
async fn list(cluster: &Cluster, kind: &KindInfo, namespace: &str, most: usize) -> Result<Names, ApiError> {
    let mut objects = ListedObjects::new(cluster, kind, kind.namespaced.then_some(namespace), None);
    let mut names = HashSet::new();
    loop {
        match objects.next().await {
            Ok(Some(_)) if names.len() == most => return Ok(Names::Unlisted),
            Ok(Some((path, _))) => names.insert(path.rsplit('/').next().unwrap_or_default().into()),
            Ok(None) => return Ok(Names::Listed(names)),
            // Whoever restores may read single objects of a kind and not list them.
            Err(error) if error.code().is_some() => return Ok(Names::Unlisted),
            Err(error) => return Err(error),
        };
    }
}
