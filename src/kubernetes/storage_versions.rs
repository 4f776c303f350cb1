//! The storage versions of custom resources, from their CustomResourceDefinitions.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::list_page::{ListMeta, page_query};
use super::{ApiError, Cluster};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
/// The CustomResourceDefinitions in one page.
const PAGE_LIMIT: usize = 10;
/// The largest page that is read, in bytes.
const MAX_PAGE: usize = 32 << 20;

/// The (group, plural) of each established definition, and the storage version of its objects.
pub(super) type StorageVersions = BTreeMap<(String, String), String>;

#[derive(Deserialize)]
struct DefinitionList {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default)]
    items: Vec<Definition>,
}

#[derive(Deserialize)]
struct Definition {
    spec: DefinitionSpec,
    #[serde(default)]
    status: DefinitionStatus,
}

#[derive(Deserialize)]
struct DefinitionSpec {
    group: String,
    names: DefinitionNames,
    #[serde(default)]
    versions: Vec<DefinedVersion>,
}

#[derive(Deserialize)]
struct DefinitionNames {
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

#[derive(Deserialize, Default)]
struct DefinitionStatus {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    name: String,
    status: String,
}

/// Reads the storage version of each established definition.
///
/// Returns those found so far when there are no definitions, no right to read them, or they changed between
/// two pages. The preferred version is then nearly always right.
pub(super) async fn read_storage_versions(cluster: &Cluster) -> Result<StorageVersions, ApiError> {
    let mut found = BTreeMap::new();
    let mut token = String::new();
    loop {
        let answer = match cluster.get(DEFINITIONS, &page_query(PAGE_LIMIT, &token), MAX_PAGE).await {
            Ok(answer) => answer,
            Err(error) if matches!(error.code(), Some(403 | 404 | 410)) => return Ok(found),
            Err(error) => return Err(error),
        };
        let Ok(list) = serde_json::from_slice::<DefinitionList>(&answer.body) else { return Ok(found) };
        for Definition { spec, .. } in list.items.into_iter().filter(Definition::is_established) {
            let stored = spec.versions.into_iter().find(|version| version.storage && version.served);
            if let Some(version) = stored {
                found.insert((spec.group, spec.names.plural), version.name);
            }
        }
        if list.metadata.continue_token.is_empty() {
            return Ok(found);
        }
        token = list.metadata.continue_token;
    }
}

impl Definition {
    fn is_established(&self) -> bool {
        self.status.conditions.iter().any(|one| one.name == "Established" && one.status == "True")
    }
}
