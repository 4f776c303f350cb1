//! `kbak backup`: backs up the items of a plan and reports each of them.

use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;

use crate::backup::coordinator::backup;
use crate::backup::job::{BackupContext, BackupJob, BackupReport};
use crate::cli::failure::{Exit, Failure};
use crate::cli::options::chain::life;
use crate::cli::options::declared::DeclaredArgs;
use crate::cli::options::keyring::{pin, writer};
use crate::cli::options::{OutputArgs, RunArgs};
use crate::cli::options::{sources, store};
use crate::cli::shell::console::{Console, PassphrasePrompt};
use crate::cli::shell::{run_end, signals};
use crate::format::body::{Gap, Item};
use crate::format::epoch::Parameters;
use crate::format::signers::Signers;
use crate::keys::writer_key::{FileKeeper, WriterKey, epoch_path};
use crate::plan::{Accept, BackupPlan, Checked, Spec, UNCOVERED, item_matches};
use crate::report::event::{Meter, Reporter};
use crate::report::item_state::ItemState;
use crate::report::run::{GapReport, ItemReport, RunReport, SnapshotReport};
use crate::report::text::{plural, utc};
use crate::repository::epoch::create::{Reason, Wanted};
use crate::repository::epoch::stored;
use crate::repository::{chain, reports};
use crate::runtime::Runtime;
use crate::store::Store;

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
unreachable, 6 interrupted. Running again resumes: what was stored is reused.")]
pub struct BackupArgs {
    /// The plan, as a file or as arguments.
    #[command(flatten)]
    pub declared: DeclaredArgs,
    /// Open a new epoch: needed when the epoch's secret is lost
    #[arg(long, help_heading = "Plan")]
    pub new_epoch: bool,
    /// Let a new epoch have a single owner where there were more, or only owners who could not open
    /// the last one
    #[arg(long, help_heading = "Plan")]
    pub change_owners: bool,
    /// Read every file anew, as if nothing were known of the last run
    #[arg(long, help_heading = "Run")]
    pub no_cache: bool,
    /// Do not prove each compressed chunk before it is stored: faster, and a broken memory module
    /// can spoil the backup unseen
    #[arg(long, help_heading = "Run")]
    pub no_proof: bool,
    /// Options of the run: progress, limits and report files.
    #[command(flatten)]
    pub run: RunArgs,
    /// The output format of the report.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Runs `kbak backup`.
pub(crate) fn run(args: &BackupArgs, console: &Console) -> Result<Exit, Failure> {
    let unbegun = |repository: &str, plan: Option<&str>, failure| {
        run_end::unbegun("backup", repository, plan, failure, &args.run, console)
    };
    let named = args.declared.store.repo.as_deref().unwrap_or_default();
    let Checked { plan, warnings } = args
        .declared
        .checked(args.run.memory, args.run.upload)
        .map_err(|failure| unbegun(named, args.declared.plan_name.as_deref(), failure))?;
    for warning in &warnings {
        console.warn(&warning.to_string());
    }
    let (key, signers) = keys(&plan, console)
        .map_err(|failure| unbegun(&plan.spec.repository.url, Some(plan.name()), failure))?;
    let runtime = Runtime::real();
    let secret = plan.spec.writer.epoch_file.clone();
    let secret = secret.unwrap_or_else(|| epoch_path(&plan.spec.writer.key_file, plan.name()));
    let keeper = FileKeeper::new(secret, &key, key.plan(plan.name()), &runtime);
    let mut report = run_end::begin("backup", &plan.spec.repository.url, Some(plan.name()));
    let display = run_end::display(&args.run, console, Some(plan.spec.limits.memory.get()));
    let reporter = display.reporter();
    let remedy = "run it again: what is stored stays stored, and is reused";
    let outcome = signals::until_stopped(&runtime.stop, remedy, async {
        let options = store::options(&plan.spec.repository, plan.spec.limits.upload, false);
        let store = store::store(&options, &runtime, &reporter).await?;
        let (accept, now) = (&plan.spec.accept, runtime.clock.now());
        for (item, message) in sources::no_longer_accepted(accept, now) {
            reporter.warn(item, message);
        }
        let accept = sources::accepted(accept, now);
        let job = BackupJob {
            plan: plan.name().to_owned(),
            host: host(),
            items: sources::jobs(&plan, &reporter).await?,
            wanted: Wanted {
                owners: plan.spec.owners(),
                life: life(&plan.spec.epoch, &plan.spec),
                parameters: Parameters::default(),
                new_epoch: args.new_epoch,
                change_owners: args.change_owners,
                prompt: PassphrasePrompt::shared(None)?,
            },
            memory: plan.spec.limits.memory.get(),
            prove: !args.no_proof,
            use_cache: !args.no_cache,
            next: plan.spec.schedule.map(|schedule| schedule.next.duration().as_secs()),
            accept: accept.clone(),
            coverage: sources::watch(&plan.spec, accept, &reporter).await,
        };
        let context = BackupContext {
            store: &store,
            key: &key,
            keeper: &keeper,
            signers: &signers,
            runtime: &runtime,
            reporter: &reporter,
        };
        let done = backup(job, context).await?;
        let history = if done.outcome() == Exit::Safe {
            History::default()
        } else {
            history(&store, &key, plan.name(), &signers, &done).await
        };
        Ok((done, history))
    });
    let failure = match outcome {
        Ok((done, history)) => {
            fill(&mut report, &done, &history, &reporter.meters());
            accepted(&mut report, &done, &plan.spec.accept);
            None
        }
        Err(failure) => Some(failure),
    };
    let report = run_end::complete(report, failure.as_ref(), display, &reporter);
    // A usage error concerns only its caller, and an interrupted run has no time left to store a report.
    let told = |failure: &Failure| matches!(failure.exit, Exit::Usage | Exit::Interrupted);
    if failure.as_ref().is_some_and(|failure| !told(failure)) {
        leave_report(&plan, &key, &report, console);
    }
    run_end::hand_on(report, failure.as_ref(), &args.run, args.output.output, console)
}

/// Reads the writer's key and the trusted signers.
fn keys(plan: &BackupPlan, console: &Console) -> Result<(WriterKey, Signers), Failure> {
    let key = writer(&plan.spec.writer.key_file, console)?;
    let signers = signers(&key, &plan.spec)?;
    Ok((key, signers))
}

/// Stores the report of a failed run, encrypted for owners. `kbak snapshots --failed` lists it.
fn leave_report(plan: &BackupPlan, key: &WriterKey, report: &RunReport, console: &Console) {
    let left = signals::until_signalled(async {
        let options = store::options(&plan.spec.repository, None, false);
        let store = store::store(&options, &Runtime::real(), &Reporter::silent()).await?;
        reports::leave(&store, key, plan.name(), report)
            .await
            .map_err(|error| Failure::new(Exit::Unreachable, error.to_string()))
    });
    match left {
        Ok(key) => console.say(&format!("· the report of this failure lies in the store, encrypted: {key}")),
        Err(error) => console.say(&format!("· the report of this failure was not stored: {}", error.what)),
    }
}

/// Returns the trusted signers: the writer itself, and those that the plan pins.
fn signers(key: &WriterKey, spec: &Spec) -> Result<Signers, Failure> {
    let mut signers = key.own_signers();
    if let Some(file) = &spec.writer.signers_file {
        signers.extend(pin(file)?.signers);
    }
    Ok(signers)
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// The newest good copies of items that have gaps, and the last successful run, from earlier snapshots.
#[derive(Debug, Default)]
struct History {
    newest_good: Vec<(String, u64, Timestamp)>,
    last_success: Option<Timestamp>,
}

/// Finds the newest good copy of each item that has a gap now. If the store cannot be read, the history
/// is empty; that is not a failure.
async fn history(
    store: &Arc<dyn Store>,
    key: &WriterKey,
    plan: &str,
    signers: &Signers,
    done: &BackupReport,
) -> History {
    let silent = Reporter::silent();
    let plan = key.plan(plan);
    let Ok(epochs) = stored::list(store, key.writer, plan, Some(key.repository), signers, &silent).await
    else {
        return History::default();
    };
    let ids = epochs.all.iter().map(|stored| stored.epoch.epoch);
    let Ok(chain) = chain::read(store, key.writer, plan, ids, signers, &silent).await else {
        return History::default();
    };
    let mut history = History::default();
    for snapshot in chain.iter().rev() {
        let envelope = snapshot.envelope();
        if history.last_success.is_none() && envelope.items.iter().all(|item| fine(item.state)) {
            history.last_success = Some(envelope.finished);
        }
        for (item, _) in done.items.iter().filter(|(item, _)| !item.state.is_safe()) {
            let good = envelope.items.iter().any(|one| one.id == item.id && one.state.is_safe());
            if good && !history.newest_good.iter().any(|(name, ..)| *name == item.name) {
                history.newest_good.push((item.name.clone(), envelope.seq, envelope.finished));
            }
        }
    }
    history
}

fn fine(state: ItemState) -> bool {
    state.is_safe() || state == ItemState::Accepted
}

fn fill(report: &mut RunReport, done: &BackupReport, history: &History, meters: &[Arc<Meter>]) {
    report.exit = done.outcome();
    let open = done.items.iter().filter(|(item, _)| !fine(item.state)).count() as u64;
    let seq = done.committed.seq;
    let uncovered = done.coverage.as_ref().filter(|coverage| !coverage.is_fine());
    report.coverage.clone_from(&done.coverage);
    report.verdict = match (open, uncovered) {
        (0, Some(coverage)) => format!("snapshot {seq:06} committed; {}", coverage.summary()),
        (0, None) => format!("snapshot {seq:06} committed"),
        (open, _) => format!("snapshot {seq:06} committed with {}", plural(open, "gap", "gaps")),
    };
    report.snapshot = Some(SnapshotReport { sequence: seq, hash: done.committed.head.to_string() });
    report.items = done.items.iter().map(|(item, text)| item_report(item, text, history, meters)).collect();
    report.last_success = match done.outcome() {
        Exit::Safe => Some(done.committed.envelope.finished),
        _ => history.last_success,
    };
    if let Some(reason) = &done.born {
        let why = match reason {
            Reason::First => "the first",
            Reason::Over => "the last one is over",
            Reason::OwnerRemoved => "an owner was removed",
            Reason::Asked => "asked for",
        };
        report.facts.push(("new epoch".into(), format!("{why}; everything was read and stored anew")));
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
fn accepted(report: &mut RunReport, done: &BackupReport, accept: &[Accept]) {
    let mut fact = |text: String| report.facts.push(("accepted".into(), text));
    for (item, _) in done.items.iter().filter(|(item, _)| item.state == ItemState::Accepted) {
        for gap in &item.gaps {
            let by = accept.iter().find(|accept| accept.item == item.name && accept.gap == gap.code);
            let why = by.map(|by| format!("; until {}: {}", by.until, by.reason)).unwrap_or_default();
            fact(format!("{}: {}: {} ({}){why}", item.name, gap.object.display(), gap.reason, gap.code));
        }
    }
    for one in done.coverage.iter().flat_map(|coverage| &coverage.accepted) {
        let by =
            accept.iter().find(|accept| accept.gap == UNCOVERED && item_matches(&accept.item, &one.item));
        let why = by.map(|by| format!("; until {}: {}", by.until, by.reason)).unwrap_or_default();
        fact(format!("{} is not declared{why}", one.item));
    }
}

fn item_report(item: &Item, summary: &str, history: &History, meters: &[Arc<Meter>]) -> ItemReport {
    let meter = run_end::meter(meters, &item.name);
    let reading = meter.map(Meter::read).unwrap_or_default();
    let good = history.newest_good.iter().find(|(name, ..)| *name == item.name);
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
        newest_good: good.map(|(_, seq, at)| (*seq, *at)),
        remedy: remedy(item.state).map(str::to_owned),
    }
}

fn remedy(state: ItemState) -> Option<&'static str> {
    match state {
        ItemState::Good | ItemState::Accepted => None,
        ItemState::Anomalous => Some(
            "look at its source; if it is meant to be so, accept the gap anomalous of this item in the plan",
        ),
        _ => Some("mend what is named above and run again: what was stored is reused"),
    }
}

pub(crate) fn gap_report(gap: &Gap) -> GapReport {
    GapReport { code: gap.code.clone(), object: gap.object.display(), reason: gap.reason.clone() }
}
