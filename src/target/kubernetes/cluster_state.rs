//! The state of the target cluster before the first write.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde_json::Value;

use super::{ObjectKey, ObjectRef, RestoreConfig, ServedKinds, object_key, text};
use crate::kubernetes::{ApiError, ApiStatus, Cluster, KindInfo, page_query};

/// Requests names only, without contents.
const NAMES: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
/// The largest page of names in bytes: 500 objects whose metadata is as large as the API allows.
const MAX_PAGE: usize = 64 << 20;
/// The largest object that is read, in bytes.
const MAX_OBJECT: usize = 16 << 20;

/// The state of the target cluster.
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

/// An object, or the status with which the server refused.
pub(crate) type Answered = Result<Value, Box<ApiStatus>>;

/// Returns an object, or the status if it does not exist or a right is missing.
pub(crate) async fn get_object(cluster: &Cluster, path: &str) -> Result<Answered, ApiError> {
    match cluster.get(path, "", MAX_OBJECT).await {
        Ok(answer) => match serde_json::from_slice(&answer.body) {
            Ok(existing) => Ok(Ok(existing)),
            Err(error) => Err(cluster.malformed(path, error.to_string())),
        },
        Err(error) => error.refusal().map(Err),
    }
}

/// The existing objects of a kind.
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

    /// True if an object of that name may exist.
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
    metadata: MetadataPageHead,
    #[serde(default)]
    items: Vec<MetadataItem>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct MetadataPageHead {
    r#continue: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct MetadataItem {
    metadata: ObjectMeta,
}

/// The fields that are read of each object.
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
        if page.metadata.r#continue.is_empty() {
            return Ok(true);
        }
        query = page_query(500, &page.metadata.r#continue);
    }
}
