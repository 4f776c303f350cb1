//! Claims and volumes as objects, without their data.

use serde_json::{Value, json};

use super::case_runner::CaseContext;
use super::{DEFINITIONS, core, exists, namespace};
use crate::support::control_plane::{create, get};
use crate::support::wait::until;

/// Velero adds a selector to claims, which most provisioners refuse.
pub async fn vl7946_claim_gets_no_selector(mut case: CaseContext) {
    namespace(&case.source, "vl7946", json!({})).await;
    let claims = core("vl7946", "persistentvolumeclaims");
    let claim = json!({"metadata": {"name": "data", "annotations": {
            "volume.kubernetes.io/storage-provisioner": "csi.demo.kbak.dev", "volume.kubernetes.io/selected-node": "node-1", "mine": "kept"}},
        "spec": {"storageClassName": "vl7946", "accessModes": ["ReadWriteOnce"], "volumeName": "pvc-of-the-old-cluster",
            "resources": {"requests": {"storage": "1Gi"}}}});
    create(&case.source, &claims, claim).await;
    case.wait_for_backup().await;

    let run = case.restore(&["--namespace", "vl7946"]).await.ended(3);
    let gaps = run.gaps();
    let [(code, object, reason)] = gaps.as_slice() else { panic!("{}", run.all_output()) };
    assert_eq!((code.as_str(), object.as_str()), ("no-data", "PersistentVolumeClaim/vl7946/data"));
    assert!(reason.contains("pvc-of-the-old-cluster"), "{reason}");
    let found = get(&case.target, &format!("{claims}/data")).await;
    assert_eq!(found["spec"].get("selector"), None);
    assert_eq!(found["spec"].get("volumeName"), None, "the class provides a new one");
    assert_eq!(found["spec"]["storageClassName"], "vl7946");
    let mark = json!({"mine": "kept", "kbak.dev/without-data": "pvc-of-the-old-cluster"});
    assert_eq!(found["metadata"]["annotations"], mark);
    assert_eq!(found["metadata"].get("labels"), None);
}

/// The source of a volume cannot be replaced under its data.
pub async fn vl5332_vl8047_existing_volume_is_never_changed_silently(mut case: CaseContext) {
    let volumes = "/api/v1/persistentvolumes";
    let volume = |path: &str| {
        json!({"metadata": {"name": "vl5332"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "vl5332", "hostPath": {"path": path}}})
    };
    create(&case.source, volumes, volume("/srv/old")).await;
    create(&case.target, volumes, volume("/srv/new")).await;
    case.wait_for_backup().await;

    for more in [&[][..], &["--existing", "replace"]] {
        let only = ["--object", "persistentvolumes/vl5332", "--allow", "privileged"];
        let run = case.restore(&[&only[..], more].concat()).await.ended(3);
        assert!(run.all_output().contains("vl5332"), "{}", run.all_output());
        let found = get(&case.target, &format!("{volumes}/vl5332")).await;
        assert_eq!(found["spec"]["hostPath"]["path"], "/srv/new");
    }
}

/// VolumeSnapshotContents refer to one storage system; Velero creates them again, and leaves them behind.
pub async fn vl7771_vl9583_snapshots_of_another_storage_are_skipped(mut case: CaseContext) {
    namespace(&case.source, "vl7771", json!({})).await;
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let group = "snapshot.storage.k8s.io";
    for (kind, plural, scope) in [
        ("VolumeSnapshot", "volumesnapshots", "Namespaced"),
        ("VolumeSnapshotContent", "volumesnapshotcontents", "Cluster"),
    ] {
        let object: Value = json!({
            "metadata": {"name": format!("{plural}.{group}"), "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes/enhancements/pull/1111"}},
            "spec": {"group": group, "scope": scope, "names": {"plural": plural, "kind": kind},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}});
        create(&case.source, DEFINITIONS, object.clone()).await;
        create(&case.target, DEFINITIONS, object).await;
        for cluster in [&case.source, &case.target] {
            until(cluster, &format!("/apis/{group}/v1/{plural}"), |list| list["items"].is_array()).await;
        }
    }
    let snapshots = format!("/apis/{group}/v1/namespaces/vl7771/volumesnapshots");
    let api = format!("{group}/v1");
    create(
        &case.source,
        &snapshots,
        json!({"apiVersion": api, "kind": "VolumeSnapshot", "metadata": {"name": "s"},
        "spec": {"source": {"persistentVolumeClaimName": "data"}}}),
    )
    .await;
    let contents = format!("/apis/{group}/v1/volumesnapshotcontents");
    create(
        &case.source,
        &contents,
        json!({"apiVersion": api, "kind": "VolumeSnapshotContent", "metadata": {"name": "vl7771"},
        "spec": {"driver": "csi.demo.kbak.dev", "deletionPolicy": "Delete", "sourceVolumeMode": "Filesystem", "source": {"snapshotHandle": "h"}}}),
    )
    .await;
    case.wait_for_backup().await;

    let content = format!("volumesnapshotcontents.{group}/vl7771");
    // An object requested by name and left out is reported.
    case.restore(&["--namespace", "vl7771", "--object", &content]).await.ended(3);
    assert!(exists(&case.target, "/api/v1/namespaces/vl7771").await);
    assert!(!exists(&case.target, &format!("{snapshots}/s")).await);
    assert!(!exists(&case.target, &format!("{contents}/vl7771")).await);
}
