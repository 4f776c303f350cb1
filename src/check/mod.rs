//! The preflight: tries everything that a plan needs before a backup needs it.
//!
//! ```text
//! keys ──> store, repository │ cluster, rights, coverage │ databases │ folders ──> findings
//! ```
//!
//! Every part is tried for real: the store is probed, each kind is listed, each database is queried, text is
//! encrypted to each owner. Only the store's probe is written, and the report names it. A part that fails
//! does not stop the others; parts that could not be tried are reported.

mod cluster;
mod database;
mod events;
mod folder;
mod keys;
mod receivers;
mod repository;
mod store;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;

use crate::backup::epoch_secret::EpochSecretPlace;
use crate::inventory::coverage::CoverageCheck;
use crate::keys::writer_key::WriterFileError;
use crate::keys::{Owner, Prompt};
use crate::kubernetes::{Cluster, Selection};
use crate::notify::CronJobEvents;
use crate::plan::{Glob, Notify, Problem};
use crate::report::{event::Reporter, outcome::Outcome};
use crate::runtime::Runtime;
use crate::source::{database::DatabaseConfig, volume::VolumeOptions};
use crate::store::{StoreError, options::StoreOptions};

pub use crate::store::probe::Severity;

/// The time limit of each part, far more than it needs if everything answers.
const PART: Duration = Duration::from_secs(90);

/// The input of a check. If a setting of the plan cannot be resolved, its error stands in its
/// place and becomes a finding.
pub struct CheckJob {
    /// The plan's name.
    pub plan: String,
    /// Warnings from the plan's text.
    pub warnings: Vec<Problem>,
    /// Entries of `accept` that have expired: the item, and the message.
    pub no_longer_accepted: Vec<(String, String)>,
    /// The store's address and options.
    pub store: StoreOptions,
    /// The writer's key file.
    pub writer_key: PathBuf,
    /// The place of the epoch's secret.
    pub epoch_secret: EpochSecretPlace,
    /// The file of pinned signers (`kbak.pub`), who are trusted beside the writer.
    pub signers_file: Option<PathBuf>,
    /// The owners, who can decrypt.
    pub owners: Vec<Owner>,
    /// Asks a person, if an owner's plugin needs it.
    pub prompt: Arc<dyn Prompt>,
    /// The cluster, if the plan reads one.
    pub cluster: Option<Result<ClusterJob, Unresolved>>,
    /// Databases by the item's name: connection and selection.
    pub databases: Vec<(String, Result<DatabaseJob, Unresolved>)>,
    /// Folders by the item's name.
    pub folders: Vec<(String, PathBuf, VolumeOptions)>,
    /// The receivers of notices.
    pub receivers: Vec<Notify>,
    /// The CronJob that gets Events.
    pub events: Option<CronJobEvents>,
}

/// A setting of the plan that cannot be resolved.
#[derive(Debug)]
pub struct Unresolved {
    /// The failure with its causes, in one line.
    pub what: String,
    /// The remedy, if there is one.
    pub remedy: Option<String>,
}

impl Unresolved {
    fn finding(&self, about: &str) -> Finding {
        Finding { remedy: self.remedy.clone(), ..Finding::problem(about, self.what.clone()) }
    }
}

/// A cluster to check.
#[derive(Debug)]
pub struct ClusterJob {
    /// The connection to the cluster.
    pub cluster: Cluster,
    /// The resources that are backed up; `None` if the plan declares none.
    pub selection: Option<Selection>,
    /// `true` if the plan accepts that something it names does not exist.
    pub absent_accepted: bool,
    /// The coverage check, if the plan wants it.
    pub coverage: Option<CoverageCheck>,
}

/// A database server to check.
#[derive(Debug)]
pub struct DatabaseJob {
    /// The connection settings.
    pub config: Box<DatabaseConfig>,
    /// Patterns for its databases; empty for all.
    pub databases: Vec<Glob>,
}

/// The result of one check.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// The subject: `store`, `clock`, `writer`, `owners`, `cluster`, `rights`, an item.
    pub about: String,
    /// The severity.
    pub weight: Severity,
    /// The finding, in one line.
    pub what: String,
    /// The remedy, in one or more lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The duration in milliseconds, if it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub millis: Option<u64>,
    /// The typed error, whose text and remedy the command line adds.
    #[serde(skip)]
    pub error: Option<CheckError>,
}

impl Finding {
    fn new(about: &str, weight: Severity, what: impl Into<String>) -> Self {
        Self { about: about.to_owned(), weight, what: what.into(), remedy: None, millis: None, error: None }
    }

    fn good(about: &str, what: impl Into<String>) -> Self {
        Self::new(about, Severity::Good, what)
    }

    fn note(about: &str, what: impl Into<String>) -> Self {
        Self::new(about, Severity::Note, what)
    }

    fn warning(about: &str, what: impl Into<String>) -> Self {
        Self::new(about, Severity::Warning, what)
    }

    fn problem(about: &str, what: impl Into<String>) -> Self {
        Self::new(about, Severity::Problem, what)
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    fn took(mut self, since: Instant) -> Self {
        self.measure(since);
        self
    }

    fn measure(&mut self, since: Instant) {
        self.millis = Some(u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX));
    }

    /// Creates a finding of an error. The command line knows its remedy.
    fn error(about: &str, error: impl Into<CheckError>) -> Self {
        let error = error.into();
        Self { error: Some(error), ..Self::problem(about, String::new()) }
    }
}

/// An error that is a finding.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The store returned an error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The writer's key files cannot be used.
    #[error(transparent)]
    Writer(#[from] WriterFileError),
}

/// The result of all checks.
#[derive(Debug, Serialize)]
pub struct CheckReport {
    /// The plan's name.
    pub plan: String,
    /// The repository, without credentials.
    pub repository: String,
    /// The start time.
    pub started: Timestamp,
    /// The end time.
    pub finished: Timestamp,
    /// The exit code: 0, or 2 if there are problems.
    pub exit: Outcome,
    /// The number of problems.
    pub problems: u64,
    /// The number of warnings.
    pub warnings: u64,
    /// A description of the objects written; `None` if the store could not be probed.
    pub wrote: Option<String>,
    /// The result of each check.
    pub findings: Vec<Finding>,
}

/// Runs all checks. It never fails itself: each failure is a finding.
pub async fn check(job: &CheckJob, runtime: &Runtime, reporter: &Reporter) -> CheckReport {
    let started = runtime.clock.now();
    let about_plan = job.warnings.iter().map(|problem| {
        let mut finding = Finding::warning("plan", problem.to_string());
        finding.remedy.clone_from(&problem.remedy);
        finding
    });
    let over = job.no_longer_accepted.iter().map(|(item, message)| {
        Finding::warning("accept", format!("{item}: {message}")).remedy("mend the gap, or give it a new end")
    });
    let mut findings: Vec<Finding> = about_plan.chain(over).collect();
    let keys = keys::check(job, runtime, reporter).await;
    let (stored, cluster, databases, folders, events) = futures::join!(
        store::check(job, &keys, runtime, reporter),
        cluster::check(job, reporter),
        database::check(&job.databases, reporter),
        folder::check(&job.folders, runtime, reporter),
        events::check(job.events.as_ref()),
    );
    findings.extend(stored.findings);
    findings.extend(keys.findings);
    findings.extend(cluster);
    findings.extend(databases);
    findings.extend(folders);
    findings.extend(events);
    findings.extend(receivers::check(&job.receivers));
    let count = |weight| findings.iter().filter(|finding| finding.weight == weight).count() as u64;
    let problems = count(Severity::Problem);
    CheckReport {
        plan: job.plan.clone(),
        repository: job.store.url.clone(),
        started,
        finished: runtime.clock.now(),
        exit: if problems == 0 { Outcome::Safe } else { Outcome::Usage },
        problems,
        warnings: count(Severity::Warning),
        wrote: stored.wrote,
        findings,
    }
}

/// Returns the findings of a part, or one that it took too long.
async fn within(about: &str, part: impl Future<Output = Vec<Finding>>) -> Vec<Finding> {
    match tokio::time::timeout(PART, part).await {
        Ok(findings) => findings,
        Err(_) => {
            let what = format!("no answer within {} s", PART.as_secs());
            let remedy = "look at the address, at firewalls and NetworkPolicies between here and there";
            vec![Finding::problem(about, what).remedy(remedy)]
        }
    }
}
