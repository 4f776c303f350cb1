//! `kbak backup`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;

use super::chain::life;
use super::keyring::{pin, writer};
use super::options::{OutputArgs, RunArgs, StoreArgs};
use super::plan::load;
use super::terminal::{Asker, Talk};
use super::{conclude, place, signals, sources};
use crate::backup::run::{BackupJob, BackupReport, Place, backup};
use crate::format::body::{Gap, Item};
use crate::format::epoch::Parameters;
use crate::format::manifest::ItemState;
use crate::format::signers::Signers;
use crate::plan::{BackupPlan, Checked, Cluster, Limits, ShortForm, Size, Spec};
use crate::report::event::{Meter, Reporter};
use crate::report::failure::{Exit, Failure};
use crate::report::run::{GapReport, ItemReport, RunReport, SnapshotReport};
use crate::report::text::{plural, utc};
use crate::repository::birth::{Reason, Wanted};
use crate::repository::writer_key::{FileKeeper, WriterKey, epoch_path};
use crate::repository::{chain, epochs, reports};
use crate::store::Store;
use crate::world::World;

/// What `kbak backup` takes.
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
    /// The plan
    #[arg(long, value_name = "FILE", help_heading = "Plan")]
    pub plan: Option<PathBuf>,
    /// The plan's name, without a file [default: default]
    #[arg(long, value_name = "NAME", conflicts_with = "plan", help_heading = "Plan")]
    pub plan_name: Option<String>,
    /// The writer's key, made by init
    #[arg(long, value_name = "FILE", help_heading = "Plan")]
    pub writer_key: Option<PathBuf>,
    /// The current epoch's secret [default: beside the writer's key]
    #[arg(long, value_name = "FILE", help_heading = "Plan")]
    pub epoch_file: Option<PathBuf>,
    /// A public key of an owner, who can restore; repeatable
    #[arg(long, value_name = "KEY", conflicts_with = "plan", help_heading = "Plan")]
    pub recipient: Vec<String>,
    /// Open a new epoch: needed when the epoch's secret is lost
    #[arg(long, help_heading = "Plan")]
    pub new_epoch: bool,
    /// Back up a folder; repeatable
    #[arg(long, value_name = "FOLDER", conflicts_with = "plan", help_heading = "Without a plan")]
    pub path: Vec<PathBuf>,
    /// Leave out of every folder, in the syntax of .gitignore; repeatable
    #[arg(long, value_name = "PATTERN", requires = "path", help_heading = "Without a plan")]
    pub exclude: Vec<String>,
    /// Back up a database: postgresql://user@host:port/name?sslmode=…; repeatable
    #[arg(long, value_name = "URL", conflicts_with = "plan", help_heading = "Without a plan")]
    pub database: Vec<String>,
    /// The databases' password is in this file
    #[arg(long, value_name = "FILE", requires = "database", help_heading = "Without a plan")]
    pub database_password_file: Option<PathBuf>,
    /// Back up the cluster's resources
    #[arg(long, conflicts_with = "plan", help_heading = "Without a plan")]
    pub resources: bool,
    /// A kubeconfig file [default: the pod's ServiceAccount, KUBECONFIG, ~/.kube/config]
    #[arg(long, value_name = "FILE", help_heading = "Without a plan")]
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig
    #[arg(long, value_name = "NAME", help_heading = "Without a plan")]
    pub context: Option<String>,
    /// Read every file anew, as if nothing were known of the last run
    #[arg(long, help_heading = "Run")]
    pub no_cache: bool,
    /// Do not prove each compressed chunk before it is stored: faster, and a broken memory module
    /// can spoil the backup unseen
    #[arg(long, help_heading = "Run")]
    pub no_proof: bool,
    /// Where.
    #[command(flatten)]
    pub store: StoreArgs,
    /// How.
    #[command(flatten)]
    pub run: RunArgs,
    /// How the report is written.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Backs up.
pub(super) fn run(args: &BackupArgs, talk: &Talk) -> Result<Exit, Failure> {
    let Checked { plan, warnings } = checked(args)?;
    for warning in &warnings {
        talk.warn(&warning.to_string());
    }
    let world = World::real();
    let key = writer(&plan.spec.writer.key_file, talk)?;
    let secret = plan.spec.writer.epoch_file.clone();
    let secret = secret.unwrap_or_else(|| epoch_path(&plan.spec.writer.key_file, plan.name()));
    let keeper = FileKeeper::new(secret, &key, key.plan(plan.name()), &world);
    let signers = signers(&key, &plan.spec)?;
    let mut report = conclude::begin("backup", &plan.spec.repository.url, Some(plan.name()));
    let display = conclude::display(&args.run, talk, Some(plan.spec.limits.memory.get()));
    let reporter = display.reporter();
    let outcome = signals::until_signalled(async {
        let options = place::options(&plan.spec.repository, plan.spec.limits.upload, false);
        let store = place::store(&options, &world, &reporter).await?;
        let job = BackupJob {
            plan: plan.name().to_owned(),
            host: host(),
            items: sources::jobs(&plan, &reporter).await?,
            wanted: Wanted {
                owners: plan.spec.owners(),
                life: life(&plan.spec.epoch, &plan.spec),
                parameters: Parameters::default(),
                new_epoch: args.new_epoch,
                prompt: Asker::shared(None)?,
            },
            memory: plan.spec.limits.memory.get(),
            prove: !args.no_proof,
            use_cache: !args.no_cache,
            next: plan.spec.schedule.map(|schedule| schedule.next.duration().as_secs()),
            accept: sources::accepted(&plan.spec.accept, Timestamp::now(), &reporter),
        };
        let place = Place {
            store: &store,
            key: &key,
            keeper: &keeper,
            signers: &signers,
            world: &world,
            reporter: &reporter,
        };
        let done = backup(job, place).await?;
        let history = if done.exit() == Exit::Safe {
            History::default()
        } else {
            history(&store, &key, plan.name(), &signers, &done).await
        };
        Ok((done, history))
    });
    let failure = match outcome {
        Ok((done, history)) => {
            fill(&mut report, &done, &history, &reporter.meters());
            None
        }
        Err(failure) => Some(failure),
    };
    let report = conclude::complete(report, failure.as_ref(), display, &reporter);
    // A mistake of usage is told to who made it; an interrupted run has no time left.
    let told = |failure: &Failure| matches!(failure.exit, Exit::Usage | Exit::Interrupted);
    if failure.as_ref().is_some_and(|failure| !told(failure)) {
        leave_report(&plan, &key, &report, talk);
    }
    conclude::hand_on(report, failure.as_ref(), &args.run, args.output.output, talk)
}

/// Leaves the report of a failed run in the store, encrypted, for owners: kbak snapshots --failed.
fn leave_report(plan: &BackupPlan, key: &WriterKey, report: &RunReport, talk: &Talk) {
    let left = signals::until_signalled(async {
        let options = place::options(&plan.spec.repository, None, false);
        let store = place::store(&options, &World::real(), &Reporter::silent()).await?;
        reports::leave(&store, key, plan.name(), report)
            .await
            .map_err(|error| Failure::new(Exit::Unreachable, error.to_string()))
    });
    match left {
        Ok(key) => talk.say(&format!("· the report of this failure lies in the store, encrypted: {key}")),
        Err(error) => talk.say(&format!("· the report of this failure was not stored: {}", error.what)),
    }
}

/// The plan's file with what the arguments change, or the plan that they are.
fn checked(args: &BackupArgs) -> Result<Checked, Failure> {
    let mut checked = match &args.plan {
        Some(file) => load(file)?,
        None => short_form(args)?.plan().map_err(|error| error.failure("the command line"))?,
    };
    let spec = &mut checked.plan.spec;
    spec.repository = args.store.over(std::mem::take(&mut spec.repository));
    spec.limits.memory = args.run.memory.unwrap_or(spec.limits.memory);
    spec.limits.upload = args.run.upload.or(spec.limits.upload);
    if let Some(file) = &args.writer_key {
        spec.writer.key_file.clone_from(file);
    }
    if let Some(file) = &args.epoch_file {
        spec.writer.epoch_file = Some(file.clone());
    }
    if args.context.is_some() || args.kubeconfig.is_some() {
        let mut cluster = spec.cluster.take().unwrap_or_default();
        cluster.context = args.context.clone().or(cluster.context);
        cluster.kubeconfig_file = args.kubeconfig.clone().or(cluster.kubeconfig_file);
        spec.cluster = Some(cluster);
    }
    Ok(checked)
}

fn short_form(args: &BackupArgs) -> Result<ShortForm, Failure> {
    let missing =
        |what: &str, remedy: &str| Failure::new(Exit::Usage, what.to_owned()).remedy(remedy.to_owned());
    if args.path.is_empty() && args.database.is_empty() && !args.resources {
        let remedy = "give --plan FILE, or --path, --database or --resources";
        return Err(missing("nothing says what to back up", remedy));
    }
    let writer_key = args.writer_key.clone().ok_or_else(|| {
        missing("no writer's key is named", "give --writer-key writer.key, which kbak init wrote")
    })?;
    let absolute = |path: &PathBuf| {
        let path = plain(path)?;
        if path.to_str().is_none() {
            let what = format!("{} is not UTF-8; name the folder above it", path.display());
            return Err(Failure::new(Exit::Usage, what));
        }
        Ok(path)
    };
    let password = args.database_password_file.as_deref();
    let cluster = Cluster { kubeconfig_file: args.kubeconfig.clone(), context: args.context.clone() };
    Ok(ShortForm {
        name: args.plan_name.clone(),
        repository: place::without_plan(&args.store)?,
        recipients: args.recipient.clone(),
        writer_key,
        epoch_file: args.epoch_file.clone(),
        paths: args.path.iter().map(absolute).collect::<Result<_, _>>()?,
        exclude: args.exclude.clone(),
        databases: args
            .database
            .iter()
            .map(|url| sources::database_argument(url, password))
            .collect::<Result<_, _>>()?,
        resources: args.resources,
        cluster: (cluster != Cluster::default()).then_some(cluster),
        limits: Limits {
            memory: args.run.memory.unwrap_or(Size::mebi(128)),
            upload: args.run.upload,
            parallel: None,
        },
    })
}

/// A path from the root, without `.` and without `..`; links stay as they are named.
fn plain(path: &Path) -> Result<PathBuf, Failure> {
    use std::path::Component;
    let absolute = std::path::absolute(path)
        .map_err(|error| Failure::new(Exit::Usage, format!("{}: no path", path.display())).because(error))?;
    if absolute.components().any(|part| part == Component::ParentDir) {
        // What `..` means behind a link only the file system knows.
        return std::fs::canonicalize(&absolute).map_err(|error| {
            Failure::new(Exit::Usage, format!("{}: no folder", path.display())).because(error)
        });
    }
    Ok(absolute.components().collect())
}

/// Whose signatures count: the writer's own, and those that the plan pins.
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

/// What earlier snapshots say of the items.
#[derive(Debug, Default)]
struct History {
    newest_good: Vec<(String, u64, Timestamp)>,
    last_success: Option<Timestamp>,
}

/// Looks for the newest good copy of what has a gap now. That it cannot be found out is no failure:
/// then nothing is said of it.
async fn history(
    store: &Arc<dyn Store>,
    key: &WriterKey,
    plan: &str,
    signers: &Signers,
    done: &BackupReport,
) -> History {
    let silent = Reporter::silent();
    let plan = key.plan(plan);
    let Ok(epochs) = epochs::list(store, key.writer, plan, Some(key.repository), signers, &silent).await
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
    report.exit = done.exit();
    let open = done.items.iter().filter(|(item, _)| !fine(item.state)).count() as u64;
    let seq = done.committed.seq;
    report.verdict = match open {
        0 => format!("snapshot {seq:06} committed"),
        open => format!("snapshot {seq:06} committed with {}", plural(open, "gap", "gaps")),
    };
    report.snapshot = Some(SnapshotReport { sequence: seq, hash: done.committed.head.to_string() });
    report.items = done.items.iter().map(|(item, text)| item_report(item, text, history, meters)).collect();
    report.last_success = match done.exit() {
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

fn item_report(item: &Item, summary: &str, history: &History, meters: &[Arc<Meter>]) -> ItemReport {
    let meter = conclude::meter(meters, &item.name);
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
        remedy: (!fine(item.state))
            .then(|| "mend what is named above and run again: what was stored is reused".into()),
    }
}

pub(super) fn gap_report(gap: &Gap) -> GapReport {
    GapReport { code: gap.code.clone(), object: gap.object.display(), reason: gap.reason.clone() }
}
