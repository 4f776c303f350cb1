//! References between objects.

use std::time::Duration;

use serde_json::{Value, json};

use super::case_runner::CaseContext;
use super::{core, exists, map, namespace};
use crate::support::control_plane::{create, delete, get};

fn owner(object: &Value) -> Value {
    json!({"apiVersion": object["apiVersion"], "kind": object["kind"], "name": object["metadata"]["name"], "uid": object["metadata"]["uid"],
        "controller": true, "blockOwnerDeletion": true})
}

/// Velero drops owner references; restored unchanged, they would make the collector delete the objects.
pub async fn vl4707_vl10556_owner_references_are_restored(mut case: CaseContext) {
    let maps = core("vl4707", "configmaps");
    namespace(&case.source, "vl4707", json!({})).await;
    // Names in another order than the ownership.
    let mut above = create(&case.source, &maps, map("z-owner", json!({}))).await;
    for name in ["m-middle", "a-last"] {
        let mut below = map(name, json!({}));
        below["metadata"]["ownerReferences"] = json!([owner(&above)]);
        above = create(&case.source, &maps, below).await;
    }
    case.wait_for_backup().await;

    case.restore(&["--namespace", "vl4707"]).await.ended(0);
    let (top, middle, last) = (
        get(&case.target, &format!("{maps}/z-owner")).await,
        get(&case.target, &format!("{maps}/m-middle")).await,
        get(&case.target, &format!("{maps}/a-last")).await,
    );
    assert_eq!(middle["metadata"]["ownerReferences"], json!([owner(&top)]));
    assert_eq!(last["metadata"]["ownerReferences"], json!([owner(&middle)]));
    // The references are valid: a dependent is deleted with its owner.
    delete(&case.target, &format!("{maps}/z-owner")).await;
    for name in ["m-middle", "a-last"] {
        for _ in 0..600 {
            if !exists(&case.target, &format!("{maps}/{name}")).await {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(!exists(&case.target, &format!("{maps}/{name}")).await, "{name} outlives its owner");
    }
}

/// Claims of a StatefulSet with such a retention policy belong to it, and are deleted with it.
pub async fn vl7862_claim_keeps_its_owner(mut case: CaseContext) {
    namespace(&case.source, "vl7862", json!({})).await;
    let owner_of = create(&case.source, &core("vl7862", "configmaps"), map("owner", json!({}))).await;
    let claims = core("vl7862", "persistentvolumeclaims");
    let claim = json!({"metadata": {"name": "data", "ownerReferences": [owner(&owner_of)]},
        "spec": {"storageClassName": "none", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    create(&case.source, &claims, claim).await;
    case.wait_for_backup().await;

    case.restore(&["--namespace", "vl7862"]).await.ended(0);
    let owner_now = get(&case.target, &core("vl7862", "configmaps/owner")).await;
    let claim = get(&case.target, &format!("{claims}/data")).await;
    assert_eq!(claim["metadata"]["ownerReferences"], json!([owner(&owner_now)]));
}

/// An object that its operator has to clean up must keep its finalizer.
pub async fn vl5580_finalizers_are_restored(mut case: CaseContext) {
    namespace(&case.source, "vl5580", json!({})).await;
    let maps = core("vl5580", "configmaps");
    let mut held = map("held", json!({"a": "b"}));
    held["metadata"]["finalizers"] = json!(["demo.kbak.dev/clean-up", "demo.kbak.dev/other"]);
    create(&case.source, &maps, held).await;
    case.wait_for_backup().await;

    case.restore(&["--namespace", "vl5580"]).await.ended(0);
    let held = get(&case.target, &format!("{maps}/held")).await;
    assert_eq!(held["metadata"]["finalizers"], json!(["demo.kbak.dev/clean-up", "demo.kbak.dev/other"]));
    assert_eq!(held["metadata"]["deletionTimestamp"], Value::Null);
}

/// Velero labels restored objects; then Helm and GitOps see an unexpected change.
pub async fn vl3029_restored_objects_keep_their_labels_and_helm_annotations(mut case: CaseContext) {
    namespace(&case.source, "vl3029", json!({"team": "a"})).await;
    let maps = core("vl3029", "configmaps");
    let mut settings = map("settings", json!({"a": "b"}));
    settings["metadata"]["labels"] = json!({"app.kubernetes.io/managed-by": "Helm"});
    settings["metadata"]["annotations"] =
        json!({"meta.helm.sh/release-name": "web", "meta.helm.sh/release-namespace": "vl3029"});
    create(&case.source, &maps, settings.clone()).await;
    create(&case.source, &maps, map("bare", json!({}))).await;
    case.wait_for_backup().await;

    case.restore(&["--namespace", "vl3029"]).await.ended(0);
    let found = get(&case.target, &format!("{maps}/settings")).await;
    for field in ["labels", "annotations"] {
        assert_eq!(found["metadata"][field], settings["metadata"][field]);
    }
    let bare = get(&case.target, &format!("{maps}/bare")).await;
    assert_eq!((&bare["metadata"]["labels"], &bare["metadata"]["annotations"]), (&Value::Null, &Value::Null));
    let space = get(&case.target, "/api/v1/namespaces/vl3029").await;
    assert_eq!(space["metadata"]["labels"], json!({"team": "a", "kubernetes.io/metadata.name": "vl3029"}));
}
