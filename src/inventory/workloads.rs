//! Finds databases: custom resources of operators, and workloads and bare pods that run a database's image.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt as _;

use super::bounded_list::{Form, ListScope};
use super::known_names;
use super::object_parts::{
    Container, MetadataOnly, Object, ObjectMeta, OwnerReference, PodSpec, object_parts,
};
use super::{DetectedDatabase, Inventory, Login, RecognisedBy, tool_annotations};
use crate::kubernetes::{Discovered, KindInfo};
use crate::report::coverage::UnreadResource;

/// The maximum number of pods that are read one by one.
const MAX_PODS: usize = 200;
/// The number of pods read in parallel.
const PARALLEL: usize = 4;
/// Kinds of known managers, whose pods are not read one by one; a mirror pod's manager is its node.
const MANAGERS: &[&str] = &["ReplicaSet", "StatefulSet", "DaemonSet", "Job", "Node", "ReplicationController"];

pub(super) async fn read_databases(
    scope: &ListScope<'_>,
    discovered: &Discovered,
    inventory: &mut Inventory,
) {
    let mut found = Vec::new();
    for kind in &discovered.kinds {
        if let Some(engine) = known_names::engine_of_kind(&kind.group, &kind.plural) {
            let keep = |MetadataOnly { metadata, .. }| {
                Some(DetectedDatabase {
                    namespace: metadata.namespace,
                    name: metadata.name,
                    engine,
                    kind: kind.resource(),
                    recognised_by: RecognisedBy::Operator,
                    labels: BTreeMap::new(),
                    claims: Vec::new(),
                    login: Login::default(),
                    tool_annotations: tool_annotations(&metadata.annotations),
                })
            };
            found.extend(scope.read(kind, Form::Metadata, &mut inventory.unread, keep).await);
        }
    }
    let operated = found.len();
    for (plural, name) in
        [("statefulsets", "StatefulSet"), ("deployments", "Deployment"), ("daemonsets", "DaemonSet")]
    {
        let kind = KindInfo::from_path_parts("apps", "v1", plural);
        let keep = |Object { metadata, spec }: Object<WorkloadSpec>| {
            let patterns = spec.volume_claim_templates.iter();
            let patterns =
                patterns.map(|claim| format!("{}-{}-*", claim.metadata.name, metadata.name)).collect();
            detect_database(&metadata, &spec.template, name, patterns)
        };
        let workloads = scope.read(&kind, Form::Whole, &mut inventory.unread, keep).await;
        add_workloads(&mut found, operated, workloads);
    }
    let pods = database_pods(scope, &mut inventory.unread).await;
    add_workloads(&mut found, operated, pods);
    inventory.databases = found;
}

object_parts! {
    struct WorkloadSpec {
        template: Object<PodSpec>,
        volume_claim_templates: Vec<MetadataOnly>,
    }
}

/// Adds workloads. The claims of one that an operator made are added to the operator's resource instead.
fn add_workloads(found: &mut Vec<DetectedDatabase>, operated: usize, workloads: Vec<Workload>) {
    for Workload { database, owners } in workloads {
        let part_of = |other: &&mut DetectedDatabase| {
            let labelled =
                known_names::PART_OF.iter().any(|label| database.labels.get(*label) == Some(&other.name));
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

/// A workload that runs a database, and its owners.
struct Workload {
    database: DetectedDatabase,
    owners: Vec<OwnerReference>,
}

fn detect_database(
    meta: &ObjectMeta,
    pod: &Object<PodSpec>,
    kind: &str,
    mut claims: Vec<String>,
) -> Option<Workload> {
    let Object { metadata: pod, spec } = pod;
    let mounted = spec.volumes.iter().filter_map(|volume| volume.persistent_volume_claim.as_ref());
    claims.extend(mounted.map(|claim| claim.claim_name.clone()));
    let keeps = !claims.is_empty() || spec.volumes.iter().any(|volume| volume.host_path.is_some());
    let by_image = spec.containers.iter().find_map(|container| {
        let engine = known_names::engine_of_image(&container.image)?;
        Some((container, engine, RecognisedBy::Image(container.image.clone())))
    });
    let by_port = || {
        spec.containers.iter().filter(|_| keeps).find_map(|container| {
            let port = container.ports.iter().find_map(|port| {
                Some((port.container_port, known_names::engine_of_port(port.container_port)?))
            });
            port.map(|(port, engine)| (container, engine, RecognisedBy::Port(port)))
        })
    };
    let (container, engine, recognised_by) = by_image.or_else(by_port)?;
    if known_names::is_cache(engine) && !keeps {
        return None;
    }
    let mut annotations = tool_annotations(&meta.annotations);
    annotations.extend(tool_annotations(&pod.annotations));
    Some(Workload {
        owners: meta.owner_references.clone(),
        database: DetectedDatabase {
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            engine,
            kind: kind.to_owned(),
            recognised_by,
            labels: pod.labels.clone(),
            claims,
            login: login(container),
            tool_annotations: annotations,
        },
    })
}

/// Names of the variables that hold the first user's name, and the password.
const USERS: &str =
    "POSTGRES_USER POSTGRESQL_USERNAME PGUSER MYSQL_USER MARIADB_USER MONGO_INITDB_ROOT_USERNAME";
const PASSWORDS: &str = "POSTGRES_PASSWORD POSTGRESQL_PASSWORD PGPASSWORD MYSQL_PASSWORD MYSQL_ROOT_PASSWORD \
    MARIADB_PASSWORD MARIADB_ROOT_PASSWORD MONGO_INITDB_ROOT_PASSWORD REDIS_PASSWORD";

/// Returns the first user's name and a reference to the password. A literal password is never copied.
fn login(container: &Container) -> Login {
    let user = container.variable(USERS).map(|variable| variable.value.clone());
    let password = container.variable(PASSWORDS);
    Login {
        user: user.filter(|user| !user.is_empty()),
        password: password.and_then(|variable| variable.secret()),
        plain: password.is_some_and(|variable| !variable.value.is_empty()),
    }
}

/// Finds databases in pods without a known manager; of an unknown controller's pods one is read.
async fn database_pods(scope: &ListScope<'_>, unread: &mut Vec<UnreadResource>) -> Vec<Workload> {
    let kind = KindInfo::from_path_parts("", "v1", "pods");
    let keep = |object: MetadataOnly| {
        let meta = object.metadata;
        let mirror = meta.annotations.contains_key("kubernetes.io/config.mirror");
        let manager = meta.owner_references.iter().find(|owner| owner.controller);
        let group =
            manager.map_or("", |owner| owner.api_version.split_once('/').map_or("", |(group, _)| group));
        let known = manager.is_some_and(|owner| MANAGERS.contains(&owner.kind.as_str()))
            || known_names::is_operator(group);
        let by = manager.map(|owner| (owner.kind.clone(), owner.name.clone()));
        (!mirror && !known).then_some((meta.namespace, meta.name, by))
    };
    let mut alone = scope.read(&kind, Form::Metadata, unread, keep).await;
    let mut managers = BTreeSet::new();
    alone.retain(|(namespace, _, by)| match by {
        Some(by) => managers.insert((namespace.clone(), by.clone())),
        None => true,
    });
    if alone.len() > MAX_PODS {
        let why = format!("{} pods have no known workload; {MAX_PODS} are read", alone.len());
        unread.push(UnreadResource { what: "pods without a workload".to_owned(), why, rule: None });
        alone.truncate(MAX_PODS);
    }
    let read: Vec<Result<Option<Object<PodSpec>>, UnreadResource>> = futures::stream::iter(alone)
        .map(|(namespace, name, _)| scope.read_one(&kind, namespace, name))
        .buffered(PARALLEL)
        .collect()
        .await;
    let mut found = Vec::new();
    for pod in read {
        match pod {
            Ok(pod) => {
                found.extend(pod.and_then(|pod| detect_database(&pod.metadata, &pod, "Pod", Vec::new())))
            }
            Err(one) => unread.push(one),
        }
    }
    found
}
