//! The state of the target cluster before the first write.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde_json::Value;

use super::change::{ApiMove, api_move};
use super::{ObjectKey, ObjectRef, RestoreConfig, TOO_DEEP, is_always_derived, object_key, text};
use crate::kubernetes::{
    ApiError, ApiStatus, Cluster, KindInfo, ListMeta, MAX_NESTING, discover, nesting_of, page_query,
};

/// Requests names only, without contents.
const NAMES: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
/// The largest page of names in bytes: 500 objects whose metadata is as large as the API allows.
const MAX_PAGE: usize = 64 << 20;
/// The largest object that is read, in bytes.
const MAX_OBJECT: usize = 16 << 20;

#[derive(Debug)]
pub(crate) struct ClusterState {
    pub(crate) target: ServedKinds,
    /// The UID of `kube-system`; none if it may not be read.
    pub(crate) uid: Option<String>,
    /// Existing namespaces; true for those that are being deleted.
    pub(crate) namespaces: HashMap<String, bool>,
    /// True if `namespaces` is complete.
    pub(crate) lists_namespaces: bool,
    /// True if the cluster has nodes, so that pods can become ready.
    pub(crate) has_nodes: bool,
}

impl ClusterState {
    pub(crate) async fn read(cluster: &Cluster) -> Result<Self, ApiError> {
        let target = ServedKinds::read(cluster).await?;
        let system = get_object(cluster, "/api/v1/namespaces/kube-system").await?.ok();
        let uid = system.map(|found| text(&found, "/metadata/uid").to_owned()).filter(|uid| !uid.is_empty());
        let mut namespaces = HashMap::new();
        // If they may not be listed, each is looked up when it is needed.
        let lists_namespaces = list_metadata(cluster, "/api/v1/namespaces", |meta| {
            namespaces.insert(meta.name, meta.deletion_timestamp.is_some());
        })
        .await?;
        let nodes = cluster.get_as("/api/v1/nodes", "limit=1", NAMES, MAX_PAGE).await;
        let has_nodes = match nodes {
            Ok(answer) => {
                !serde_json::from_slice::<MetadataPage>(&answer.body).unwrap_or_default().items.is_empty()
            }
            Err(error) if error.status().is_some() => true,
            Err(error) => return Err(error),
        };
        Ok(Self { target, uid, namespaces, lists_namespaces, has_nodes })
    }

    /// Returns the existing objects of a stored kind. `few`: only a few of them are needed.
    pub(crate) async fn existing_objects(
        &self,
        cluster: &Cluster,
        stored: &KindInfo,
        few: bool,
    ) -> Result<ExistingObjects, ApiError> {
        match self.target.find(stored) {
            None => Ok(ExistingObjects::Listed(HashSet::new())),
            // None of them is created, and so none is looked for: the right to list them is not needed.
            Some(_) if is_always_derived(stored) => Ok(ExistingObjects::Listed(HashSet::new())),
            Some(_) if few => Ok(ExistingObjects::Unlisted),
            Some(place) => ExistingObjects::list(cluster, place.kind, &stored.resource()).await,
        }
    }

    /// True if the target is another cluster than that of the backup and does not take its place. Also true
    /// if that is unknown.
    pub(crate) fn is_foreign(&self, config: &RestoreConfig) -> bool {
        let same = self.uid.is_some() && self.uid == config.cluster_uid;
        !config.takeover && !same
    }
}

/// The kinds that can be created, by group and plural.
#[derive(Debug, Default)]
pub(crate) struct ServedKinds {
    served: HashMap<(String, String), Vec<KindInfo>>,
}

impl ServedKinds {
    pub(crate) async fn read(cluster: &Cluster) -> Result<Self, ApiError> {
        Ok(Self::of(discover(cluster).await?.served))
    }

    pub(crate) fn of(kinds: Vec<KindInfo>) -> Self {
        let mut served: HashMap<(String, String), Vec<KindInfo>> = HashMap::new();
        for kind in kinds {
            served.entry((kind.group.clone(), kind.plural.clone())).or_default().push(kind);
        }
        Self { served }
    }

    /// Finds the kind for a stored one: in its own version, in the version it moved to, or in the server's
    /// first.
    pub(crate) fn find(&self, stored: &KindInfo) -> Option<ServedKind<'_>> {
        if let Some(kind) = self.find_exact(&stored.group, &stored.version, &stored.plural) {
            return Some(ServedKind { kind, api_move: None });
        }
        if let Some(moved) = api_move(&stored.group, &stored.version, &stored.plural)
            && let Some(kind) = self.find_exact(moved.group, moved.version, &stored.plural)
        {
            return Some(ServedKind { kind, api_move: Some(moved) });
        }
        let versions = self.served.get(&(stored.group.clone(), stored.plural.clone()))?;
        versions.first().map(|kind| ServedKind { kind, api_move: None })
    }

    /// Returns the version in which a kind is served, if `api_version` is not.
    pub(crate) fn version_of(&self, api_version: &str, kind: &str) -> Option<String> {
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let mut same = self.served.values().flatten().filter(|served| served.kind == kind);
        if same.clone().any(|served| served.api_version() == api_version) {
            return None;
        }
        let of_group = same.clone().find(|served| served.group == group);
        // Built-in kinds moved from one group to another.
        let moved = same.find(|served| !group.contains('.') && !served.group.contains('.'));
        of_group.or(moved).map(KindInfo::api_version)
    }

    /// Finds the kind that an owner reference names.
    pub(crate) fn find_by_kind(&self, api_version: &str, kind: &str) -> Option<&KindInfo> {
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let same = self.served.values().flatten().filter(|one| one.kind == kind && one.group == group);
        same.max_by_key(|one| one.api_version() == api_version)
    }

    fn find_exact(&self, group: &str, version: &str, plural: &str) -> Option<&KindInfo> {
        let versions = self.served.get(&(group.to_owned(), plural.to_owned()))?;
        versions.iter().find(|kind| kind.version == version)
    }
}

/// The place of a kind in the target's API.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServedKind<'a> {
    pub(crate) kind: &'a KindInfo,
    pub(crate) api_move: Option<ApiMove>,
}

/// An object, or the status with which the server refused.
pub(crate) type Answered = Result<Value, Box<ApiStatus>>;

/// Returns an object, or the status if it does not exist or a right is missing.
pub(crate) async fn get_object(cluster: &Cluster, path: &str) -> Result<Answered, ApiError> {
    match cluster.get(path, "", MAX_OBJECT).await {
        Ok(answer) => match serde_json::from_slice(&answer.body) {
            Ok(existing) => Ok(Ok(existing)),
            // Whoever may create one such object must not end the restore of all others.
            Err(_) if nesting_of(&answer.body) > MAX_NESTING => Ok(Err(Box::new(too_deep()))),
            Err(error) => Err(cluster.malformed(path, error.to_string())),
        },
        Err(error) => error.refusal().map(Err),
    }
}

/// Returns the status of an existing object that is nested too deep to be read.
fn too_deep() -> ApiStatus {
    ApiStatus {
        code: 200,
        reason: TOO_DEEP.to_owned(),
        message: format!("the existing object has more than {MAX_NESTING} levels and is not compared"),
        causes: Vec::new(),
        retry_after: None,
    }
}

#[derive(Debug)]
pub(crate) enum ExistingObjects {
    /// These objects exist.
    Listed(HashSet<ObjectKey>),
    /// Each object has to be looked up.
    Unlisted,
}

impl ExistingObjects {
    /// Lists the objects of `kind`, keyed by `resource`.
    async fn list(cluster: &Cluster, kind: &KindInfo, resource: &str) -> Result<Self, ApiError> {
        let mut keys = HashSet::new();
        let path = kind.path(None);
        let listed = list_metadata(cluster, &path, |meta| {
            keys.insert(object_key(resource, &meta.namespace, &meta.name));
        })
        .await?;
        Ok(if listed { Self::Listed(keys) } else { Self::Unlisted })
    }

    pub(crate) fn may_have(&self, object: &ObjectRef) -> bool {
        match self {
            Self::Listed(keys) => keys.contains(&object.key()),
            Self::Unlisted => true,
        }
    }

    /// Returns the existing object of that name, or the status if it cannot be read.
    pub(crate) async fn find(
        &self,
        cluster: &Cluster,
        kind: &KindInfo,
        object: &ObjectRef,
    ) -> Result<Option<Answered>, ApiError> {
        if !self.may_have(object) {
            return Ok(None);
        }
        let Some(paths) = object.api_paths(kind) else { return Ok(None) };
        let found = get_object(cluster, &paths.object).await?;
        Ok(Some(found).filter(|found| !matches!(found, Err(status) if status.code == 404)))
    }
}

#[derive(Deserialize, Default)]
struct MetadataPage {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default)]
    items: Vec<MetadataItem>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct MetadataItem {
    metadata: ObjectMeta,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct ObjectMeta {
    name: String,
    namespace: String,
    deletion_timestamp: Option<serde::de::IgnoredAny>,
}

/// Calls `each` for the metadata of all objects at `path`. Returns false if they cannot be listed.
async fn list_metadata(
    cluster: &Cluster,
    path: &str,
    mut each: impl FnMut(ObjectMeta),
) -> Result<bool, ApiError> {
    let mut query = page_query(500, "");
    loop {
        let answer = match cluster.get_as(path, &query, NAMES, MAX_PAGE).await {
            Ok(answer) => answer,
            Err(error) => return error.refusal().map(|_| false),
        };
        let Ok(page) = serde_json::from_slice::<MetadataPage>(&answer.body) else { return Ok(false) };
        page.items.into_iter().for_each(|item| each(item.metadata));
        if page.metadata.continue_token.is_empty() {
            return Ok(true);
        }
        query = page_query(500, &page.metadata.continue_token);
    }
}
