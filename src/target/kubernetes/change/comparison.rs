//! Compares an existing object with the one that a restore would create.

use serde_json::{Map, Value, json};

use crate::kubernetes::KindInfo;
use crate::target::kubernetes::change::{Changes, NodePorts, Options, cut};
use crate::target::kubernetes::object::{each, map_mut, text};

/// Label that the server sets to the namespace's own name.
const OWN_NAME: &str = "kubernetes.io/metadata.name";

/// The difference between an existing object and the one that a restore would create.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Comparison {
    /// A merge patch that changes it to the backup's state; none if it has all of that.
    pub(crate) patch: Option<Value>,
    /// True if it has fields that the backup does not have.
    pub(crate) more: bool,
}

impl Comparison {
    pub(crate) fn is_same(&self) -> bool {
        self.patch.is_none() && !self.more
    }
}

/// Compares `there` with `wanted`, ignoring fields that the server or a controller sets in every object.
/// `moved`: the backup has another version of the API, which may have other defaults; only fields in `wanted`
/// are compared then.
pub(crate) fn beside(kind: &KindInfo, moved: bool, wanted: &Value, there: &Value) -> Comparison {
    let status = wanted.get("status").is_none();
    let mut given = wanted.clone();
    carry_over(kind, &mut given, there);
    let (wanted, now) = (plain(kind, given, status), plain(kind, there.clone(), status));
    let mut patch = missing(&wanted, Some(&now), !moved);
    if released(kind, &wanted, there) {
        let claim = json!({"spec": {"claimRef": {"uid": null, "resourceVersion": null}}});
        patch.get_or_insert_with(|| json!({}));
        patch.iter_mut().for_each(|patch| merge(patch, &claim));
    }
    Comparison { patch, more: !moved && missing(&now, Some(&wanted), true).is_some() }
}

/// Returns the object without the fields that its writers do not set.
fn plain(kind: &KindInfo, mut object: Value, status: bool) -> Value {
    cut(kind, &mut object, Options { status, node_ports: NodePorts::All }, &mut Changes::default());
    if kind.resource() == "namespaces" {
        map_mut(&mut object, "/metadata/labels").map(|labels| labels.remove(OWN_NAME));
    }
    if let Some(map) = object.as_object_mut() {
        map.remove("apiVersion");
        map.remove("kind");
    }
    object
}

/// Returns the part of `wanted` that is not in `there`, as a merge patch. A list that differs is replaced
/// whole. With `exact`, list elements must not have more fields than wanted.
fn missing(wanted: &Value, there: Option<&Value>, exact: bool) -> Option<Value> {
    match (wanted, there) {
        // A missing field, an empty list and an empty map are equivalent.
        (Value::Null, None) => None,
        (Value::Array(list), None) if list.is_empty() => None,
        (Value::Object(map), None) if map.is_empty() => None,
        (Value::Object(wanted), Some(Value::Object(there))) => {
            let patch: Map<String, Value> = wanted
                .iter()
                .filter_map(|(field, value)| Some((field.clone(), missing(value, there.get(field), exact)?)))
                .collect();
            (!patch.is_empty()).then_some(Value::Object(patch))
        }
        (Value::Array(all), Some(Value::Array(have))) => {
            let fits = |one: &Value, other: &Value| {
                missing(one, Some(other), exact).is_none()
                    && !(exact && missing(other, Some(one), exact).is_some())
            };
            let same = all.len() == have.len() && all.iter().zip(have).all(|(one, other)| fits(one, other));
            (!same).then(|| wanted.clone())
        }
        (wanted, Some(there)) if wanted == there => None,
        (wanted, _) => Some(wanted.clone()),
    }
}

/// True if `there` lacks a field of `wanted` or has another value for it.
pub(crate) fn lacks(wanted: &Value, there: &Value) -> bool {
    missing(wanted, Some(there), true).is_some()
}

/// True if `there` is a released PersistentVolume of the same claim. It names the UID of a deleted claim, so
/// it stays unbound until that UID is cleared.
fn released(kind: &KindInfo, wanted: &Value, there: &Value) -> bool {
    let same = |field: &str| text(wanted, field) == text(there, field) && !text(there, field).is_empty();
    kind.resource() == "persistentvolumes"
        && text(there, "/status/phase") == "Released"
        && same("/spec/claimRef/namespace")
        && same("/spec/claimRef/name")
}

/// Merges a patch as the server does (RFC 7396), but keeps the nulls.
pub(crate) fn merge(into: &mut Value, patch: &Value) {
    match (into.as_object_mut(), patch.as_object()) {
        (Some(map), Some(patch)) => {
            for (field, value) in patch {
                merge(map.entry(field.clone()).or_insert_with(|| json!({})), value);
            }
        }
        _ => into.clone_from(patch),
    }
}

/// Copies into `wanted` the fields that the server set in `there` and does not let anyone change or remove.
pub(crate) fn carry_over(kind: &KindInfo, wanted: &mut Value, there: &Value) {
    if let Some(metadata) = map_mut(wanted, "/metadata") {
        for field in ["uid", "resourceVersion"] {
            if let Some(value) = there.pointer(&format!("/metadata/{field}")) {
                metadata.insert(field.to_owned(), value.clone());
            }
        }
    }
    let fields: &[&str] = match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "persistentvolumeclaims") => &["volumeName"],
        ("", "persistentvolumes") => &["claimRef"],
        ("", "services") => &["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"],
        ("", "pods") => &["nodeName"],
        ("batch", "jobs") if runs_the_same(kind, wanted, there) => &["selector", "template"],
        ("batch", "jobs") => &["selector"],
        ("", "namespaces") => &["finalizers"],
        _ => &[],
    };
    for field in fields {
        if let Some(value) = there.pointer(&format!("/spec/{field}"))
            && let Some(spec) = map_mut(wanted, "/spec")
            && (*field == "selector" || *field == "template" || !spec.contains_key(*field))
        {
            spec.insert((*field).to_owned(), value.clone());
        }
    }
    if kind.resource() == "services" && text(wanted, "/spec/type") != "ClusterIP" {
        if text(wanted, "/spec/externalTrafficPolicy") == "Local"
            && let Some(port) = there.pointer("/spec/healthCheckNodePort").cloned()
            && let Some(spec) = map_mut(wanted, "/spec")
        {
            spec.entry("healthCheckNodePort").or_insert(port);
        }
        let given: Vec<Value> = each(there, "/spec/ports").cloned().collect();
        for port in wanted.pointer_mut("/spec/ports").and_then(Value::as_array_mut).into_iter().flatten() {
            let same = given
                .iter()
                .find(|other| other["port"] == port["port"] && other["protocol"] == port["protocol"]);
            if let Some(number) = same.and_then(|other| other.get("nodePort"))
                && let Some(port) = port.as_object_mut()
            {
                port.entry("nodePort").or_insert_with(|| number.clone());
            }
        }
    }
}

/// True if two Jobs have the same pod template, apart from the labels that the server sets in each.
fn runs_the_same(kind: &KindInfo, wanted: &Value, there: &Value) -> bool {
    let template = |object: &Value| plain(kind, object.clone(), true).pointer("/spec/template").cloned();
    let (wanted, there) = (template(wanted).unwrap_or_default(), template(there).unwrap_or_default());
    missing(&wanted, Some(&there), true).is_none() && missing(&there, Some(&wanted), true).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services() -> KindInfo {
        KindInfo::named("", "v1", "services")
    }

    #[test]
    fn fields_of_the_server_are_ignored_and_added_fields_differ() {
        let kind = services();
        let wanted = json!({"metadata": {"name": "a", "labels": {"x": "1"}, "annotations": {}},
            "spec": {"ports": [{"port": 80}], "type": "NodePort"}});
        let mut there = json!({"metadata": {"name": "a", "uid": "1", "labels": {"x": "1"}},
            "spec": {"ports": [{"port": 80, "nodePort": 30000}], "type": "NodePort", "clusterIP": "10.0.0.1"}, "status": {}});
        assert!(beside(&kind, false, &wanted, &there).is_same());
        let other = json!({"metadata": {"labels": {"x": "2"}}, "spec": {"ports": [{"port": 81}]}});
        assert_eq!(beside(&kind, false, &other, &there).patch, Some(other));
        let chosen = json!({"metadata": {"labels": {"x": "1"}}, "spec": {"ports": [{"port": 80, "nodePort": 31000}], "type": "NodePort"}});
        assert!(!beside(&kind, false, &chosen, &there).is_same(), "somebody chose another port");
        there["spec"]["ports"][0]["targetPort"] = json!(81);
        assert_eq!(
            beside(&kind, false, &wanted, &there).patch,
            Some(json!({"spec": {"ports": [{"port": 80, "nodePort": 30000}]}})),
            "the port that it was given stays"
        );
        assert!(beside(&kind, true, &wanted, &there).is_same(), "other versions have other defaults");
        there["spec"]["ports"] = wanted["spec"]["ports"].clone();
        there["spec"]["externalIPs"] = json!(["203.0.113.9"]);
        assert_eq!(beside(&kind, false, &wanted, &there), Comparison { patch: None, more: true });
    }

    #[test]
    fn job_with_another_image_differs() {
        let kind = KindInfo::named("batch", "v1", "jobs");
        let job = |image: &str, labels: Value, selector: Value| {
            let pod = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": image}]}});
            json!({"metadata": {"name": "a"}, "spec": {"template": pod, "selector": selector}})
        };
        let given = json!({"x": "1", "batch.kubernetes.io/controller-uid": "u", "controller-uid": "u"});
        let selector = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}});
        let there = job("one", given, selector);
        let wanted = |image| job(image, json!({"x": "1"}), Value::Null);
        assert!(beside(&kind, false, &wanted("one"), &there).is_same());
        assert!(beside(&kind, false, &wanted("two"), &there).patch.is_some());
    }

    #[test]
    fn released_volume_is_returned_to_its_claim() {
        let kind = KindInfo { plural: "persistentvolumes".into(), namespaced: false, ..services() };
        let claim = json!({"namespace": "shop", "name": "data"});
        let wanted = json!({"spec": {"claimRef": claim}});
        let mut there = json!({"spec": {"claimRef": {"namespace": "shop", "name": "data", "uid": "old"}}, "status": {"phase": "Released"}});
        let patch = json!({"spec": {"claimRef": {"uid": null, "resourceVersion": null}}});
        assert_eq!(beside(&kind, false, &wanted, &there).patch, Some(patch));
        there["status"]["phase"] = json!("Bound");
        assert!(beside(&kind, false, &wanted, &there).is_same());
    }
}
