//! Kinds of objects, as discovery names them.

use serde::{Deserialize, Serialize};

/// One kind of object, as discovery names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KindInfo {
    /// The API group; empty for the core group.
    pub group: String,
    /// The version that is read: for custom resources the storage version, otherwise the first in
    /// the server's order that serves the kind.
    pub version: String,
    /// The resource's name in paths: `deployments`.
    pub plural: String,
    /// The kind in objects: `Deployment`.
    pub kind: String,
    /// True if its objects belong to namespaces.
    pub namespaced: bool,
    /// Subresources, sorted: `scale`, `status`.
    #[serde(default)]
    pub subresources: Vec<String>,
}

impl KindInfo {
    /// Creates a namespaced kind from its path, with an empty name in objects and no subresources.
    #[must_use]
    pub fn from_path_parts(group: &str, version: &str, plural: &str) -> Self {
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            plural: plural.to_owned(),
            kind: String::new(),
            namespaced: true,
            subresources: Vec::new(),
        }
    }

    /// Returns `v1` or `apps/v1`, as objects carry it.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Returns the name of the kind's stream in a backup: `apps/v1/deployments`, `core/v1/pods`.
    pub fn stream_name(&self) -> String {
        let group = if self.group.is_empty() { "core" } else { &self.group };
        format!("{group}/{}/{}", self.version, self.plural)
    }

    /// Returns the name for selections, gaps and rules: `pods` or `deployments.apps`.
    pub fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Returns the RBAC rule that lets the kind be listed, in YAML flow style.
    pub fn list_rule(&self) -> String {
        format!("{{apiGroups: [\"{}\"], resources: [{}], verbs: [list]}}", self.group, self.plural)
    }

    /// Returns the RBAC rule that lets one object be read, or any for an empty name, in YAML flow style.
    pub fn get_rule(&self, name: &str) -> String {
        let names = if name.is_empty() { String::new() } else { format!(" resourceNames: [{name}],") };
        format!("{{apiGroups: [\"{}\"], resources: [{}],{names} verbs: [get]}}", self.group, self.plural)
    }

    /// Returns the path that lists all its objects, or those of one namespace.
    pub fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        match namespace {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{}", self.plural),
            None => format!("{root}/{}", self.plural),
        }
    }

    /// Returns its place in the reading order: 0 if namespaced, 1 if cluster-scoped, 2 for definitions.
    pub fn read_order(&self) -> u8 {
        let definitions = self.group == "apiextensions.k8s.io" && self.plural == "customresourcedefinitions";
        if definitions { 2 } else { u8::from(!self.namespaced) }
    }

    /// Returns true if the kind has this subresource.
    pub fn has(&self, subresource: &str) -> bool {
        self.subresources.iter().any(|name| name == subresource)
    }
}
