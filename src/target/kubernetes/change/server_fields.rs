//! Removes fields from an object before it is created: those that the server sets, and those that tie it to
//! its old cluster.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value, json};

use super::Changes;
use crate::kubernetes::{KindInfo, count_step, is_empty_collection};
use crate::target::kubernetes::{annotation, each, each_mut, map_mut, text};

/// Metadata that the server or a second write sets.
const METADATA: &[&str] = &[
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "managedFields",
    "ownerReferences",
];
/// The annotation of a claim that a restore made without its data; its value names the volume of the backup.
pub(crate) const WITHOUT_DATA: &str = "kbak.dev/without-data";
/// Annotations of the volume binder. With them a claim counts as bound to a volume that is gone.
const BINDING: &[&str] = &[
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.kubernetes.io/storage-provisioner",
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/selected-node",
];
/// Labels of a Job and its pods that carry its UID.
const JOB_UID: &[&str] = &["controller-uid", "batch.kubernetes.io/controller-uid"];

/// Fields that no object of a kind keeps: resource, pointer, fields, and true if the change is reported.
const DROPPED: &[(&str, &str, &[&str], bool)] = &[
    // The server sets the finalizers that count.
    ("namespaces", "/spec", &["finalizers"], false),
    ("persistentvolumeclaims", "/metadata/annotations", BINDING, false),
    // It tells of another restore.
    ("persistentvolumeclaims", "/metadata/annotations", &[WITHOUT_DATA], false),
    // With a missing data source the claim would stay pending forever; kbak restores the data itself.
    ("persistentvolumeclaims", "/spec", &["dataSource", "dataSourceRef"], true),
    ("persistentvolumes", "/metadata/annotations", BINDING, false),
    // With the claim's old UID the volume counts as released. The claim's name is kept.
    ("persistentvolumes", "/spec/claimRef", &["uid", "resourceVersion"], true),
    ("pods", "/spec", &["nodeName", "ephemeralContainers"], true),
    // Admission sets these from the priority class or the default class, and refuses other values.
    ("pods", "/spec", &["priority", "preemptionPolicy"], false),
    ("deployments.apps", "/metadata/annotations", &["deployment.kubernetes.io/revision"], false),
];

/// Settings that decide which fields are cut.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StripOptions {
    /// True if the target has a status subresource for the kind: the server drops a status in a create.
    /// Otherwise the status is data like the rest.
    pub(crate) status: bool,
    pub(crate) node_ports: NodePorts,
}

/// The node ports of a Service that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodePorts {
    /// All, including those that a cluster assigned.
    All,
    /// Those that a user chose.
    Chosen,
    /// No node ports.
    None,
}

/// Removes the fields of `object`, of `kind`, that a create must not contain.
pub(crate) fn strip_fields(
    kind: &KindInfo,
    object: &mut Value,
    options: StripOptions,
    changes: &mut Changes,
) {
    let resource = kind.resource();
    // Chosen ports are read from managedFields, which are removed below.
    let has_ports = resource == "services" && options.node_ports == NodePorts::Chosen;
    let ports = if has_ports { chosen_node_ports(object) } else { BTreeSet::new() };
    if options.status
        && let Some(root) = object.as_object_mut()
    {
        root.remove("status");
    }
    if let Some(metadata) = map_mut(object, "/metadata") {
        for field in METADATA {
            metadata.remove(*field);
        }
        // These finalizers matter only while the object is being deleted.
        let pending = [Value::from("foregroundDeletion"), Value::from("orphan")];
        if let Some(finalizers) = metadata.get_mut("finalizers").and_then(Value::as_array_mut) {
            finalizers.retain(|finalizer| !pending.contains(finalizer));
        }
        // The server stores none of these.
        metadata.retain(|_, value| !is_empty_collection(value));
    }
    for (_, pointer, fields, is_reported) in DROPPED.iter().filter(|(of, ..)| *of == resource) {
        let quiet = &mut Changes::default();
        drop_fields(object, pointer, fields, if *is_reported { &mut *changes } else { quiet });
    }
    match resource.as_str() {
        "services" => service(object, options, &ports, changes),
        "pods" => remove_token_volumes(object),
        "secrets" => secret(object, changes),
        "serviceaccounts" => account(object, changes),
        "jobs.batch" => job(object, changes),
        "customresourcedefinitions.apiextensions.k8s.io" => definition(object, changes),
        _ => {}
    }
}

/// Removes the volume name of a claim whose volume is not available to it.
pub(crate) fn clear_volume_name(object: &mut Value) -> bool {
    drop_fields(object, "/spec", &["volumeName"], &mut Changes::default())
}

/// Marks a claim that gets an empty volume in place of this one of the backup.
pub(crate) fn mark_without_data(claim: &mut Value, volume: &str) {
    if let Some(metadata) = map_mut(claim, "/metadata")
        && let Some(annotations) = metadata.entry("annotations").or_insert_with(|| json!({})).as_object_mut()
    {
        annotations.insert(WITHOUT_DATA.to_owned(), volume.into());
    }
}

fn drop_fields(object: &mut Value, pointer: &str, fields: &[&str], changes: &mut Changes) -> bool {
    let Some(map) = map_mut(object, pointer) else { return false };
    let mut any = false;
    for field in fields {
        if map.remove(*field).is_some() {
            any = true;
            changes.dropped(format!("{}.{field}", pointer.trim_start_matches('/').replace('/', ".")));
        }
    }
    // An empty map is a value, and nobody chose this one.
    if any
        && map.is_empty()
        && let Some((parent, field)) = pointer.rsplit_once('/')
        && let Some(parent) = object.pointer_mut(parent).and_then(Value::as_object_mut)
    {
        parent.remove(field);
    }
    any
}

/// Removes addresses and ports, which the new cluster assigns. A `clusterIP` of "None" is a setting.
fn service(object: &mut Value, options: StripOptions, explicit: &BTreeSet<u64>, changes: &mut Changes) {
    if text(object, "/spec/clusterIP") != "None" {
        drop_fields(object, "/spec", &["clusterIP", "clusterIPs"], changes);
    }
    if options.node_ports == NodePorts::All {
        return;
    }
    let Some(spec) = map_mut(object, "/spec") else { return };
    let health = spec.get("healthCheckNodePort").and_then(Value::as_u64);
    if health.is_some_and(|port| !explicit.contains(&port)) {
        spec.remove("healthCheckNodePort");
        changes.dropped("spec.healthCheckNodePort");
    }
    for port in each_mut(object, "/spec/ports") {
        let given = port.get("nodePort").and_then(Value::as_u64);
        if given.is_some_and(|given| !explicit.contains(&given))
            && let Some(port) = port.as_object_mut()
        {
            port.remove("nodePort");
            changes.dropped("spec.ports.nodePort");
        }
    }
}

/// Returns the node ports that a user chose, according to kubectl apply or a field manager.
fn chosen_node_ports(object: &Value) -> BTreeSet<u64> {
    let mut chosen = BTreeSet::new();
    let applied = annotation(object, "kubectl.kubernetes.io/last-applied-configuration")
        .and_then(|text| serde_json::from_str::<Value>(text).ok())
        .unwrap_or_default();
    chosen.extend(each(&applied, "/spec/ports").filter_map(|port| port.get("nodePort")?.as_u64()));
    chosen.extend(applied.pointer("/spec/healthCheckNodePort").and_then(Value::as_u64));
    let mut given: HashMap<String, Vec<u64>> = HashMap::new();
    for port in each(object, "/spec/ports") {
        if let Some(number) = port.get("nodePort").and_then(Value::as_u64) {
            given.entry(port_key(port)).or_default().push(number);
            // A manager may name a port without its protocol.
            given.entry(port_key(&json!({"port": port["port"]}))).or_default().push(number);
        }
    }
    for manager in each(object, "/metadata/managedFields") {
        let Some(spec) = manager.pointer("/fieldsV1/f:spec") else { continue };
        if spec.get("f:healthCheckNodePort").is_some() {
            chosen.extend(object.pointer("/spec/healthCheckNodePort").and_then(Value::as_u64));
        }
        let Some(owned) = spec.get("f:ports").and_then(Value::as_object) else { continue };
        for name in owned.iter().filter(|(_, of)| of.get("f:nodePort").is_some()).map(|(name, _)| name) {
            // The key is as in k:{"port":80,"protocol":"TCP"}. Each is used once, so that the next manager
            // with the same key costs nothing.
            let key: Option<Value> = name.strip_prefix("k:").and_then(|key| serde_json::from_str(key).ok());
            chosen.extend(key.and_then(|key| given.remove(&port_key(&key))).unwrap_or_default());
        }
    }
    chosen
}

/// Returns the port and the protocol by which a Service's entry is known.
pub(super) fn port_key(port: &Value) -> String {
    count_step();
    format!("{} {}", port["port"], port["protocol"])
}

/// Removes the node ports of a Service, for when they are in use.
pub(crate) fn without_node_ports(object: &mut Value) -> bool {
    let mut any = drop_fields(object, "/spec", &["healthCheckNodePort"], &mut Changes::default());
    for port in each_mut(object, "/spec/ports").filter_map(Value::as_object_mut) {
        any |= port.remove("nodePort").is_some();
    }
    any
}

/// Removes the node port of one entry of a Service, and returns it.
pub(crate) fn remove_node_port(object: &mut Value, index: usize) -> Option<Value> {
    map_mut(object, &format!("/spec/ports/{index}"))?.remove("nodePort")
}

/// Removes the port of a Service's health check, and returns it.
pub(crate) fn remove_health_check_port(object: &mut Value) -> Option<Value> {
    map_mut(object, "/spec")?.remove("healthCheckNodePort")
}

/// Removes the address families of a Service, for when the cluster does not have them.
pub(crate) fn without_families(object: &mut Value) -> bool {
    drop_fields(object, "/spec", &["ipFamilies", "ipFamilyPolicy"], &mut Changes::default())
}

/// Removes tokens from a pod, because admission mounts a new one.
fn remove_token_volumes(object: &mut Value) {
    let is_token = |value: &Value| text(value, "/name").starts_with("kube-api-access-");
    if let Some(spec) = map_mut(object, "/spec") {
        remove_from_list(spec, "volumes", is_token);
    }
    for containers in ["/spec/containers", "/spec/initContainers"] {
        for container in each_mut(object, containers).filter_map(Value::as_object_mut) {
            remove_from_list(container, "volumeMounts", is_token);
        }
    }
}

/// Removes entries of a list, and the list if nothing is left. True if there were any.
fn remove_from_list(map: &mut Map<String, Value>, field: &str, is_removed: impl Fn(&Value) -> bool) -> bool {
    let Some(list) = map.get_mut(field).and_then(Value::as_array_mut) else { return false };
    let before = list.len();
    list.retain(|entry| !is_removed(entry));
    let any = list.len() < before;
    if any && list.is_empty() {
        map.remove(field);
    }
    any
}

/// Removes the token, which the controller fills in for the new ServiceAccount.
fn secret(object: &mut Value, changes: &mut Changes) {
    if text(object, "/type") == "kubernetes.io/service-account-token" {
        let (uid, quiet) = (&["kubernetes.io/service-account.uid"], &mut Changes::default());
        drop_fields(object, "/metadata/annotations", uid, quiet);
        drop_fields(object, "/data", &["token", "ca.crt", "namespace"], changes);
    }
}

/// Removes references to tokens that a controller of an old cluster made for the account.
fn account(object: &mut Value, changes: &mut Changes) {
    let prefixes = ["-token-", "-dockercfg-"].map(|of| format!("{}{of}", text(object, "/metadata/name")));
    for list in ["secrets", "imagePullSecrets"] {
        let is_token = |named: &Value| prefixes.iter().any(|prefix| text(named, "/name").starts_with(prefix));
        if object.as_object_mut().is_some_and(|account| remove_from_list(account, list, is_token)) {
            changes.dropped(list);
        }
    }
}

/// Removes a selector that the server generated, because it names the old Job's UID.
fn job(object: &mut Value, changes: &mut Changes) {
    if object.pointer("/spec/manualSelector") == Some(&Value::Bool(true)) {
        return;
    }
    drop_fields(object, "/spec", &["selector"], changes);
    let quiet = &mut Changes::default();
    drop_fields(object, "/spec/template/metadata/labels", JOB_UID, quiet);
    drop_fields(object, "/metadata/labels", JOB_UID, quiet);
}

/// Turns off a setting that the old API allowed and the new one refuses. The stored versions are part of the
/// status.
fn definition(object: &mut Value, changes: &mut Changes) {
    if let Some(spec) = map_mut(object, "/spec")
        && spec.get("preserveUnknownFields") == Some(&Value::Bool(true))
    {
        spec.insert("preserveUnknownFields".into(), Value::Bool(false));
        changes.dropped("spec.preserveUnknownFields");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services() -> KindInfo {
        KindInfo::from_path_parts("", "v1", "services")
    }

    #[test]
    fn chosen_node_ports_are_kept() {
        let mut object = json!({
            "metadata": {"managedFields": [{"fieldsV1": {"f:spec": {"f:ports": {
                "k:{\"port\":80,\"protocol\":\"TCP\"}": {"f:nodePort": {}, "f:port": {}}}}}}]},
            "spec": {"clusterIP": "10.0.0.9", "ports": [
                {"port": 80, "protocol": "TCP", "nodePort": 30080},
                {"port": 443, "protocol": "TCP", "nodePort": 30443}]},
        });
        let mut changes = Changes::default();
        let stored = object.clone();
        let strip = |object: &mut Value, node_ports, changes: &mut Changes| {
            strip_fields(&services(), object, StripOptions { status: true, node_ports }, changes);
        };
        strip(&mut object, NodePorts::Chosen, &mut changes);
        assert_eq!(object["spec"]["ports"][0]["nodePort"], 30080);
        assert_eq!(object["spec"]["ports"][1].get("nodePort"), None);
        let shown: Vec<String> = changes.into_vec().iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["spec.clusterIP dropped", "spec.ports.nodePort dropped"]);
        for (node_ports, left) in [(NodePorts::All, 2), (NodePorts::None, 0)] {
            let mut object = stored.clone();
            strip(&mut object, node_ports, &mut Changes::default());
            assert_eq!(each(&object, "/spec/ports").filter(|port| port["nodePort"].is_u64()).count(), left);
        }
        assert!(without_node_ports(&mut object));
        assert_eq!(object["spec"]["ports"][0].get("nodePort"), None);
    }
}
