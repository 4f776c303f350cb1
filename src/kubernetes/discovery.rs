//! Discovers the kinds of a cluster from the aggregated discovery documents (KEP-3352, GA in 1.30).
//!
//! kube's `Discovery` is not used. It ignores `freshness: Stale`, so that the kinds of a dead
//! aggregated API vanish silently. It fails as a whole on one group without versions, and misses
//! kinds that only a version other than the preferred one serves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;

use super::storage_versions::{StorageVersions, read_storage_versions};
use super::{ApiError, ApiErrorKind, Cluster, KindInfo};

const ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                      application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,\
                      application/json";
/// The largest discovery document that is read, in bytes: some 20,000 kinds.
const MAX_DOCUMENT: usize = 32 << 20;
/// The most reads of discovery until it lists every defined kind, and the wait between them.
const MAX_READS: u32 = 20;
const READ_INTERVAL: Duration = Duration::from_millis(250);

/// The kinds of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Discovered {
    /// Kinds that can be listed, read and created, in ascending order of (group, version, plural).
    pub kinds: Vec<KindInfo>,
    /// Kinds that can be listed but not created: the server computes them.
    pub computed: Vec<KindInfo>,
    /// Group versions whose server does not answer discovery.
    pub stale: Vec<StaleGroup>,
    /// Kinds that can be created, in every served version: a restore may create their objects.
    pub served: Vec<KindInfo>,
}

/// A group version whose server does not answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StaleGroup {
    /// The group.
    pub group: String,
    /// The version.
    pub version: String,
}

impl std::fmt::Display for StaleGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.group, self.version)
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct GroupDiscoveryList {
    kind: String,
    items: Vec<GroupDiscovery>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct GroupDiscovery {
    metadata: GroupMeta,
    versions: Vec<VersionDiscovery>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct GroupMeta {
    name: String,
}

#[derive(Deserialize)]
struct VersionDiscovery {
    version: String,
    #[serde(default)]
    resources: Vec<ResourceDiscovery>,
    #[serde(default)]
    freshness: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceDiscovery {
    resource: String,
    #[serde(default)]
    response_kind: Option<ResponseKind>,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    subresources: Vec<Subresource>,
}

#[derive(Deserialize)]
struct ResponseKind {
    #[serde(default)]
    kind: String,
}

#[derive(Deserialize)]
struct Subresource {
    subresource: String,
}

/// Discovers the kinds of a cluster. Custom resources come at their storage version where it is served, so
/// that listing them calls no conversion webhook. Without the right to read definitions they come at the
/// preferred version. Fails when the cluster does not answer, and with [`ApiErrorKind::Malformed`] when it
/// has no aggregated discovery (Kubernetes before 1.27).
pub async fn discover(cluster: &Cluster) -> Result<Discovered, ApiError> {
    let mut reads = 0;
    loop {
        let storage = read_storage_versions(cluster).await?;
        let mut groups = read_groups(cluster, "/api").await?;
        groups.extend(read_groups(cluster, "/apis").await?);
        let mut found = collect_kinds(groups, &storage);
        // Discovery lists a kind some time after its definition is established.
        let missing = missing_from_discovery(&found, &storage);
        reads += 1;
        if missing.is_empty() || reads == MAX_READS {
            found.stale.extend(missing);
            found.stale.sort();
            found.stale.dedup();
            return Ok(found);
        }
        tokio::time::sleep(READ_INTERVAL).await;
    }
}

/// Returns the group versions of established definitions that discovery does not list.
fn missing_from_discovery(found: &Discovered, storage: &StorageVersions) -> Vec<StaleGroup> {
    let kinds = found.kinds.iter().chain(&found.computed);
    let listed: BTreeSet<_> = kinds.map(|kind| (kind.group.as_str(), kind.plural.as_str())).collect();
    storage
        .iter()
        .filter(|((group, plural), _)| !listed.contains(&(group.as_str(), plural.as_str())))
        .map(|((group, _), version)| StaleGroup { group: group.clone(), version: version.clone() })
        .collect()
}

async fn read_groups(cluster: &Cluster, path: &str) -> Result<Vec<GroupDiscovery>, ApiError> {
    let answer = cluster.get_as(path, "", ACCEPT, MAX_DOCUMENT).await?;
    let malformed = |what: String| {
        ApiError::new(format!("read discovery {path}"), cluster.server(), ApiErrorKind::Malformed(what))
    };
    let document: GroupDiscoveryList =
        serde_json::from_slice(&answer.body).map_err(|error| malformed(error.to_string()))?;
    if document.kind != "APIGroupDiscoveryList" {
        return Err(malformed(format!(
            "{:?} in place of APIGroupDiscoveryList: Kubernetes 1.27 or newer is needed",
            document.kind
        )));
    }
    Ok(document.items)
}

/// Builds the table of kinds. In each group the first version that serves a kind wins (the server
/// lists the preferred one first), except for the storage version of custom resources.
fn collect_kinds(groups: Vec<GroupDiscovery>, storage: &StorageVersions) -> Discovered {
    let mut result = Discovered::default();
    let mut chosen: BTreeMap<(String, String), KindInfo> = BTreeMap::new();
    let mut computed: BTreeMap<(String, String), KindInfo> = BTreeMap::new();
    for group in groups {
        for version in group.versions {
            if version.freshness == "Stale" {
                let stale =
                    StaleGroup { group: group.metadata.name.clone(), version: version.version.clone() };
                result.stale.push(stale);
            }
            for resource in version.resources {
                let can = |verb: &str| resource.verbs.iter().any(|listed| listed == verb);
                let (lists, creates) = (can("list") && can("get"), can("create"));
                let kind = to_kind_info(&group.metadata.name, &version.version, resource);
                let Some(kind) = kind else { continue };
                let key = (kind.group.clone(), kind.plural.clone());
                let stored = storage.get(&key) == Some(&kind.version);
                if lists && creates {
                    if stored {
                        chosen.insert(key, kind.clone());
                    } else {
                        chosen.entry(key).or_insert_with(|| kind.clone());
                    }
                } else if lists {
                    computed.entry(key).or_insert_with(|| kind.clone());
                }
                if creates {
                    result.served.push(kind);
                }
            }
        }
    }
    result.kinds = chosen.into_values().collect();
    result.kinds.sort();
    result.computed = computed.into_values().collect();
    result.stale.sort();
    result
}

/// Returns a kind of the table; none if a name in the document cannot be part of a path.
fn to_kind_info(group: &str, version: &str, resource: ResourceDiscovery) -> Option<KindInfo> {
    let is_path_part = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    };
    let kind = resource.response_kind.map(|kind| kind.kind).unwrap_or_default();
    if !(is_path_part(version)
        && is_path_part(&resource.resource)
        && is_path_part(&kind)
        && (group.is_empty() || is_path_part(group)))
    {
        return None;
    }
    let mut subresources: Vec<String> =
        resource.subresources.into_iter().map(|sub| sub.subresource).collect();
    subresources.sort();
    Some(KindInfo {
        group: group.to_owned(),
        version: version.to_owned(),
        plural: resource.resource,
        kind,
        namespaced: resource.scope == "Namespaced",
        subresources,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(text: &str) -> Vec<GroupDiscovery> {
        serde_json::from_str::<GroupDiscoveryList>(text).expect("a document").items
    }

    const TEXT: &str = r#"{"kind":"APIGroupDiscoveryList","items":[
        {"metadata":{"name":"demo.io"},"versions":[
            {"version":"v2","freshness":"Current","resources":[
                {"resource":"apples","responseKind":{"kind":"Apple"},"scope":"Namespaced","verbs":["create","get","list"]}]},
            {"version":"v1","freshness":"Current","resources":[
                {"resource":"apples","responseKind":{"kind":"Apple"},"scope":"Namespaced","verbs":["create","get","list"],
                 "subresources":[{"subresource":"status"}]},
                {"resource":"pears","responseKind":{"kind":"Pear"},"scope":"Cluster","verbs":["create","get","list"]},
                {"resource":"scores","responseKind":{"kind":"Score"},"scope":"Cluster","verbs":["get","list"]},
                {"resource":"reviews","responseKind":{"kind":"Review"},"scope":"Cluster","verbs":["create"]},
                {"resource":"a/../b","responseKind":{"kind":"Bad"},"scope":"Cluster","verbs":["create","get","list"]}]}]},
        {"metadata":{"name":"dead.io"},"versions":[{"version":"v1","freshness":"Stale"}]},
        {"metadata":{"name":"empty.io"}}]}"#;

    #[test]
    fn kinds_of_every_version_and_stale_groups_are_found() {
        let found = collect_kinds(groups(TEXT), &StorageVersions::new());
        let names: Vec<_> = found.kinds.iter().map(|k| format!("{}/{}", k.version, k.plural)).collect();
        assert_eq!(names, ["v1/pears", "v2/apples"]);
        assert_eq!(found.stale, [StaleGroup { group: "dead.io".into(), version: "v1".into() }]);
        assert_eq!(found.computed.len(), 1);
        assert_eq!(found.computed[0].plural, "scores");
    }

    #[test]
    fn defined_kinds_missing_from_discovery_are_stale() {
        let defined = |plural: &str| (("demo.io".to_owned(), plural.to_owned()), "v1".to_owned());
        let storage = BTreeMap::from([defined("apples"), defined("scores"), defined("plums")]);
        let missing = missing_from_discovery(&collect_kinds(groups(TEXT), &storage), &storage);
        assert_eq!(missing, [StaleGroup { group: "demo.io".into(), version: "v1".into() }]);
    }

    #[test]
    fn custom_resources_come_at_their_storage_version() {
        let storage = BTreeMap::from([(("demo.io".to_owned(), "apples".to_owned()), "v1".to_owned())]);
        let found = collect_kinds(groups(TEXT), &storage);
        let apple = found.kinds.iter().find(|kind| kind.plural == "apples").expect("apples");
        assert_eq!(apple.version, "v1");
        assert!(apple.has("status"));
    }
}
