//! `kbak restore`: restores the items of a snapshot one after the other.

mod job;
mod objects;
mod preview;
mod report;
mod selected_kinds;
mod text;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Mutex;

use clap::{Args, ValueEnum};
use tokio_util::sync::CancellationToken;

use crate::cli::failure::{Exit, Failure};
use crate::cli::options::notices::Notices;
use crate::cli::options::reading::{self, OpenedSnapshot};
use crate::cli::options::resource_args::ResourceArgs;
use crate::cli::options::restore_values::Allowed;
use crate::cli::options::run_report::{self, RunOutput};
use crate::cli::options::{OutputArgs, ReadArgs, RunArgs, check_memory};
use crate::cli::shell::console::Console;
use crate::cli::shell::display::Display;
use crate::cli::shell::{prompt, signals};
use crate::format::body::Item;
use crate::report::event::Reporter;
use crate::report::item_state::ItemState;
use crate::report::run::{ItemReport, RunReport, SnapshotReport};
use crate::report::text::{plain, plural};
use crate::restore::job::RestoreJob;
use crate::runtime::lock;
use crate::source::database::postgres::NO_ROLE_PASSWORDS;
use crate::target::volume::ExistingFiles;
use objects::ObjectRecorder;
use preview::Preview;
use report::ReportBuilder;

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
    /// latest, a number, or the first six digits of a hash or more
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
    /// Drop databases without asking on the terminal first
    #[arg(long, requires = "replace_databases", help_heading = "Target")]
    pub yes: bool,
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
const RESUME: &str = "run it again: a folder goes on with --existing-files skip, a cluster by itself; drop the \
     database that was begun, and write files of resources into a new folder";

/// Runs `kbak restore`.
pub(crate) fn run(args: &RestoreArgs, console: &Console) -> Result<Exit, Failure> {
    let repository = args.repository.store.repo.clone().unwrap_or_default();
    let output = RunOutput { args: &args.run, format: args.output.output, console };
    let identities = check_memory(args.run.memory)
        .and_then(|()| reading::required_identities(&args.repository.reader))
        .map_err(|failure| {
            output.report_failed_start("restore", &repository, None, failure, &Notices::default())
        })?;
    let memory = args.run.memory.map(crate::plan::Size::get);
    let mut report = run_report::start("restore", &repository, None);
    let display = output.start_display(memory);
    let reporter = display.reporter();
    // Outlives the run: an interrupted one reports the items that it finished.
    let finished = Mutex::default();
    // Half of the memory limit is for decrypted packs; the target and the runtime have the rest.
    let held = memory.map_or(reading::READER_MEMORY, |memory| memory / 2);
    let outcome = signals::until_stopped(&CancellationToken::new(), RESUME, async {
        let opened =
            reading::open_snapshot(&args.repository, &args.snapshot, &identities, held, &reporter).await?;
        let items = job::items(args, &opened)?;
        let job = job::job(args, &opened, items, &reporter).await?;
        warn_of_gaps(&job.items, &reporter);
        let head = head(&opened);
        if args.dry_run.is_some() {
            return Ok(Done::Preview(Box::new(preview::make(args, head, &job).await?)));
        }
        confirm_drops(args, &job, &display).await?;
        restore(args, &job, &finished).await?;
        Ok(Done::Restored(head))
    });
    let failure = match outcome {
        Ok(Done::Preview(preview)) => {
            drop(display.finish());
            return preview.show(args.output.output, console);
        }
        Ok(Done::Restored(head)) => {
            fill(&mut report, head, std::mem::take(&mut *lock(&finished)));
            None
        }
        Err(failure) => {
            report.items = std::mem::take(&mut *lock(&finished)).into_iter().map(|(item, _)| item).collect();
            Some(failure)
        }
    };
    output.finish(report, failure.as_ref(), display, &reporter, &Notices::default())
}

/// The finished items, each with true if its backup is damaged.
type FinishedItems = Vec<(ItemReport, bool)>;

/// The result of the command.
enum Done {
    /// A plan, for a dry run.
    Preview(Box<Preview>),
    /// The snapshot whose items were restored.
    Restored(Head),
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

fn head(opened: &OpenedSnapshot) -> Head {
    let snapshot = opened.snapshot.snapshot();
    Head {
        sequence: snapshot.envelope().seq,
        hash: snapshot.manifest.hash().to_string(),
        plan: opened.snapshot.body().plan_name.clone(),
    }
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

/// Asks on the terminal before databases are dropped. Without a terminal, `--replace-databases` is the consent.
async fn confirm_drops(args: &RestoreArgs, job: &RestoreJob<'_>, display: &Display) -> Result<(), Failure> {
    let Some(target) = job.database.as_ref().filter(|_| args.replace_databases && !args.yes) else {
        return Ok(());
    };
    if !prompt::can_ask() {
        return Ok(());
    }
    let mut dropped = Vec::new();
    for item in &job.items {
        // The restore itself reports an error.
        for (database, objects) in job.dropped_databases(item).await.unwrap_or_default() {
            dropped.push(format!("{} ({})", plain(&database), plural(objects, "object", "objects")));
        }
    }
    if dropped.is_empty() {
        return Ok(());
    }
    let question = format!(
        "on the server {} these databases are DROPPED first: {}",
        target.config.describe(),
        dropped.join(", ")
    );
    let _pause = display.pause();
    prompt::confirm(&question, "answer yes, or give --yes; --dry-run shows what would be done").await
}

/// Restores the items and adds the finished ones to `finished`.
async fn restore(
    args: &RestoreArgs,
    job: &RestoreJob<'_>,
    finished: &Mutex<FinishedItems>,
) -> Result<(), Failure> {
    let paths = job.paths.as_ref();
    let outcomes = args.resources.outcomes.as_deref().filter(|_| args.cluster);
    let objects = ObjectRecorder::new(outcomes)?;
    let builder = ReportBuilder { reporter: job.reporter, paths, objects, items: finished };
    let restored = job.run(&builder).await;
    builder.objects.finish(job.reporter);
    Ok(restored?)
}

fn fill(report: &mut RunReport, head: Head, items: FinishedItems) {
    let missing = items.iter().filter(|(item, _)| item.state != ItemState::Good).count() as u64;
    report.exit = match missing {
        _ if items.iter().any(|(_, damaged)| *damaged) => Exit::Damaged,
        0 => Exit::Safe,
        _ => Exit::Partial,
    };
    report.plan = Some(head.plan.clone());
    let why = if report.exit == Exit::Damaged { ": the backup is damaged" } else { "" };
    report.verdict = match missing {
        0 => format!("{head} restored"),
        missing => format!("{head} restored, {} not whole{why}", plural(missing, "item", "items")),
    };
    report.snapshot = Some(SnapshotReport { sequence: head.sequence, hash: head.hash });
    report.items = items.into_iter().map(|(item, _)| item).collect();
}
