//! Definitions of other projects' kinds, as far as a test needs them, and accounts with few rights.

use std::path::{Path, PathBuf};

use kbak::kubernetes::{Cluster, discover};
use serde_json::{Value, json};

use super::control_plane::{ControlPlane, connect, create, get};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Defines a kind whose objects may hold any fields, and waits until it is served.
pub async fn define(cluster: &Cluster, group: &str, version: &str, plural: &str, kind: &str, scope: &str) {
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let name = format!("{plural}.{group}");
    let object = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": name, "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"}},
        "spec": {
            "group": group, "scope": scope,
            "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")},
            "versions": [{"name": version, "served": true, "storage": true, "schema": schema}],
        },
    });
    create(cluster, DEFINITIONS, object).await;
    for _ in 0..600 {
        let conditions = get(cluster, &format!("{DEFINITIONS}/{name}")).await["status"]["conditions"].clone();
        let established = conditions
            .as_array()
            .is_some_and(|all| all.iter().any(|one| one["type"] == "Established" && one["status"] == "True"));
        let path = format!("/apis/{group}/{version}/{plural}");
        let listed = cluster.get(&path, "limit=1", 1 << 20).await.is_ok();
        let known = discover(cluster).await.expect("discovery").kinds;
        let discovered = known.iter().any(|one| one.group == group && one.plural == plural);
        if established && listed && discovered {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{name} is not established");
}

/// Creates a ServiceAccount `name` with these `rules` in the whole cluster, and returns its kubeconfig
/// in `folder`.
pub async fn create_account(
    plane: &ControlPlane,
    cluster: &Cluster,
    folder: &Path,
    name: &str,
    rules: Value,
) -> PathBuf {
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    create(cluster, accounts, json!({"metadata": {"name": name}})).await;
    create(cluster, &format!("{rbac}/clusterroles"), json!({"metadata": {"name": name}, "rules": rules}))
        .await;
    let binding = json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "ServiceAccount", "namespace": "default", "name": name}],
    });
    create(cluster, &format!("{rbac}/clusterrolebindings"), binding).await;
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}});
    let token = create(cluster, &format!("{accounts}/{name}/token"), request).await;
    let text = std::fs::read_to_string(plane.kubeconfig()).expect("a kubeconfig");
    let mut config: Value = serde_saphyr::from_str(&text).expect("YAML");
    config["users"][0]["user"] = json!({"token": token["status"]["token"]});
    let path = folder.join(format!("kubeconfig-{name}"));
    std::fs::write(&path, config.to_string()).expect("a kubeconfig");
    path
}

/// The same with `rules` that include listing namespaces; returns once the authorizer knows them.
pub async fn create_known_account(
    plane: &ControlPlane,
    cluster: &Cluster,
    folder: &Path,
    name: &str,
    rules: Value,
) -> PathBuf {
    let path = create_account(plane, cluster, folder, name, rules).await;
    let own = connect(&path).await;
    for _ in 0..200 {
        if own.get("/api/v1/namespaces", "limit=1", 1 << 20).await.is_ok() {
            return path;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{name} may not list namespaces");
}
