//! `kbak init`: creates a repository, or adds a writer to one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use crate::cli::failure::{Exit, Failure};
use crate::cli::options::key_files::{read_identities, read_owners};
use crate::cli::options::{OutputArgs, StoreArgs, store};
use crate::cli::shell::console::Console;
use crate::cli::shell::display::{Display, DisplayMode, DisplayOptions};
use crate::cli::shell::output::{self, OutputFormat};
use crate::cli::shell::signals::until_signalled;
use crate::format::epoch::Parameters;
use crate::format::ids::WriterId;
use crate::keys::recovery_sheet::ProvenOwner;
use crate::plan::{DEFAULT_PLAN_NAME, EpochAge, EpochSpec, Period, RepositorySpec};
use crate::report::text::short_hash;
use crate::repository::epoch::create::EpochDurations;
use crate::repository::write::init::{self, Init, Initialised, has_marker, prepare};
use crate::runtime::Runtime;
use crate::store::Store;
use crate::store::probe::{FeatureState, ProbeReport, Severity, StoreFeatures, probe};

/// Arguments of `kbak init`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  kbak init --repo s3://backups/prod --endpoint https://s3.example.eu \\
      --recipient \"$(cat ada.pub)\" --recipient \"$(cat bob.pub)\" \\
      --identity ada.key --identity bob.key
      two owners, who both prove here that they can open the first epoch

  kbak init --repo file:///srv/backups --recipient \"age1…\" --single-owner
      on a laptop

  kbak init … --secrets kbak && kubeseal < kbak-writer.secret.yaml | kubectl apply -f -
      with Secrets for the namespace kbak, ready to be sealed

It writes into --folder: writer.key and writer.key.epoch (0600, for the cluster), kbak.pub (the pin,
needed to restore and verify), recovery.html and recovery.txt (print one, put it beside an owner's
key). On failure nothing is created.")]
pub struct InitArgs {
    #[command(flatten)]
    pub store: StoreArgs,
    /// A public key of an owner, who can restore; repeatable, two or more
    #[arg(long, value_name = "KEY")]
    pub recipient: Vec<String>,
    /// Public keys of owners, one a line
    #[arg(long, value_name = "FILE")]
    pub recipients_file: Option<PathBuf>,
    /// A private key of an owner, to prove here that it opens the first epoch; repeatable
    #[arg(long, value_name = "FILE")]
    pub identity: Vec<PathBuf>,
    /// Read the identity's passphrase from the first line of this file, such as /dev/fd/3
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Accept a single owner: if that key is lost, every backup is lost
    #[arg(long)]
    pub single_owner: bool,
    /// Accept a bucket without object lock on a store that supports it
    #[arg(long)]
    pub no_lock: bool,
    /// Add a writer to a repository that exists
    #[arg(long)]
    pub join: bool,
    /// The first plan's name
    #[arg(long, value_name = "NAME", default_value = DEFAULT_PLAN_NAME)]
    pub plan_name: String,
    /// The lifetime of an epoch's keys, 30d to 1y
    #[arg(long, value_name = "PERIOD", default_value = "90d")]
    pub epoch_age: Period,
    /// The limit of a run's duration
    #[arg(long, value_name = "PERIOD", default_value = "24h")]
    pub max_run: Period,
    /// The folder of the files; a missing one is created (0700)
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub folder: PathBuf,
    /// Also write Kubernetes Secrets for this namespace
    #[arg(long, value_name = "NAMESPACE")]
    pub secrets: Option<String>,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Runs `kbak init`.
pub(crate) fn run(args: &InitArgs, console: &Console) -> Result<Exit, Failure> {
    let repository = store::repository_argument(&args.store)?;
    let owners = read_owners(&args.recipient, args.recipients_file.as_deref())?;
    let (identities, prompt) = read_identities(&args.identity, args.passphrase_file.as_deref())?;
    let request = Init {
        owners,
        identities,
        single_owner: args.single_owner,
        join: args.join,
        plan: args.plan_name.clone(),
        life: epoch_durations(args)?,
        parameters: Parameters::default(),
        prompt,
        place: store::repository_location(&repository),
        folder: args.folder.clone(),
        secrets: args.secrets.clone(),
    };
    let made = until_signalled(create(args, &repository, &request, console))?;
    if args.output.output == OutputFormat::Table {
        print_result(&made, args, console);
    } else {
        output::write_value(&InitResult::of(&made, args), args.output.output)?;
    }
    Ok(Exit::Safe)
}

fn epoch_durations(args: &InitArgs) -> Result<EpochDurations, Failure> {
    let epoch = EpochSpec { max_age: EpochAge::Fixed(args.epoch_age), max_run: args.max_run };
    if !(Period::days(30)..=Period::days(365)).contains(&args.epoch_age) {
        let what = format!("--epoch-age {} is not from 30d to 365d", args.epoch_age);
        return Err(Failure::usage(what));
    }
    if !(Period::seconds(60)..=Period::days(14)).contains(&args.max_run) {
        return Err(Failure::usage(format!("--max-run {} is not from 1m to 14d", args.max_run)));
    }
    let seconds = |period: Period| period.duration().as_secs();
    Ok(EpochDurations { max_age: seconds(epoch.age(None)), max_run: seconds(epoch.max_run), keep: None })
}

async fn create(
    args: &InitArgs,
    repository: &RepositorySpec,
    request: &Init,
    console: &Console,
) -> Result<Initialised, Failure> {
    let runtime = Runtime::real();
    let mode = if args.output.output == OutputFormat::Table { DisplayMode::Plain } else { DisplayMode::None };
    let display = Display::start(
        DisplayOptions { mode, style: console.style, memory: None },
        Box::new(std::io::stderr()),
    );
    let reporter = display.reporter();
    // Everything that needs no store comes first, so that a mistake leaves no objects in one.
    let owners = prepare(&runtime, request).await?;
    let new_folders = store::NewFolders::of(&repository.url);
    let store = store::open_store(repository, None, !args.join, &runtime, &reporter).await?;
    has_marker(&store, args.join).await?;
    // The probe writes under a random writer id that no writer uses.
    let probed = probe(&store, &runtime, WriterId(runtime.random())).await?;
    if mode == DisplayMode::Plain {
        probed.findings.iter().for_each(|finding| console.finding(finding));
    }
    refuse_unfit(&store, &probed)?;
    refuse_unlocked(&store, &probed.features, args.no_lock)?;
    let made = init::make(&store, &runtime, request, owners, &reporter).await?;
    new_folders.keep();
    drop(display.finish());
    Ok(made)
}

fn refuse_unfit(store: &Arc<dyn Store>, probed: &ProbeReport) -> Result<(), Failure> {
    let Some(problem) = probed.findings.iter().find(|finding| finding.severity == Severity::Problem) else {
        return Ok(());
    };
    Err(Failure::usage(format!("{} cannot hold a repository", store.describe()))
        .fact("because", problem.what.clone())
        .remedy_if(problem.remedy.as_deref().unwrap_or_default()))
}

fn refuse_unlocked(store: &Arc<dyn Store>, abilities: &StoreFeatures, no_lock: bool) -> Result<(), Failure> {
    if no_lock || abilities.object_lock != FeatureState::Off {
        return Ok(());
    }
    let what = format!("{} supports object lock and the bucket does not use it", store.describe());
    Err(Failure::usage(what)
        .fact("so", "whoever holds the writer's credentials could delete backups; nothing was created")
        .remedy("create a bucket with object lock, or give --no-lock"))
}

#[derive(Serialize)]
struct InitResult {
    repository: String,
    writer: String,
    plan: String,
    epoch: String,
    owners: Vec<OwnerResult>,
    files: Vec<PathBuf>,
}

#[derive(Serialize)]
struct OwnerResult {
    name: String,
    recipient: String,
    proven: bool,
}

impl InitResult {
    fn of(made: &Initialised, args: &InitArgs) -> Self {
        let owner = |one: &ProvenOwner| OwnerResult {
            name: one.owner.name(),
            recipient: one.owner.recipient.to_string(),
            proven: one.proven,
        };
        Self {
            repository: made.key.repository.to_string(),
            writer: made.key.writer.to_string(),
            plan: args.plan_name.clone(),
            epoch: made.epoch.epoch.to_string(),
            owners: made.owners.iter().map(owner).collect(),
            files: made.files.clone(),
        }
    }
}

fn print_result(made: &Initialised, args: &InitArgs, console: &Console) {
    let unproven: Vec<String> =
        made.owners.iter().filter(|one| !one.proven).map(|one| one.owner.name()).collect();
    let proof = match (made.owners.len(), unproven.len()) {
        (_, 0) => "proven by every owner".to_owned(),
        (all, open) if all == open => "NOT proven by any owner yet".to_owned(),
        _ => format!("NOT yet proven by {}", unproven.join(", ")),
    };
    let id = made.key.repository.to_string();
    let made_what = match args.join {
        true => format!("writer {} added to the repository", short_hash(&made.key.writer.to_string())),
        false => format!("repository {} created", short_hash(&id)),
    };
    console.success(&format!("{made_what}; the first epoch of plan {} is open, {proof}", args.plan_name));
    for (about, is_listed) in FILES {
        let name = |file: &PathBuf| file.strip_prefix(".").unwrap_or(file).display().to_string();
        let names: Vec<String> = made.files.iter().filter(|file| is_listed(file)).map(name).collect();
        if !names.is_empty() {
            console.line(&format!("  {}", names.join(", ")));
            console.line(&format!("      {about}"));
        }
    }
    if args.join {
        console.line(
            "  → its kbak.pub pins this writer alone: add its lines to the kbak.pub that you have, which pins the other \
             writers and keeps the keys that were cut off. It is another writer, whose backups begin anew: to replace \
             the key of one, see docs/keys.md",
        );
    }
    if !unproven.is_empty() {
        console.line("  → each of them: kbak keys check --identity OWNER-KEY --signer kbak.pub --repo …");
    }
}

type FileTest = fn(&Path) -> bool;

fn has_ending(file: &Path, ends: &[&str]) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    ends.iter().any(|end| name.ends_with(end))
}

/// The purpose of each file, with a test for its name.
const FILES: [(&str, FileTest); 4] = [
    (
        "for the machine that backs up: the first signs, the second names chunks; neither decrypts a backup",
        |file| has_ending(file, &[".key", ".epoch"]),
    ),
    ("pins this writer: needed to restore and to verify; keep a copy away from the bucket", |file| {
        has_ending(file, &[".pub"])
    }),
    ("print one and put it beside an owner's key: it says how to restore, with or without kbak", |file| {
        has_ending(file, &["recovery.html", "recovery.txt"])
    }),
    ("the same two keys for the cluster: seal them, or kubectl apply -f, then delete them here", |file| {
        has_ending(file, &[".yaml"])
    }),
];
