//! Objects of the snapshot that the selected ones need to exist, and those that were being deleted.
//!
//! A selection of kinds, labels or namespaces leaves out Namespaces and CustomResourceDefinitions that its
//! objects need, and ServiceAccounts and PriorityClasses without which the server creates no pod. Those that the target lacks are restored with them; those that exist stay unchanged.

use std::collections::HashSet;

use serde_json::Value;

use super::{ObjectRef, order, text};
use crate::kubernetes::KindInfo;

pub(super) const ACCOUNTS: &str = "serviceaccounts";
pub(super) const PRIORITIES: &str = "priorityclasses.scheduling.k8s.io";

#[derive(Debug, Default)]
pub(crate) struct Requirements {
    /// Namespaces that selected objects need and the target lacks. All names are those in the backup.
    pub(super) namespaces: HashSet<String>,
    /// Definitions that selected objects need and the target lacks.
    pub(super) definitions: HashSet<String>,
    /// ServiceAccounts that pods need and the target lacks: namespace and name.
    pub(super) accounts: HashSet<(String, String)>,
    /// PriorityClasses that pods need and the target lacks.
    pub(super) priorities: HashSet<String>,
    /// Namespaces that were being deleted when the backup was made.
    pub(super) ending_namespaces: HashSet<String>,
    /// Definitions that were being deleted then.
    pub(super) ending_definitions: HashSet<String>,
    /// PersistentVolumes that could be restored and are not selected.
    pub(super) volumes: HashSet<String>,
}

impl Requirements {
    /// Returns the volumes that could be restored and are not selected.
    pub(crate) fn take_volumes(&mut self) -> HashSet<String> {
        std::mem::take(&mut self.volumes)
    }

    /// True if selected objects need the object and the target lacks it.
    pub(crate) fn contains(&self, named: &ObjectRef) -> bool {
        match named.resource.as_str() {
            "namespaces" => self.namespaces.contains(&named.name),
            order::DEFINITIONS => self.definitions.contains(&named.name),
            ACCOUNTS => self.accounts.contains(&(named.namespace.clone(), named.name.clone())),
            PRIORITIES => self.priorities.contains(&named.name),
            _ => false,
        }
    }

    /// True if an object of this kind is required.
    pub(crate) fn has_kind(&self, kind: &KindInfo) -> bool {
        (is_namespaces(kind) && !self.namespaces.is_empty())
            || (order::is_definition(kind) && !self.definitions.is_empty())
            || (kind.resource() == ACCOUNTS && !self.accounts.is_empty())
            || (kind.resource() == PRIORITIES && !self.priorities.is_empty())
    }

    /// True if the object, its namespace or its definition was being deleted when the backup was made. One that
    /// a selected object needs is restored nevertheless.
    pub(crate) fn was_being_deleted(&self, kind: &KindInfo, named: &ObjectRef, object: &Value) -> bool {
        if self.contains(named) {
            return false;
        }
        !text(object, "/metadata/deletionTimestamp").is_empty()
            || self.ending_namespaces.contains(&named.namespace)
            || self.ending_definitions.contains(&kind.resource())
    }
}

/// True for the kind of namespaces.
pub(super) fn is_namespaces(kind: &KindInfo) -> bool {
    kind.resource() == "namespaces"
}
