//! Names of objects, and access to their fields.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::kubernetes::KindInfo;
use crate::target::kubernetes::RestoreConfig;
use crate::target::kubernetes::served_kinds::{Target, segment};

/// The full name of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ObjectRef {
    /// The resource: `pods`, `deployments.apps`.
    pub resource: String,
    /// The kind: `Deployment`.
    pub kind: String,
    /// The namespace; empty for cluster-scoped kinds.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The object's name.
    pub name: String,
}

impl std::fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{}/{}", self.kind, self.name),
            namespace => write!(f, "{}/{namespace}/{}", self.kind, self.name),
        }
    }
}

/// A short hash that identifies an object.
pub(crate) type Key = [u8; 16];

impl ObjectRef {
    /// Returns the object's paths, where `kind` is its kind in the target.
    pub(crate) fn paths(&self, kind: &KindInfo) -> Option<Paths> {
        paths(kind, &self.namespace, &self.name)
    }

    pub(crate) fn key(&self) -> Key {
        key(&self.resource, &self.namespace, &self.name)
    }
}

pub(crate) fn key(resource: &str, namespace: &str, name: &str) -> Key {
    let mut hasher = blake3::Hasher::new();
    for part in [resource, namespace, name] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let mut key = [0; 16];
    key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    key
}

/// An owner reference of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    /// True if the owner controls the object, and true if the object blocks the owner's deletion.
    role: [bool; 2],
}

impl Owner {
    pub(crate) fn new(reference: &Value) -> Self {
        let part = |at: &str| text(reference, at).to_owned();
        let role = ["controller", "blockOwnerDeletion"].map(|flag| reference[flag] == Value::Bool(true));
        Self {
            api_version: part("/apiVersion"),
            kind: part("/kind"),
            name: part("/name"),
            uid: part("/uid"),
            role,
        }
    }

    /// Returns an owner from the backup as the target names it: in a served version, with its namespace
    /// mapped.
    pub(crate) fn stored(reference: &Value, config: &RestoreConfig, target: &Target) -> Self {
        let mut owner = Self::new(reference);
        if let Some(version) = target.version_of(&owner.api_version, &owner.kind) {
            owner.api_version = version;
        }
        if (owner.api_version.as_str(), owner.kind.as_str()) == ("v1", "Namespace")
            && let Some(to) = config.mapping.namespaces.get(&owner.name)
        {
            owner.name.clone_from(to);
        }
        owner
    }

    /// True if `other` names the same owner, in any cluster and version.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let group = |owner: &Self| owner.api_version.rsplit_once('/').map(|(group, _)| group.to_owned());
        let named = (&self.kind, &self.name) == (&other.kind, &other.name) && group(self) == group(other);
        let same = !self.uid.is_empty() && self.uid == other.uid;
        (same || named) && self.role == other.role
    }
}

/// The API paths of an object (`one`) and of its kind (`all`).
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    pub(crate) all: String,
    pub(crate) one: String,
}

/// Returns none if no object can have that name.
pub(crate) fn paths(target: &KindInfo, namespace: &str, name: &str) -> Option<Paths> {
    let namespace = if target.namespaced { Some(segment(namespace)?) } else { None };
    let all = target.path(namespace.as_deref());
    let one = format!("{all}/{}", segment(name)?);
    Some(Paths { all, one })
}

pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// True if the value is an object of an API server.
pub(crate) fn is_object(value: &Value) -> bool {
    !text(value, "/metadata/uid").is_empty()
}

pub(crate) fn label<'a>(object: &'a Value, name: &str) -> &'a str {
    object.pointer("/metadata/labels").and_then(|all| all.get(name)?.as_str()).unwrap_or_default()
}

pub(crate) fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.pointer("/metadata/annotations")?.get(name)?.as_str()
}

/// Returns the elements of the list at `pointer`.
pub(crate) fn each<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    object.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// Returns the elements of the list at `pointer`, to be changed.
pub(crate) fn each_mut<'a>(
    object: &'a mut Value,
    pointer: &str,
) -> impl Iterator<Item = &'a mut Value> + use<'a> {
    object.pointer_mut(pointer).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Returns the map at `pointer`.
pub(crate) fn map<'a>(object: &'a Value, pointer: &str) -> Option<&'a Map<String, Value>> {
    object.pointer(pointer)?.as_object()
}

/// Returns the map at `pointer`, to be changed.
pub(crate) fn map_mut<'a>(object: &'a mut Value, pointer: &str) -> Option<&'a mut Map<String, Value>> {
    object.pointer_mut(pointer)?.as_object_mut()
}

/// Returns the pointer to the pod spec in objects of a kind that has one.
pub(crate) fn pod_spec(kind: &KindInfo) -> Option<&'static str> {
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

/// Fields of a pod spec that list containers.
pub(crate) const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];
