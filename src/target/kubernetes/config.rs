//! Settings of a restore: plain values that the arguments and a RestorePlan map to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use crate::plan::{Glob, LabelSelector};
use crate::target::kubernetes::change::Modifier;

/// Permissions for objects that grant rights or restrict creation; each is needed explicitly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Allow {
    /// Roles, ClusterRoles and their bindings; the user mapping of an EKS cluster.
    Rbac,
    /// Webhook configurations and admission policies with their bindings.
    Webhooks,
    /// CustomResourceDefinitions.
    Crds,
    /// APIServices that are backed by a Service.
    Apiservices,
    /// Pods and pod templates that the Pod Security level `baseline` refuses; PersistentVolumes with a
    /// hostPath.
    Privileged,
}

impl Allow {
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

impl std::fmt::Display for Allow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Effects that a copy has only on request, because they reach beyond the cluster or happen twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Release {
    /// CronJobs and Jobs run (otherwise they are restored suspended), and Argo CD syncs automatically.
    Jobs,
    /// Ingresses, Gateways and their routes.
    Ingress,
    /// Objects that external-dns publishes.
    Dns,
    /// Certificates, and issuers that use an ACME server.
    Acme,
    /// Services of type LoadBalancer or with external addresses.
    Loadbalancers,
}

impl Release {
    /// All effects.
    pub const ALL: [Self; 5] = [Self::Jobs, Self::Ingress, Self::Dns, Self::Acme, Self::Loadbalancers];

    /// Returns the name that `--release` takes.
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

/// The share of a cluster that is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Applications, without the cluster's own infrastructure.
    #[default]
    App,
    /// Applications and the settings of the infrastructure.
    Rebuild,
    /// All of that, and the infrastructure's state, which describes the old machines, disks and networks.
    Everything,
}

/// Selects whether objects that Git holds are restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Only objects that Argo CD and Flux do not create.
    Data,
    /// All objects.
    All,
}

/// The treatment of an existing object that differs from the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Existing {
    /// Leave it unchanged.
    Skip,
    /// Merge the fields of the backup into it.
    Patch,
    /// Replace it, unless it changes meanwhile.
    Replace,
}

/// A selection of objects as `--object` takes it: `deployments.apps/shop/web`, `namespaces/shop`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// The kind, such as `deployments.apps`.
    pub resource: Glob,
    /// The namespace in the backup; none for cluster-scoped objects.
    pub namespace: Option<Glob>,
    /// The object's name in the backup.
    pub name: Glob,
}

impl Selected {
    pub(crate) fn takes(&self, resource: &str, namespace: Option<&str>, name: &str) -> bool {
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

/// Names that change in the target cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mapping {
    /// Namespaces.
    pub namespaces: BTreeMap<String, String>,
    /// Storage classes.
    pub classes: BTreeMap<String, String>,
    /// Images, by prefix; the longest matching prefix is used.
    pub images: BTreeMap<String, String>,
    /// Host names, including their subdomains.
    pub hosts: BTreeMap<String, String>,
}

/// The longest waits for events that a restore cannot speed up. Each is one deadline for all objects.
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

/// Selection and options of a restore.
#[derive(Debug, Clone)]
pub struct RestoreConfig {
    /// Permissions for objects that are refused by default.
    pub allow: BTreeSet<Allow>,
    /// Only objects in these namespaces, and the namespaces themselves; empty: everything.
    pub namespaces: Vec<Glob>,
    /// Objects in these namespaces are excluded.
    pub exclude_namespaces: Vec<Glob>,
    /// Only these kinds (`pods`, `deployments.apps`); empty: all.
    pub kinds: Vec<Glob>,
    /// These kinds are excluded.
    pub exclude_kinds: Vec<Glob>,
    /// Only objects with these labels.
    pub labels: Option<LabelSelector>,
    /// These objects and their namespaces; alone, or in addition to the other selectors.
    pub objects: Vec<Selected>,
    /// Names that change.
    pub mapping: Mapping,
    /// Changes that the RestorePlan asks for, in order.
    pub modifiers: Vec<Modifier>,
    /// The share of the cluster that is restored.
    pub profile: Profile,
    /// Selects whether objects that Git holds are restored; by default only into mapped namespaces.
    pub scope: Option<Scope>,
    /// The treatment of existing objects that differ. By default they are left unchanged and the restore is
    /// incomplete.
    pub existing: Option<Existing>,
    /// Effects that a copy may have. None: no choice was made, so objects held back count as missing.
    pub release: Option<BTreeSet<Release>>,
    /// True if this cluster takes the place of the one in the backup, so that the restore is not a copy.
    pub takeover: bool,
    /// The UID of `kube-system` in the backup.
    pub cluster_uid: Option<String>,
    /// Kinds whose status is restored.
    pub status: Vec<Glob>,
    /// True to keep all node ports of Services. Otherwise only chosen ones are kept, and none in a copy.
    pub node_ports: bool,
    /// The largest number of objects processed at once.
    pub parallel: usize,
    /// Retries after rounds without progress. The pause before each doubles from one second, because
    /// controllers and webhooks need time to start.
    pub patience: u32,
    /// Deadlines of longer waits.
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
    /// True if a copy may have this effect.
    #[must_use]
    pub fn releases(&self, what: Release) -> bool {
        self.release.as_ref().is_some_and(|all| all.contains(&what))
    }

    /// True if the namespace has another name in the target cluster.
    #[must_use]
    pub fn maps(&self, namespace: &str) -> bool {
        self.mapping.namespaces.get(namespace).is_some_and(|to| to != namespace)
    }

    /// True if only `objects` select anything.
    #[must_use]
    pub fn only_objects(&self) -> bool {
        !self.objects.is_empty()
            && self.namespaces.is_empty()
            && self.kinds.is_empty()
            && self.labels.is_none()
    }

    /// True if objects of a kind can be selected.
    #[must_use]
    pub fn selects_kind(&self, resource: &str) -> bool {
        let named = self.objects.iter().any(|object| object.resource.matches(resource));
        let leads = resource == "namespaces" && self.objects.iter().any(|object| object.namespace.is_some());
        if named || leads {
            return true;
        }
        !self.only_objects() && self.takes_kind(resource)
    }

    pub(crate) fn takes_kind(&self, resource: &str) -> bool {
        let any = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(resource));
        (self.kinds.is_empty() || any(&self.kinds)) && !any(&self.exclude_kinds)
    }

    /// True if objects in `space` are selected. A selection of namespaces excludes objects without a
    /// namespace.
    pub(crate) fn takes_space(&self, space: Option<&str>) -> bool {
        let any = |globs: &[Glob], name: &str| globs.iter().any(|glob| glob.matches(name));
        space.map_or(self.namespaces.is_empty(), |space| {
            (self.namespaces.is_empty() || any(&self.namespaces, space))
                && !any(&self.exclude_namespaces, space)
        })
    }

    /// True if the object is selected. `labels` are its labels; names are those in the backup.
    #[must_use]
    pub fn selects(
        &self,
        resource: &str,
        namespace: Option<&str>,
        name: &str,
        labels: &serde_json::Value,
    ) -> bool {
        let named = self.objects.iter().any(|object| object.takes(resource, namespace, name));
        // The namespace of a selected object is needed, too.
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
        // A namespace rarely has the labels of the objects in it.
        let labelled = self.labels.as_ref().is_none_or(|selector| {
            (resource == "namespaces" && !self.namespaces.is_empty()) || selector.matches(labels)
        });
        labelled && self.takes_space(space(resource, namespace, name))
    }
}

/// Returns the namespace of an object, or the name of the object if it is a namespace.
pub(crate) fn space<'a>(resource: &str, namespace: Option<&'a str>, name: &'a str) -> Option<&'a str> {
    namespace.or_else(|| (resource == "namespaces").then_some(name))
}
