//! What is known of the cluster that is restored into, before anything is written.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde_json::Value;

use super::config::RestoreConfig;
use super::object::{Key, key, text};
use super::target::Target;
use crate::source::kubernetes::{ApiError, ApiStatus, Cluster, KindInfo, page_query};

/// Asks for names only, not for contents.
const NAMES: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
/// The largest page of names: 500 objects whose metadata is as large as the API allows.
const PAGE: usize = 64 << 20;
/// The largest object that is read.
const OBJECT: usize = 16 << 20;

/// The cluster.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) target: Target,
    /// The UID of `kube-system`; none if it may not be read.
    pub(super) uid: Option<String>,
    /// Namespaces that are there, and whether they are being deleted.
    pub(super) namespaces: HashMap<String, bool>,
    /// Whether these are all of them.
    pub(super) lists_namespaces: bool,
    /// Whether it has nodes, so that pods can become ready.
    pub(super) has_nodes: bool,
}

impl Ground {
    pub(super) async fn read(cluster: &Cluster) -> Result<Self, ApiError> {
        let target = Target::read(cluster).await?;
        let system = object(cluster, "/api/v1/namespaces/kube-system").await?;
        let uid = system.map(|found| text(&found, "/metadata/uid").to_owned()).filter(|uid| !uid.is_empty());
        let mut namespaces = HashMap::new();
        // Without the right to list them, each tells by itself when it is needed.
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

    /// Which objects of a stored kind are there. `few`: only a handful of them matters.
    pub(super) async fn present(
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

    /// Whether this is another cluster than that of the backup, and does not take its place. Where
    /// that cannot be told, it is.
    pub(super) fn is_foreign(&self, config: &RestoreConfig) -> bool {
        let same = self.uid.is_some() && self.uid == config.cluster_uid;
        !config.takeover && !same
    }
}

/// An object, if it is there and may be read.
pub(super) async fn object(cluster: &Cluster, path: &str) -> Result<Option<Value>, ApiError> {
    Ok(look(cluster, path).await?.ok())
}

/// An object, or why the server does not give it: it is not there, or a right is missing.
pub(super) async fn look(cluster: &Cluster, path: &str) -> Result<Result<Value, Box<ApiStatus>>, ApiError> {
    match cluster.get(path, "", OBJECT).await {
        Ok(answer) => match serde_json::from_slice(&answer.body) {
            Ok(there) => Ok(Ok(there)),
            Err(error) => Err(cluster.malformed(path, error.to_string())),
        },
        Err(error) => error.refusal().map(Err),
    }
}

/// Which objects of a kind are there.
#[derive(Debug)]
pub(super) enum Present {
    /// These.
    Listed(HashSet<Key>),
    /// It has to be asked for each.
    Ask,
}

impl Present {
    /// Those of `kind`, under the name `resource`.
    async fn list(cluster: &Cluster, kind: &KindInfo, resource: &str) -> Result<Self, ApiError> {
        let mut keys = HashSet::new();
        let path = kind.path(None);
        let listed = pages(cluster, &path, |meta| {
            keys.insert(key(resource, &meta.namespace, &meta.name));
        })
        .await?;
        Ok(if listed { Self::Listed(keys) } else { Self::Ask })
    }

    /// Whether an object of that name may be there.
    pub(super) fn may_have(&self, object: &super::ObjectRef) -> bool {
        match self {
            Self::Listed(keys) => keys.contains(&object.key()),
            Self::Ask => true,
        }
    }

    /// The object that is there under the name of another, or why it is not given.
    pub(super) async fn find(
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

/// What is read of each object.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Meta {
    name: String,
    namespace: String,
    deletion_timestamp: Option<serde::de::IgnoredAny>,
}

/// Names at `path`, page by page. False if they may not be listed or the server cannot.
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
