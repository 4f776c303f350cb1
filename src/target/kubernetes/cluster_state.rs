//! The state of the target cluster before the first write.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde_json::Value;

use crate::kubernetes::{ApiError, ApiStatus, Cluster, KindInfo, page_query};
use crate::target::kubernetes::config::RestoreConfig;
use crate::target::kubernetes::object::{Key, key, text};
use crate::target::kubernetes::served_kinds::Target;

/// Requests names only, without contents.
const NAMES: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
/// The largest page of names in bytes: 500 objects whose metadata is as large as the API allows.
const PAGE: usize = 64 << 20;
/// The largest object that is read, in bytes.
const OBJECT: usize = 16 << 20;

/// The state of the target cluster.
#[derive(Debug)]
pub(crate) struct ClusterState {
    pub(crate) target: Target,
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
        let target = Target::read(cluster).await?;
        let system = object(cluster, "/api/v1/namespaces/kube-system").await?;
        let uid = system.map(|found| text(&found, "/metadata/uid").to_owned()).filter(|uid| !uid.is_empty());
        let mut namespaces = HashMap::new();
        // If they may not be listed, each is looked up when it is needed.
        let lists_namespaces = pages(cluster, "/api/v1/namespaces", |meta| {
            namespaces.insert(meta.name, meta.deletion_timestamp.is_some());
        })
        .await?;
        let nodes = cluster.get_as("/api/v1/nodes", "limit=1", NAMES, PAGE).await;
        let has_nodes = match nodes {
            Ok(answer) => !serde_json::from_slice::<Page>(&answer.body).unwrap_or_default().items.is_empty(),
            Err(error) if error.status().is_some() => true,
            Err(error) => return Err(error),
        };
        Ok(Self { target, uid, namespaces, lists_namespaces, has_nodes })
    }

    /// Returns the existing objects of a stored kind. `few`: only a few of them are needed.
    pub(crate) async fn present(
        &self,
        cluster: &Cluster,
        stored: &KindInfo,
        few: bool,
    ) -> Result<Present, ApiError> {
        match self.target.find(stored) {
            None => Ok(Present::Listed(HashSet::new())),
            Some(_) if few => Ok(Present::Ask),
            Some(place) => Present::list(cluster, place.kind, &stored.resource()).await,
        }
    }

    /// True if the target is another cluster than that of the backup and does not take its place. Also true
    /// if that is unknown.
    pub(crate) fn is_foreign(&self, config: &RestoreConfig) -> bool {
        let same = self.uid.is_some() && self.uid == config.cluster_uid;
        !config.takeover && !same
    }
}

/// Returns an object if it exists and may be read.
pub(crate) async fn object(cluster: &Cluster, path: &str) -> Result<Option<Value>, ApiError> {
    Ok(look(cluster, path).await?.ok())
}

/// Returns an object, or the status if it does not exist or a right is missing.
pub(crate) async fn look(cluster: &Cluster, path: &str) -> Result<Result<Value, Box<ApiStatus>>, ApiError> {
    match cluster.get(path, "", OBJECT).await {
        Ok(answer) => match serde_json::from_slice(&answer.body) {
            Ok(there) => Ok(Ok(there)),
            Err(error) => Err(cluster.malformed(path, error.to_string())),
        },
        Err(error) => error.refusal().map(Err),
    }
}

/// The existing objects of a kind.
#[derive(Debug)]
pub(crate) enum Present {
    /// These objects exist.
    Listed(HashSet<Key>),
    /// Each object has to be looked up.
    Ask,
}

impl Present {
    /// Lists the objects of `kind`, keyed by `resource`.
    async fn list(cluster: &Cluster, kind: &KindInfo, resource: &str) -> Result<Self, ApiError> {
        let mut keys = HashSet::new();
        let path = kind.path(None);
        let listed = pages(cluster, &path, |meta| {
            keys.insert(key(resource, &meta.namespace, &meta.name));
        })
        .await?;
        Ok(if listed { Self::Listed(keys) } else { Self::Ask })
    }

    /// True if an object of that name may exist.
    pub(crate) fn may_have(&self, object: &super::ObjectRef) -> bool {
        match self {
            Self::Listed(keys) => keys.contains(&object.key()),
            Self::Ask => true,
        }
    }

    /// Returns the existing object of that name, or the status if it cannot be read.
    pub(crate) async fn find(
        &self,
        cluster: &Cluster,
        kind: &KindInfo,
        object_ref: &super::ObjectRef,
    ) -> Result<Option<Result<Value, Box<ApiStatus>>>, ApiError> {
        if !self.may_have(object_ref) {
            return Ok(None);
        }
        let Some(paths) = object_ref.paths(kind) else { return Ok(None) };
        let found = look(cluster, &paths.one).await?;
        Ok(Some(found).filter(|found| !matches!(found, Err(status) if status.code == 404)))
    }
}

#[derive(Deserialize, Default)]
struct Page {
    #[serde(default)]
    metadata: PageMeta,
    #[serde(default)]
    items: Vec<Item>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PageMeta {
    r#continue: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Item {
    metadata: Meta,
}

/// The fields that are read of each object.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Meta {
    name: String,
    namespace: String,
    deletion_timestamp: Option<serde::de::IgnoredAny>,
}

/// Calls `each` for the metadata of all objects at `path`. Returns false if they cannot be listed.
async fn pages(cluster: &Cluster, path: &str, mut each: impl FnMut(Meta)) -> Result<bool, ApiError> {
    let mut query = page_query(500, "");
    loop {
        let answer = match cluster.get_as(path, &query, NAMES, PAGE).await {
            Ok(answer) => answer,
            Err(error) => return error.refusal().map(|_| false),
        };
        let Ok(page) = serde_json::from_slice::<Page>(&answer.body) else { return Ok(false) };
        page.items.into_iter().for_each(|item| each(item.metadata));
        if page.metadata.r#continue.is_empty() {
            return Ok(true);
        }
        query = page_query(500, &page.metadata.r#continue);
    }
}
