//! Finds databases: custom resources of operators, workloads that run a database's image, and pods without a
//! known manager.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt as _;
use serde::Deserialize;

use crate::inventory::list::{Form, Looked, Reach};
use crate::inventory::table;
use crate::inventory::table::Engine;
use crate::inventory::{Database, Inventory, Login, MANY, Mark, Meta, Object, Owner, SOME, told};
use crate::kubernetes::{Discovered, KindInfo};
use crate::report::coverage::Unseen;

/// The maximum number of pods that are read one by one.
const PODS: usize = 200;
/// The number of pods read in parallel.
const PARALLEL: usize = 4;
/// Kinds of known managers, whose pods are not read one by one; a mirror pod's manager is its node.
const MANAGERS: &[&str] = &["ReplicaSet", "StatefulSet", "DaemonSet", "Job", "Node", "ReplicationController"];

pub(crate) async fn databases(reach: &Reach<'_>, discovered: &Discovered, inventory: &mut Inventory) {
    let mut found = Vec::new();
    for kind in &discovered.kinds {
        if let Some(engine) = table::engine_of_kind(&kind.group, &kind.plural) {
            let looked = operated(reach, kind, engine).await;
            inventory.unseen.extend(looked.unseen);
            found.extend(looked.kept);
        }
    }
    let operated = found.len();
    for plural in ["statefulsets", "deployments", "daemonsets"] {
        let kind = KindInfo { kind: kind_of(plural).to_owned(), ..KindInfo::named("apps", "v1", plural) };
        let looked = workloads(reach, &kind).await;
        inventory.unseen.extend(looked.unseen);
        add(&mut found, operated, looked.kept);
    }
    let (pods, unseen) = pods(reach).await;
    inventory.unseen.extend(unseen);
    add(&mut found, operated, pods);
    inventory.databases = found;
}

fn kind_of(plural: &str) -> &'static str {
    match plural {
        "statefulsets" => "StatefulSet",
        "deployments" => "Deployment",
        _ => "DaemonSet",
    }
}

/// Adds workloads. The claims of one that an operator made are added to the operator's resource instead.
fn add(found: &mut Vec<Database>, operated: usize, workloads: Vec<Workload>) {
    for Workload { database, owners } in workloads {
        let part_of = |other: &&mut Database| {
            let labelled =
                table::PART_OF.iter().any(|label| database.labels.get(*label) == Some(&other.name));
            let owned = owners.iter().any(|owner| owner.name == other.name);
            other.namespace == database.namespace && (owned || (labelled && other.engine == database.engine))
        };
        match found[..operated].iter_mut().find(part_of) {
            Some(operator) => operator.claims.extend(database.claims),
            // Also if its operator's kind could not be listed: better reported twice than not at all.
            None => found.push(database),
        }
    }
}

async fn operated(reach: &Reach<'_>, kind: &KindInfo, engine: Engine) -> Looked<Database> {
    let keep = |object: Object| {
        let Meta { name, namespace, annotations, .. } = object.metadata;
        Some(Database {
            namespace,
            name,
            engine,
            kind: kind.resource(),
            by: Mark::Operator,
            labels: BTreeMap::new(),
            claims: Vec::new(),
            login: Login::default(),
            told: told(&annotations),
        })
    };
    reach.all(kind, Form::Metadata, MANY, keep).await
}

/// A workload that runs a database, and its owners.
struct Workload {
    database: Database,
    owners: Vec<Owner>,
}

async fn workloads(reach: &Reach<'_>, kind: &KindInfo) -> Looked<Workload> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Raw {
        metadata: Meta,
        spec: Spec,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Spec {
        template: Template,
        volume_claim_templates: Vec<Object>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Template {
        metadata: Meta,
        spec: PodSpec,
    }
    let keep = |raw: Raw| {
        let Template { metadata: pod, spec } = raw.spec.template;
        let made = raw.spec.volume_claim_templates.into_iter();
        let made =
            made.map(|template| format!("{}-{}-*", template.metadata.name, raw.metadata.name)).collect();
        database(&raw.metadata, &pod, &spec, &kind.kind, made)
    };
    reach.all(kind, Form::Whole, SOME, keep).await
}

/// The part of a pod's spec by which a database is recognised.
#[derive(Deserialize, Default)]
#[serde(default)]
struct PodSpec {
    containers: Vec<Container>,
    volumes: Vec<Volume>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Container {
    image: String,
    ports: Vec<ContainerPort>,
    env: Vec<Variable>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ContainerPort {
    container_port: u16,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Variable {
    name: String,
    value: Value,
    value_from: Option<ValueFrom>,
}

/// A variable's value. It may be a password, so only [`login`] reads it, and keeps only users' names.
#[derive(Deserialize, Default)]
#[serde(transparent)]
struct Value(String);

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ValueFrom {
    secret_key_ref: Option<KeyRef>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct KeyRef {
    name: String,
    key: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Volume {
    persistent_volume_claim: Option<ClaimRef>,
    host_path: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ClaimRef {
    claim_name: String,
}

fn database(meta: &Meta, pod: &Meta, spec: &PodSpec, kind: &str, made: Vec<String>) -> Option<Workload> {
    let mut claims = made;
    claims.extend(
        spec.volumes
            .iter()
            .filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.clone())),
    );
    let keeps = !claims.is_empty() || spec.volumes.iter().any(|volume| volume.host_path.is_some());
    let by_image = spec.containers.iter().find_map(|container| {
        let engine = table::engine_of_image(&container.image)?;
        Some((container, engine, Mark::Image(container.image.clone())))
    });
    let by_port = || {
        spec.containers.iter().filter(|_| keeps).find_map(|container| {
            let port = container
                .ports
                .iter()
                .find_map(|port| Some((port.container_port, table::engine_of_port(port.container_port)?)));
            port.map(|(port, engine)| (container, engine, Mark::Port(port)))
        })
    };
    let (container, engine, by) = by_image.or_else(by_port)?;
    if table::is_cache(engine) && !keeps {
        return None;
    }
    let mut annotations = told(&meta.annotations);
    annotations.extend(told(&pod.annotations));
    Some(Workload {
        owners: meta.owner_references.clone(),
        database: Database {
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            engine,
            kind: kind.to_owned(),
            by,
            labels: pod.labels.clone(),
            claims,
            login: login(&container.env),
            told: annotations,
        },
    })
}

/// Names of the variables that hold the first user's name, and the password.
const USERS: &[&str] = &[
    "POSTGRES_USER",
    "POSTGRESQL_USERNAME",
    "PGUSER",
    "MYSQL_USER",
    "MARIADB_USER",
    "MONGO_INITDB_ROOT_USERNAME",
];
const PASSWORDS: &[&str] = &[
    "POSTGRES_PASSWORD",
    "POSTGRESQL_PASSWORD",
    "PGPASSWORD",
    "MYSQL_PASSWORD",
    "MYSQL_ROOT_PASSWORD",
    "MARIADB_PASSWORD",
    "MARIADB_ROOT_PASSWORD",
    "MONGO_INITDB_ROOT_PASSWORD",
    "REDIS_PASSWORD",
];

/// Returns the first user's name and a reference to the password. A password in the workload itself is
/// detected, but never copied.
fn login(env: &[Variable]) -> Login {
    let one =
        |names: &[&str]| names.iter().find_map(|name| env.iter().find(|variable| variable.name == *name));
    let user = one(USERS).map(|variable| variable.value.0.clone()).filter(|user| !user.is_empty());
    let password = one(PASSWORDS);
    let reference = password.and_then(|variable| variable.value_from.as_ref()?.secret_key_ref.as_ref());
    Login {
        user,
        password: reference.map(|reference| (reference.name.clone(), reference.key.clone())),
        plain: password.is_some_and(|variable| !variable.value.0.is_empty()),
    }
}

/// Finds databases in pods without a known manager; of an unknown controller's pods one is read.
async fn pods(reach: &Reach<'_>) -> (Vec<Workload>, Vec<Unseen>) {
    let kind = KindInfo::named("", "v1", "pods");
    let keep = |object: Object| {
        let meta = object.metadata;
        let mirror = meta.annotations.contains_key("kubernetes.io/config.mirror");
        let manager = meta.owner_references.iter().find(|owner| owner.controller);
        let group =
            manager.map_or("", |owner| owner.api_version.split_once('/').map_or("", |(group, _)| group));
        let known =
            manager.is_some_and(|owner| MANAGERS.contains(&owner.kind.as_str())) || table::is_operator(group);
        let by = manager.map(|owner| (owner.kind.clone(), owner.name.clone()));
        (!mirror && !known).then_some((meta.namespace, meta.name, by))
    };
    let looked = reach.all(&kind, Form::Metadata, MANY, keep).await;
    let mut unseen: Vec<Unseen> = looked.unseen.into_iter().collect();
    let mut managers = BTreeSet::new();
    let mut alone = looked.kept;
    alone.retain(|(namespace, _, by)| match by {
        Some(by) => managers.insert((namespace.clone(), by.clone())),
        None => true,
    });
    if alone.len() > PODS {
        let why = format!("{} pods have no known workload; {PODS} are looked at", alone.len());
        unseen.push(Unseen { what: "pods without a workload".to_owned(), why, rule: None });
        alone.truncate(PODS);
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Pod {
        metadata: Meta,
        spec: PodSpec,
    }
    let found: Vec<Option<Workload>> = futures::stream::iter(alone)
        .map(|(namespace, name, _)| async move {
            let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
            let pod: Pod = reach.one(&path).await?;
            database(&pod.metadata, &pod.metadata, &pod.spec, "Pod", Vec::new())
        })
        .buffered(PARALLEL)
        .collect()
        .await;
    (found.into_iter().flatten().collect(), unseen)
}
