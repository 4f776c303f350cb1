//! `kbak restore`: restores the items of a snapshot one after the other.

mod asked_kinds;
mod databases;
mod preview;
mod resources;
pub(crate) mod targets;
mod text;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use tokio_util::sync::CancellationToken;

use crate::cli::failure::{Exit, Failure};
use crate::cli::options::reading;
use crate::cli::options::reading::OpenedSnapshot;
use crate::cli::options::resource_args;
use crate::cli::options::resource_args::ResourceArgs;
use crate::cli::options::restore_values::Allowed;
use crate::cli::options::run_report::{self, RunOutput};
use crate::cli::options::{OutputArgs, ReadArgs, RunArgs, check_memory};
use crate::cli::shell::console::Console;
use crate::cli::shell::signals;
use crate::cli::verbs::restore::targets::Done;
use crate::format::body::Item;
use crate::plan::{ClusterSpec, RestoreSpec};
use crate::report::event::{Event, Meter, Reporter};
use crate::report::item_state::ItemState;
use crate::report::run::{ItemReport, RunReport, SnapshotReport};
use crate::report::text::plural;
use crate::source::database::postgres::NO_ROLE_PASSWORDS;
use crate::target::volume::{Destination, ExistingFiles};

/// Arguments of `kbak restore`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  kbak restore latest --repo s3://backups/prod --identity owner.key --signer kbak.pub --dry-run
      what there is, and what would be done with it

  kbak restore latest … --item path/srv/uploads --to /srv/uploads
  kbak restore latest … --item path/srv/uploads --path 2026/invoices --to /tmp/found
  kbak restore latest … --item path/srv/uploads --tar | ssh host tar -x -C /srv
      a folder, a part of it, or as a tar stream

  kbak restore latest … --item shop --database \"postgresql://postgres@localhost?sslmode=disable\"
      every database of the item `shop`, with their roles

  kbak restore latest … --item resources --cluster --takeover --allow rbac,crds --dry-run
  kbak restore latest … --item resources --cluster --takeover --allow rbac,crds
      the cluster in place of the one that is gone: the plan first, then the same without --dry-run

  kbak restore latest … --item resources --cluster --namespace shop:shop-test
      a copy of a namespace beside it; it runs no jobs and publishes nothing until --release

  kbak restore latest … --item resources --cluster --existing replace --object secrets/shop/db
  kbak restore latest … --item resources --namespace shop --resources-to /tmp/objects
      one object as it was; or objects as files to look at

Nothing that exists is changed unless it is said. Running again goes on where a restore stopped
(--existing-files skip). Exit codes: 0 all restored, 3 something was not (it is named), 4 damaged.")]
pub struct RestoreArgs {
    /// latest, a number, or the first digits of a hash
    #[arg(value_name = "SNAPSHOT", default_value = "latest")]
    pub snapshot: String,
    /// Only this item; repeatable [default: all]
    #[arg(long, value_name = "NAME", help_heading = "Selection")]
    pub item: Vec<String>,
    /// Only this path of a folder; repeatable
    #[arg(long, value_name = "PATH", help_heading = "Selection")]
    pub path: Vec<OsString>,
    /// The target of a folder; several folders are restored into folders of their names in it
    #[arg(long, value_name = "FOLDER", help_heading = "Target", conflicts_with = "tar")]
    pub to: Option<PathBuf>,
    /// Write one folder as a tar stream to standard output
    #[arg(long, help_heading = "Target")]
    pub tar: bool,
    /// The handling of existing files
    #[arg(long, value_name = "ACTION", default_value = "refuse", help_heading = "Target")]
    pub existing_files: Existing,
    /// Create the resources in a cluster
    #[arg(long, help_heading = "Target")]
    pub cluster: bool,
    /// A kubeconfig file [default: the pod's ServiceAccount, KUBECONFIG, ~/.kube/config]
    #[arg(long, value_name = "FILE", requires = "cluster", help_heading = "Target")]
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig
    #[arg(long, value_name = "NAME", requires = "cluster", help_heading = "Target")]
    pub context: Option<String>,
    /// Write the resources as files
    #[arg(long, value_name = "FOLDER", help_heading = "Target", conflicts_with = "cluster")]
    pub resources_to: Option<PathBuf>,
    /// Restore databases into this server: postgresql://user@host:port?sslmode=…
    #[arg(long, value_name = "URL", help_heading = "Target")]
    pub database: Option<String>,
    /// Read the server's password from this file
    #[arg(long, value_name = "FILE", requires = "database", help_heading = "Target")]
    pub database_password_file: Option<PathBuf>,
    /// Drop existing databases of the same names first, with everything in them
    #[arg(long, requires = "database", help_heading = "Target")]
    pub replace_databases: bool,
    /// Make the restoring user the owner of everything in databases
    #[arg(long, requires = "database", help_heading = "Target")]
    pub no_owner: bool,
    /// Restore these kinds of objects and files, which grant rights or run as root; refused otherwise
    #[arg(long, value_name = "KIND", value_delimiter = ',', help_heading = "Target")]
    pub allow: Vec<Allowed>,
    /// Options for the restore of Kubernetes resources.
    #[command(flatten)]
    pub resources: ResourceArgs,
    /// Print the plan of the restore and change nothing
    #[arg(long, value_name = "MODE", num_args = 0..=1, require_equals = true,
        default_missing_value = "client", help_heading = "Run")]
    pub dry_run: Option<DryRun>,
    /// Options for the repository and the keys of its readers.
    #[command(flatten)]
    pub repository: ReadArgs,
    /// Options of the run: progress, limits and report files.
    #[command(flatten)]
    pub run: RunArgs,
    /// The output format of the report.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// The systems that a dry run reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DryRun {
    /// Read the backup, and the existing objects of the cluster
    Client,
    /// Also send each object to the API server, in a dry run
    Server,
}

/// The handling of files that exist in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Existing {
    /// Require an empty target
    Refuse,
    /// Keep existing files; this resumes a restore
    Skip,
    /// Replace existing files
    Overwrite,
    /// Replace existing files, and delete files that the backup does not contain
    DeleteExtra,
}

impl From<Existing> for ExistingFiles {
    fn from(existing: Existing) -> Self {
        match existing {
            Existing::Refuse => Self::Refuse,
            Existing::Skip => Self::Skip,
            Existing::Overwrite => Self::Overwrite,
            Existing::DeleteExtra => Self::DeleteExtra,
        }
    }
}

/// The remedy after an interruption.
const GO_ON: &str = "run it again: a folder goes on with --existing-files skip, a cluster by itself; drop the \
     database that was begun, and write files of resources into a new folder";

/// Runs `kbak restore`.
pub(crate) fn run(args: &RestoreArgs, console: &Console) -> Result<Exit, Failure> {
    let repository = args.repository.store.repo.clone().unwrap_or_default();
    let output = RunOutput { args: &args.run, format: args.output.output, console };
    let identities = check_memory(args.run.memory)
        .and_then(|()| reading::required_identities(&args.repository.reader))
        .map_err(|failure| output.report_failed_start("restore", &repository, None, failure))?;
    let memory = args.run.memory.map(crate::plan::Size::get);
    let mut report = run_report::start("restore", &repository, None);
    let display = output.start_display(memory);
    let reporter = display.reporter();
    // Half of the memory limit is for decrypted packs; the target and the runtime have the rest.
    let held = memory.map_or(reading::READER_MEMORY, |memory| memory / 2);
    let outcome = signals::until_stopped(&CancellationToken::new(), GO_ON, async {
        let opened =
            reading::open_snapshot(&args.repository, &args.snapshot, &identities, held, &reporter).await?;
        let items = chosen(args, &opened)?;
        targets::check(args, &items)?;
        let spec = wanted(args, &items)?;
        warn_of_gaps(&items, &reporter);
        if args.dry_run.is_some() {
            return Ok((
                head(&opened),
                None,
                Some(preview::make(args, &opened, &items, &spec, &reporter).await?),
            ));
        }
        Ok((head(&opened), Some(all(args, &opened, &items, &spec, &reporter).await?), None))
    });
    let failure = match outcome {
        Ok((_, _, Some(preview))) => {
            drop(display.finish());
            return preview.show(args.output.output, console);
        }
        Ok((snapshot, done, None)) => {
            fill(&mut report, snapshot, done.unwrap_or_default(), &reporter.meters());
            None
        }
        Err(failure) => Some(failure),
    };
    output.finish(report, failure.as_ref(), display, &reporter)
}

/// The sequence, hash and plan name of a snapshot.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) sequence: u64,
    pub(crate) hash: String,
    plan: String,
}

impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "snapshot {:06} of plan {}", self.sequence, self.plan)
    }
}

pub(crate) fn head(opened: &OpenedSnapshot) -> Head {
    let snapshot = opened.snapshot.snapshot();
    Head {
        sequence: snapshot.envelope().seq,
        hash: snapshot.manifest.hash().to_string(),
        plan: opened.snapshot.body().plan_name.clone(),
    }
}

/// Returns the selected items, outer folders before the folders inside them.
fn chosen<'a>(args: &RestoreArgs, opened: &'a OpenedSnapshot) -> Result<Vec<&'a Item>, Failure> {
    let mut items: Vec<&Item> = match args.item.as_slice() {
        [] => opened.snapshot.body().items.iter().collect(),
        names => {
            names.iter().map(|name| reading::find_item(&opened.snapshot, name)).collect::<Result<_, _>>()?
        }
    };
    // An outer folder comes first: it would take the files of an inner one for foreign files.
    let all = items.clone();
    items.sort_by_key(|item| all.iter().filter(|outer| lies_in(item, outer).is_some()).count());
    Ok(items)
}

/// Returns the RestorePlan for resources; the default if no item holds any. Invalid options are refused
/// before anything is changed.
fn wanted(args: &RestoreArgs, items: &[&Item]) -> Result<RestoreSpec, Failure> {
    let items: Vec<&Item> = items.iter().filter(|item| item.kind == "resources").copied().collect();
    if items.is_empty() {
        return Ok(RestoreSpec::default());
    }
    let spec = resource_args::spec(&args.resources, &args.allow)?;
    resource_args::config(&spec, None)?;
    if args.resources_to.is_some() && !args.cluster {
        resource_args::refuse_for_files(&spec)?;
    }
    asked_kinds::check(&spec, &items)?;
    Ok(spec)
}

fn warn_of_gaps(items: &[&Item], reporter: &Reporter) {
    for item in items.iter().filter(|item| item.notes.iter().any(|note| note.code == NO_ROLE_PASSWORDS)) {
        let what = "the backup has no passwords of roles: roles that are made have none until somebody sets \
                    them (ALTER ROLE … PASSWORD)";
        reporter.warn(item.name.clone(), what);
    }
    for item in items.iter().filter(|item| !item.state.is_safe()) {
        if item.state == ItemState::Anomalous {
            let what = "in this snapshot it holds less than half of its last good copy; kbak snapshots lists \
                        earlier ones";
            reporter.warn(item.name.clone(), what);
            continue;
        }
        let state = item.state.to_string();
        let gaps = plural(item.gaps.len() as u64, "gap", "gaps");
        reporter.warn(item.name.clone(), format!("it is not whole in this snapshot ({state}, {gaps})"));
    }
}

/// Restores the items one after the other. If one of several fails or is damaged, the others are still
/// restored; only an unreachable store or cluster, or an interruption, ends the run.
async fn all(
    args: &RestoreArgs,
    opened: &OpenedSnapshot,
    items: &[&Item],
    spec: &RestoreSpec,
    reporter: &Reporter,
) -> Result<Vec<Done>, Failure> {
    let cluster = cluster(args);
    let mut done = Vec::with_capacity(items.len());
    for item in items {
        reporter.event(Event::ItemStarted { item: item.name.clone() });
        let unit = if item.kind == "resources" { "objects" } else { "files" };
        let meter: Arc<Meter> =
            reporter.meter(&item.name, if item.kind == "database" { "bytes" } else { unit });
        let result = match item.kind.as_str() {
            "volume" => targets::folder(args, opened, item, items.len(), &meter).await,
            "database" => databases::restore(args, opened, item, &meter).await,
            "resources" => resources::restore(args, opened, item, spec, &cluster, reporter, &meter).await,
            other => Err(Failure::new(Exit::Usage, format!("{} is of the kind {other}", item.name))
                .remedy("this version does not restore it; kbak export gives its bytes")),
        };
        meter.end();
        let one = match result {
            Ok(one) => one,
            Err(failure)
                if matches!(failure.exit, Exit::Usage | Exit::Partial | Exit::Damaged) && items.len() > 1 =>
            {
                Done::failed(item, &failure)
            }
            Err(failure) => return Err(failure),
        };
        let state = if one.whole { "good" } else { "gap" };
        reporter.event(Event::ItemFinished {
            item: item.name.clone(),
            state: state.into(),
            summary: one.summary.clone(),
        });
        done.push(one);
    }
    Ok(done)
}

/// Returns the cluster that the arguments name.
pub(crate) fn cluster(args: &RestoreArgs) -> ClusterSpec {
    ClusterSpec { kubeconfig_file: args.kubeconfig.clone(), context: args.context.clone() }
}

fn fill(report: &mut RunReport, head: Head, done: Vec<Done>, meters: &[Arc<Meter>]) {
    report.exit = match done.iter().find(|one| !one.whole) {
        _ if done.iter().any(|one| one.damaged) => Exit::Damaged,
        Some(_) => Exit::Partial,
        None => Exit::Safe,
    };
    report.plan = Some(head.plan.clone());
    let missing = done.iter().filter(|one| !one.whole).count() as u64;
    let why = if report.exit == Exit::Damaged { ": the backup is damaged" } else { "" };
    report.verdict = match missing {
        0 => format!("{head} restored"),
        missing => format!("{head} restored, {} not whole{why}", plural(missing, "item", "items")),
    };
    report.snapshot = Some(SnapshotReport { sequence: head.sequence, hash: head.hash });
    report.items = done
        .into_iter()
        .map(|one| {
            let meter = run_report::meter(meters, &one.item);
            let reading = meter.map(Meter::read).unwrap_or_default();
            ItemReport {
                state: if one.whole { ItemState::Good } else { ItemState::Gap },
                summary: one.summary,
                unit: meter.map_or("", |meter| meter.unit).to_owned(),
                done: reading.done,
                bytes: reading.bytes,
                new_bytes: 0,
                gaps: one.gaps,
                objects: one.objects,
                newest_good: None,
                remedy: one.remedy,
                item: one.item,
            }
        })
        .collect();
}

/// Returns the target of a folder: `to`, or a folder of the item's name in it if there are several.
pub(crate) fn beneath(to: &Path, item: &Item, several: bool) -> Destination {
    let below = if several { item.name.trim_start_matches("path/") } else { "" };
    Destination { base: to.to_owned(), subfolder: PathBuf::from(below) }
}

/// Returns the path of the inner folder in the outer one; `None` if it is not inside.
pub(crate) fn lies_in<'a>(inner: &'a Item, outer: &Item) -> Option<&'a str> {
    let both = inner.kind == "volume" && outer.kind == "volume";
    inner.name.strip_prefix(&outer.name)?.strip_prefix('/').filter(|rest| both && !rest.is_empty())
}
