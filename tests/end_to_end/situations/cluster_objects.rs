//! The objects of the situations of clusters: created before the backup, and changed after it.

use bytes::Bytes;
use http::Method;
use kbak::kubernetes::Cluster;
use serde_json::{Value, json};

use crate::support::control_plane::{create, delete, patch, try_create};
use crate::support::memory_backup::create_namespace;

/// The existing object beside the one in the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    Absent,
    Same,
    Different,
    /// Different in a field that cannot be changed.
    Immutable,
    /// Being deleted, and held by a finalizer.
    Ending,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    None,
    Quota,
    PodSecurity,
    LimitRange,
}

/// The objects of each namespace: path, resource, name.
pub const OBJECTS: &[(&str, &str, &str)] = &[
    ("/api/v1", "configmaps", "settings"),
    ("/api/v1", "secrets", "db"),
    ("/api/v1", "services", "web"),
    ("/api/v1", "serviceaccounts", "web"),
    ("/api/v1", "persistentvolumeclaims", "data"),
    ("/api/v1", "pods", "web"),
    ("/apis/apps/v1", "deployments", "web"),
    ("/apis/batch/v1", "cronjobs", "tick"),
    ("/apis/rbac.authorization.k8s.io/v1", "roles", "reader"),
    ("/apis/networking.k8s.io/v1", "ingresses", "web"),
    ("/apis/sits.kbak.dev/v1", "widgets", "w"),
];

fn object(plural: &str, seed: u64) -> Value {
    let pod = json!({"containers": [{"name": "a", "image": "a"}], "automountServiceAccountToken": false});
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": pod});
    match plural {
        "configmaps" => json!({"data": {"a": "1"}}),
        "secrets" => json!({"type": "example.com/kept", "stringData": {"password": "x"}}),
        "services" => {
            json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30_100 + seed}]}})
        }
        "persistentvolumeclaims" => json!({"spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "volumeName": format!("s{seed}"), "resources": {"requests": {"storage": "1Gi"}}}}),
        "pods" => json!({ "spec": pod }),
        "deployments" => json!({"spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template}}),
        "cronjobs" => {
            json!({"spec": {"schedule": "0 2 * * *", "jobTemplate": {"spec": {"template": {"spec": {
            "containers": [{"name": "a", "image": "a"}], "restartPolicy": "Never"}}}}}})
        }
        "roles" => json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
        "ingresses" => {
            json!({"spec": {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}})
        }
        "widgets" => json!({"apiVersion": "sits.kbak.dev/v1", "kind": "Widget", "spec": {"a": [1, 2]}}),
        _ => json!({}),
    }
}

/// Changes an object in a way that the server does not accept for an existing one, if there is one.
fn make_immutable(plural: &str, object: &mut Value) {
    match plural {
        "secrets" => object["type"] = json!("example.com/other"),
        "persistentvolumeclaims" => object["spec"]["accessModes"] = json!(["ReadOnlyMany"]),
        "pods" => object["spec"]["hostname"] = json!("other"),
        "deployments" => {
            object["spec"]["selector"]["matchLabels"] = json!({"app": "other"});
            object["spec"]["template"]["metadata"]["labels"] = json!({"app": "other"});
        }
        _ => object["metadata"]["labels"]["part"] = json!("other"),
    }
}

fn path(root: &str, namespace: &str, plural: &str) -> String {
    format!("{root}/namespaces/{namespace}/{plural}")
}

/// Creates a namespace with all objects.
pub async fn create_objects(cluster: &Cluster, seed: u64) {
    let space = format!("s{seed}");
    create_namespace(cluster, &space).await;
    // Without it, no pod can be created.
    let account = json!({"metadata": {"name": "default"}});
    create(cluster, &path("/api/v1", &space, "serviceaccounts"), account).await;
    let volume = json!({"metadata": {"name": space}, "spec": {"accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "1Gi"}, "nfs": {"server": "nfs.example.com", "path": "/"},
        "persistentVolumeReclaimPolicy": "Retain"}});
    create(cluster, "/api/v1/persistentvolumes", volume).await;
    for (root, plural, name) in OBJECTS {
        let mut object = object(plural, seed);
        object["metadata"] = json!({"name": name, "labels": {"part": plural}});
        create(cluster, &path(root, &space, plural), object).await;
    }
}

/// Removes an object at once, also a pod.
async fn remove(cluster: &Cluster, path: &str) {
    let body = Bytes::from_static(b"{\"gracePeriodSeconds\":0}");
    let answer = cluster.send(Method::DELETE, path, "", "application/json", body).await;
    answer.unwrap_or_else(|error| panic!("{path}: {error}"));
    // A claim has the finalizer of a controller that does not run here.
    if cluster.get(path, "", 1 << 20).await.is_ok() {
        patch(cluster, path, json!({"metadata": {"finalizers": null}})).await;
    }
}

/// Changes the objects of a namespace after the backup.
pub async fn change_objects(cluster: &Cluster, seed: u64, states: &[Existing]) {
    let space = format!("s{seed}");
    for ((root, plural, name), state) in OBJECTS.iter().zip(states) {
        let folder = path(root, &space, plural);
        let place = format!("{folder}/{name}");
        match state {
            Existing::Same => {}
            Existing::Absent => remove(cluster, &place).await,
            Existing::Different => {
                patch(cluster, &place, json!({"metadata": {"labels": {"part": "other"}}})).await;
            }
            Existing::Immutable => {
                remove(cluster, &place).await;
                let mut object = object(plural, seed);
                object["metadata"] = json!({"name": name, "labels": {"part": plural}});
                make_immutable(plural, &mut object);
                create(cluster, &folder, object).await;
            }
            Existing::Ending => {
                patch(cluster, &place, json!({"metadata": {"finalizers": ["sits.kbak.dev/hold"]}})).await;
                delete(cluster, &place).await;
            }
        }
    }
}

/// Gives the port and the volume of a namespace to others.
pub async fn take_port_and_volume(cluster: &Cluster, seed: u64) {
    let space = format!("s{seed}");
    if get_port(cluster, &space).await.is_none() {
        let other = json!({"metadata": {"name": format!("other{seed}")},
            "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30_100 + seed}]}});
        create(cluster, "/api/v1/namespaces/default/services", other).await;
    }
    let claim = json!({"spec": {"claimRef": {"namespace": "default", "name": "other", "kind": "PersistentVolumeClaim", "apiVersion": "v1"}}});
    patch(cluster, &format!("/api/v1/persistentvolumes/{space}"), claim).await;
}

async fn get_port(cluster: &Cluster, space: &str) -> Option<u64> {
    let answer = cluster.get(&format!("/api/v1/namespaces/{space}/services/web"), "", 1 << 20).await.ok()?;
    serde_json::from_slice::<Value>(&answer.body).ok()?.pointer("/spec/ports/0/nodePort")?.as_u64()
}

/// Applies rules of admission to a namespace, and waits until they count.
pub async fn apply_rules(cluster: &Cluster, space: &str, admission: Admission) {
    let namespace = format!("/api/v1/namespaces/{space}");
    let (probe, plural) = match admission {
        Admission::None => return,
        Admission::Quota => {
            let used = json!({"hard": {"count/configmaps": "0"}, "used": {"count/configmaps": "0"}});
            let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": used["hard"]}});
            create(cluster, &format!("{namespace}/resourcequotas"), quota).await;
            patch(cluster, &format!("{namespace}/resourcequotas/q/status"), json!({"status": used})).await;
            (object("configmaps", 0), "configmaps")
        }
        Admission::PodSecurity => {
            let label = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
            patch(cluster, &namespace, label).await;
            (object("pods", 0), "pods")
        }
        Admission::LimitRange => {
            let limits = json!({"limits": [{"type": "Pod", "min": {"cpu": "1"}}]});
            let range = json!({"metadata": {"name": "l"}, "spec": limits});
            create(cluster, &format!("{namespace}/limitranges"), range).await;
            (object("pods", 0), "pods")
        }
    };
    let mut probe = probe;
    probe["metadata"] = json!({"generateName": "probe-"});
    for _ in 0..200 {
        if try_create(cluster, &format!("{namespace}/{plural}?dryRun=All"), probe.clone()).await.is_err() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{admission:?} does not count in {space}");
}
