//! The restore plan: selection, mapping and changes of objects. Doc comments become the descriptions of the
//! JSON Schema, those of fields also the table in docs/restore-resources.md.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::policy::{ExistingPolicy, Permission, Profile, Scope, SideEffect};
use super::spec::{ApiVersion, Metadata, NamePatterns};

/// The one value of `kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[schemars(rename = "RestoreKind")]
pub enum RestorePlanKind {
    /// A restore plan.
    #[default]
    RestorePlan,
}

/// A restore plan: the objects to restore into a cluster, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestorePlan {
    /// Always `kbak.dev/v1`.
    pub api_version: ApiVersion,
    /// Always `RestorePlan`.
    pub kind: RestorePlanKind,
    /// The plan's name.
    pub metadata: Metadata,
    /// The plan itself.
    pub spec: RestoreSpec,
}

/// The content of a restore plan. Arguments of `kbak restore` are added to it, or take precedence.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RestoreSpec {
    /// The objects to restore. Default: all.
    pub select: Select,
    /// New names for the target cluster.
    pub map: Mapping,
    /// Changes to objects, applied in this order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub modify: Vec<Modify>,
    /// Objects to restore although they grant rights, change what others can create, or are privileged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Permission>,
    /// Side effects that a copy may have, or `none`. Default: none; objects held back count as missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub release: Vec<SideEffect>,
    /// The target replaces the cluster of the backup: no object is held back or suspended.
    pub takeover: bool,
    /// The action for an object that exists and differs. Default: it is not changed, and counts as missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub existing: Option<ExistingPolicy>,
    /// The share of the cluster's own configuration that is restored.
    pub profile: Profile,
    /// Objects that Argo CD or Flux manage are restored with `all`, not with `data`. Default: `data`, and
    /// `all` into mapped namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// Kinds whose status is restored, by name or glob.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<String>,
    /// Keep the node ports of Services, also assigned ones, and also in a copy.
    pub node_ports: bool,
}

/// The objects to restore.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Select {
    /// Namespaces, by name or glob, with their names in the backup.
    pub namespaces: NamePatterns,
    /// Kinds, as `plural.group` (`deployments.apps`, `secrets`), by name or glob.
    pub kinds: NamePatterns,
    /// A label selector, as kubectl takes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Objects: `deployments.apps/shop/web`, `namespaces/shop`. Without another selection only they are
    /// restored, else they are restored too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<String>,
}

/// New names: the name in the backup, and the name in the target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Map")]
pub struct Mapping {
    /// Namespaces.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub namespaces: BTreeMap<String, String>,
    /// Storage classes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub storage_classes: BTreeMap<String, String>,
    /// Images, by the beginning of their names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, String>,
    /// Host names, with their subdomains.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub hosts: BTreeMap<String, String>,
}

/// A change to the objects that `match` selects.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Modify {
    /// The objects to change; every given condition must match. Names are those of the backup.
    pub r#match: Match,
    /// A JSON merge patch (RFC 7396).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge: Option<Value>,
    /// A JSON patch (RFC 6902): `[{op: replace, path: /spec/replicas, value: 1}]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<Value>,
}

/// The objects to change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Match {
    /// Kinds, by name or glob.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<String>,
    /// Namespaces, by name or glob.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Names, by name or glob.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// A regular expression that the whole name matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_regex: Option<String>,
    /// A label selector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
}
