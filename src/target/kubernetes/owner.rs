//! Owner references, compared across clusters.

use serde_json::Value;

use super::{RestoreConfig, ServedKinds, text};

/// An owner reference of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnerReference {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    /// True if the owner controls the object, and true if the object blocks the owner's deletion.
    role: [bool; 2],
}

impl OwnerReference {
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
    pub(crate) fn for_target(reference: &Value, config: &RestoreConfig, target: &ServedKinds) -> Self {
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
    pub(crate) fn same_owner(&self, other: &Self) -> bool {
        let group = |owner: &Self| owner.api_version.rsplit_once('/').map(|(group, _)| group.to_owned());
        let named = (&self.kind, &self.name) == (&other.kind, &other.name) && group(self) == group(other);
        let same = !self.uid.is_empty() && self.uid == other.uid;
        (same || named) && self.role == other.role
    }
}
