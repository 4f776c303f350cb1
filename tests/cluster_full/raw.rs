//! A cluster's objects as its API server lists them. Of the backup's and restore's code only the
//! HTTP client is used.

use std::collections::{BTreeMap, BTreeSet};

use kbak::kubernetes::Cluster;
use serde_json::{Value, json};

use crate::support::control_plane::get;

/// The maximum size of one page in bytes.
const PAGE: usize = 256 << 20;

/// A kind, from the plain discovery documents.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedKind {
    pub group: String,
    pub version: String,
    pub plural: String,
    pub kind: String,
    pub verbs: BTreeSet<String>,
    /// True if its status is a subresource.
    pub status: bool,
}

impl ListedKind {
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Returns `pods`, `deployments.apps`.
    pub fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    fn path(&self) -> String {
        format!("{}/{}/{}", root(&self.group), self.version, self.plural)
    }

    /// Returns the path of an object; a cluster-scoped one has no namespace.
    pub fn object_path(&self, namespace: &str, name: &str) -> String {
        let (root, version, plural) = (root(&self.group), &self.version, &self.plural);
        let name = name.replace(':', "%3A");
        match namespace {
            "" => format!("{root}/{version}/{plural}/{name}"),
            namespace => format!("{root}/{version}/namespaces/{namespace}/{plural}/{name}"),
        }
    }
}

fn root(group: &str) -> String {
    if group.is_empty() { "/api".to_owned() } else { format!("/apis/{group}") }
}

/// Resource, namespace, name.
pub type Id = (String, String, String);

/// All objects of a cluster.
#[derive(Default)]
pub struct ListedCluster {
    /// By resource.
    pub kinds: BTreeMap<String, ListedKind>,
    pub objects: BTreeMap<Id, Value>,
}

/// Returns all kinds, each at the first version in the server's order that serves it.
pub async fn kinds(cluster: &Cluster) -> BTreeMap<String, ListedKind> {
    let mut versions = vec![(String::new(), "v1".to_owned())];
    for group in get(cluster, "/apis").await["groups"].as_array().expect("groups") {
        let name = group["name"].as_str().expect("a group");
        let all = group["versions"].as_array().expect("versions").iter();
        versions.extend(
            all.filter_map(|version| Some((name.to_owned(), version["version"].as_str()?.to_owned()))),
        );
    }
    let mut found: BTreeMap<String, ListedKind> = BTreeMap::new();
    for (group, version) in versions {
        let list = get(cluster, &format!("{}/{version}", root(&group))).await;
        let resources = list["resources"].as_array().expect("resources");
        let name = |resource: &Value| resource["name"].as_str().expect("a name").to_owned();
        let names: BTreeSet<String> = resources.iter().map(name).collect();
        for resource in resources.iter().filter(|resource| !name(resource).contains('/')) {
            let plural = name(resource);
            let verbs = resource["verbs"].as_array().into_iter().flatten();
            let kind = ListedKind {
                status: names.contains(&format!("{plural}/status")),
                group: group.clone(),
                version: version.clone(),
                kind: resource["kind"].as_str().expect("a kind").to_owned(),
                verbs: verbs.filter_map(Value::as_str).map(str::to_owned).collect(),
                plural,
            };
            found.entry(kind.resource()).or_insert(kind);
        }
    }
    found
}

/// Lists every kind that can be listed.
pub async fn read(cluster: &Cluster) -> ListedCluster {
    let mut snapshot = ListedCluster { kinds: kinds(cluster).await, objects: BTreeMap::new() };
    for (resource, kind) in snapshot.kinds.iter().filter(|(_, kind)| kind.verbs.contains("list")) {
        let mut next = String::new();
        loop {
            let query = format!("limit=500{next}");
            let answer = cluster.get(&kind.path(), &query, PAGE).await;
            let answer = answer.unwrap_or_else(|error| panic!("{resource}: {error}"));
            let mut page: Value = serde_json::from_slice(&answer.body).expect("JSON");
            for mut object in page["items"].as_array_mut().map(std::mem::take).unwrap_or_default() {
                object["apiVersion"] = json!(kind.api_version());
                object["kind"] = json!(kind.kind);
                let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
                let id = (resource.clone(), text("namespace"), text("name"));
                snapshot.objects.insert(id, object);
            }
            match page["metadata"]["continue"].as_str() {
                Some(token) if !token.is_empty() => next = format!("&continue={token}"),
                _ => break,
            }
        }
    }
    snapshot
}

impl ListedCluster {
    /// Returns the objects by UID.
    pub fn uids(&self) -> BTreeMap<String, Id> {
        let uid = |object: &Value| object["metadata"]["uid"].as_str().map(str::to_owned);
        self.objects.iter().filter_map(|(id, object)| Some((uid(object)?, id.clone()))).collect()
    }
}
