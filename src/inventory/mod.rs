//! The inventory of a cluster: namespaces, claims, databases and Secrets that should be backed up. It is read in
//! bounded lists, most of them of metadata only. The value of a Secret is never requested.
//!
//! ```text
//! cluster ──> Inventory ──> coverage (things that the plan does not declare)
//!                  └───> plan_draft (a first plan)
//! ```
//!
//! Resources that could not be read, or not to the end, are reported as [`UnreadResource`], never silently left out.

mod bounded_list;
pub mod coverage;
pub mod existing_backup_tools;
mod irreplaceable_secrets;
mod known_names;
mod object_parts;
pub mod plan_draft;
mod workloads;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::kubernetes::{ApiError, Cluster, Discovered, KindInfo, discover};
use crate::report::coverage::UnreadResource;
use crate::report::event::Meter;
use bounded_list::{Form, ListScope};
use object_parts::{MetadataOnly, Object, ObjectMeta, object_parts};

/// The time limit of a whole inventory.
const TIME_LIMIT: Duration = Duration::from_secs(120);
/// Namespaces of the system that hold no user data.
const EMPTY_NAMESPACES: &[&str] = &["kube-node-lease", "kube-public"];

/// Options of an inventory.
#[derive(Debug, Clone, Default)]
pub struct InventoryOptions {
    /// Namespaces known by name, which are listed one by one if the whole cluster may not be listed.
    pub namespaces: Vec<String>,
    /// `true` to list Services too: by them coverage finds the databases that a plan's hosts mean.
    pub services: bool,
    /// `true` to leave Secrets out, and kinds that are read because they name Secrets.
    pub without_secrets: bool,
}

/// The inventory of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Namespaces, by name, without those of the system that hold no user data.
    pub namespaces: Vec<String>,
    /// PersistentVolumeClaims.
    pub claims: Vec<Claim>,
    /// Databases: workloads that run one, and custom resources of operators.
    pub databases: Vec<DetectedDatabase>,
    /// Secrets that cannot be recreated.
    pub irreplaceable_secrets: Vec<IrreplaceableSecret>,
    /// Services, if [`InventoryOptions::services`] is set.
    pub services: Vec<Service>,
    /// Resources that could not be read, or not to the end.
    pub unread: Vec<UnreadResource>,
}

/// A PersistentVolumeClaim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The claim's namespace.
    pub namespace: String,
    /// The claim's name.
    pub name: String,
    /// The claim's labels.
    pub labels: BTreeMap<String, String>,
    /// The requested size: `10Gi`.
    pub size: Option<String>,
    /// The storage class.
    pub class: Option<String>,
    /// Annotations of other backup tools.
    pub tool_annotations: BTreeMap<String, String>,
    /// The index in [`Inventory::databases`] of the database that keeps its data in the claim.
    pub database: Option<usize>,
}

/// A workload that runs a database, or a custom resource that declares one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetectedDatabase {
    /// The namespace of the workload or custom resource.
    pub namespace: String,
    /// The name of the workload or custom resource.
    pub name: String,
    /// The engine: `postgresql`.
    pub engine: &'static str,
    /// The kind: `StatefulSet`, `Pod`, `clusters.postgresql.cnpg.io`.
    pub kind: String,
    /// The sign by which it was recognised.
    pub recognised_by: RecognisedBy,
    /// The labels of its pods; empty for a custom resource.
    pub labels: BTreeMap<String, String>,
    /// Claims that its pods mount; a name with `*` at its end is a prefix of claims made for each pod.
    pub claims: Vec<String>,
    /// The first user's name and a reference to the password, never its value.
    pub login: Login,
    /// Annotations of other backup tools, on the workload and its pods.
    pub tool_annotations: BTreeMap<String, String>,
}

/// The sign by which a database was recognised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecognisedBy {
    /// The image that it runs.
    Image(String),
    /// A port, beside storage: the image is not known.
    Port(u16),
    /// The kind, which belongs to an operator.
    Operator,
}

/// A user's name, and a reference to the password.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// The user's name, if the workload sets it.
    pub user: Option<String>,
    /// The Secret and the key in it that hold the password.
    pub password: Option<(String, String)>,
    /// `true` if the workload itself contains a password, which is not kept.
    pub plain: bool,
}

/// A Secret that cannot be recreated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IrreplaceableSecret {
    /// The Secret's namespace.
    pub namespace: String,
    /// The Secret's name.
    pub name: String,
    /// A description for people.
    pub description: String,
    /// The Secret's labels.
    pub labels: BTreeMap<String, String>,
}

/// A Service with a selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub name: String,
    /// The labels of the pods that it selects.
    pub selector: BTreeMap<String, String>,
    /// The cluster IP addresses.
    pub addresses: Vec<String>,
    /// The Service's ports.
    pub ports: Vec<u16>,
}

/// Returns the kinds that an inventory reads, of those of a cluster, with the verbs of the requests.
#[must_use]
pub fn read_kinds<'a>(
    kinds: &'a [KindInfo],
    options: &InventoryOptions,
) -> Vec<(&'a KindInfo, &'static [&'static str])> {
    let secrets = !options.without_secrets;
    let of = |kind: &KindInfo| -> Option<&'static [&'static str]> {
        match (kind.group.as_str(), kind.plural.as_str()) {
            // Those without a known workload are read one by one.
            ("", "pods") => Some(&["get", "list"]),
            ("", "namespaces" | "persistentvolumeclaims") => Some(&["list"]),
            ("", "secrets") if secrets => Some(&["list"]),
            ("", "services") if options.services => Some(&["list"]),
            ("apps", "statefulsets" | "deployments" | "daemonsets") => Some(&["list"]),
            (group, plural) => ((secrets && irreplaceable_secrets::names_secrets(kind))
                || known_names::engine_of_kind(group, plural).is_some())
            .then_some(&["list"]),
        }
    };
    kinds.iter().filter_map(|kind| Some((kind, of(kind)?))).collect()
}

/// Reads the inventory of a cluster. Resources that cannot be read are in [`Inventory::unread`].
/// Fails if the kinds of the cluster cannot be discovered.
pub async fn read_inventory(
    cluster: &Cluster,
    options: &InventoryOptions,
    meter: &Meter,
) -> Result<Inventory, ApiError> {
    let mut inventory = Inventory::default();
    let reading = async {
        let discovered = discover(cluster).await?;
        read_all(cluster, &discovered, options, meter, &mut inventory).await;
        Ok(())
    };
    match tokio::time::timeout(TIME_LIMIT, reading).await {
        Ok(result) => result?,
        Err(_) => {
            let why = format!("the inventory took longer than {} s", TIME_LIMIT.as_secs());
            inventory.unread.push(UnreadResource { what: "the rest".to_owned(), why, rule: None });
        }
    }
    sort_and_link(&mut inventory);
    Ok(inventory)
}

async fn read_all(
    cluster: &Cluster,
    discovered: &Discovered,
    options: &InventoryOptions,
    meter: &Meter,
    inventory: &mut Inventory,
) {
    let scope = ListScope { cluster, namespaces: &options.namespaces };
    meter.add_total(5);
    read_namespaces(&scope, inventory).await;
    meter.add_done(1);
    read_claims(&scope, inventory).await;
    meter.add_done(1);
    workloads::read_databases(&scope, discovered, inventory).await;
    meter.add_done(1);
    if options.services {
        read_services(&scope, inventory).await;
    }
    meter.add_done(1);
    if !options.without_secrets {
        irreplaceable_secrets::read_irreplaceable_secrets(&scope, discovered, inventory).await;
    }
    meter.add_done(1);
}

/// Sorts by namespace and name, removes duplicates, and finds the database of each claim.
fn sort_and_link(inventory: &mut Inventory) {
    inventory.namespaces.sort();
    inventory.irreplaceable_secrets.sort_by_cached_key(|one| (one.namespace.clone(), one.name.clone()));
    inventory.irreplaceable_secrets.dedup_by(|a, b| (&a.namespace, &a.name) == (&b.namespace, &b.name));
    inventory.databases.sort_by_cached_key(|one| (one.namespace.clone(), one.name.clone(), one.kind.clone()));
    inventory.claims.sort_by_cached_key(|one| (one.namespace.clone(), one.name.clone()));
    let owner = |claim: &Claim| inventory.databases.iter().position(|database| database.keeps(claim));
    let owners: Vec<Option<usize>> = inventory.claims.iter().map(owner).collect();
    for (claim, owner) in inventory.claims.iter_mut().zip(owners) {
        claim.database = owner;
    }
    inventory.unread.sort_by(|a, b| a.what.cmp(&b.what));
    inventory.unread.dedup_by(|a, b| a.what == b.what);
}

impl DetectedDatabase {
    /// True if a claim holds its data: a pod mounts it, it was made for one, or has the operator's label.
    fn keeps(&self, claim: &Claim) -> bool {
        if claim.namespace != self.namespace {
            return false;
        }
        let part = known_names::PART_OF.iter().any(|label| claim.labels.get(*label) == Some(&self.name));
        let made = |prefix: &str| {
            let ordinal = claim.name.strip_prefix(prefix);
            ordinal.is_some_and(|ordinal| !ordinal.is_empty() && ordinal.bytes().all(|b| b.is_ascii_digit()))
        };
        let named = self.claims.iter().any(|name| match name.strip_suffix('*') {
            Some(prefix) => made(prefix),
            None => claim.name == *name,
        });
        named || (part && self.recognised_by == RecognisedBy::Operator)
    }

    /// Returns the item as `accept` and reports name it: `database/shop/orders-db`.
    pub fn item(&self) -> String {
        format!("database/{}/{}", self.namespace, self.name)
    }
}

impl Service {
    /// True if the selector matches the labels of a database's pods.
    fn selects(&self, database: &DetectedDatabase) -> bool {
        self.selector.iter().all(|(key, value)| database.labels.get(key) == Some(value))
    }

    /// True if an operator may have named the Service after its database, whose pods are not known.
    fn is_named_after(&self, database: &DetectedDatabase) -> bool {
        database.labels.is_empty() && is_or_extends(&self.name, &database.name)
    }
}

/// True if `name` is `base`, or `base` with more after a hyphen.
fn is_or_extends(name: &str, base: &str) -> bool {
    name.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// Returns the annotations of other backup tools.
fn tool_annotations(annotations: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let prefixes =
        ["backup.velero.io/", "pre.hook.backup.velero.io/", "post.hook.backup.velero.io/", "k8up.io/"];
    let kept = annotations.iter().filter(|(key, _)| prefixes.iter().any(|prefix| key.starts_with(prefix)));
    kept.map(|(key, value)| (key.clone(), value.clone())).collect()
}

async fn read_namespaces(scope: &ListScope<'_>, inventory: &mut Inventory) {
    let kind = KindInfo { namespaced: false, ..KindInfo::from_path_parts("", "v1", "namespaces") };
    let keep = |MetadataOnly { metadata: ObjectMeta { name, .. }, .. }| {
        (!EMPTY_NAMESPACES.contains(&name.as_str())).then_some(name)
    };
    inventory.namespaces = scope.read(&kind, Form::Metadata, &mut inventory.unread, keep).await;
}

object_parts! {
    struct ClaimSpec {
        storage_class_name: Option<String>,
        resources: ClaimResources,
    }
    struct ClaimResources {
        requests: BTreeMap<String, String>,
    }
    struct ServiceSpec {
        selector: BTreeMap<String, String>,
        #[serde(rename = "clusterIPs")]
        cluster_ips: Vec<String>,
        ports: Vec<ServicePort>,
    }
    struct ServicePort {
        port: u16,
    }
}

async fn read_claims(scope: &ListScope<'_>, inventory: &mut Inventory) {
    let keep = |Object { metadata, spec }: Object<ClaimSpec>| {
        let ClaimSpec { storage_class_name: class, resources: ClaimResources { mut requests } } = spec;
        Some(Claim {
            namespace: metadata.namespace,
            name: metadata.name,
            labels: metadata.labels,
            size: requests.remove("storage"),
            class,
            tool_annotations: tool_annotations(&metadata.annotations),
            database: None,
        })
    };
    let kind = KindInfo::from_path_parts("", "v1", "persistentvolumeclaims");
    inventory.claims = scope.read(&kind, Form::Small, &mut inventory.unread, keep).await;
}

async fn read_services(scope: &ListScope<'_>, inventory: &mut Inventory) {
    let keep = |Object { metadata, spec }: Object<ServiceSpec>| {
        let ObjectMeta { name, namespace, .. } = metadata;
        let ServiceSpec { selector, cluster_ips: addresses, ports } = spec;
        let ports = ports.into_iter().map(|port| port.port).collect();
        (!selector.is_empty()).then_some(Service { namespace, name, selector, addresses, ports })
    };
    let kind = KindInfo::from_path_parts("", "v1", "services");
    inventory.services = scope.read(&kind, Form::Small, &mut inventory.unread, keep).await;
}
