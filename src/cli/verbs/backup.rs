//! `kbak backup`: backs up the items of a plan and reports each of them.

use std::sync::Arc;

use clap::Args;

use super::gaps::gap_report;
use crate::backup::coordinator::backup;
use crate::backup::epoch_secret::EpochSecretPlace;
use crate::backup::from_plan::RunChoices;
use crate::backup::history::History;
use crate::backup::job::{BackupContext, BackupJob, BackupReport};
use crate::cli::failure::{Exit, Failure};
use crate::cli::options::key_files::{read_pin, read_writer_key};
use crate::cli::options::notices::Notices;
use crate::cli::options::plan_args::BackupPlanArgs;
use crate::cli::options::run_report::{self, RunOutput};
use crate::cli::options::{OutputArgs, RunArgs, store};
use crate::cli::shell::console::Console;
use crate::cli::shell::passphrase::PassphrasePrompt;
use crate::cli::shell::signals;
use crate::format::body::Item;
use crate::format::sign::Namespace;
use crate::format::signers::Signers;
use crate::keys::writer_key::WriterKey;
use crate::plan::{AcceptedGap, BackupPlan, COMPRESSION_LEVELS, Problem, UNCOVERED, ValidPlan, item_matches};
use crate::report::error::causes;
use crate::report::event::{Event, Meter, Reporter};
use crate::report::item_state::ItemState;
use crate::report::run::{ItemReport, RunReport, SnapshotReport};
use crate::report::text::{plural, utc};
use crate::repository::epoch::current::Reason;
use crate::repository::reports;
use crate::runtime::Runtime;

/// Arguments of `kbak backup`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  kbak backup --plan nightly.yaml

  kbak backup --repo file:///srv/backups --recipient \"age1…\" --writer-key writer.key --path /srv/uploads
      a folder, without a plan's file

  kbak backup --repo s3://backups/laptop --recipient \"age1…\" --writer-key writer.key \\
      --database \"postgresql://postgres@localhost/shop?sslmode=disable\" --resources --context kind
      a database and the cluster's resources

  kbak backup --plan nightly.yaml --progress json --metrics-file /var/lib/node_exporter/kbak.prom

Exit codes: 0 every declared item is safe, 3 some is not (it is named), 5 store or cluster
unreachable, 6 interrupted. Running again resumes: stored data is reused.")]
pub struct BackupArgs {
    #[command(flatten)]
    pub plan: BackupPlanArgs,
    /// Open a new epoch: needed when the epoch's secret is lost
    #[arg(long, help_heading = "Plan")]
    pub new_epoch: bool,
    /// Allow a new epoch with a single owner after several, or with only owners who could not open the
    /// last one
    #[arg(long, help_heading = "Plan")]
    pub change_owners: bool,
    /// Read every file again, without the scan cache of the last run
    #[arg(long, help_heading = "Run")]
    pub no_cache: bool,
    /// The zstd level of new chunks, 1 to 9: a higher one stores less and takes longer [default: the
    /// plan's, or 2]
    #[arg(long, value_name = "LEVEL", help_heading = "Run", value_parser = compression_levels())]
    pub compression_level: Option<u8>,
    /// Skip the check of each compressed chunk before it is stored: faster, but a faulty memory module
    /// can damage the backup unnoticed
    #[arg(long, help_heading = "Run")]
    pub no_proof: bool,
    #[command(flatten)]
    pub run: RunArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// The remedy after an interruption.
const RESUME: &str = "run it again: stored data is kept and reused";

/// Runs `kbak backup`.
pub(crate) fn run(args: &BackupArgs, console: &Console) -> Result<Exit, Failure> {
    let output = RunOutput { args: &args.run, format: args.output.output, console };
    let ValidPlan { plan, warnings } = read_plan(args, &output)?;
    let (name, repository) = (plan.name(), &plan.spec.repository.url);
    let runtime = Runtime::real();
    let notices = Notices::of_backup(&plan.spec, &hostname(), &runtime);
    let (key, signers, key_warning) = read_keys(&plan)
        .map_err(|failure| output.report_failed_start("backup", repository, Some(name), failure, &notices))?;
    let epoch_secret = EpochSecretPlace::of(&plan.spec, name);
    let mut report = run_report::start("backup", repository, Some(name));
    let display = output.start_display(Some(plan.spec.limits.memory.get()));
    let reporter = display.reporter();
    // Through the reporter, so that the report and the metrics count them.
    for Problem { field, message, remedy, .. } in warnings {
        reporter.event(Event::Warning { object: field, message, remedy });
    }
    if let Some(warning) = key_warning {
        reporter.warn("writer", warning);
    }
    let outcome = signals::until_stopped(&runtime.stop, RESUME, async {
        notices.send_start(&reporter).await;
        let (repository, upload) = (&plan.spec.repository, plan.spec.limits.upload);
        let store = store::open_store(repository, upload, false, &runtime, &reporter).await?;
        let keeper = epoch_secret.open(&key, name, &runtime, &reporter).await?;
        let job = BackupJob::from_plan(&plan, choices(args)?, runtime.clock.now(), &reporter).await?;
        let context = BackupContext {
            store: &store,
            key: &key,
            keeper: &*keeper,
            signers: &signers,
            runtime: &runtime,
            reporter: &reporter,
        };
        Ok(backup(job, context).await?)
    });
    let failure = match outcome {
        Ok(done) => {
            fill_report(&mut report, &done, &reporter.meters());
            list_accepted_gaps(&mut report, &done, &plan.spec.accept);
            report.next_due = plan.spec.next_due(report.last_success);
            None
        }
        Err(failure) => Some(failure),
    };
    let report = run_report::complete(report, failure.as_ref(), display, &reporter, &notices);
    // A usage error concerns only its caller, and an interrupted run has no time left to store a report.
    if failure.as_ref().is_some_and(|failure| !matches!(failure.exit, Exit::Usage | Exit::Interrupted)) {
        store_failure_report(&plan, &epoch_secret, &key, &report, console);
    }
    output.publish(report, failure.as_ref())
}

/// Reads the plan. One that cannot be read names nobody who gets a notice.
fn read_plan(args: &BackupArgs, output: &RunOutput<'_>) -> Result<ValidPlan, Failure> {
    let read = args.plan.read_plan(args.run.memory, args.run.upload).map_err(|failure| {
        let named = args.plan.store.repo.as_deref().unwrap_or_default();
        let plan = args.plan.selected.plan_name.as_deref();
        output.report_failed_start("backup", named, plan, failure, &Notices::default())
    });
    read.map(|mut valid| {
        let spec = &mut valid.plan.spec;
        spec.compression_level = args.compression_level.or(spec.compression_level);
        valid
    })
}

fn compression_levels() -> clap::builder::RangedI64ValueParser<u8> {
    let range = i64::from(*COMPRESSION_LEVELS.start())..=i64::from(*COMPRESSION_LEVELS.end());
    clap::value_parser!(u8).range(range)
}

fn choices(args: &BackupArgs) -> Result<RunChoices, Failure> {
    Ok(RunChoices {
        host: hostname(),
        new_epoch: args.new_epoch,
        change_owners: args.change_owners,
        prove: !args.no_proof,
        use_cache: !args.no_cache,
        prompt: PassphrasePrompt::shared(None)?,
    })
}

/// Reads the writer's key and the trusted signers, and returns a warning about the key's file.
fn read_keys(plan: &BackupPlan) -> Result<(WriterKey, Signers, Option<String>), Failure> {
    let (key, warning) = read_writer_key(&plan.spec.writer.key_file)?;
    let mut signers = key.own_signers();
    if let Some(file) = &plan.spec.writer.signers_file {
        let pinned = read_pin(file)?.signers;
        let writer = key.writer.to_string();
        let own: Vec<_> = pinned.lookup(&writer, Namespace::Manifest).collect();
        if !own.is_empty() && !own.contains(&key.signing.public()) {
            let what = format!("{}: it pins another key of this writer", file.display());
            return Err(Failure::usage(what).fact("this key", key.signing.public().fingerprint()).remedy(
                "add its line: whoever reads with this file would count none of its backups (docs/keys.md)",
            ));
        }
        signers.extend(pinned);
    }
    Ok((key, signers, warning))
}

/// Stores the report of a failed run, encrypted for owners. `kbak snapshots --failed` lists it.
fn store_failure_report(
    plan: &BackupPlan,
    epoch_secret: &EpochSecretPlace,
    key: &WriterKey,
    report: &RunReport,
    console: &Console,
) {
    let stored = signals::until_signalled(async {
        let (runtime, silent) = (Runtime::real(), Reporter::silent());
        let store = store::open_store(&plan.spec.repository, None, false, &runtime, &silent).await?;
        let keeper = epoch_secret.open(key, plan.name(), &runtime, &silent).await?;
        reports::store(&store, key, &*keeper, plan.name(), report)
            .await
            .map_err(|error| Failure::new(Exit::Unreachable, causes(&error)))
    });
    match stored {
        Ok(key) => console.line(&format!("· the failure report was stored, encrypted: {key}")),
        Err(error) => console.line(&format!("· the failure report was not stored: {}", error.what)),
    }
}

fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

fn fill_report(report: &mut RunReport, done: &BackupReport, meters: &[Arc<Meter>]) {
    report.exit = done.outcome();
    let open = done.items.iter().filter(|(item, _)| !item.state.is_safe_or_accepted()).count() as u64;
    let seq = done.committed.seq;
    let uncovered = done.coverage.as_ref().filter(|coverage| !coverage.is_fine());
    report.coverage.clone_from(&done.coverage);
    report.verdict = match (open, uncovered) {
        (0, Some(coverage)) => format!("snapshot {seq:06} committed; {}", coverage.summary()),
        (0, None) => format!("snapshot {seq:06} committed"),
        (open, _) => format!("snapshot {seq:06} committed with {}", plural(open, "gap", "gaps")),
    };
    report.snapshot = Some(SnapshotReport { sequence: seq, hash: done.committed.head.to_string() });
    report.items =
        done.items.iter().map(|(item, text)| item_report(item, text, &done.history, meters)).collect();
    report.last_success = match done.outcome() {
        Exit::Safe => Some(done.committed.envelope.finished),
        _ => done.history.last_success,
    };
    if let Some(reason) = &done.born {
        let why = match reason {
            Reason::First => "the first of this plan",
            Reason::Expired => "the last one is over",
            Reason::OwnerRemoved => "an owner was removed",
            Reason::Requested => "asked for",
        };
        report.facts.push(("new epoch".into(), format!("{why}; everything was read and stored again")));
    }
    if let Some(change) = &done.changed_owners {
        report.facts.push(("owners".into(), format!("{change}, from this epoch on")));
    }
    if !done.waiting.is_empty() {
        let text = format!("{} cannot open this epoch yet: kbak keys add", done.waiting.join(", "));
        report.facts.push(("owners".into(), text));
    }
    if let Some(next) = done.committed.envelope.next_before {
        report.facts.push(("next run".into(), format!("promised before {}", utc(next))));
    }
}

/// Adds each accepted gap to the report, with its reason and end date, so that it is not forgotten.
fn list_accepted_gaps(report: &mut RunReport, done: &BackupReport, accept: &[AcceptedGap]) {
    let mut fact = |text: String| report.facts.push(("accepted".into(), text));
    let why = |is: &dyn Fn(&&AcceptedGap) -> bool| {
        let by = accept.iter().find(is);
        by.map(|by| format!("; until {}: {}", by.until, by.reason)).unwrap_or_default()
    };
    for (item, _) in done.items.iter().filter(|(item, _)| item.state == ItemState::Accepted) {
        for gap in &item.gaps {
            let why = why(&|accept| accept.item == item.name && accept.gap == gap.code);
            fact(format!("{}: {}: {} ({}){why}", item.name, gap.object.display(), gap.reason, gap.code));
        }
    }
    for one in done.coverage.iter().flat_map(|coverage| &coverage.accepted) {
        let why = why(&|accept| accept.gap == UNCOVERED && item_matches(&accept.item, &one.item));
        fact(format!("{} is not declared{why}", one.item));
    }
}

fn item_report(item: &Item, summary: &str, history: &History, meters: &[Arc<Meter>]) -> ItemReport {
    let meter = run_report::meter(meters, &item.name);
    let reading = meter.map(Meter::read).unwrap_or_default();
    let good = history.newest_good.get(&item.name);
    ItemReport {
        item: item.name.clone(),
        state: item.state,
        summary: summary.to_owned(),
        unit: meter.map_or("entries", |meter| meter.unit).to_owned(),
        done: reading.done,
        bytes: item.streams.iter().map(|stream| stream.length).sum(),
        new_bytes: reading.new_bytes,
        gaps: item.gaps.iter().map(gap_report).collect(),
        objects: Vec::new(),
        newest_good: good.copied(),
        remedy: remedy(item.state).map(str::to_owned),
    }
}

fn remedy(state: ItemState) -> Option<&'static str> {
    match state {
        ItemState::Good | ItemState::Accepted => None,
        ItemState::Anomalous => Some(
            "check its source; if the change is intended, accept the gap anomalous of this item in the plan",
        ),
        _ => Some("solve the problems above and run again: stored data is reused"),
    }
}
