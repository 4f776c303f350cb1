//! The preflight: tries everything that a plan needs, before the night it needs it.
//!
//! ```text
//! keys ──> store, repository │ cluster, rights, coverage │ databases │ folders ──> findings
//! ```
//!
//! Every part is tried for real: the store is probed, each kind is listed, each database is asked,
//! each owner is encrypted to. Nothing is written but the store's probe, which the report names.
//! A part that fails does not keep the others from being tried; what could not be tried is said.

mod cluster;
mod coverage;
mod database;
mod folder;
mod keys;
mod repository;
mod store;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;

use crate::coverage::Watch;
use crate::pipeline::owner::{Owner, Prompt};
use crate::plan::{Glob, Problem};
use crate::report::event::Reporter;
use crate::report::failure::{Exit, Failure, causes};
use crate::source::database::DatabaseConfig;
use crate::source::kubernetes::{Cluster, Selection};
use crate::source::volume::VolumeOptions;
use crate::store::open::StoreOptions;
use crate::world::World;

pub use crate::store::probe::Weight;

/// How long each part may take. Far more than it needs where everything answers.
const PART: Duration = Duration::from_secs(90);

/// What is to be tried. Where a plan's words could not be turned into something to try, the reason
/// stands in its place and becomes a finding.
pub struct CheckJob {
    /// The plan's name.
    pub plan: String,
    /// What the plan's own text made somebody warn of.
    pub warnings: Vec<Problem>,
    /// Entries of `accept` whose time is over: item, and what is to be said.
    pub no_longer_accepted: Vec<(String, String)>,
    /// The store.
    pub store: StoreOptions,
    /// The writer's key file.
    pub writer_key: PathBuf,
    /// The epoch's secret.
    pub epoch_file: PathBuf,
    /// Whose signatures count beside the writer's.
    pub signers_file: Option<PathBuf>,
    /// Who can decrypt.
    pub owners: Vec<Owner>,
    /// Asks a person, where an owner's plugin must.
    pub prompt: Arc<dyn Prompt>,
    /// The cluster, if the plan reads one.
    pub cluster: Option<Result<ClusterJob, Failure>>,
    /// Databases by the item's name: how they are asked, and which are wanted.
    pub databases: Vec<(String, Result<DatabaseJob, Failure>)>,
    /// Folders by the item's name.
    pub folders: Vec<(String, PathBuf, VolumeOptions)>,
}

impl fmt::Debug for CheckJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckJob").field("plan", &self.plan).finish_non_exhaustive()
    }
}

/// A cluster to try.
#[derive(Debug)]
pub struct ClusterJob {
    /// How it is reached.
    pub cluster: Cluster,
    /// What of it is backed up; none where the plan declares no resources.
    pub selection: Option<Selection>,
    /// Whether the plan accepts that something which it names is not there.
    pub absent_accepted: bool,
    /// What else is looked for, if the plan wants that.
    pub coverage: Option<Watch>,
}

/// A database server to try.
#[derive(Debug)]
pub struct DatabaseJob {
    /// How it is asked.
    pub config: Box<DatabaseConfig>,
    /// Which of its databases; none for all.
    pub databases: Vec<Glob>,
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it concerns: `store`, `clock`, `writer`, `owners`, `cluster`, `rights`, an item.
    pub about: String,
    /// How much it matters.
    pub weight: Weight,
    /// What was found, in one line.
    pub what: String,
    /// What to do; a line each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// How long it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub millis: Option<u64>,
}

impl Finding {
    fn new(about: &str, weight: Weight, what: impl Into<String>) -> Self {
        Self { about: about.to_owned(), weight, what: what.into(), remedy: None, millis: None }
    }

    fn good(about: &str, what: impl Into<String>) -> Self {
        Self::new(about, Weight::Good, what)
    }

    fn note(about: &str, what: impl Into<String>) -> Self {
        Self::new(about, Weight::Note, what)
    }

    fn warning(about: &str, what: impl Into<String>) -> Self {
        Self::new(about, Weight::Warning, what)
    }

    fn problem(about: &str, what: impl Into<String>) -> Self {
        Self::new(about, Weight::Problem, what)
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    fn took(mut self, since: Instant) -> Self {
        self.millis = Some(u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// A failure of what was tried. Its causes and facts go into the line: a check goes on.
    fn failure(about: &str, failure: Failure) -> Self {
        let mut what = causes(&failure);
        for (label, value) in &failure.facts {
            what.push_str(&format!("; {label} {value}"));
        }
        Self { remedy: failure.remedy, ..Self::problem(about, what) }
    }
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Checked {
    /// The plan's name.
    pub plan: String,
    /// The repository, without credentials.
    pub repository: String,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// 0 or 2.
    pub exit: Exit,
    /// How many problems.
    pub problems: u64,
    /// How many warnings.
    pub warnings: u64,
    /// What was written, in words; none where the store could not be probed.
    pub wrote: Option<String>,
    /// Each thing that was tried.
    pub findings: Vec<Finding>,
}

/// Tries everything. Never fails itself: what fails is a finding.
pub async fn check(job: &CheckJob, world: &World, reporter: &Reporter) -> Checked {
    let started = world.clock.now();
    let about_plan = job.warnings.iter().map(|problem| {
        let mut finding = Finding::warning("plan", problem.to_string());
        finding.remedy.clone_from(&problem.remedy);
        finding
    });
    let over = job.no_longer_accepted.iter().map(|(item, message)| {
        Finding::warning("accept", format!("{item}: {message}")).remedy("mend the gap, or give it a new end")
    });
    let mut findings: Vec<Finding> = about_plan.chain(over).collect();
    let keys = keys::check(job, world).await;
    let (stored, cluster, databases, folders) = futures::join!(
        store::check(job, &keys, world, reporter),
        cluster::check(job, reporter),
        database::check(&job.databases, reporter),
        folder::check(&job.folders, world, reporter),
    );
    findings.extend(stored.findings);
    findings.extend(keys.findings);
    findings.extend(cluster);
    findings.extend(databases);
    findings.extend(folders);
    let count = |weight| findings.iter().filter(|finding| finding.weight == weight).count() as u64;
    let problems = count(Weight::Problem);
    Checked {
        plan: job.plan.clone(),
        repository: job.store.url.clone(),
        started,
        finished: world.clock.now(),
        exit: if problems == 0 { Exit::Safe } else { Exit::Usage },
        problems,
        warnings: count(Weight::Warning),
        wrote: stored.wrote,
        findings,
    }
}

/// The findings of a part, or that it took too long.
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
