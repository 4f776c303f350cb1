//! What is cut out of an object before it is created: what the server sets, and what ties it to
//! the cluster it came from.

use serde_json::{Map, Value};

use crate::source::kubernetes::KindInfo;

/// Metadata that the server sets, or that a second pass sets.
const METADATA: &[&str] = &[
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "generateName",
    "managedFields",
    "ownerReferences",
];
/// Annotations of the volume binder; with them a claim counts as bound to a volume that is gone.
const BINDING: &[&str] = &[
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.kubernetes.io/storage-provisioner",
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/selected-node",
];
/// Labels of a Job and its pods that carry its UID.
const JOB_LABELS: &[&str] = &["controller-uid", "batch.kubernetes.io/controller-uid"];

/// What surgery depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    /// Whether the target has a status subresource for the kind; then a status in a create is
    /// dropped by the server anyway, and otherwise it is data like the rest.
    pub(super) status: bool,
    /// Keep node ports.
    pub(super) node_ports: bool,
}

/// Cuts `object`, of `kind`, for a create.
pub(super) fn cut(kind: &KindInfo, object: &mut Value, options: Options) {
    let Some(root) = object.as_object_mut() else { return };
    if options.status {
        root.remove("status");
    }
    if let Some(metadata) = root.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in METADATA {
            metadata.remove(*field);
        }
        // Only meant anything while the object was being deleted.
        let pending = [Value::from("foregroundDeletion"), Value::from("orphan")];
        if let Some(finalizers) = metadata.get_mut("finalizers").and_then(Value::as_array_mut) {
            finalizers.retain(|finalizer| !pending.contains(finalizer));
        }
    }
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "namespaces") => drop_from(root, "/spec", &["finalizers"]),
        ("", "services") => service(root, options),
        ("", "persistentvolumeclaims") => claim(root),
        ("", "persistentvolumes") => volume(root),
        ("", "pods") => pod(root),
        ("", "secrets") => secret(root),
        ("batch", "jobs") => job(root),
        ("apps", "deployments") => {
            drop_from(root, "/metadata/annotations", &["deployment.kubernetes.io/revision"]);
        }
        _ => {}
    }
}

/// Sets a claim's volume aside when that volume is not there.
pub(super) fn unbind(object: &mut Value) {
    if let Some(root) = object.as_object_mut() {
        drop_from(root, "/spec", &["volumeName"]);
    }
}

/// The object at `pointer` below `root`, which begins with a slash.
fn at<'a>(root: &'a mut Map<String, Value>, pointer: &str) -> Option<&'a mut Map<String, Value>> {
    let mut steps = pointer.split('/').skip(1);
    let first = steps.next()?;
    let mut value = root.get_mut(first)?;
    for step in steps {
        value = value.get_mut(step)?;
    }
    value.as_object_mut()
}

fn drop_from(root: &mut Map<String, Value>, pointer: &str, fields: &[&str]) {
    if let Some(map) = at(root, pointer) {
        for field in fields {
            map.remove(*field);
        }
    }
}

/// Addresses and ports are the new cluster's to give; "None" is a wish, not an address.
fn service(root: &mut Map<String, Value>, options: Options) {
    let Some(spec) = at(root, "/spec") else { return };
    if spec.get("clusterIP").and_then(Value::as_str) != Some("None") {
        spec.remove("clusterIP");
        spec.remove("clusterIPs");
        // Families follow the addresses; a single-stack cluster refuses those of a dual one.
        if spec.get("ipFamilyPolicy").and_then(Value::as_str) == Some("SingleStack") {
            spec.remove("ipFamilies");
        }
    }
    if options.node_ports {
        return;
    }
    spec.remove("healthCheckNodePort");
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(port) = port.as_object_mut() {
            port.remove("nodePort");
        }
    }
}

fn claim(root: &mut Map<String, Value>) {
    drop_from(root, "/metadata/annotations", BINDING);
    // A source that is not there would keep the claim pending for ever; the data comes by kbak.
    drop_from(root, "/spec", &["dataSource", "dataSourceRef"]);
}

/// The claim is named, but its UID is another now: with the old one the volume counts as released.
fn volume(root: &mut Map<String, Value>) {
    drop_from(root, "/metadata/annotations", BINDING);
    drop_from(root, "/spec/claimRef", &["uid", "resourceVersion"]);
}

fn pod(root: &mut Map<String, Value>) {
    let Some(spec) = at(root, "/spec") else { return };
    for field in ["nodeName", "ephemeralContainers"] {
        spec.remove(field);
    }
    if spec.get("priorityClassName").is_some() {
        spec.remove("priority");
        spec.remove("preemptionPolicy");
    }
    // Admission mounts a token of its own.
    let is_token = |value: &Value| {
        value.get("name").and_then(Value::as_str).is_some_and(|name| name.starts_with("kube-api-access-"))
    };
    if let Some(volumes) = spec.get_mut("volumes").and_then(Value::as_array_mut) {
        volumes.retain(|volume| !is_token(volume));
    }
    for containers in ["containers", "initContainers"] {
        for container in spec.get_mut(containers).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(mounts) = container.get_mut("volumeMounts").and_then(Value::as_array_mut) {
                mounts.retain(|mount| !is_token(mount));
            }
        }
    }
}

/// The controller fills the token of the new ServiceAccount in.
fn secret(root: &mut Map<String, Value>) {
    if root.get("type").and_then(Value::as_str) != Some("kubernetes.io/service-account-token") {
        return;
    }
    drop_from(root, "/metadata/annotations", &["kubernetes.io/service-account.uid"]);
    drop_from(root, "/data", &["token", "ca.crt", "namespace"]);
}

/// A selector that the server made names the old Job's UID.
fn job(root: &mut Map<String, Value>) {
    if at(root, "/spec").and_then(|spec| spec.get("manualSelector")?.as_bool()) == Some(true) {
        return;
    }
    drop_from(root, "/spec", &["selector"]);
    drop_from(root, "/spec/template/metadata/labels", JOB_LABELS);
    drop_from(root, "/metadata/labels", JOB_LABELS);
}
