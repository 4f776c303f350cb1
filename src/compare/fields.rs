//! Finds the fields of an object that differ: their paths, never their values.

use serde_json::Value;

use super::ignored_fields::remove_ignored_fields;
use crate::kubernetes::{KindInfo, MAX_NESTING, count_step, nesting_of};
use crate::report::text::plain;

/// The maximum number of paths reported for one object.
const MOST: usize = 20;
/// The characters of a path that are reported.
const LONGEST: usize = 500;

/// Returns the paths of differing fields as JSON pointers; none if both are the same except for fields that
/// the server owns.
pub(super) fn changed(kind: &KindInfo, before: &[u8], now: &[u8]) -> Result<Vec<String>, &'static str> {
    if nesting_of(before).max(nesting_of(now)) > MAX_NESTING {
        return changed_revision(before, now);
    }
    let (Ok(mut before), Ok(mut now)) =
        (serde_json::from_slice::<Value>(before), serde_json::from_slice::<Value>(now))
    else {
        return Err("it is no JSON");
    };
    let same = |field: &str| before["metadata"][field] == now["metadata"][field];
    if same("uid") && same("resourceVersion") && before["metadata"]["uid"].is_string() {
        return Ok(Vec::new());
    }
    for object in [&mut before, &mut now] {
        remove_ignored_fields(kind, object);
        // Lists of built-in kinds lack these; the backup has added them.
        if let Some(map) = object.as_object_mut() {
            map.remove("apiVersion");
            map.remove("kind");
        }
    }
    let mut found = ChangedPaths::default();
    walk(&mut String::new(), Some(&before), Some(&now), &mut found);
    let ChangedPaths { mut paths, more } = found;
    if more > 0 {
        paths.push(format!("and {more} more"));
    }
    Ok(paths)
}

/// Compares objects that are nested too deep to be parsed, by the revision that the server gave them.
fn changed_revision(before: &[u8], now: &[u8]) -> Result<Vec<String>, &'static str> {
    #[derive(serde::Deserialize, Default, PartialEq)]
    #[serde(rename_all = "camelCase", default)]
    struct Revision {
        uid: String,
        resource_version: String,
    }
    #[derive(serde::Deserialize)]
    struct Object {
        metadata: Revision,
    }
    let revision = |bytes| serde_json::from_slice::<Object>(bytes).map(|object| object.metadata);
    match (revision(before), revision(now)) {
        (Ok(before), Ok(now)) if before == now && !now.uid.is_empty() => Ok(Vec::new()),
        (Ok(_), Ok(_)) => Ok(vec!["its revision; it is nested too deep to compare its fields".to_owned()]),
        _ => Err("it is no JSON"),
    }
}

/// The first paths of differing fields, and the number of the others.
#[derive(Default)]
struct ChangedPaths {
    paths: Vec<String>,
    more: u64,
}

impl ChangedPaths {
    fn add(&mut self, path: &str) {
        if self.paths.len() == MOST {
            self.more += 1;
            return;
        }
        let cut = path.char_indices().nth(LONGEST).map(|(at, _)| format!("{}…", &path[..at]));
        self.paths.push(match path {
            "" => "/".to_owned(),
            _ => plain(&cut.unwrap_or_else(|| path.to_owned())).into_owned(),
        });
    }
}

/// Adds the paths of differing fields. Visits each pair of values once.
fn walk(path: &mut String, before: Option<&Value>, now: Option<&Value>, found: &mut ChangedPaths) {
    count_step();
    match (before, now) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                step(path, &key.replace('~', "~0").replace('/', "~1"), a.get(key), b.get(key), found);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for at in 0..a.len().max(b.len()) {
                step(path, &at.to_string(), a.get(at), b.get(at), found);
            }
        }
        (Some(Value::Null), None) | (None, Some(Value::Null)) => {}
        (a, b) if a == b => {}
        _ => found.add(path),
    }
}

fn step(path: &mut String, key: &str, before: Option<&Value>, now: Option<&Value>, found: &mut ChangedPaths) {
    let length = path.len();
    path.push('/');
    path.push_str(key);
    walk(path, before, now, found);
    path.truncate(length);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn diff(plural: &str, before: Value, now: Value) -> Vec<String> {
        let kind = KindInfo {
            group: String::new(),
            version: "v1".to_owned(),
            plural: plural.to_owned(),
            kind: "X".to_owned(),
            namespaced: true,
            subresources: vec!["status".to_owned()],
        };
        changed(&kind, before.to_string().as_bytes(), now.to_string().as_bytes()).expect("JSON")
    }

    #[test]
    fn changed_paths_are_listed_without_server_owned_fields() {
        let before = json!({"metadata": {"uid": "1", "name": "a", "managedFields": [1]}, "data": {"x/y": "1", "same": "2"}, "status": 1});
        let now = json!({"apiVersion": "v1", "metadata": {"uid": "2", "name": "a", "labels": {}}, "data": {"x/y": "3", "same": "2", "new": "4"}, "status": 2});
        assert_eq!(diff("configmaps", before, now), ["/data/new", "/data/x~1y"]);
        let before = json!({"metadata": {"uid": "1"}, "spec": {"clusterIP": "10.0.0.1", "ports": [{"nodePort": 1, "port": 80}]}});
        let now = json!({"metadata": {"uid": "2"}, "spec": {"clusterIP": "10.0.0.2", "ports": [{"nodePort": 2, "port": 81}]}});
        assert_eq!(diff("services", before, now), ["/spec/ports/0/port"]);
    }

    #[test]
    fn keys_cannot_steer_a_terminal() {
        let object = |key: &str| json!({"metadata": {"uid": key, "name": "a"}, "spec": {key: 1}});
        let told = diff("pods", object("\u{1b}[2Jno difference"), object("b"));
        assert_eq!(told, ["/spec/\\u{1b}[2Jno difference", "/spec/b"]);
    }

    #[test]
    fn empty_maps_and_lists_are_values() {
        let object = |spec: Value| json!({"metadata": {"uid": spec.to_string(), "name": "a"}, "spec": spec});
        for (before, now, fields) in [
            (json!({"selfSigned": {}}), json!({"ca": {}}), vec!["/spec/ca", "/spec/selfSigned"]),
            (json!({"list": [], "a": 1}), json!({"a": 1}), vec!["/spec/list"]),
            (json!({"from": [{"podSelector": {}}]}), json!({"from": [{}]}), vec!["/spec/from/0/podSelector"]),
            (json!({"a": null}), json!({}), vec![]),
        ] {
            assert_eq!(diff("pods", object(before), object(now)), fields);
        }
        // A map that holds nothing but ignored fields is as one that is missing.
        let binder = json!({"pv.kubernetes.io/bind-completed": "yes"});
        let bound = json!({"metadata": {"uid": "1", "name": "a", "annotations": binder}});
        let unbound = json!({"metadata": {"uid": "2", "name": "a"}});
        assert_eq!(diff("persistentvolumeclaims", bound, unbound), Vec::<String>::new());
    }

    #[test]
    fn nested_objects_are_compared_in_steps_of_their_size() {
        let nested = |leaf: u32| {
            let mut value = json!([leaf, 1]);
            for _ in 0..100 {
                value = json!([value, leaf]);
            }
            json!({"metadata": {"uid": leaf.to_string(), "name": "a"}, "spec": value})
        };
        let before = crate::kubernetes::steps_so_far();
        assert_eq!(diff("pods", nested(1), nested(2)).len(), MOST + 1);
        let steps = crate::kubernetes::steps_so_far() - before;
        assert!(steps < 100_000, "{steps} steps");
    }

    #[test]
    fn objects_nested_too_deep_are_compared_by_revision() {
        let object = |revision: u32| {
            let (open, close) = ("[".repeat(500), "]".repeat(500));
            let text = format!(
                r#"{{"metadata":{{"uid":"1","resourceVersion":"{revision}","name":"a"}},"spec":{open}{close}}}"#
            );
            text.into_bytes()
        };
        let kind = KindInfo::from_path_parts("demo.io", "v1", "deeps");
        assert_eq!(changed(&kind, &object(1), &object(1)), Ok(Vec::new()));
        assert_eq!(changed(&kind, &object(1), &object(2)).map(|fields| fields.len()), Ok(1));
    }

    #[test]
    fn object_with_unchanged_resource_version_is_not_compared() {
        let meta = json!({"uid": "1", "resourceVersion": "5"});
        assert_eq!(
            diff("pods", json!({"metadata": meta, "a": 1}), json!({"metadata": meta, "a": 2})),
            Vec::<String>::new()
        );
    }
}
