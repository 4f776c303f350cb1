//! Finds the pod spec in objects of any kind that has one, and the containers in it.

use serde_json::Value;

use super::KindInfo;

/// Fields of a pod spec that list containers.
const CONTAINER_LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// Returns the JSON pointer to the pod spec in objects of a kind that has one.
#[must_use]
pub fn pod_spec_path(kind: &KindInfo) -> Option<&'static str> {
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "pods") => Some("/spec"),
        ("", "podtemplates") => Some("/template/spec"),
        ("" | "apps" | "extensions", "replicationcontrollers" | "deployments" | "daemonsets")
        | ("apps" | "extensions", "statefulsets" | "replicasets")
        | ("batch", "jobs") => Some("/spec/template/spec"),
        ("batch", "cronjobs") => Some("/spec/jobTemplate/spec/template/spec"),
        _ => None,
    }
}

/// Returns the pod spec of an object.
#[must_use]
pub fn pod_spec<'a>(kind: &KindInfo, object: &'a Value) -> Option<&'a Value> {
    object.pointer(pod_spec_path(kind)?)
}

/// Returns the pod spec of an object, to be changed.
pub fn pod_spec_mut<'a>(kind: &KindInfo, object: &'a mut Value) -> Option<&'a mut Value> {
    object.pointer_mut(pod_spec_path(kind)?)
}

/// Returns all containers of a pod spec: the usual, init and ephemeral ones.
pub fn containers(pod_spec: &Value) -> impl Iterator<Item = &Value> {
    CONTAINER_LISTS.iter().filter_map(|list| pod_spec.get(*list)?.as_array()).flatten()
}

/// Calls `change` for all containers of a pod spec.
pub fn for_each_container(pod_spec: &mut Value, mut change: impl FnMut(&mut Value)) {
    for list in CONTAINER_LISTS {
        let containers = pod_spec.get_mut(list).and_then(Value::as_array_mut);
        containers.into_iter().flatten().for_each(&mut change);
    }
}
