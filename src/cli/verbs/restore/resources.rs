//! `kbak restore` of a cluster's resources: plans and applies them, or writes them as files.

use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;

use serde::Serialize;

use crate::cli::failure::reading_outcome;
use crate::cli::failure::{Exit, Failure};
use crate::cli::options::reading::OpenedSnapshot;
use crate::cli::options::resource_args;
use crate::cli::options::sources;
use crate::cli::verbs::restore;
use crate::cli::verbs::restore::targets::Done;
use crate::cli::verbs::restore::text;
use crate::cli::verbs::restore::{DryRun, RestoreArgs};
use crate::format::body::Item;
use crate::kubernetes::Cluster;
use crate::plan::{ClusterSpec, RestoreSpec};
use crate::report::event::{Meter, Reporter};
use crate::report::run::{GapReport, ObjectReport};
use crate::report::text::{count, plural, size};
use crate::restore::streams::SnapshotResources;
use crate::runtime::lock;
use crate::target::kubernetes::{
    Decision, DirectoryError, FileFormat, ObjectRef, Outcome, Plan, RestoreConfig, RestoreError,
    RestoreReport, UnmatchedSelector, Warning, find_unmatched_selectors, plan_resources, restore_resources,
    write_directory,
};

/// The number of objects that a report lists.
const OBJECTS: usize = 10_000;
/// The minimum length of `--plan-hash`, in hex digits.
const HASH: usize = 8;

/// Restores an item's resources into a cluster or into files.
pub(crate) async fn restore(
    args: &RestoreArgs,
    opened: &OpenedSnapshot,
    item: &Item,
    spec: &RestoreSpec,
    cluster: &ClusterSpec,
    reporter: &Reporter,
    meter: &Meter,
) -> Result<Done, Failure> {
    let source = SnapshotResources::new(&opened.snapshot, item)?;
    let config = config(spec, item)?;
    if let Some(folder) = &args.resources_to {
        return files(&source, folder, &config, item).await;
    }
    // A wrong address fails soon; once objects are written, the client waits for an outage to end.
    let quick = sources::connect(Some(cluster), reporter).await?;
    let cluster = sources::connect_for_restore(cluster, reporter).await?;
    let planned = reporter.meter("plan", "objects");
    let plan = plan_resources(&quick, &source, &config, false, &mut |_| {}, &planned).await;
    planned.end();
    let plan = plan.map_err(|error| stopped(error, None))?;
    held_to(args, &plan)?;
    for warning in text::warnings(&plan) {
        reporter.warn(item.name.clone(), warning);
    }
    apply(args, &cluster, &source, &config, item, reporter, meter).await
}

/// Builds the config of a restore from its RestorePlan and the item's cluster UID.
fn config(spec: &RestoreSpec, item: &Item) -> Result<RestoreConfig, Failure> {
    let uid = item.facts.get("cluster_uid").and_then(|uid| uid.as_str());
    resource_args::config(spec, uid.map(str::to_owned))
}

/// Returns the selectors that match no object of the item, for a restore to files.
pub(crate) async fn absent(
    opened: &OpenedSnapshot,
    item: &Item,
    spec: &RestoreSpec,
) -> Result<Vec<UnmatchedSelector>, Failure> {
    let source = SnapshotResources::new(&opened.snapshot, item)?;
    let config = config(spec, item)?;
    find_unmatched_selectors(&source, &config).await.map_err(|error| unwritten(error.into()))
}

/// Plans the restore without applying it. `told` is called with the decision for each object.
pub(crate) async fn plan(
    args: &RestoreArgs,
    opened: &OpenedSnapshot,
    item: &Item,
    spec: &RestoreSpec,
    reporter: &Reporter,
    told: &mut (dyn FnMut(&Decision) + Send),
) -> Result<Plan, Failure> {
    let source = SnapshotResources::new(&opened.snapshot, item)?;
    let config = config(spec, item)?;
    let cluster = sources::connect(Some(&restore::cluster(args)), reporter).await?;
    let meter = reporter.meter(&item.name, "objects");
    let server = args.dry_run == Some(DryRun::Server);
    let plan = plan_resources(&cluster, &source, &config, server, told, &meter).await;
    meter.end();
    let plan = plan.map_err(|error| stopped(error, None))?;
    held_to(args, &plan)?;
    Ok(plan)
}

fn held_to(args: &RestoreArgs, plan: &Plan) -> Result<(), Failure> {
    let Some(wanted) = &args.resources.plan_hash else { return Ok(()) };
    let wanted = wanted.trim_end_matches('…').to_lowercase();
    if wanted.len() < HASH {
        return Err(Failure::new(Exit::Usage, format!("--plan-hash takes at least {HASH} digits")));
    }
    if plan.hash.starts_with(&wanted) {
        return Ok(());
    }
    Err(Failure::new(Exit::Usage, "the plan is another than the one of --plan-hash; nothing was changed")
        .fact("asked for", wanted)
        .fact("would be done", plan.hash.clone())
        .remedy("the cluster, the snapshot or the arguments have changed: look at it again with --dry-run"))
}

async fn files(
    source: &SnapshotResources,
    folder: &Path,
    config: &RestoreConfig,
    item: &Item,
) -> Result<Done, Failure> {
    let written = write_directory(source, folder, FileFormat::Yaml, config).await.map_err(unwritten)?;
    let files = plural(written.files, "file", "files");
    let summary = format!("{files}, {} beneath {}", size(written.bytes), folder.display());
    Ok(Done::new(item, summary, text::absent(&written.absent)))
}

fn unwritten(error: DirectoryError) -> Failure {
    let (exit, remedy) = match &error {
        DirectoryError::Restore(RestoreError::Damaged { .. }) => (Exit::Damaged, None),
        DirectoryError::Restore(error) => (reading_outcome(error).unwrap_or(Exit::Usage), None),
        DirectoryError::Io { .. } => (Exit::Partial, Some("make room, and write into a new folder")),
        DirectoryError::Exists(_) => (Exit::Usage, Some("write into a new folder")),
        _ => (Exit::Usage, None),
    };
    let failure = Failure::new(exit, "the resources cannot be written as files").because(error);
    if let Some(remedy) = remedy { failure.remedy(remedy) } else { failure }
}

/// Returns the failure of a restore that stopped early. `created` is `None` if it was only planned.
fn stopped(error: RestoreError, created: Option<u64>) -> Failure {
    let so_far = created.map_or("nothing was changed".to_owned(), |created| {
        format!("{} that were created stay", plural(created, "object", "objects"))
    });
    let what = format!("the restore into the cluster stopped; {so_far}");
    let (exit, remedy) = match &error {
        RestoreError::Damaged { .. } => (Exit::Damaged, "kbak verify says what is damaged"),
        RestoreError::Stream { .. } => match reading_outcome(&error).unwrap_or(Exit::Damaged) {
            Exit::Damaged => (Exit::Damaged, "kbak verify says what is damaged"),
            exit => (exit, "run it again: what is there is left alone"),
        },
        RestoreError::Api(error) if error.code() == Some(401) => (
            if created.is_none() { Exit::Usage } else { Exit::Partial },
            "the API server does not take these credentials (any more); get new ones and run it again",
        ),
        RestoreError::Api(_) => (Exit::Unreachable, "run it again: what is there is left alone"),
    };
    Failure::new(exit, what).because(error).remedy(remedy)
}

/// Records the outcome of each object, in a file and for the report.
struct Told {
    file: Option<Mutex<std::io::BufWriter<std::fs::File>>>,
    failed: Mutex<Option<std::io::Error>>,
    objects: Mutex<(Vec<ObjectReport>, u64)>,
    created: std::sync::atomic::AtomicU64,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    object: &'a ObjectRef,
    #[serde(flatten)]
    outcome: &'a Outcome,
}

impl Told {
    fn new(file: Option<&Path>) -> Result<Self, Failure> {
        let open = |file: &Path| {
            std::fs::File::create(file).map(|file| Mutex::new(std::io::BufWriter::new(file))).map_err(
                |error| {
                    Failure::new(Exit::Usage, format!("{}: --outcomes cannot be written", file.display()))
                        .because(error)
                },
            )
        };
        Ok(Self {
            file: file.map(open).transpose()?,
            failed: Mutex::new(None),
            objects: Mutex::default(),
            created: std::sync::atomic::AtomicU64::new(0),
        })
    }

    fn tell(&self, object: &ObjectRef, outcome: &Outcome) {
        if let Some(file) = &self.file {
            let mut file = lock(file);
            let written = serde_json::to_writer(&mut *file, &Line { object, outcome })
                .map_err(std::io::Error::from)
                .and_then(|()| file.write_all(b"\n"));
            if let Err(error) = written {
                lock(&self.failed).get_or_insert(error);
            }
        }
        if *outcome == Outcome::Created {
            self.created.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            return;
        }
        let mut objects = lock(&self.objects);
        if objects.0.len() < OBJECTS {
            objects.0.push(text::object(object, outcome));
        } else {
            objects.1 += 1;
        }
    }

    /// Flushes the file, and returns the objects with another outcome than `Created`.
    fn finish(self, reporter: &Reporter) -> Vec<ObjectReport> {
        let inner = |error: Mutex<Option<std::io::Error>>| {
            error.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
        };
        let flushed = self.file.and_then(|file| {
            file.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).flush().err()
        });
        if let Some(error) = inner(self.failed).or(flushed) {
            reporter.warn("--outcomes", format!("not all of it was written: {error}"));
        }
        let (objects, more) = self.objects.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        if more > 0 {
            reporter.warn("objects", format!("{more} more are not listed here; --outcomes FILE has all"));
        }
        objects
    }
}

async fn apply(
    args: &RestoreArgs,
    cluster: &Cluster,
    source: &SnapshotResources,
    config: &RestoreConfig,
    item: &Item,
    reporter: &Reporter,
    meter: &Meter,
) -> Result<Done, Failure> {
    let told = Told::new(args.resources.outcomes.as_deref())?;
    let tell = |object: &ObjectRef, outcome: &Outcome| told.tell(object, outcome);
    let report = restore_resources(cluster, source, config, &tell, meter).await;
    let created = told.created.load(std::sync::atomic::Ordering::Relaxed);
    let objects = told.finish(reporter);
    let report = report.map_err(|error| stopped(error, Some(created)))?;
    let mut done = finished(item, &report, reporter);
    done.objects = objects;
    Ok(done)
}

fn finished(item: &Item, report: &RestoreReport, reporter: &Reporter) -> Done {
    let skipped: u64 = report.skipped.values().sum();
    let mut parts = vec![format!("{} created", plural(report.created, "object", "objects"))];
    for (number, what) in [
        (report.existed, "there already and left alone"),
        (report.patched, "brought to what the backup says"),
        (report.replaced, "replaced"),
        (skipped, "left to the cluster, to Git or out of the profile"),
        (report.suspended, "suspended"),
        (report.held.values().sum(), "held back"),
        (report.relinked, "linked to their owners again"),
    ] {
        if number > 0 {
            parts.push(format!("{} {what}", count(number)));
        }
    }
    for warning in &report.warnings {
        let by = if let Warning::Server(_) = warning { "API server" } else { item.name.as_str() };
        reporter.warn(by, warning.text());
    }
    if report.owners_lost > 0 {
        let message =
            format!("{} left out: the owner is not there", plural(report.owners_lost, "owner", "owners"));
        reporter.warn(item.name.clone(), message);
    }
    let mut gaps: Vec<GapReport> = text::gaps(report);
    if report.is_whole() {
        gaps.clear();
    }
    let mut done = Done::new(item, parts.join(", "), gaps);
    done.remedy = text::remedy(report);
    done
}
