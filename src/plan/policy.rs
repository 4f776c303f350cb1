//! Choices of a restore that a plan and the command line share. Doc comments of the enums and their variants
//! are descriptions of the JSON Schema.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Objects that are restored only if they are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "AllowName")]
pub enum Permission {
    /// Roles and their bindings.
    Rbac,
    /// Webhook configurations and admission policies.
    Webhooks,
    /// CustomResourceDefinitions.
    Crds,
    /// APIServices with a service behind them.
    Apiservices,
    /// Pods that the level `baseline` of Pod Security rejects.
    Privileged,
}

/// Side effects that a copy has only if they are released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "ReleaseName")]
pub enum SideEffect {
    /// CronJobs and Jobs run.
    Jobs,
    /// Ingresses, Gateways and their routes.
    Ingress,
    /// DNS names that external-dns publishes.
    Dns,
    /// Certificates and issuers that ask an ACME server.
    Acme,
    /// Services of the type LoadBalancer.
    Loadbalancers,
    /// PersistentVolumes whose storage the other cluster may still use.
    Volumes,
    /// No side effect: objects that are held back do not count as missing.
    None,
}

/// The action for an object that exists and differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "ExistingName")]
pub enum ExistingPolicy {
    /// It is not changed.
    Skip,
    /// The fields of the backup are merged into it.
    Patch,
    /// It is replaced, unless it changes during the restore.
    Replace,
}

/// The share of the cluster's own configuration that is restored.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "ProfileName")]
pub enum Profile {
    /// None.
    #[default]
    App,
    /// Its settings.
    Rebuild,
    /// Its settings and its state.
    Everything,
}

/// The handling of objects that Argo CD or Flux manage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "ScopeName")]
pub enum Scope {
    /// Only objects that they do not manage.
    Data,
    /// All objects.
    All,
}

impl Permission {
    /// All permissions.
    pub const ALL: [Self; 5] = [Self::Rbac, Self::Webhooks, Self::Crds, Self::Apiservices, Self::Privileged];

    /// Returns the name that `--allow` takes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rbac => "rbac",
            Self::Webhooks => "webhooks",
            Self::Crds => "crds",
            Self::Apiservices => "apiservices",
            Self::Privileged => "privileged",
        }
    }
}

impl SideEffect {
    /// All side effects.
    pub const ALL: [Self; 6] =
        [Self::Jobs, Self::Ingress, Self::Dns, Self::Acme, Self::Loadbalancers, Self::Volumes];

    /// Returns the name that `--release` takes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Ingress => "ingress",
            Self::Dns => "dns",
            Self::Acme => "acme",
            Self::Loadbalancers => "loadbalancers",
            Self::Volumes => "volumes",
            Self::None => "none",
        }
    }
}

impl std::fmt::Display for Permission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::fmt::Display for SideEffect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
