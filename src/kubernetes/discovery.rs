//! Discovers the kinds of a cluster from the aggregated discovery documents (KEP-3352, GA in 1.30).
//!
//! kube's `Discovery` is not used. It ignores `freshness: Stale`, so that the kinds of a dead
//! aggregated API vanish silently. It fails as a whole on one group without versions, and misses
//! kinds that only a version other than the preferred one serves.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::kubernetes::KindInfo;
use crate::kubernetes::client::{ApiError, ApiErrorKind, Cluster};

const ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                      application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,\
                      application/json";
/// The largest discovery document that is read, in bytes: some 20,000 kinds.
const LIMIT: usize = 32 << 20;
/// The most reads of discovery until it lists every defined kind, and the wait between them.
const LOOKS: u32 = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);
/// The CustomResourceDefinitions in one page, which is read for their storage versions.
const DEFINITIONS: usize = 10;

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

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    items: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    metadata: Name,
    #[serde(default)]
    versions: Vec<Version>,
}

#[derive(Deserialize, Default)]
struct Name {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Version {
    version: String,
    #[serde(default)]
    resources: Vec<Resource>,
    #[serde(default)]
    freshness: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
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

/// Discovers the kinds of a cluster. Custom resources come at their storage version where it is
/// served, so that listing them calls no conversion webhook. Without the right to read definitions
/// they come at the preferred version.
///
/// # Errors
/// [`ApiError`] when the cluster does not answer; [`ApiErrorKind::Malformed`] when it has no
/// aggregated discovery (Kubernetes before 1.27).
pub async fn discover(cluster: &Cluster) -> Result<Discovered, ApiError> {
    let mut looks = 0;
    loop {
        let storage = storage_versions(cluster).await?;
        let mut groups = document(cluster, "/api").await?;
        groups.extend(document(cluster, "/apis").await?);
        let mut found = table(groups, &storage);
        // Discovery lists a kind some time after its definition is established.
        let missed = untold(&found, &storage);
        looks += 1;
        if missed.is_empty() || looks == LOOKS {
            found.stale.extend(missed);
            found.stale.sort();
            found.stale.dedup();
            return Ok(found);
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

/// Returns the group versions of established definitions that discovery does not list.
fn untold(found: &Discovered, storage: &StorageVersions) -> Vec<StaleGroup> {
    let told: std::collections::BTreeSet<(&str, &str)> = found
        .kinds
        .iter()
        .chain(&found.computed)
        .map(|kind| (kind.group.as_str(), kind.plural.as_str()))
        .collect();
    let untold =
        storage.iter().filter(|((group, plural), _)| !told.contains(&(group.as_str(), plural.as_str())));
    untold
        .map(|((group, _), version)| StaleGroup { group: group.clone(), version: version.clone() })
        .collect()
}

async fn document(cluster: &Cluster, path: &str) -> Result<Vec<Group>, ApiError> {
    let answer = cluster.get_as(path, "", ACCEPT, LIMIT).await?;
    let malformed = |what: String| ApiError {
        operation: format!("read discovery {path}"),
        server: cluster.server().to_owned(),
        kind: ApiErrorKind::Malformed(what),
        repeated: false,
        source: None,
    };
    let document: Document =
        serde_json::from_slice(&answer.body).map_err(|error| malformed(error.to_string()))?;
    if document.kind != "APIGroupDiscoveryList" {
        return Err(malformed(format!(
            "{:?} in place of APIGroupDiscoveryList: Kubernetes 1.27 or newer is needed",
            document.kind
        )));
    }
    Ok(document.items)
}

/// The (group, plural) of each established definition, and the storage version of its objects.
type StorageVersions = BTreeMap<(String, String), String>;

async fn storage_versions(cluster: &Cluster) -> Result<StorageVersions, ApiError> {
    #[derive(Deserialize)]
    struct List {
        #[serde(default)]
        metadata: crate::kubernetes::list_page::ListMeta,
        #[serde(default)]
        items: Vec<Definition>,
    }
    #[derive(Deserialize)]
    struct Definition {
        spec: Spec,
        #[serde(default)]
        status: Status,
    }
    #[derive(Deserialize, Default)]
    struct Status {
        #[serde(default)]
        conditions: Vec<Condition>,
    }
    #[derive(Deserialize)]
    struct Condition {
        #[serde(rename = "type")]
        name: String,
        status: String,
    }
    #[derive(Deserialize)]
    struct Spec {
        group: String,
        names: Names,
        #[serde(default)]
        versions: Vec<DefinedVersion>,
    }
    #[derive(Deserialize)]
    struct Names {
        plural: String,
    }
    #[derive(Deserialize)]
    struct DefinedVersion {
        name: String,
        #[serde(default)]
        served: bool,
        #[serde(default)]
        storage: bool,
    }
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let mut found = BTreeMap::new();
    let mut token = String::new();
    loop {
        let query = page_query(DEFINITIONS, &token);
        let answer = match cluster.get(path, &query, LIMIT).await {
            Ok(answer) => answer,
            // There are no definitions, no right to read them, or they changed between two pages.
            // The preferred version is then right in all but unusual cases, and a kind that cannot
            // be listed at it is named.
            Err(error) if matches!(error.code(), Some(403 | 404 | 410)) => return Ok(found),
            Err(error) => return Err(error),
        };
        let Ok(list) = serde_json::from_slice::<List>(&answer.body) else { return Ok(found) };
        for Definition { spec, status } in list.items {
            let established = status.conditions.iter().any(|c| c.name == "Established" && c.status == "True");
            if !established {
                continue;
            }
            if let Some(version) = spec.versions.into_iter().find(|version| version.storage && version.served)
            {
                found.insert((spec.group, spec.names.plural), version.name);
            }
        }
        if list.metadata.continue_token.is_empty() {
            return Ok(found);
        }
        token = list.metadata.continue_token;
    }
}

/// Builds the table of kinds. In each group the first version that serves a kind wins (the server
/// lists the preferred one first), except for the storage version of custom resources.
fn table(groups: Vec<Group>, storage: &StorageVersions) -> Discovered {
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
                let can = |verb: &str| resource.verbs.iter().any(|have| have == verb);
                let (lists, creates) = (can("list") && can("get"), can("create"));
                let Some(kind) = kind(&group.metadata.name, &version.version, resource) else { continue };
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
fn kind(group: &str, version: &str, resource: Resource) -> Option<KindInfo> {
    let fits = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    };
    let kind = resource.response_kind.map(|kind| kind.kind).unwrap_or_default();
    if !(fits(version) && fits(&resource.resource) && fits(&kind) && (group.is_empty() || fits(group))) {
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

/// Returns the query for a page of a list: the first, or the one that `token` continues.
pub(crate) fn page_query(limit: usize, token: &str) -> String {
    let limit = limit.to_string();
    let pairs = [("limit", limit.as_str()), ("continue", token)];
    form_urlencoded(if token.is_empty() { &pairs[..1] } else { &pairs })
}

/// Encodes pairs as a query string.
pub(crate) fn form_urlencoded(pairs: &[(&str, &str)]) -> String {
    let mut query = String::new();
    for (name, value) in pairs {
        if !query.is_empty() {
            query.push('&');
        }
        query.push_str(name);
        query.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                query.push(char::from(byte));
            } else {
                query.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(text: &str) -> Vec<Group> {
        serde_json::from_str::<Document>(text).expect("a document").items
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
        let found = table(groups(TEXT), &StorageVersions::new());
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
        let missed = untold(&table(groups(TEXT), &storage), &storage);
        assert_eq!(missed, [StaleGroup { group: "demo.io".into(), version: "v1".into() }]);
    }

    #[test]
    fn custom_resources_come_at_their_storage_version() {
        let storage = BTreeMap::from([(("demo.io".to_owned(), "apples".to_owned()), "v1".to_owned())]);
        let found = table(groups(TEXT), &storage);
        let apple = found.kinds.iter().find(|kind| kind.plural == "apples").expect("apples");
        assert_eq!(apple.version, "v1");
        assert!(apple.has("status"));
    }
}
