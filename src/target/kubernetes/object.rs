//! Names of objects: references, keys and API paths.

use serde::Serialize;
use serde_json::Value;

use super::fields::text;
use crate::kubernetes::KindInfo;

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
pub(crate) type ObjectKey = [u8; 16];

impl ObjectRef {
    /// Returns the name of a stored object of `kind`.
    pub(crate) fn stored(kind: &KindInfo, object: &Value) -> Self {
        let namespace = if kind.namespaced { text(object, "/metadata/namespace") } else { "" };
        Self {
            resource: kind.resource(),
            kind: kind.kind.clone(),
            namespace: namespace.to_owned(),
            name: text(object, "/metadata/name").to_owned(),
        }
    }

    /// Returns the object's paths, where `kind` is its kind in the target.
    pub(crate) fn api_paths(&self, kind: &KindInfo) -> Option<ApiPaths> {
        api_paths(kind, &self.namespace, &self.name)
    }

    pub(crate) fn key(&self) -> ObjectKey {
        object_key(&self.resource, &self.namespace, &self.name)
    }
}

pub(crate) fn object_key(resource: &str, namespace: &str, name: &str) -> ObjectKey {
    let mut hasher = blake3::Hasher::new();
    for part in [resource, namespace, name] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().as_bytes()[..16].try_into().unwrap_or_default()
}

/// The API paths of an object, and of the collection of its kind.
#[derive(Debug, Clone)]
pub(crate) struct ApiPaths {
    pub(crate) collection: String,
    pub(crate) object: String,
}

/// Returns none if no object can have that name.
pub(crate) fn api_paths(target: &KindInfo, namespace: &str, name: &str) -> Option<ApiPaths> {
    let namespace = if target.namespaced { Some(path_segment(namespace)?) } else { None };
    let collection = target.path(namespace.as_deref());
    let object = format!("{collection}/{}", path_segment(name)?);
    Some(ApiPaths { collection, object })
}

/// Escapes a name as one path segment. None if no object can have it: the API forbids names that could lead
/// elsewhere.
pub(crate) fn path_segment(name: &str) -> Option<String> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '%']) || name.len() > 253 {
        return None;
    }
    let mut segment = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    Some(segment)
}

#[cfg(test)]
mod tests {
    use super::path_segment;

    #[test]
    fn names_that_leave_their_path_are_rejected() {
        for bad in ["", ".", "..", "a/b", "../x", "%2e%2e"] {
            assert_eq!(path_segment(bad), None, "{bad}");
        }
        assert_eq!(path_segment("system:node?x=1#y").as_deref(), Some("system:node%3Fx%3D1%23y"));
    }
}
