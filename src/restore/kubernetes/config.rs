//! What to restore, and how: plain values that the arguments and a RestorePlan map to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use super::change::Modifier;
use crate::plan::{Glob, LabelSelector};

/// What comes back only if it is said, because it gives rights or changes what others may create.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Allow {
    /// Roles, ClusterRoles and their bindings; who is whom in a cluster of EKS.
    Rbac,
    /// Webhook configurations and admission policies with their bindings.
    Webhooks,
    /// CustomResourceDefinitions.
    Crds,
    /// APIServices with a service behind them.
    Apiservices,
    /// Pods, and templates of pods, that the level `baseline` of Pod Security refuses; volumes that are
    /// a folder of a node.
    Privileged,
}

impl Allow {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Rbac, Self::Webhooks, Self::Crds, Self::Apiservices, Self::Privileged];

    /// As `--allow` takes it.
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

impl std::fmt::Display for Allow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What a copy does not do by itself, because it reaches beyond the cluster or works twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Release {
    /// CronJobs and Jobs run (they come back suspended otherwise), and Argo CD syncs by itself.
    Jobs,
    /// Ingresses, Gateways and their routes.
    Ingress,
    /// What external-dns publishes.
    Dns,
    /// Certificates, and issuers that ask an ACME server.
    Acme,
    /// Services of the type LoadBalancer, or with external addresses.
    Loadbalancers,
}

impl Release {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Jobs, Self::Ingress, Self::Dns, Self::Acme, Self::Loadbalancers];

    /// As `--release` takes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Ingress => "ingress",
            Self::Dns => "dns",
            Self::Acme => "acme",
            Self::Loadbalancers => "loadbalancers",
        }
    }
}

impl std::fmt::Display for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How much of a cluster comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Applications: not what belongs to the cluster's own machinery.
    #[default]
    App,
    /// That, and the settings of the cluster's machinery.
    Rebuild,
    /// That, and its state, which describes machines, disks and networks as they were.
    Everything,
}

/// Whether objects come back that Git holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Only what Argo CD and Flux do not bring.
    Data,
    /// All.
    All,
}

/// What happens to an object that is there and is not as in the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Existing {
    /// It is left alone.
    Skip,
    /// The fields of the backup are merged into it.
    Patch,
    /// It is replaced, unless somebody changes it meanwhile.
    Replace,
}

/// One object, as `--object` names it: `deployments.apps/shop/web`, `namespaces/shop`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// `deployments.apps`.
    pub resource: Glob,
    /// Its namespace, in the backup; none for cluster-scoped objects.
    pub namespace: Option<Glob>,
    /// Its name.
    pub name: Glob,
}

impl Selected {
    pub(super) fn takes(&self, resource: &str, namespace: Option<&str>, name: &str) -> bool {
        let placed = match (&self.namespace, namespace) {
            (None, None) => true,
            (Some(glob), Some(namespace)) => glob.matches(namespace),
            _ => false,
        };
        placed && self.resource.matches(resource) && self.name.matches(name)
    }
}

impl std::fmt::Display for Selected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.resource.as_str())?;
        if let Some(namespace) = &self.namespace {
            write!(f, "/{}", namespace.as_str())?;
        }
        write!(f, "/{}", self.name.as_str())
    }
}

/// What is called otherwise in the cluster that is restored into.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mapping {
    /// Namespaces.
    pub namespaces: BTreeMap<String, String>,
    /// Storage classes.
    pub classes: BTreeMap<String, String>,
    /// Images, by the text that they begin with; the longest that fits counts.
    pub images: BTreeMap<String, String>,
    /// Host names and what lies beneath them.
    pub hosts: BTreeMap<String, String>,
}

/// How long a restore waits for what is not its own to hasten. Each is one deadline for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// Until namespaces that are being deleted are gone.
    pub terminating: Duration,
    /// Until the kinds of new definitions are served.
    pub definitions: Duration,
    /// Until the Services behind webhooks and APIServices have endpoints.
    pub backends: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            terminating: Duration::from_secs(120),
            definitions: Duration::from_secs(60),
            backends: Duration::from_secs(120),
        }
    }
}

/// What to restore, and how.
#[derive(Debug, Clone)]
pub struct RestoreConfig {
    /// What of that which is refused by default may be created.
    pub allow: BTreeSet<Allow>,
    /// Only objects in these namespaces, and the namespaces themselves; empty: everything.
    pub namespaces: Vec<Glob>,
    /// Not those in these.
    pub exclude_namespaces: Vec<Glob>,
    /// Only these kinds (`pods`, `deployments.apps`); empty: all.
    pub kinds: Vec<Glob>,
    /// Not these.
    pub exclude_kinds: Vec<Glob>,
    /// Only objects with these labels.
    pub labels: Option<LabelSelector>,
    /// These objects and the namespaces they lie in: alone, or beside what else is selected.
    pub objects: Vec<Selected>,
    /// What is called otherwise.
    pub mapping: Mapping,
    /// Changes that the plan's owner wants, in order.
    pub modifiers: Vec<Modifier>,
    /// How much of the cluster.
    pub profile: Profile,
    /// Whether what Git holds comes back; by default not, except into mapped namespaces.
    pub scope: Option<Scope>,
    /// What happens to what is there and differs; by default it is left alone, and the restore is
    /// not whole.
    pub existing: Option<Existing>,
    /// What a copy may do; none: nobody has said, so what is held back is missing.
    pub release: Option<BTreeSet<Release>>,
    /// This cluster takes the place of the one in the backup: it is no copy.
    pub takeover: bool,
    /// The UID of `kube-system` in the backup.
    pub cluster_uid: Option<String>,
    /// Kinds whose status is restored.
    pub status: Vec<Glob>,
    /// Keep all node ports of Services; otherwise those that somebody chose, and in a copy none.
    pub node_ports: bool,
    /// Creates under way at once.
    pub parallel: usize,
    /// How often a round without progress is tried again, after a pause that doubles from one
    /// second: controllers and webhooks need time to stand up.
    pub patience: u32,
    /// Longer waits.
    pub waits: Waits,
}

impl Default for RestoreConfig {
    fn default() -> Self {
        Self {
            allow: BTreeSet::new(),
            namespaces: Vec::new(),
            exclude_namespaces: Vec::new(),
            kinds: Vec::new(),
            exclude_kinds: Vec::new(),
            labels: None,
            objects: Vec::new(),
            mapping: Mapping::default(),
            modifiers: Vec::new(),
            profile: Profile::App,
            scope: None,
            existing: None,
            release: None,
            takeover: false,
            cluster_uid: None,
            status: Vec::new(),
            node_ports: false,
            parallel: 32,
            patience: 3,
            waits: Waits::default(),
        }
    }
}

impl RestoreConfig {
    /// Whether a copy may do this.
    #[must_use]
    pub fn releases(&self, what: Release) -> bool {
        self.release.as_ref().is_some_and(|all| all.contains(&what))
    }

    /// Whether the namespace has another name in the cluster that is restored into.
    #[must_use]
    pub fn maps(&self, namespace: &str) -> bool {
        self.mapping.namespaces.get(namespace).is_some_and(|to| to != namespace)
    }

    /// Whether all kinds are out of question but those of `objects`.
    #[must_use]
    pub fn only_objects(&self) -> bool {
        !self.objects.is_empty()
            && self.namespaces.is_empty()
            && self.kinds.is_empty()
            && self.labels.is_none()
    }

    /// Whether anything of a kind can be selected.
    #[must_use]
    pub fn selects_kind(&self, resource: &str) -> bool {
        let named = self.objects.iter().any(|object| object.resource.matches(resource));
        let leads = resource == "namespaces" && self.objects.iter().any(|object| object.namespace.is_some());
        if named || leads {
            return true;
        }
        !self.only_objects() && self.takes_kind(resource)
    }

    pub(super) fn takes_kind(&self, resource: &str) -> bool {
        let any = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(resource));
        (self.kinds.is_empty() || any(&self.kinds)) && !any(&self.exclude_kinds)
    }

    /// Whether what lies in `space` is selected. Objects that lie in none belong to no selection of
    /// namespaces.
    pub(super) fn takes_space(&self, space: Option<&str>) -> bool {
        let any = |globs: &[Glob], name: &str| globs.iter().any(|glob| glob.matches(name));
        space.map_or(self.namespaces.is_empty(), |space| {
            (self.namespaces.is_empty() || any(&self.namespaces, space))
                && !any(&self.exclude_namespaces, space)
        })
    }

    /// Whether an object is selected. `labels` are its labels; names are those of the backup.
    #[must_use]
    pub fn selects(
        &self,
        resource: &str,
        namespace: Option<&str>,
        name: &str,
        labels: &serde_json::Value,
    ) -> bool {
        let named = self.objects.iter().any(|object| object.takes(resource, namespace, name));
        // What is selected needs a place.
        let leads = resource == "namespaces"
            && self
                .objects
                .iter()
                .any(|object| object.namespace.as_ref().is_some_and(|n| n.as_str() == name));
        if named || leads {
            return true;
        }
        if self.only_objects() || !self.takes_kind(resource) {
            return false;
        }
        // A namespace has seldom the labels of what lies in it.
        let labelled = self.labels.as_ref().is_none_or(|selector| {
            (resource == "namespaces" && !self.namespaces.is_empty()) || selector.matches(labels)
        });
        labelled && self.takes_space(space(resource, namespace, name))
    }
}

/// The namespace in which an object lies, or which it is.
pub(super) fn space<'a>(resource: &str, namespace: Option<&'a str>, name: &'a str) -> Option<&'a str> {
    namespace.or_else(|| (resource == "namespaces").then_some(name))
}
