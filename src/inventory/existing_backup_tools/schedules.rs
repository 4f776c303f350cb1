//! Schedules of Velero and K8up.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::inventory::object_parts::{Object, object_parts};

/// A Schedule of Velero.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VeleroSchedule {
    /// The Schedule's namespace.
    pub namespace: String,
    /// The Schedule's name.
    pub name: String,
    /// The cron expression.
    pub cron: String,
    /// `true` if it is paused.
    pub paused: bool,
    /// The settings of its backups.
    pub template: VeleroTemplate,
}

/// The settings of a Velero backup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VeleroTemplate {
    /// Included namespaces; empty for all.
    pub included_namespaces: Vec<String>,
    /// Excluded namespaces.
    pub excluded_namespaces: Vec<String>,
    /// Included kinds; empty for all.
    pub included_resources: Vec<String>,
    /// Excluded kinds.
    pub excluded_resources: Vec<String>,
    /// `true` to include cluster-scoped objects, `false` to exclude them; unset for those that are needed.
    pub include_cluster_resources: Option<bool>,
    /// The selector of objects.
    pub label_selector: Option<KubernetesSelector>,
    /// Further selectors, any of which may match.
    pub or_label_selectors: Vec<KubernetesSelector>,
    /// The time for which a backup is kept: `720h0m0s`.
    pub ttl: String,
    /// `true` if all volumes are read as files.
    pub default_volumes_to_fs_backup: Option<bool>,
    /// Hooks that run before and after.
    pub hooks: VeleroHooks,
}

/// Hooks of a Velero backup, of which only the names are read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct VeleroHooks {
    /// The hooks.
    pub resources: Vec<HookName>,
}

/// A hook of a Velero backup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct HookName {
    /// The hook's name.
    pub name: String,
}

/// A selector as Kubernetes writes it in objects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KubernetesSelector {
    /// Required labels and their values.
    pub match_labels: BTreeMap<String, String>,
    /// Further terms, all of which must hold.
    pub match_expressions: Vec<SelectorTerm>,
}

/// A term of a selector.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SelectorTerm {
    /// The label's key.
    pub key: String,
    /// `In`, `NotIn`, `Exists`, `DoesNotExist`.
    pub operator: String,
    /// The values to compare with.
    pub values: Vec<String>,
}

/// A Schedule of K8up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct K8upSchedule {
    /// The Schedule's namespace, which is also the one that it backs up.
    pub namespace: String,
    /// The Schedule's name.
    pub name: String,
    /// The cron expression of its backups.
    pub cron: String,
    /// The retention of its prune: counts by rule.
    pub keeps: BTreeMap<String, u32>,
}

object_parts! {
    pub(super) struct VeleroSpec {
        schedule: String,
        paused: bool,
        template: VeleroTemplate,
    }
    pub(super) struct K8upSpec {
        backup: K8upPart,
        prune: K8upPart,
    }
    struct K8upPart {
        schedule: String,
        retention: BTreeMap<String, serde_json::Value>,
    }
}

pub(super) fn to_velero_schedule(object: Object<VeleroSpec>) -> Option<VeleroSchedule> {
    let Object { metadata, spec: VeleroSpec { schedule: cron, paused, template } } = object;
    Some(VeleroSchedule { namespace: metadata.namespace, name: metadata.name, cron, paused, template })
}

pub(super) fn to_k8up_schedule(object: Object<K8upSpec>) -> Option<K8upSchedule> {
    let Object { metadata, spec: K8upSpec { backup, prune } } = object;
    let keeps = prune.retention.into_iter();
    let keeps =
        keeps.filter_map(|(rule, count)| Some((rule, u32::try_from(count.as_u64()?).ok()?))).collect();
    Some(K8upSchedule { namespace: metadata.namespace, name: metadata.name, cron: backup.schedule, keeps })
}
