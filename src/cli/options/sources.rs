//! Turns the declarations of a plan into sources that a run reads: clusters, databases, folders.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::backup::item::{ItemJob, Work};
use crate::cli::failure::{Exit, Failure};
use crate::inventory::coverage;
use crate::inventory::coverage::{Declared, Watch};
use crate::kubernetes::{ApiError, Cluster, ClusterAccess, ClusterScoped, Deadlines, Selection};
use crate::plan::{
    self, Accept, BackupPlan, Cluster as ClusterSpec, Database, Engine, Glob, ItemName, Resources, Spec, Tls,
    Volume,
};
use crate::report::error::causes;
use crate::report::event::Reporter;
use crate::source::database::{DatabaseConfig, Password, TlsMode};
use crate::source::kubernetes::ResourcesConfig;
use crate::source::volume::VolumeOptions;

/// Returns a job for each item of a plan. Connects to the cluster if the plan declares resources.
pub(crate) async fn jobs(plan: &BackupPlan, reporter: &Reporter) -> Result<Vec<ItemJob>, Failure> {
    let spec = &plan.spec;
    let mut jobs = Vec::new();
    if let Some(resources) = &spec.resources {
        let cluster = cluster(spec.cluster.as_ref(), reporter).await?;
        let config = resources_config(resources, spec.limits.memory.get())?;
        let work = Work::Resources { cluster: Box::new(cluster), config };
        jobs.push(ItemJob { name: ItemName::Resources.to_string(), work });
    }
    for database in &spec.databases {
        let databases = database_globs(&database.databases)?;
        let config = Box::new(database_config(database)?);
        jobs.push(ItemJob { name: database.item().to_string(), work: Work::Database { config, databases } });
    }
    for volume in &spec.volumes {
        jobs.extend(folder(volume));
    }
    Ok(jobs)
}

/// Connects to the cluster that the plan or the arguments name.
pub(crate) async fn cluster(spec: Option<&ClusterSpec>, reporter: &Reporter) -> Result<Cluster, Failure> {
    cluster_within(spec, Deadlines::default(), reporter).await
}

/// Connects for a restore with ten tries, about two minutes in all, so that it outlasts the restart of an
/// API server. A restore has no revision that could expire meanwhile.
pub(crate) async fn patient_cluster(spec: &ClusterSpec, reporter: &Reporter) -> Result<Cluster, Failure> {
    cluster_within(Some(spec), Deadlines { tries: 10, ..Deadlines::default() }, reporter).await
}

/// Connects to a cluster with the given deadlines.
pub(crate) async fn cluster_within(
    spec: Option<&ClusterSpec>,
    deadlines: Deadlines,
    reporter: &Reporter,
) -> Result<Cluster, Failure> {
    let access = spec.map_or_else(ClusterAccess::default, |spec| ClusterAccess {
        kubeconfig: spec.kubeconfig_file.clone(),
        context: spec.context.clone(),
    });
    Cluster::connect(&access, deadlines, reporter.clone()).await.map_err(no_access)
}

fn no_access(error: ApiError) -> Failure {
    Failure::new(Exit::Usage, "there is no access to a cluster")
        .because(error)
        .remedy("give --kubeconfig or --context, or cluster: in the plan; in a pod, a ServiceAccount")
}

pub(crate) fn resources_config(resources: &Resources, memory: u64) -> Result<ResourcesConfig, Failure> {
    let selection = Selection {
        namespaces: globs(&resources.namespaces.include)?,
        exclude_namespaces: globs(&resources.namespaces.exclude)?,
        kinds: globs(&resources.kinds.include)?,
        exclude_kinds: globs(&resources.kinds.exclude)?,
        labels: resources.selector.clone(),
        cluster_scoped: match resources.cluster_scoped {
            plan::ClusterScoped::Auto => ClusterScoped::Auto,
            plan::ClusterScoped::All => ClusterScoped::All,
            plan::ClusterScoped::None => ClusterScoped::None,
        },
    };
    // List pages share the memory with the pipeline's buffers; an eighth leaves enough for those.
    let budget = usize::try_from(memory / 8).unwrap_or(usize::MAX);
    let budget = budget.clamp(ResourcesConfig::LEAST_BUDGET, 64 << 20);
    let consistency = resources.consistency;
    Ok(ResourcesConfig { selection, budget, consistency, ..ResourcesConfig::default() })
}

pub(crate) fn globs(patterns: &[String]) -> Result<Vec<Glob>, Failure> {
    let glob = |pattern: &String| {
        Glob::new(pattern).map_err(|error| Failure::new(Exit::Usage, "a pattern is none").because(error))
    };
    patterns.iter().map(glob).collect()
}

/// Parses patterns for names of databases, which may contain any character.
pub(crate) fn database_globs(patterns: &[String]) -> Result<Vec<Glob>, Failure> {
    let glob = |pattern: &String| {
        Glob::of_any(pattern).map_err(|error| Failure::new(Exit::Usage, "a pattern is none").because(error))
    };
    patterns.iter().map(glob).collect()
}

fn folder(volume: &Volume) -> Option<ItemJob> {
    let (name, path, options) = folder_options(volume)?;
    Some(ItemJob { name, work: Work::Folder { path, options } })
}

/// Returns a folder's item name, path and read options; `None` if the volume has no path.
pub(crate) fn folder_options(volume: &Volume) -> Option<(String, PathBuf, VolumeOptions)> {
    let path = volume.path.clone()?;
    let name = volume.items().first()?.to_string();
    let options = VolumeOptions { exclude: volume.exclude.clone(), ..VolumeOptions::default() };
    Some((name, path, options))
}

/// Returns the connection settings of a database. The plan's check has already refused settings that
/// this version of kbak does not support.
pub(crate) fn database_config(database: &Database) -> Result<DatabaseConfig, Failure> {
    let host = database.host.clone().unwrap_or_default();
    let mut config = DatabaseConfig::postgresql(&database.name, &host);
    config.port = database.port.unwrap_or(config.port);
    match (&database.user, &database.user_file) {
        (Some(user), _) => config.user.clone_from(user),
        (None, Some(file)) => config.user = first_line(file, "the user's name")?,
        (None, None) => {}
    }
    config.password_file.clone_from(&database.password_file);
    config.password = environment_password(&database.password_file);
    config.tls = match database.tls {
        Tls::VerifyFull => TlsMode::VerifyFull,
        Tls::Require => TlsMode::Require,
        Tls::AllowPlaintext => TlsMode::AllowPlaintext,
    };
    config.ca_file.clone_from(&database.ca_file);
    Ok(config)
}

/// Returns the password from PGPASSWORD, PostgreSQL's own variable; a password file takes precedence.
pub(crate) fn environment_password(file: &Option<PathBuf>) -> Option<Password> {
    if file.is_some() { None } else { std::env::var("PGPASSWORD").ok().map(Password::new) }
}

fn first_line(file: &Path, what: &str) -> Result<String, Failure> {
    let mut text = String::new();
    std::fs::File::open(file).and_then(|file| file.take(4096).read_to_string(&mut text)).map_err(
        |error| {
            Failure::new(Exit::Usage, format!("{}: {what} cannot be read", file.display())).because(error)
        },
    )?;
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// Parses `--database URL` into a database as plans declare it.
pub(crate) fn database_argument(url: &str, password_file: Option<&Path>) -> Result<Database, Failure> {
    let (config, name) = server_argument(url)?;
    let item = name.as_deref().and_then(plan::item_name).unwrap_or_else(|| "postgresql".into());
    let mut database = Database::at(item, Engine::Postgresql, config.host);
    database.port = Some(config.port);
    database.user = Some(config.user);
    database.databases = name.map_or_else(|| vec!["*".into()], |name| vec![Glob::escape(&name)]);
    database.password_file = password_file.map(Path::to_owned);
    database.tls = match config.tls {
        TlsMode::VerifyFull => Tls::VerifyFull,
        TlsMode::Require => Tls::Require,
        TlsMode::AllowPlaintext => Tls::AllowPlaintext,
    };
    database.ca_file = config.ca_file;
    Ok(database)
}

/// Parses the URL of a database server. Errors never quote the URL, which may hold a secret.
pub(crate) fn server_argument(url: &str) -> Result<(DatabaseConfig, Option<String>), Failure> {
    DatabaseConfig::from_url(url).map_err(|error| {
        Failure::new(Exit::Usage, "--database takes no such address").because(error).remedy(
            "write postgresql://user@host:5432/name?sslmode=verify-full, with --database-password-file",
        )
    })
}

/// Prepares the search for undeclared items, if the plan wants coverage. An unreachable cluster causes a
/// warning here, and a failure of the items that need it.
pub(crate) async fn watch(spec: &Spec, accept: Vec<(String, String)>, reporter: &Reporter) -> Option<Watch> {
    if !coverage::is_wanted(spec) {
        return None;
    }
    // Items that read the cluster try more often, and report an outage in more detail.
    let deadlines = Deadlines { tries: 2, ..Deadlines::default() };
    let cluster = match cluster_within(spec.cluster.as_ref(), deadlines, reporter).await {
        Ok(cluster) => cluster,
        Err(failure) => {
            reporter.warn("coverage", format!("not looked at: {}", causes(&failure)));
            return None;
        }
    };
    watch_of(spec, cluster, accept).ok()
}

/// Prepares the search for undeclared items in a connected cluster.
pub(crate) fn watch_of(
    spec: &Spec,
    cluster: Cluster,
    accept: Vec<(String, String)>,
) -> Result<Watch, Failure> {
    let selection = spec.resources.as_ref().map(|resources| {
        resources_config(resources, spec.limits.memory.get()).map(|config| config.selection)
    });
    let declared = Declared::of(spec, selection.transpose()?);
    Ok(Watch { cluster, declared, strict: spec.coverage == Some(plan::Coverage::Strict), accept })
}

/// Returns the gaps that the plan accepts today, each as item and code.
pub(crate) fn accepted(accept: &[Accept], now: Timestamp) -> Vec<(String, String)> {
    let current = accept.iter().filter(|accept| !is_over(accept, now));
    current.map(|accept| (accept.item.clone(), accept.gap.clone())).collect()
}

/// Returns the expired entries of `accept`, each as item and warning.
pub(crate) fn no_longer_accepted(accept: &[Accept], now: Timestamp) -> Vec<(String, String)> {
    let over = accept.iter().filter(|accept| is_over(accept, now));
    let told = |accept: &Accept| {
        let message = format!("the gap {} was accepted until {}: it counts again", accept.gap, accept.until);
        (accept.item.clone(), message)
    };
    over.map(told).collect()
}

fn is_over(accept: &Accept, now: Timestamp) -> bool {
    accept.until.date() < now.to_zoned_datetime(jiff::tz::TimeZone::UTC).date()
}
