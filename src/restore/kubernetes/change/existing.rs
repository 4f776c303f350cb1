//! An object that is there, beside the one that a restore would create.

use serde_json::{Map, Value};

use super::super::object::{each, map_mut, text};
use crate::source::kubernetes::KindInfo;

/// Metadata that no restore sets in what exists.
const METADATA: &[&str] = &[
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "managedFields",
    "ownerReferences",
    "selfLink",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

/// A merge patch that brings `there` to what `wanted` says; none if all of it is there. What only
/// `there` has (defaults, what controllers add) stays.
pub(in super::super) fn difference(wanted: &Value, there: &Value) -> Option<Value> {
    let (Some(wanted), Some(there)) = (wanted.as_object(), there.as_object()) else { return None };
    let mut patch = Map::new();
    for (field, value) in wanted {
        if matches!(field.as_str(), "apiVersion" | "kind") {
            continue;
        }
        if let Some(mut different) = differs(value, there.get(field)) {
            if field == "metadata"
                && let Some(metadata) = different.as_object_mut()
            {
                metadata.retain(|name, _| !METADATA.contains(&name.as_str()));
                if metadata.is_empty() {
                    continue;
                }
            }
            patch.insert(field.clone(), different);
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

fn differs(wanted: &Value, there: Option<&Value>) -> Option<Value> {
    match (wanted, there) {
        // Nothing, an empty list and an empty map say the same.
        (Value::Null, None) => None,
        (Value::Array(list), None) if list.is_empty() => None,
        (Value::Object(map), None) if map.is_empty() => None,
        (Value::Object(wanted), Some(Value::Object(there))) => {
            let patch: Map<String, Value> = wanted
                .iter()
                .filter_map(|(field, value)| Some((field.clone(), differs(value, there.get(field))?)))
                .collect();
            (!patch.is_empty()).then_some(Value::Object(patch))
        }
        (Value::Array(all), Some(Value::Array(have))) => {
            // Lists are compared place by place, with what the server added to their elements.
            let same = all.len() == have.len()
                && all.iter().zip(have).all(|(one, other)| differs(one, Some(other)).is_none());
            (!same).then(|| wanted.clone())
        }
        (wanted, Some(there)) if wanted == there => None,
        (wanted, _) => Some(wanted.clone()),
    }
}

/// Whether the object that is there has data that the backup lacks. No server and no controller adds
/// to these maps, so who replaces the object wants it away.
pub(in super::super) fn has_more(wanted: &Value, there: &Value) -> bool {
    ["data", "binaryData"].iter().any(|field| {
        let known = |key: &String| wanted.get(field).is_some_and(|map| map.get(key).is_some());
        there.get(field).and_then(Value::as_object).is_some_and(|map| !map.keys().all(known))
    })
}

/// What the server gave the object that is there, and refuses to change or to lose.
pub(in super::super) fn carry_over(kind: &KindInfo, wanted: &mut Value, there: &Value) {
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
        ("batch", "jobs") => &["selector", "template"],
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_the_backup_says_otherwise_is_a_difference() {
        let there = json!({"metadata": {"name": "a", "uid": "1", "labels": {"x": "1", "more": "y"}},
            "spec": {"ports": [{"port": 80, "nodePort": 30000}], "type": "NodePort"}, "status": {}});
        let same = json!({"metadata": {"name": "a", "labels": {"x": "1"}, "annotations": {}}, "spec": {"ports": [{"port": 80}]}});
        assert_eq!(difference(&same, &there), None);
        let other = json!({"metadata": {"labels": {"x": "2"}}, "spec": {"ports": [{"port": 81}]}});
        assert_eq!(difference(&other, &there), Some(other.clone()));
    }
}
