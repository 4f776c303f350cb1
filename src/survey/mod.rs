//! What a cluster holds that somebody should think of before it is lost: namespaces, claims,
//! databases, keys. Read in bounded lists, most of them of metadata alone; the value of a Secret
//! is never asked for.
//!
//! ```text
//! cluster ──> Survey ──> coverage (what does the plan not declare?)
//!                  └───> draft (what should a plan say?)
//! ```
//!
//! What may not be looked at, or was not looked at to its end, is [`Unseen`]: never silent.

mod keys;
mod list;
mod table;
pub mod wishes;
mod workloads;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::report::event::Meter;
use crate::source::kubernetes::{ApiError, Cluster, Discovered, KindInfo, discover};
use list::{Form, Reach};

/// How long a whole survey may take.
const LONGEST: Duration = Duration::from_secs(120);
/// Objects of a page: metadata, and whole.
const MANY: usize = 500;
const SOME: usize = 100;
/// Namespaces of the system that hold nothing of anybody's.
const EMPTY_NAMESPACES: &[&str] = &["kube-node-lease", "kube-public"];

/// What a survey looks for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Namespaces known by name: where to look if not everywhere is allowed.
    pub namespaces: Vec<String>,
    /// Also Services: how a plan's hosts are known again.
    pub services: bool,
}

/// What there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Namespaces, by name; those of the system that hold nothing are left out.
    pub namespaces: Vec<String>,
    /// Claims.
    pub claims: Vec<Claim>,
    /// Databases.
    pub databases: Vec<Database>,
    /// Secrets that nothing can make again.
    pub keys: Vec<Key>,
    /// Services, if they were asked for.
    pub services: Vec<Service>,
    /// What was not looked at.
    pub unseen: Vec<Unseen>,
}

/// A PersistentVolumeClaim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its size as it was asked for: `10Gi`.
    pub size: Option<String>,
    /// Its class.
    pub class: Option<String>,
    /// What other backup tools were told in its annotations.
    pub told: BTreeMap<String, String>,
    /// Which of [`Survey::databases`] keeps its data there.
    pub database: Option<usize>,
}

/// Something that runs a database, or stands for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The engine: `postgresql`.
    pub engine: &'static str,
    /// What it is: `StatefulSet`, `Pod`, `clusters.postgresql.cnpg.io`.
    pub kind: String,
    /// How it was recognised.
    pub by: Mark,
    /// The labels of its pods; none for an operator's.
    pub labels: BTreeMap<String, String>,
    /// Claims that its pods name, and prefixes of those that it makes for each pod.
    pub claims: Vec<String>,
    /// Where its first user's name and password lie, as references, never as values.
    pub login: Login,
    /// What other backup tools were told in its pods' annotations.
    pub told: BTreeMap<String, String>,
}

/// By what a database was recognised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// By the image that it runs.
    Image(String),
    /// By a port, beside storage: the image is not known.
    Port(u16),
    /// It is an operator's own kind.
    Operator,
}

/// References to a user's name and password.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// The user's name, where the workload names it.
    pub user: Option<String>,
    /// The Secret and the key in it that hold the password.
    pub password: Option<(String, String)>,
    /// Whether a password stands in the workload itself; it is not read.
    pub plain: bool,
}

/// A Secret that nothing can make again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it is, for people.
    pub what: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Which pods it leads to.
    pub selector: BTreeMap<String, String>,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Its ports.
    pub ports: Vec<u16>,
}

/// Something that was not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unseen {
    /// What: a resource.
    pub what: String,
    /// Why.
    pub why: String,
    /// The rule to add, where a right is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// Looks at a cluster. What cannot be looked at is in [`Survey::unseen`].
///
/// # Errors
/// That the cluster does not answer at all.
pub async fn survey(cluster: &Cluster, wanted: &Wanted, meter: &Meter) -> Result<Survey, ApiError> {
    let mut survey = Survey::default();
    let looked = async {
        let discovered = discover(cluster).await?;
        look(cluster, &discovered, wanted, meter, &mut survey).await;
        Ok(())
    };
    match tokio::time::timeout(LONGEST, looked).await {
        Ok(result) => result?,
        Err(_) => {
            let why = format!("the survey took longer than {} s", LONGEST.as_secs());
            survey.unseen.push(Unseen { what: "the rest".to_owned(), why, rule: None });
        }
    }
    settle(&mut survey);
    Ok(survey)
}

async fn look(
    cluster: &Cluster,
    discovered: &Discovered,
    wanted: &Wanted,
    meter: &Meter,
    survey: &mut Survey,
) {
    let reach = Reach { cluster, namespaces: &wanted.namespaces };
    meter.add_total(5);
    namespaces(&reach, survey).await;
    meter.add_done(1);
    claims(&reach, survey).await;
    meter.add_done(1);
    workloads::databases(&reach, discovered, survey).await;
    meter.add_done(1);
    if wanted.services {
        services(&reach, survey).await;
    }
    meter.add_done(1);
    keys::keys(&reach, discovered, survey).await;
    meter.add_done(1);
}

/// One order, whatever the server's: by namespace and name. Each right that is missing is told once.
fn settle(survey: &mut Survey) {
    survey.namespaces.sort();
    survey.keys.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    survey.keys.dedup_by(|a, b| (&a.namespace, &a.name) == (&b.namespace, &b.name));
    survey.databases.sort_by(|a, b| (&a.namespace, &a.name, &a.kind).cmp(&(&b.namespace, &b.name, &b.kind)));
    survey.claims.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    let owner = |claim: &Claim| survey.databases.iter().position(|database| database.keeps(claim));
    let owners: Vec<Option<usize>> = survey.claims.iter().map(owner).collect();
    for (claim, owner) in survey.claims.iter_mut().zip(owners) {
        claim.database = owner;
    }
    survey.unseen.sort_by(|a, b| a.what.cmp(&b.what));
    survey.unseen.dedup_by(|a, b| a.what == b.what);
}

impl Database {
    /// Whether a claim holds its data: its pods name it, it was made for one of them, or it carries
    /// the operator's label.
    fn keeps(&self, claim: &Claim) -> bool {
        if claim.namespace != self.namespace {
            return false;
        }
        let part = table::PART_OF.iter().any(|label| claim.labels.get(*label) == Some(&self.name));
        let made = |prefix: &str| {
            let ordinal = claim.name.strip_prefix(prefix);
            ordinal.is_some_and(|ordinal| !ordinal.is_empty() && ordinal.bytes().all(|b| b.is_ascii_digit()))
        };
        let named = self.claims.iter().any(|name| match name.strip_suffix('*') {
            Some(prefix) => made(prefix),
            None => claim.name == *name,
        });
        named || (part && self.by == Mark::Operator)
    }

    /// As items are named: `database/shop/orders-db`.
    #[must_use]
    pub fn item(&self) -> String {
        format!("database/{}/{}", self.namespace, self.name)
    }
}

/// The metadata of an object, as much as a survey keeps.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    name: String,
    namespace: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    owner_references: Vec<Owner>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Owner {
    api_version: String,
    kind: String,
    name: String,
    controller: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Object {
    metadata: Meta,
}

/// The annotations of other backup tools.
fn told(annotations: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let theirs = |key: &str| {
        ["backup.velero.io/", "pre.hook.backup.velero.io/", "post.hook.backup.velero.io/", "k8up.io/"]
            .iter()
            .any(|prefix| key.starts_with(prefix))
    };
    let kept = annotations.iter().filter(|(key, _)| theirs(key));
    kept.map(|(key, value)| (key.clone(), value.clone())).collect()
}

async fn namespaces(reach: &Reach<'_>, survey: &mut Survey) {
    let mut kind = KindInfo::named("", "v1", "namespaces");
    kind.namespaced = false;
    let keep = |object: Object| {
        let name = object.metadata.name;
        (!EMPTY_NAMESPACES.contains(&name.as_str())).then_some(name)
    };
    let looked = reach.all(&kind, Form::Metadata, MANY, keep).await;
    survey.namespaces = looked.kept;
    survey.unseen.extend(looked.unseen);
}

async fn claims(reach: &Reach<'_>, survey: &mut Survey) {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Raw {
        metadata: Meta,
        spec: Spec,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Spec {
        storage_class_name: Option<String>,
        resources: Resources,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Resources {
        requests: BTreeMap<String, String>,
    }
    let keep = |mut raw: Raw| {
        let Meta { name, namespace, labels, annotations, .. } = raw.metadata;
        Some(Claim {
            namespace,
            name,
            labels,
            size: raw.spec.resources.requests.remove("storage"),
            class: raw.spec.storage_class_name,
            told: told(&annotations),
            database: None,
        })
    };
    let kind = KindInfo::named("", "v1", "persistentvolumeclaims");
    let looked = reach.all(&kind, Form::Whole, MANY, keep).await;
    survey.claims = looked.kept;
    survey.unseen.extend(looked.unseen);
}

async fn services(reach: &Reach<'_>, survey: &mut Survey) {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Raw {
        metadata: Meta,
        spec: Spec,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Spec {
        selector: BTreeMap<String, String>,
        #[serde(rename = "clusterIPs")]
        cluster_ips: Vec<String>,
        ports: Vec<Port>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Port {
        port: u16,
    }
    let keep = |raw: Raw| {
        let Meta { name, namespace, .. } = raw.metadata;
        let Spec { selector, cluster_ips, ports } = raw.spec;
        let ports = ports.into_iter().map(|port| port.port).collect();
        (!selector.is_empty()).then_some(Service { namespace, name, selector, addresses: cluster_ips, ports })
    };
    let looked = reach.all(&KindInfo::named("", "v1", "services"), Form::Whole, MANY, keep).await;
    survey.services = looked.kept;
    survey.unseen.extend(looked.unseen);
}
