//! Turns the declarations of a plan into sources that a run reads: clusters, databases, folders.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::key_files::read_text;
use crate::backup::item::{ItemJob, ItemSource};
use crate::cli::failure::{Exit, Failure};
use crate::inventory::coverage::{self, CoverageCheck, DeclaredScope};
use crate::kubernetes::{ApiError, Cluster, ClusterAccess, RequestLimits, Selection};
use crate::plan::{
    self, AcceptedGap, BackupPlan, BackupSpec, ClusterSpec, DatabaseEngine, DatabaseSpec, Glob, ItemName,
    ResourcesSpec, VolumeSpec,
};
use crate::report::error::causes;
use crate::report::event::Reporter;
use crate::source::database::{DatabaseConfig, Password, default_config, parse_url, password_variable};
use crate::source::kubernetes::ResourcesConfig;
use crate::source::volume::VolumeOptions;

/// Returns a job for each item of a plan. Connects to the cluster if the plan declares resources.
pub(crate) async fn item_jobs(plan: &BackupPlan, reporter: &Reporter) -> Result<Vec<ItemJob>, Failure> {
    let spec = &plan.spec;
    let mut jobs = Vec::new();
    if let Some(resources) = &spec.resources {
        let cluster = connect(spec.cluster.as_ref(), reporter).await?;
        let config = resources_config(resources, spec.limits.memory.get())?;
        let work = ItemSource::Resources { cluster: Box::new(cluster), config };
        jobs.push(ItemJob { name: ItemName::Resources.to_string(), work });
    }
    for database in &spec.databases {
        let databases = database_globs(&database.databases)?;
        let config = Box::new(database_config(database)?);
        jobs.push(ItemJob {
            name: database.item().to_string(),
            work: ItemSource::Database { config, databases },
        });
    }
    for volume in &spec.volumes {
        jobs.extend(folder_job(volume));
    }
    Ok(jobs)
}

/// Connects to the cluster that the plan or the arguments name.
pub(crate) async fn connect(spec: Option<&ClusterSpec>, reporter: &Reporter) -> Result<Cluster, Failure> {
    connect_with_deadlines(spec, RequestLimits::default(), reporter).await
}

/// Connects for a restore with ten tries, about two minutes in all, so that it outlasts the restart of an
/// API server. A restore has no revision that could expire meanwhile.
pub(crate) async fn connect_for_restore(spec: &ClusterSpec, reporter: &Reporter) -> Result<Cluster, Failure> {
    connect_with_deadlines(Some(spec), RequestLimits { tries: 10, ..RequestLimits::default() }, reporter)
        .await
}

/// Connects to a cluster with the given deadlines.
pub(crate) async fn connect_with_deadlines(
    spec: Option<&ClusterSpec>,
    deadlines: RequestLimits,
    reporter: &Reporter,
) -> Result<Cluster, Failure> {
    let access = spec.map_or_else(ClusterAccess::default, |spec| ClusterAccess {
        kubeconfig: spec.kubeconfig_file.clone(),
        context: spec.context.clone(),
    });
    Cluster::connect(&access, deadlines, reporter.clone()).await.map_err(access_failure)
}

fn access_failure(error: ApiError) -> Failure {
    Failure::new(Exit::Usage, "there is no access to a cluster")
        .because(error)
        .remedy("give --kubeconfig or --context, or cluster: in the plan; in a pod, a ServiceAccount")
}

pub(crate) fn resources_config(resources: &ResourcesSpec, memory: u64) -> Result<ResourcesConfig, Failure> {
    let selection = Selection {
        namespaces: globs(&resources.namespaces.include)?,
        exclude_namespaces: globs(&resources.namespaces.exclude)?,
        kinds: globs(&resources.kinds.include)?,
        exclude_kinds: globs(&resources.kinds.exclude)?,
        labels: resources.selector.clone(),
        cluster_scoped: resources.cluster_scoped,
    };
    // List pages share the memory with the pipeline's buffers; an eighth leaves enough for those.
    let budget = usize::try_from(memory / 8).unwrap_or(usize::MAX);
    let budget = budget.clamp(ResourcesConfig::LEAST_BUDGET, 64 << 20);
    let consistency = resources.consistency;
    Ok(ResourcesConfig { selection, budget, consistency, ..ResourcesConfig::default() })
}

pub(crate) fn globs(patterns: &[String]) -> Result<Vec<Glob>, Failure> {
    patterns.iter().map(|pattern| Glob::new(pattern).map_err(invalid_pattern)).collect()
}

/// Parses patterns for names of databases, which may contain any character.
pub(crate) fn database_globs(patterns: &[String]) -> Result<Vec<Glob>, Failure> {
    patterns.iter().map(|pattern| Glob::with_escapes(pattern).map_err(invalid_pattern)).collect()
}

fn invalid_pattern(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::new(Exit::Usage, "invalid pattern").because(error)
}

fn folder_job(volume: &VolumeSpec) -> Option<ItemJob> {
    let (name, path, options) = folder_options(volume)?;
    Some(ItemJob { name, work: ItemSource::Folder { path, options } })
}

/// Returns a folder's item name, path and read options; `None` if the volume has no path.
pub(crate) fn folder_options(volume: &VolumeSpec) -> Option<(String, PathBuf, VolumeOptions)> {
    let path = volume.path.clone()?;
    let name = volume.items().first()?.to_string();
    let options = VolumeOptions { exclude: volume.exclude.clone(), ..VolumeOptions::default() };
    Some((name, path, options))
}

/// Returns the connection settings of a database. The plan's check has already refused settings that
/// this version of kbak does not support.
pub(crate) fn database_config(database: &DatabaseSpec) -> Result<DatabaseConfig, Failure> {
    let host = database.host.clone().unwrap_or_default();
    let mut config = default_config(database.engine, &database.name, &host)
        .map_err(|error| Failure::new(Exit::Usage, "the database cannot be used").because(error))?;
    config.port = database.port.unwrap_or(config.port);
    match (&database.user, &database.user_file) {
        (Some(user), _) => config.user.clone_from(user),
        (None, Some(file)) => {
            let text = read_text(file, "the user's name")?;
            config.user = text.lines().next().unwrap_or_default().trim().to_owned();
        }
        (None, None) => {}
    }
    config.password_file.clone_from(&database.password_file);
    config.password = environment_password(database.engine, &database.password_file);
    config.tls = database.tls;
    config.ca_file.clone_from(&database.ca_file);
    Ok(config)
}

/// Returns the password from the environment variable of the engine's own tools; a password file takes
/// precedence.
pub(crate) fn environment_password(engine: DatabaseEngine, file: &Option<PathBuf>) -> Option<Password> {
    if file.is_some() { None } else { std::env::var(password_variable(engine)?).ok().map(Password::new) }
}

/// Parses `--database URL` into a database as plans declare it.
pub(crate) fn parse_database_url(url: &str, password_file: Option<&Path>) -> Result<DatabaseSpec, Failure> {
    let (config, name) = parse_server_url(url)?;
    let item =
        name.as_deref().and_then(plan::sanitize_item_name).unwrap_or_else(|| config.engine.name().into());
    let mut database = DatabaseSpec::at(item, config.engine, config.host);
    database.port = Some(config.port);
    database.user = Some(config.user);
    database.databases = name.map_or_else(|| vec!["*".into()], |name| vec![Glob::escape(&name)]);
    database.password_file = password_file.map(Path::to_owned);
    database.tls = config.tls;
    database.ca_file = config.ca_file;
    Ok(database)
}

/// Parses the URL of a database server. Errors never quote the URL, which may hold a secret.
pub(crate) fn parse_server_url(url: &str) -> Result<(DatabaseConfig, Option<String>), Failure> {
    parse_url(url).map_err(|error| {
        Failure::new(Exit::Usage, "--database: invalid address").because(error).remedy(
            "write postgresql://user@host:5432/name?sslmode=verify-full, with --database-password-file",
        )
    })
}

/// Prepares the search for undeclared items, if the plan wants coverage. An unreachable cluster causes a
/// warning here, and a failure of the items that need it.
pub(crate) async fn coverage_check(
    spec: &BackupSpec,
    accept: Vec<(String, String)>,
    reporter: &Reporter,
) -> Option<CoverageCheck> {
    if !coverage::is_wanted(spec) {
        return None;
    }
    // Items that read the cluster try more often, and report an outage in more detail.
    let deadlines = RequestLimits { tries: 2, ..RequestLimits::default() };
    let cluster = match connect_with_deadlines(spec.cluster.as_ref(), deadlines, reporter).await {
        Ok(cluster) => cluster,
        Err(failure) => {
            reporter.warn("coverage", format!("not checked: {}", causes(&failure)));
            return None;
        }
    };
    coverage_check_in(spec, cluster, accept).ok()
}

/// Prepares the search for undeclared items in a connected cluster.
pub(crate) fn coverage_check_in(
    spec: &BackupSpec,
    cluster: Cluster,
    accept: Vec<(String, String)>,
) -> Result<CoverageCheck, Failure> {
    let selection = spec.resources.as_ref().map(|resources| {
        resources_config(resources, spec.limits.memory.get()).map(|config| config.selection)
    });
    let declared = DeclaredScope::of(spec, selection.transpose()?);
    Ok(CoverageCheck { cluster, declared, strict: spec.coverage == Some(plan::CoverageMode::Strict), accept })
}

/// Returns the gaps that the plan accepts today, each as item and code.
pub(crate) fn accepted_gaps(accept: &[AcceptedGap], now: Timestamp) -> Vec<(String, String)> {
    let current = accept.iter().filter(|accept| !is_expired(accept, now));
    current.map(|accept| (accept.item.clone(), accept.gap.clone())).collect()
}

/// Returns the expired entries of `accept`, each as item and warning.
pub(crate) fn expired_acceptances(accept: &[AcceptedGap], now: Timestamp) -> Vec<(String, String)> {
    let expired = accept.iter().filter(|accept| is_expired(accept, now));
    let warning = |accept: &AcceptedGap| {
        let message = format!("the gap {} was accepted until {}: it counts again", accept.gap, accept.until);
        (accept.item.clone(), message)
    };
    expired.map(warning).collect()
}

fn is_expired(accept: &AcceptedGap, now: Timestamp) -> bool {
    accept.until.date() < now.to_zoned_datetime(jiff::tz::TimeZone::UTC).date()
}
