//! Records the cluster-scoped objects that the objects read so far refer to, so that of later kinds
//! only the needed objects are read.
//!
//! Classes are found by the names of the fields that refer to them, at any depth: custom resources
//! write `storageClassName`, too. One class too many does no harm.

use std::collections::{BTreeMap, BTreeSet};

use memchr::memmem;
use serde::Deserialize;

use crate::kubernetes::{ItemMeta, KindInfo, Selection, has_definition};

/// The most names that are remembered; beyond it, every object counts as needed.
const MAX_NAMES: usize = 200_000;

const CLAIMS: (&str, &str) = ("", "persistentvolumeclaims");
const VOLUMES: (&str, &str) = ("", "persistentvolumes");
const NAMESPACES: (&str, &str) = ("", "namespaces");
const DEFINITIONS: (&str, &str) = ("apiextensions.k8s.io", "customresourcedefinitions");
const ROLE_BINDINGS: (&str, &str) = ("rbac.authorization.k8s.io", "rolebindings");
const CLUSTER_ROLE_BINDINGS: (&str, &str) = ("rbac.authorization.k8s.io", "clusterrolebindings");
const CLUSTER_ROLES: (&str, &str) = ("rbac.authorization.k8s.io", "clusterroles");
const SNAPSHOTS: (&str, &str) = ("snapshot.storage.k8s.io", "volumesnapshots");
const SNAPSHOT_CONTENTS: (&str, &str) = ("snapshot.storage.k8s.io", "volumesnapshotcontents");

/// Fields and annotations that name a class. Each contains `lass`, which the search looks for.
const CLASSES: &[(&str, (&str, &str))] = &[
    ("storageClassName", ("storage.k8s.io", "storageclasses")),
    ("storageClass", ("storage.k8s.io", "storageclasses")),
    ("volume.beta.kubernetes.io/storage-class", ("storage.k8s.io", "storageclasses")),
    ("volumeAttributesClassName", ("storage.k8s.io", "volumeattributesclasses")),
    ("volumeSnapshotClassName", ("snapshot.storage.k8s.io", "volumesnapshotclasses")),
    ("ingressClassName", ("networking.k8s.io", "ingressclasses")),
    ("kubernetes.io/ingress.class", ("networking.k8s.io", "ingressclasses")),
    ("gatewayClassName", ("gateway.networking.k8s.io", "gatewayclasses")),
    ("priorityClassName", ("scheduling.k8s.io", "priorityclasses")),
    ("runtimeClassName", ("node.k8s.io", "runtimeclasses")),
    ("deviceClassName", ("resource.k8s.io", "deviceclasses")),
];

/// The names of needed objects, by (group, plural).
#[derive(Debug, Default)]
pub(super) struct References {
    names: BTreeMap<(String, String), BTreeSet<String>>,
    count: usize,
}

#[derive(Deserialize)]
struct Binding {
    #[serde(rename = "roleRef")]
    role: Reference,
    #[serde(default)]
    subjects: Vec<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
}

impl References {
    fn add(&mut self, kind: (&str, &str), name: &str) {
        if self.count >= MAX_NAMES {
            return;
        }
        let names = self.names.entry((kind.0.to_owned(), kind.1.to_owned())).or_default();
        if !names.contains(name) {
            names.insert(name.to_owned());
            self.count += 1;
        }
    }

    fn contains(&self, kind: (&str, &str), name: &str) -> bool {
        let names = self.names.get(&(kind.0.to_owned(), kind.1.to_owned()));
        self.count >= MAX_NAMES || names.is_some_and(|names| names.contains(name))
    }

    /// Returns true if any object of `kind` is needed, as far as is known.
    pub(super) fn needs_any(&self, kind: &KindInfo) -> bool {
        let key = (kind.group.clone(), kind.plural.clone());
        self.count >= MAX_NAMES || self.names.get(&key).is_some_and(|names| !names.is_empty())
    }

    /// Records the references of an object that is read.
    pub(super) fn record(&mut self, kind: &KindInfo, meta: &ItemMeta, item: &[u8]) {
        if !meta.namespace.is_empty() {
            self.add(NAMESPACES, &meta.namespace);
        }
        if has_definition(kind) {
            self.add(DEFINITIONS, &kind.resource());
        }
        self.record_classes(item);
        match (kind.group.as_str(), kind.plural.as_str()) {
            CLAIMS => self.record_named(VOLUMES, item, "/spec/volumeName"),
            SNAPSHOTS => self.record_named(SNAPSHOT_CONTENTS, item, "/status/boundVolumeSnapshotContentName"),
            ROLE_BINDINGS | CLUSTER_ROLE_BINDINGS => {
                let binding = serde_json::from_slice::<Binding>(item).ok();
                if let Some(binding) = binding.filter(|binding| binding.role.kind == "ClusterRole") {
                    self.add(CLUSTER_ROLES, &binding.role.name);
                }
            }
            _ => {}
        }
    }

    fn record_named(&mut self, kind: (&str, &str), item: &[u8], pointer: &str) {
        if let Some(name) = text_at(item, pointer) {
            self.add(kind, &name);
        }
    }

    /// Records the classes that an object names.
    fn record_classes(&mut self, item: &[u8]) {
        for at in memmem::find_iter(item, b"lass") {
            let Some(key) = key_around(item, at) else { continue };
            let Some((_, class)) = CLASSES.iter().find(|(name, _)| name.as_bytes() == &item[key.clone()])
            else {
                continue;
            };
            if let Some(name) = text_after(item, key.end + 1) {
                self.add(*class, name);
            }
        }
    }

    /// Returns true if an object of a kind that is read on demand is needed.
    pub(super) fn is_needed(
        &self,
        selection: &Selection,
        kind: &KindInfo,
        meta: &ItemMeta,
        item: &[u8],
    ) -> bool {
        let is_selected = |namespace: &str| {
            selection.includes_empty_namespace(namespace)
                || (selection.includes_namespace(namespace) && self.contains(NAMESPACES, namespace))
        };
        let refers_to = |pointer| {
            text_at(item, pointer).is_some_and(|namespace| selection.includes_namespace(&namespace))
        };
        let of = (kind.group.as_str(), kind.plural.as_str());
        match of {
            NAMESPACES => is_selected(&meta.name),
            CLUSTER_ROLE_BINDINGS => {
                let binding = serde_json::from_slice::<Binding>(item).ok();
                binding.is_some_and(|binding| {
                    binding.subjects.iter().any(|subject| subject.is_in_namespace(&is_selected))
                })
            }
            // A volume may wait for a claim, or outlive it: it holds data of that namespace.
            VOLUMES if selection.includes_unnamed(kind) => {
                self.contains(of, &meta.name) || refers_to("/spec/claimRef/namespace")
            }
            SNAPSHOT_CONTENTS if selection.includes_unnamed(kind) => {
                self.contains(of, &meta.name) || refers_to("/spec/volumeSnapshotRef/namespace")
            }
            _ => self.contains(of, &meta.name),
        }
    }
}

impl Reference {
    /// Returns true if a subject is a service account, or the group of all of them, of a matching namespace.
    fn is_in_namespace(&self, in_namespace: &dyn Fn(&str) -> bool) -> bool {
        match self.kind.as_str() {
            "ServiceAccount" => in_namespace(&self.namespace),
            "Group" => self.name.strip_prefix("system:serviceaccounts:").is_some_and(in_namespace),
            "User" => self
                .name
                .strip_prefix("system:serviceaccount:")
                .and_then(|rest| rest.split_once(':'))
                .is_some_and(|(namespace, _)| in_namespace(namespace)),
            _ => false,
        }
    }
}

/// Returns the text at a JSON pointer in an object.
fn text_at(item: &[u8], pointer: &str) -> Option<String> {
    let object: serde_json::Value = serde_json::from_slice(item).ok()?;
    object.pointer(pointer)?.as_str().map(str::to_owned)
}

/// Returns the range of the key around position `at`, without its quotes; none if it is no key.
fn key_around(item: &[u8], at: usize) -> Option<std::ops::Range<usize>> {
    const LONGEST: usize = 64;
    let end = at + memchr::memchr(b'"', item.get(at..(at + LONGEST).min(item.len()))?)?;
    let from = at.saturating_sub(LONGEST);
    let start = from + memchr::memrchr(b'"', &item[from..at])? + 1;
    let text = &item[start..end];
    (item.get(end + 1) == Some(&b':') && !text.contains(&b'\\')).then_some(start..end)
}

/// Returns the text after the colon at `at`.
fn text_after(item: &[u8], at: usize) -> Option<&str> {
    let rest = item.get(at + 1..)?.strip_prefix(b"\"")?;
    let end = memchr::memchr2(b'"', b'\\', rest)?;
    let text = std::str::from_utf8(&rest[..end]).ok()?;
    (rest[end] == b'"' && !text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Glob;

    fn kind(group: &str, plural: &str) -> KindInfo {
        KindInfo { namespaced: false, ..KindInfo::from_path_parts(group, "v1", plural) }
    }

    fn named(name: &str) -> ItemMeta {
        ItemMeta { name: name.to_owned(), namespace: "shop".to_owned(), ..ItemMeta::default() }
    }

    #[test]
    fn class_references_are_found_at_any_depth() {
        let mut references = References::default();
        let item = br#"{"metadata":{"name":"x","annotations":{"kubernetes.io/ingress.class":"old",
            "last":"{\"storageClassName\":\"quoted\"}"}},"spec":{"a":[{"storageClassName":"fast"}],
            "className":"no","template":{"spec":{"priorityClassName":"high","runtimeClassName":""}}}}"#;
        references.record(&kind("postgresql.cnpg.io", "clusters"), &named("x"), item);
        for (group, plural, name) in [
            ("networking.k8s.io", "ingressclasses", "old"),
            ("storage.k8s.io", "storageclasses", "fast"),
            ("scheduling.k8s.io", "priorityclasses", "high"),
            ("apiextensions.k8s.io", "customresourcedefinitions", "clusters.postgresql.cnpg.io"),
            ("", "namespaces", "shop"),
        ] {
            assert!(references.contains((group, plural), name), "{plural} {name}");
        }
        assert_eq!(references.count, 5, "{references:?}");
    }

    #[test]
    fn needed_bindings_make_their_roles_needed() {
        let mut references = References::default();
        let selection =
            Selection { namespaces: vec![Glob::new("shop").expect("a pattern")], ..Selection::default() };
        let bindings = kind("rbac.authorization.k8s.io", "clusterrolebindings");
        let binding = |namespace: &str| {
            format!(
                r#"{{"metadata":{{"name":"b"}},"roleRef":{{"kind":"ClusterRole","name":"view"}},"subjects":[{{"kind":"ServiceAccount","namespace":"{namespace}","name":"web"}}]}}"#
            )
        };
        assert!(!references.is_needed(&selection, &bindings, &named("b"), binding("other").as_bytes()));
        assert!(references.is_needed(&selection, &bindings, &named("b"), binding("shop").as_bytes()));
        references.record(&bindings, &named("b"), binding("shop").as_bytes());
        let roles = kind("rbac.authorization.k8s.io", "clusterroles");
        assert!(references.is_needed(&selection, &roles, &named("view"), b"{}"));
        assert!(!references.is_needed(&selection, &roles, &named("edit"), b"{}"));
    }
}
