//! Facts about a cluster that stay the same over all attempts to read it.

use serde::Deserialize;

use super::{GapReason, ResourceGap};
use crate::kubernetes::{ApiError, Cluster};

/// Facts that stay the same over all attempts.
pub(super) struct ClusterFacts {
    pub(super) cluster_uid: Option<String>,
    pub(super) server_version: String,
    pub(super) gaps: Vec<ResourceGap>,
    pub(super) notes: Vec<ResourceGap>,
}

impl ClusterFacts {
    /// Reads the facts. `named` are namespaces that must exist.
    pub(super) async fn read(cluster: &Cluster, named: &[String]) -> Result<Self, ApiError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            git_version: String,
        }
        #[derive(Deserialize)]
        struct Namespace {
            metadata: Uid,
        }
        #[derive(Deserialize)]
        struct Uid {
            uid: String,
        }
        let answer = cluster.get("/version", "", 64 << 10).await?;
        let server_version = serde_json::from_slice(&answer.body)
            .map_or_else(|_| "unknown".to_owned(), |version: Version| version.git_version);
        let mut facts = Self { cluster_uid: None, server_version, gaps: Vec::new(), notes: Vec::new() };
        match cluster.get("/api/v1/namespaces/kube-system", "", 1 << 20).await {
            Ok(answer) => {
                let namespace: Option<Namespace> = serde_json::from_slice(&answer.body).ok();
                facts.cluster_uid = namespace.map(|namespace| namespace.metadata.uid);
            }
            // No selected object is missing: the UID only distinguishes clusters.
            Err(error) if matches!(error.code(), Some(403 | 404)) => {
                let rule = "{apiGroups: [\"\"], resources: [namespaces], resourceNames: [kube-system], verbs: [get]}";
                let reason = GapReason::Forbidden { rule: rule.to_owned(), role: "a ClusterRole".to_owned() };
                facts.notes.push(ResourceGap { object: "the cluster's UID".to_owned(), reason });
            }
            Err(error) => return Err(error),
        }
        for name in named {
            let found = cluster.get(&format!("/api/v1/namespaces/{name}"), "", 1 << 20).await;
            if found.is_err_and(|error| error.code() == Some(404)) {
                let reason = GapReason::Absent("namespace".to_owned());
                facts.gaps.push(ResourceGap { object: format!("namespaces/{name}"), reason });
            }
        }
        Ok(facts)
    }
}
