//! Compares an existing object with the one that a restore would create.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{
    Changes, NodePorts, StripOptions,
    difference::{differs, is_equal, missing},
    server_fields::{WITHOUT_DATA, mark_without_data, port_key},
    strip_fields,
};
use crate::kubernetes::{KindInfo, count_step};
use crate::target::kubernetes::{annotation, each, each_mut, map_mut, text};

/// Label that the server sets to the namespace's own name.
const OWN_NAME: &str = "kubernetes.io/metadata.name";

/// The difference between an existing object and the one that a restore would create.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Comparison {
    /// A merge patch that changes it to the backup's state; none if it has all of that.
    pub(crate) patch: Option<Value>,
    /// True if it has fields that the backup does not have.
    pub(crate) has_more: bool,
}

impl Comparison {
    pub(crate) fn is_same(&self) -> bool {
        self.patch.is_none() && !self.has_more
    }
}

/// Compares `existing` with `wanted`, ignoring fields that the server or a controller sets in every object.
/// `other_version`: the backup has another version of the API, which may have other defaults; then only fields
/// in `wanted` are compared.
pub(crate) fn compare(kind: &KindInfo, other_version: bool, wanted: &Value, existing: &Value) -> Comparison {
    let status = wanted.get("status").is_none();
    let mut given = wanted.clone();
    keep_server_fields(kind, &mut given, existing);
    let (wanted, now) = (user_fields(kind, given, status), user_fields(kind, existing.clone(), status));
    let mut patch = missing(&wanted, Some(&now), !other_version);
    if is_released_volume(kind, &wanted, existing) {
        let claim = json!({"spec": {"claimRef": {"uid": null, "resourceVersion": null}}});
        patch.get_or_insert_with(|| json!({}));
        patch.iter_mut().for_each(|patch| merge(patch, &claim));
    }
    Comparison { patch, has_more: !other_version && differs(&now, &wanted) }
}

/// Returns the object without the fields that its writers do not set.
fn user_fields(kind: &KindInfo, mut object: Value, status: bool) -> Value {
    let options = StripOptions { status, node_ports: NodePorts::All };
    if kind.resource() == "namespaces" {
        map_mut(&mut object, "/metadata/labels").map(|labels| labels.remove(OWN_NAME));
    }
    strip_fields(kind, &mut object, options, &mut Changes::default());
    if let Some(map) = object.as_object_mut() {
        map.remove("apiVersion");
        map.remove("kind");
    }
    object
}

/// True if `existing` is a released PersistentVolume of the same claim. It names the UID of a deleted claim,
/// so it stays unbound until that UID is cleared.
fn is_released_volume(kind: &KindInfo, wanted: &Value, existing: &Value) -> bool {
    let same = |at: &str| text(wanted, at) == text(existing, at) && !text(existing, at).is_empty();
    kind.resource() == "persistentvolumes"
        && text(existing, "/status/phase") == "Released"
        && same("/spec/claimRef/namespace")
        && same("/spec/claimRef/name")
}

/// Merges a patch as the server does (RFC 7396), but keeps the nulls.
pub(crate) fn merge(into: &mut Value, patch: &Value) {
    count_step();
    match (into.as_object_mut(), patch.as_object()) {
        (Some(map), Some(patch)) => {
            for (field, value) in patch {
                merge(map.entry(field.clone()).or_insert_with(|| json!({})), value);
            }
        }
        _ => into.clone_from(patch),
    }
}

/// Copies into `wanted` the fields that the server set in `existing` and that nobody may change or remove.
pub(crate) fn keep_server_fields(kind: &KindInfo, wanted: &mut Value, existing: &Value) {
    if let Some(metadata) = map_mut(wanted, "/metadata") {
        for field in ["uid", "resourceVersion"] {
            if let Some(value) = existing.pointer(&format!("/metadata/{field}")) {
                metadata.insert(field.to_owned(), value.clone());
            }
        }
    }
    let fields: &[&str] = match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "persistentvolumeclaims") => &["volumeName"],
        ("", "persistentvolumes") => &["claimRef"],
        ("", "services") => &["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"],
        ("", "pods") => &["nodeName"],
        ("batch", "jobs") if has_same_template(kind, wanted, existing) => &["selector", "template"],
        ("batch", "jobs") => &["selector"],
        ("", "namespaces") => &["finalizers"],
        _ => &[],
    };
    for field in fields {
        if let Some(value) = existing.pointer(&format!("/spec/{field}"))
            && let Some(spec) = map_mut(wanted, "/spec")
            && (*field == "selector" || *field == "template" || !spec.contains_key(*field))
        {
            spec.insert((*field).to_owned(), value.clone());
        }
    }
    if kind.resource() == "persistentvolumeclaims"
        && let Some(volume) = annotation(existing, WITHOUT_DATA)
    {
        mark_without_data(wanted, volume);
    }
    if kind.resource() == "services" && text(wanted, "/spec/type") != "ClusterIP" {
        if text(wanted, "/spec/externalTrafficPolicy") == "Local"
            && let Some(port) = existing.pointer("/spec/healthCheckNodePort").cloned()
            && let Some(spec) = map_mut(wanted, "/spec")
        {
            spec.entry("healthCheckNodePort").or_insert(port);
        }
        let given = assigned_ports(existing);
        for port in each_mut(wanted, "/spec/ports") {
            if let Some(number) = given.get(&port_key(port)).cloned()
                && let Some(port) = port.as_object_mut()
            {
                port.entry("nodePort").or_insert(number);
            }
        }
    }
}

/// Returns the node ports of a Service, by port and protocol.
fn assigned_ports(service: &Value) -> HashMap<String, Value> {
    let numbered =
        each(service, "/spec/ports").filter_map(|port| Some((port_key(port), port.get("nodePort")?)));
    numbered.map(|(key, number)| (key, number.clone())).collect()
}

/// True if two Jobs have the same pod template, apart from the labels that the server sets in each.
fn has_same_template(kind: &KindInfo, wanted: &Value, existing: &Value) -> bool {
    let template =
        |object: &Value| user_fields(kind, object.clone(), true).pointer("/spec/template").cloned();
    let (wanted, existing) = (template(wanted).unwrap_or_default(), template(existing).unwrap_or_default());
    is_equal(Some(&wanted), Some(&existing))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services() -> KindInfo {
        KindInfo::from_path_parts("", "v1", "services")
    }

    #[test]
    fn fields_of_the_server_are_ignored_and_added_fields_differ() {
        let kind = services();
        let wanted = json!({"metadata": {"name": "a", "labels": {"x": "1"}, "annotations": {}},
            "spec": {"ports": [{"port": 80}], "type": "NodePort"}});
        let mut existing = json!({"metadata": {"name": "a", "uid": "1", "labels": {"x": "1"}},
            "spec": {"ports": [{"port": 80, "nodePort": 30000}], "type": "NodePort", "clusterIP": "10.0.0.1"}, "status": {}});
        assert!(compare(&kind, false, &wanted, &existing).is_same());
        let other = json!({"metadata": {"labels": {"x": "2"}}, "spec": {"ports": [{"port": 81}]}});
        assert_eq!(compare(&kind, false, &other, &existing).patch, Some(other));
        let chosen = json!({"metadata": {"labels": {"x": "1"}}, "spec": {"ports": [{"port": 80, "nodePort": 31000}], "type": "NodePort"}});
        assert!(!compare(&kind, false, &chosen, &existing).is_same(), "the chosen port is another");
        existing["spec"]["ports"][0]["targetPort"] = json!(81);
        assert_eq!(
            compare(&kind, false, &wanted, &existing).patch,
            Some(json!({"spec": {"ports": [{"port": 80, "nodePort": 30000}]}})),
            "the port that it was given stays"
        );
        assert!(compare(&kind, true, &wanted, &existing).is_same(), "other versions have other defaults");
        existing["spec"]["ports"] = wanted["spec"]["ports"].clone();
        existing["spec"]["externalIPs"] = json!(["203.0.113.9"]);
        assert_eq!(compare(&kind, false, &wanted, &existing), Comparison { patch: None, has_more: true });
    }

    #[test]
    fn empty_maps_and_lists_are_values() {
        let kind = KindInfo::from_path_parts("demo.io", "v1", "issuers");
        let object = |spec: &Value| json!({"metadata": {"name": "a"}, "spec": spec});
        for (wanted, existing) in [
            (json!({"selfSigned": {}}), json!({"ca": {}})),
            (json!({"list": [], "a": 1}), json!({"a": 1})),
            (json!({"from": [{"podSelector": {}}]}), json!({"from": [{"namespaceSelector": {}}]})),
        ] {
            let found = compare(&kind, false, &object(&wanted), &object(&existing));
            assert!(found.patch.is_some(), "{wanted} {existing}");
            assert!(
                compare(&kind, false, &object(&existing), &object(&wanted)).has_more,
                "{wanted} {existing}"
            );
            assert!(compare(&kind, false, &object(&wanted), &object(&wanted)).is_same(), "{wanted}");
        }
    }

    #[test]
    fn job_with_another_image_differs() {
        let kind = KindInfo::from_path_parts("batch", "v1", "jobs");
        let job = |image: &str, labels: Value, selector: Value| {
            let pod = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": image}]}});
            json!({"metadata": {"name": "a"}, "spec": {"template": pod, "selector": selector}})
        };
        let given = json!({"x": "1", "batch.kubernetes.io/controller-uid": "u", "controller-uid": "u"});
        let selector = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}});
        let existing = job("one", given, selector);
        let wanted = |image| job(image, json!({"x": "1"}), Value::Null);
        assert!(compare(&kind, false, &wanted("one"), &existing).is_same());
        assert!(compare(&kind, false, &wanted("two"), &existing).patch.is_some());
    }

    #[test]
    fn released_volume_is_returned_to_its_claim() {
        let kind = KindInfo { plural: "persistentvolumes".into(), namespaced: false, ..services() };
        let claim = json!({"namespace": "shop", "name": "data"});
        let wanted = json!({"spec": {"claimRef": claim}});
        let mut existing = json!({"spec": {"claimRef": {"namespace": "shop", "name": "data", "uid": "old"}}, "status": {"phase": "Released"}});
        let patch = json!({"spec": {"claimRef": {"uid": null, "resourceVersion": null}}});
        assert_eq!(compare(&kind, false, &wanted, &existing).patch, Some(patch));
        existing["status"]["phase"] = json!("Bound");
        assert!(compare(&kind, false, &wanted, &existing).is_same());
    }
}
