//! Makes the job of a backup from a plan: its clusters, databases and folders as sources.

use std::sync::Arc;

use jiff::Timestamp;

use super::error::JobError;
use super::item::{ItemJob, ItemSource};
use super::job::BackupJob;
use crate::format::epoch::Parameters;
use crate::inventory::coverage::{self, CoverageCheck};
use crate::keys::Prompt;
use crate::kubernetes::{Cluster, RequestLimits};
use crate::plan::{BackupPlan, BackupSpec, DatabaseSpec, Glob, ItemName};
use crate::report::error::causes;
use crate::report::event::Reporter;
use crate::repository::epoch::create::{EpochDurations, EpochSettings};
use crate::source::database::DatabaseConfig;
use crate::source::kubernetes::ResourcesConfig;
use crate::source::volume::declared_folder;

/// The choices for one run that a plan does not make.
pub struct RunChoices {
    /// This machine's name.
    pub host: String,
    /// True to open a new epoch.
    pub new_epoch: bool,
    /// True if the owners of a new epoch may be others than those of the last.
    pub change_owners: bool,
    /// True if each compressed chunk is decompressed and compared before it is stored.
    pub prove: bool,
    /// True if the scan cache may be used.
    pub use_cache: bool,
    /// Asks a person, if an owner's plugin needs it.
    pub prompt: Arc<dyn Prompt>,
}

impl BackupJob {
    /// Makes the job of a plan. Connects to the cluster if the plan declares resources or wants coverage,
    /// and warns of accepted gaps that count again.
    ///
    /// # Errors
    /// [`JobError`] for a cluster without access, an invalid pattern, an unusable database.
    pub async fn from_plan(
        plan: &BackupPlan,
        choices: RunChoices,
        now: Timestamp,
        reporter: &Reporter,
    ) -> Result<Self, JobError> {
        let spec = &plan.spec;
        for (item, message) in spec.expired_acceptances(now) {
            reporter.warn(item, message);
        }
        let accept = spec.accepted_gaps(now);
        let cluster = connect(spec, reporter).await?;
        let coverage = cluster.as_ref().filter(|_| coverage::is_wanted(spec));
        // Items that read the cluster try more often, and report an outage in more detail.
        let limits = RequestLimits { tries: 2, ..RequestLimits::default() };
        let coverage = coverage
            .and_then(|cluster| CoverageCheck::of(spec, cluster.with_limits(limits), accept.clone()).ok());
        Ok(Self {
            plan: plan.name().to_owned(),
            host: choices.host,
            items: item_jobs(spec, cluster.as_ref())?,
            epoch: EpochSettings {
                owners: spec.owners(),
                life: epoch_durations(Some(spec)),
                parameters: Parameters::default(),
                new_epoch: choices.new_epoch,
                change_owners: choices.change_owners,
                prompt: choices.prompt,
            },
            memory: spec.limits.memory.get(),
            level: spec.compression_level.map(i32::from),
            prove: choices.prove,
            use_cache: choices.use_cache,
            next: spec.schedule.map(|schedule| schedule.next.duration().as_secs()),
            accept,
            coverage,
        })
    }
}

/// Connects to the cluster if the plan declares resources or wants coverage. Without access, the coverage alone
/// is not checked, with a warning.
async fn connect(spec: &BackupSpec, reporter: &Reporter) -> Result<Option<Cluster>, JobError> {
    if spec.resources.is_none() && !coverage::is_wanted(spec) {
        return Ok(None);
    }
    match Cluster::connect(spec.cluster.as_ref(), RequestLimits::default(), reporter).await {
        Ok(cluster) => Ok(Some(cluster)),
        Err(error) if spec.resources.is_some() => Err(error.into()),
        Err(error) => {
            reporter.warn("coverage", format!("not checked: {}", causes(&JobError::from(error))));
            Ok(None)
        }
    }
}

/// Returns a job for each item.
fn item_jobs(spec: &BackupSpec, cluster: Option<&Cluster>) -> Result<Vec<ItemJob>, JobError> {
    let mut jobs = Vec::new();
    if let (Some(resources), Some(cluster)) = (&spec.resources, cluster) {
        let config = ResourcesConfig::of(resources, spec.limits.memory.get())?;
        let work = ItemSource::Resources { cluster: Box::new(cluster.clone()), config };
        jobs.push(ItemJob { name: ItemName::Resources.to_string(), work });
    }
    for database in &spec.databases {
        let (config, databases) = database_source(database)?;
        let work = ItemSource::Database { config, databases };
        jobs.push(ItemJob { name: database.item().to_string(), work });
    }
    jobs.extend(spec.volumes.iter().filter_map(declared_folder).map(|(name, path, options)| {
        let work = ItemSource::Folder { path, options };
        ItemJob { name, work }
    }));
    Ok(jobs)
}

/// Returns the connection to a database server, and the patterns of its databases.
///
/// # Errors
/// [`JobError`] for an invalid pattern, an unusable setting, a user's name that cannot be read.
pub fn database_source(database: &DatabaseSpec) -> Result<(Box<DatabaseConfig>, Vec<Glob>), JobError> {
    let databases = Glob::parse_all_with_escapes(&database.databases)?;
    Ok((Box::new(DatabaseConfig::of(database)?), databases))
}

/// Returns the lifetimes of epochs in seconds, from a plan or by default.
#[must_use]
pub fn epoch_durations(spec: Option<&BackupSpec>) -> EpochDurations {
    let epoch = spec.map(|spec| spec.epoch).unwrap_or_default();
    let lock = spec.and_then(|spec| spec.repository.object_lock);
    EpochDurations {
        max_age: epoch.age(spec.and_then(|spec| spec.retention.as_ref())).duration().as_secs(),
        max_run: epoch.max_run.duration().as_secs(),
        keep: lock.map(|lock| lock.keep.duration().as_secs()),
    }
}
