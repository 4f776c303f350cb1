//! A backup of a real control plane, restored into an empty one.

use std::collections::{BTreeMap, BTreeSet};

use kbak::kubernetes::Cluster;
use kbak::plan::Glob;
use kbak::report::event::Reporter;
use kbak::runtime::lock;
use kbak::target::kubernetes::{
    FileFormat, ObjectRef, Outcome, Permission, RestoreConfig, WaitLimits, restore_resources, write_directory,
};
use serde_json::{Value, json};

use crate::support::control_plane::{ControlPlane, create, get};
use crate::support::memory_backup::{
    MemoryBackup, config_map, create_namespace, define_apples, object_name, read, sample_object,
};

/// Creates objects of many kinds, with owners, finalizers, and fields that must be removed.
async fn application(cluster: &Cluster) {
    create_namespace(cluster, "shop").await;
    define_apples(cluster).await;
    let ns = |kind: &str| format!("/api/v1/namespaces/shop/{kind}");
    let owner = create(cluster, &ns("configmaps"), config_map("owner", "1")).await;
    let by = |object: &Value, version: &str, kind: &str| json!([{"apiVersion": version, "kind": kind, "name": object["metadata"]["name"], "uid": object["metadata"]["uid"]}]);
    let mut middle = sample_object("apples.demo.kbak.dev", "middle", 1);
    middle["metadata"]["ownerReferences"] = by(&owner, "v1", "ConfigMap");
    middle["metadata"]["finalizers"] = json!(["demo.kbak.dev/keep"]);
    middle["spec"] =
        json!({"float": 2.821_949_058_104_255_5e-275, "big": 9_007_199_254_740_993_i64, "text": "yes"});
    middle["status"] = json!({"phase": "without the subresource this is data"});
    let middle = create(cluster, "/apis/demo.kbak.dev/v1/namespaces/shop/apples", middle).await;
    let secret = json!({
        "metadata": {"name": "last", "ownerReferences": by(&middle, "demo.kbak.dev/v1", "Apple")},
        "type": "Opaque", "stringData": {"password": "p"},
    });
    create(cluster, &ns("secrets"), secret).await;
    let ports = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
    let service = |name: &str, of: &str| json!({"metadata": {"name": name}, "spec": {"type": of, "ports": ports, "selector": {"app": "web"}}});
    create(cluster, &ns("services"), service("web", "ClusterIP")).await;
    create(cluster, &ns("services"), service("out", "NodePort")).await;
    let mut headless = service("headless", "ClusterIP");
    headless["spec"]["clusterIP"] = json!("None");
    create(cluster, &ns("services"), headless).await;
    create(cluster, &ns("serviceaccounts"), json!({"metadata": {"name": "web"}})).await;
    let pod = json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"serviceAccountName": "web", "containers": [{"name": "web", "image": "web:1", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]},
    });
    let selector = json!({"matchLabels": {"app": "web"}});
    let apps = "/apis/apps/v1/namespaces/shop";
    create(
        cluster,
        &format!("{apps}/deployments"),
        json!({"metadata": {"name": "web"}, "spec": {"replicas": 2, "selector": selector, "template": pod}}),
    )
    .await;
    create(cluster, &format!("{apps}/statefulsets"), json!({"metadata": {"name": "db"}, "spec": {"serviceName": "headless", "selector": selector, "template": pod}})).await;
    let mut once = pod.clone();
    once["spec"]["restartPolicy"] = json!("Never");
    let batch = "/apis/batch/v1/namespaces/shop";
    create(
        cluster,
        &format!("{batch}/jobs"),
        json!({"metadata": {"name": "once"}, "spec": {"template": once}}),
    )
    .await;
    create(cluster, &format!("{batch}/cronjobs"), json!({"metadata": {"name": "night"}, "spec": {"schedule": "0 2 * * *", "jobTemplate": {"spec": {"template": once}}}})).await;
    let mut bare = pod.clone();
    bare["metadata"]["name"] = json!("bare");
    create(cluster, &ns("pods"), bare).await;
    let class = json!({"metadata": {"name": "slow"}, "provisioner": "kubernetes.io/no-provisioner", "reclaimPolicy": "Retain"});
    create(cluster, "/apis/storage.k8s.io/v1/storageclasses", class).await;
    let volume = json!({
        "metadata": {"name": "disk"},
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "slow", "hostPath": {"path": "/srv/disk"}},
    });
    create(cluster, "/api/v1/persistentvolumes", volume).await;
    let claim = json!({
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "slow", "resources": {"requests": {"storage": "1Gi"}}},
    });
    create(cluster, &ns("persistentvolumeclaims"), claim).await;
    let until = async |path: &str, pointer: &str, wanted: &str| {
        for _ in 0..600 {
            if get(cluster, path).await.pointer(pointer).is_some_and(|found| found == wanted) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("{path}: {pointer} never is {wanted}");
    };
    until(&ns("persistentvolumeclaims/data"), "/status/phase", "Bound").await;
    let net = "/apis/networking.k8s.io/v1/namespaces/shop";
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    create(
        cluster,
        &format!("{net}/ingresses"),
        json!({"metadata": {"name": "web"}, "spec": {"defaultBackend": backend}}),
    )
    .await;
    create(
        cluster,
        &format!("{net}/networkpolicies"),
        json!({"metadata": {"name": "deny"}, "spec": {"podSelector": {}}}),
    )
    .await;
    let hpa = json!({"metadata": {"name": "web"}, "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "maxReplicas": 3}});
    create(cluster, "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers", hpa).await;
    let pdb = json!({"metadata": {"name": "web"}, "spec": {"minAvailable": 1, "selector": selector}});
    create(cluster, "/apis/policy/v1/namespaces/shop/poddisruptionbudgets", pdb).await;
    create(
        cluster,
        &ns("resourcequotas"),
        json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "50"}}}),
    )
    .await;
    create(cluster, &ns("limitranges"), json!({"metadata": {"name": "l"}, "spec": {"limits": [{"type": "Container", "default": {"cpu": "1"}}]}})).await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop";
    create(cluster, &format!("{rbac}/roles"), json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]})).await;
    let binding = json!({
        "metadata": {"name": "r"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "shop", "name": "web"}],
    });
    create(cluster, &format!("{rbac}/rolebindings"), binding).await;
    let hook = json!({"metadata": {"name": "w"}, "webhooks": [{"name": "w.demo.kbak.dev", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "failurePolicy": "Ignore", "clientConfig": {"service": {"namespace": "shop", "name": "web"}},
        "rules": [{"apiGroups": ["demo.kbak.dev"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["apples"]}]}]});
    create(cluster, "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", hook).await;
    create(
        cluster,
        "/apis/scheduling.k8s.io/v1/priorityclasses",
        json!({"metadata": {"name": "high"}, "value": 1000}),
    )
    .await;
}

/// Allowed differences beside the fields that the server sets in any object: kind, pointer, reason.
/// Written independently of the restore code.
const DIFFERENT: &[(&str, &str, &str)] = &[
    ("Service", "/spec/clusterIP", "the new cluster's address"),
    ("Service", "/spec/clusterIPs", "the new cluster's address"),
    ("Service", "/spec/ports/0/nodePort", "the new cluster's port"),
    ("PersistentVolume", "/spec/claimRef/uid", "the new claim"),
    ("PersistentVolume", "/spec/claimRef/resourceVersion", "the new claim"),
    ("PersistentVolume", "/metadata/annotations", "bound by name now, not by the controller's choice"),
    ("PersistentVolumeClaim", "/metadata/annotations", "bound by name now, not by the controller's choice"),
    ("Job", "/spec/selector", "carries the UID"),
    ("Job", "/spec/template/metadata/labels/controller-uid", "carries the UID"),
    ("Job", "/spec/template/metadata/labels/batch.kubernetes.io~1controller-uid", "carries the UID"),
    ("Job", "/metadata/labels/controller-uid", "carries the UID"),
    ("Job", "/metadata/labels/batch.kubernetes.io~1controller-uid", "carries the UID"),
    ("Pod", "/spec/volumes", "the token's volume has a random name"),
    ("Pod", "/spec/containers/0/volumeMounts", "the token's volume has a random name"),
];

/// Cluster-scoped objects that `application` creates, besides the definition's.
const MADE: &[&str] = &["/shop", "/disk", "/slow", "/high", "/w", "/apples.demo.kbak.dev"];

fn remove(object: &mut Value, pointer: &str) {
    let Some((parent, field)) = pointer.rsplit_once('/') else { return };
    let field = field.replace("~1", "/");
    if let Some(map) = object.pointer_mut(parent).and_then(Value::as_object_mut) {
        map.remove(&field);
    }
}

/// Returns an object without the fields that may differ, with owners by name.
fn bare(object: &Value) -> Value {
    let mut object = object.clone();
    for field in ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"] {
        remove(&mut object, &format!("/metadata/{field}"));
    }
    let kind = object["kind"].as_str().expect("a kind").to_owned();
    if kind != "Apple" {
        remove(&mut object, "/status");
    }
    for (_, pointer, _) in DIFFERENT.iter().filter(|(of, ..)| *of == kind) {
        remove(&mut object, pointer);
    }
    for owner in
        object["metadata"].get_mut("ownerReferences").and_then(Value::as_array_mut).into_iter().flatten()
    {
        remove(owner, "/uid");
    }
    object
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn application_is_restored_into_empty_cluster() {
    let (old, new) = (ControlPlane::start(&[]), ControlPlane::start(&[]));
    let (source, target) = (old.cluster().await, new.cluster().await);
    application(&source).await;
    let (held, report) = read(&source).await;
    assert!(report.gaps.is_empty(), "{:?}", report.gaps);

    let reporter = Reporter::silent();
    let meter = reporter.meter("restore", "objects");
    let outcomes = std::sync::Mutex::new(BTreeMap::new());
    let told = |object: &ObjectRef, outcome: &Outcome| {
        let before = lock(&outcomes).insert(object.to_string(), outcome.clone());
        assert_eq!(before, None, "{object} is reported once");
    };
    // First only `privileged` is allowed, for the disk's folder, so that its claim finds it.
    // Objects that grant rights, and those that need them, are not restored.
    let allow = BTreeSet::from([Permission::Privileged]);
    let config = RestoreConfig {
        waits: WaitLimits { max_idle_rounds: 0, ..WaitLimits::default() },
        takeover: true,
        allow,
        ..RestoreConfig::default()
    };
    let first = restore_resources(&target, &held, &config, &told, &meter).await.expect("a report");
    assert!(
        first.refused[&Permission::Rbac] >= 2
            && first.refused[&Permission::Webhooks] == 1
            && first.refused[&Permission::Crds] == 1
    );
    assert_eq!(first.unserved.get("apples.demo.kbak.dev"), Some(&1), "{first:?}");
    assert!(
        get(&target, "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/roles").await["items"] == json!([])
    );
    assert!(!first.is_whole());
    lock(&outcomes).clear();

    let config = RestoreConfig { allow: Permission::ALL.into(), takeover: true, ..RestoreConfig::default() };
    let report = restore_resources(&target, &held, &config, &told, &meter).await.expect("a report");
    assert!(report.is_whole(), "{report:#?}");
    assert_eq!((report.failed, report.failures.len()), (0, 0));
    let total: usize = held.kinds.iter().map(|(_, lines)| lines.len()).sum();
    assert_eq!(lock(&outcomes).len(), total, "each object has an outcome");

    let outcomes = outcomes.into_inner().expect("a lock");
    compare(&held, &outcomes, &target).await;
    // Owners are those of the new cluster, all three deep, and the garbage collector keeps their dependents.
    let get_uid = async |path: &str| get(&target, path).await["metadata"]["uid"].clone();
    let owner = get_uid("/api/v1/namespaces/shop/configmaps/owner").await;
    let middle = get(&target, "/apis/demo.kbak.dev/v1/namespaces/shop/apples/middle").await;
    let last = get(&target, "/api/v1/namespaces/shop/secrets/last").await;
    assert_eq!(middle["metadata"]["ownerReferences"][0]["uid"], owner);
    assert_eq!(last["metadata"]["ownerReferences"][0]["uid"], middle["metadata"]["uid"]);
    assert_eq!(report.owners_lost, 0, "{report:#?}");
    files(&held).await;
}

/// Checks that every created or existing object in the new cluster equals the backup.
async fn compare(held: &MemoryBackup, outcomes: &BTreeMap<String, Outcome>, target: &Cluster) {
    let (after, _) = read(target).await;
    let mut compared = BTreeSet::new();
    for (kind, lines) in &held.kinds {
        let found = after.objects(&kind.resource());
        for line in lines {
            let object: Value = serde_json::from_slice(line).expect("JSON");
            let place = object_name(&object);
            let shown =
                format!("{}{}", kind.kind, if kind.namespaced { format!("/{place}") } else { place.clone() });
            let made =
                if kind.namespaced { place.starts_with("shop/") } else { MADE.contains(&place.as_str()) };
            // Each cluster has its own CA bundle.
            if !made || place == "shop/kube-root-ca.crt" || matches!(outcomes[&shown], Outcome::Skipped(_)) {
                continue;
            }
            let found = found.get(&place).unwrap_or_else(|| panic!("{shown} is missing"));
            assert_eq!(bare(found), bare(&object), "{shown}");
            compared.insert(kind.kind.clone());
        }
    }
    assert!(compared.len() >= 25, "{} kinds: {compared:?}", compared.len());
}

/// Writes the same backup as files: one each, readable by a YAML 1.1 parser, with nothing changed.
async fn files(held: &MemoryBackup) {
    let folder = tempfile::tempdir().expect("a folder");
    let shop =
        RestoreConfig { namespaces: vec![Glob::new("shop").expect("a pattern")], ..RestoreConfig::default() };
    let written = write_directory(held, folder.path(), FileFormat::Yaml, &shop).await.expect("files");
    assert!(written.files > 20);
    let path = folder.path().join("demo.kbak.dev/Apple/shop/middle.yaml");
    let text = std::fs::read_to_string(path).expect("a file");
    let object: Value = serde_saphyr::from_str(&text).expect("YAML");
    assert_eq!(&object, &held.objects("apples.demo.kbak.dev")["shop/middle"]);
    assert!(text.contains("\"yes\"") || text.contains("'yes'"), "YAML 1.1 takes a bare yes for true: {text}");
    let again = write_directory(held, folder.path(), FileFormat::Yaml, &shop).await;
    again.expect_err("existing files are not overwritten");
}
