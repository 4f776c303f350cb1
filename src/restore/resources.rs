//! Restores the resources of an item: plans and applies them, or writes them as files.

use std::sync::atomic::{AtomicU64, Ordering};

use super::error::ItemError;
use super::job::{ResourcesTarget, RestoreJob, RestoreObserver, Restored};
use super::streams::SnapshotResources;
use crate::format::body::Item;
use crate::kubernetes::{Cluster, RequestLimits};
use crate::plan::ClusterSpec;
use crate::report::event::{Meter, Reporter};
use crate::target::kubernetes::{
    Decision, FileFormat, ObjectRef, Outcome, Plan, RestoreConfig, plan_resources, restore_resources,
    write_directory,
};

/// The tries of a request of a restore, about two minutes in all, so that it outlasts the restart of an API
/// server. A restore has no revision that could expire meanwhile.
const TRIES: u32 = 10;

pub(super) async fn restore(
    job: &RestoreJob<'_>,
    item: &Item,
    target: &ResourcesTarget,
    observer: &dyn RestoreObserver,
    meter: &Meter,
) -> Result<Restored, ItemError> {
    let source = SnapshotResources::new(job.snapshot, item)?;
    let (cluster, config, plan_hash) = match target {
        ResourcesTarget::Directory { to, config } => {
            let report = write_directory(&source, to, FileFormat::Yaml, &of_item(config, item)).await?;
            return Ok(Restored::Files(to.clone(), report));
        }
        ResourcesTarget::Cluster { cluster, config, plan_hash } => {
            (cluster, of_item(config, item), plan_hash)
        }
    };
    // A wrong address fails soon; once objects are written, the client waits for an outage to end.
    let quick = connect(cluster, job.reporter).await?;
    let cluster = quick.with_limits(RequestLimits { tries: TRIES, ..RequestLimits::default() });
    let planned = job.reporter.meter("plan", "objects");
    let plan = plan_resources(&quick, &source, &config, false, &mut |_| {}, &planned).await;
    planned.end();
    let plan = plan.map_err(|source| ItemError::Cluster { created: None, source })?;
    require_hash(&plan, plan_hash.as_deref())?;
    observer.planned(item, &plan);
    let created = AtomicU64::new(0);
    let observe = |object: &ObjectRef, outcome: &Outcome| {
        created.fetch_add(u64::from(*outcome == Outcome::Created), Ordering::Relaxed);
        observer.object(object, outcome);
    };
    match restore_resources(&cluster, &source, &config, &observe, meter).await {
        Ok(report) => Ok(Restored::Cluster(report)),
        Err(source) => Err(ItemError::Cluster { created: Some(created.into_inner()), source }),
    }
}

/// Plans the restore into a cluster without applying it. `server` sends each object to the API server, in a
/// dry run; `decided` receives the decision for each object. Also returns the cluster's address and context.
pub(super) async fn plan(
    job: &RestoreJob<'_>,
    item: &Item,
    (cluster, config, plan_hash): (&ClusterSpec, &RestoreConfig, Option<&str>),
    server: bool,
    decided: &mut (dyn FnMut(&Decision) + Send),
) -> Result<(Plan, String), ItemError> {
    let source = SnapshotResources::new(job.snapshot, item)?;
    let cluster = connect(cluster, job.reporter).await?;
    let meter = job.reporter.meter(&item.name, "objects");
    let plan = plan_resources(&cluster, &source, &of_item(config, item), server, decided, &meter).await;
    meter.end();
    let plan = plan.map_err(|source| ItemError::Cluster { created: None, source })?;
    require_hash(&plan, plan_hash)?;
    Ok((plan, cluster.describe()))
}

async fn connect(spec: &ClusterSpec, reporter: &Reporter) -> Result<Cluster, ItemError> {
    Cluster::connect(Some(spec), RequestLimits::default(), reporter).await.map_err(ItemError::Access)
}

/// Adds the UID of the cluster in the backup.
pub(super) fn of_item(config: &RestoreConfig, item: &Item) -> RestoreConfig {
    let uid = item.facts.get("cluster_uid").and_then(|uid| uid.as_str());
    RestoreConfig { cluster_uid: uid.map(str::to_owned), ..config.clone() }
}

fn require_hash(plan: &Plan, expected: Option<&str>) -> Result<(), ItemError> {
    match expected.filter(|expected| !plan.hash.starts_with(*expected)) {
        Some(expected) => {
            Err(ItemError::PlanChanged { expected: expected.to_owned(), actual: plan.hash.clone() })
        }
        None => Ok(()),
    }
}
