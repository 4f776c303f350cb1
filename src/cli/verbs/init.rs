//! `kbak init`: creates a repository, or adds a writer to one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use crate::cli::failure::{Exit, Failure};
use crate::cli::options::keyring::{identities, owners};
use crate::cli::options::store;
use crate::cli::options::{OutputArgs, ReaderArgs, StoreArgs};
use crate::cli::shell::console::Console;
use crate::cli::shell::display::{Display, DisplayOptions, Mode};
use crate::cli::shell::output;
use crate::cli::shell::output::Format;
use crate::cli::shell::signals::until_signalled;
use crate::format::epoch::Parameters;
use crate::format::ids::WriterId;
use crate::plan::{DEFAULT_NAME, Epoch, EpochAge, Period, Repository};
use crate::report::text::short_hash;
use crate::repository::epoch::create::Life;
use crate::repository::write::init;
use crate::repository::write::init::{Init, Initialised, has_marker, prepare};
use crate::runtime::Runtime;
use crate::store::Store;
use crate::store::probe::{Abilities, Probed, Switch, Weight, probe};

/// Arguments of `kbak init`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  kbak init --repo s3://backups/prod --endpoint https://s3.example.eu \\
      --recipient \"$(cat ada.pub)\" --recipient \"$(cat bob.pub)\" \\
      --identity ada.key --identity bob.key
      two owners, both of whom answer a challenge here

  kbak init --repo file:///srv/backups --recipient \"age1…\" --single-owner
      on a laptop

  kbak init … --secrets kbak && kubeseal < kbak-writer.secret.yaml | kubectl apply -f -
      with Secrets for the namespace kbak, ready to be sealed

It writes into --folder: writer.key and writer.key.epoch (0600, for the cluster), kbak.pub (the pin,
needed to restore and verify), recovery.html and recovery.txt (print one, put it beside an owner's
key). Nothing is made unless everything is.")]
pub struct InitArgs {
    /// Options for the store of the new repository.
    #[command(flatten)]
    pub store: StoreArgs,
    /// A public key of an owner, who can restore; repeatable, two or more
    #[arg(long, value_name = "KEY")]
    pub recipient: Vec<String>,
    /// Public keys of owners, one a line
    #[arg(long, value_name = "FILE")]
    pub recipients_file: Option<PathBuf>,
    /// A private key of an owner, who answers his challenge here; repeatable
    #[arg(long, value_name = "FILE")]
    pub identity: Vec<PathBuf>,
    /// The identity's passphrase is the first line of this file; /dev/fd/3 works
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// One owner is enough: who loses that one key loses every backup
    #[arg(long)]
    pub single_owner: bool,
    /// Do without object lock on a store that could lock
    #[arg(long)]
    pub no_lock: bool,
    /// The store holds a repository already, and this is one more writer
    #[arg(long)]
    pub join: bool,
    /// The first plan's name
    #[arg(long, value_name = "NAME", default_value = DEFAULT_NAME)]
    pub plan_name: String,
    /// For how long the keys of one epoch are used, 30d to 1y
    #[arg(long, value_name = "PERIOD", default_value = "90d")]
    pub epoch_age: Period,
    /// How long a run may take
    #[arg(long, value_name = "PERIOD", default_value = "24h")]
    pub max_run: Period,
    /// Where the files go
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub folder: PathBuf,
    /// Write Kubernetes Secrets for this namespace too
    #[arg(long, value_name = "NAMESPACE")]
    pub secrets: Option<String>,
    /// The output format of the result.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Runs `kbak init`.
pub(crate) fn run(args: &InitArgs, console: &Console) -> Result<Exit, Failure> {
    let repository = store::without_plan(&args.store)?;
    let reader = ReaderArgs {
        identity: args.identity.clone(),
        passphrase_file: args.passphrase_file.clone(),
        ..ReaderArgs::default()
    };
    let owners = owners(&args.recipient, args.recipients_file.as_deref())?;
    let (identities, prompt) = identities(&reader)?;
    let request = Init {
        owners,
        identities,
        single_owner: args.single_owner,
        join: args.join,
        plan: args.plan_name.clone(),
        life: life(args)?,
        parameters: Parameters::default(),
        prompt,
        place: store::whereabouts(&repository),
        folder: args.folder.clone(),
        secrets: args.secrets.clone(),
    };
    let made = until_signalled(make(args, &repository, &request, console))?;
    if args.output.output == Format::Table {
        tell(&made, args, console);
    } else {
        output::value(&Shown::of(&made, args), args.output.output)?;
    }
    Ok(Exit::Safe)
}

fn life(args: &InitArgs) -> Result<Life, Failure> {
    let epoch = Epoch { max_age: EpochAge::Fixed(args.epoch_age), max_run: args.max_run };
    if !(Period::days(30)..=Period::days(365)).contains(&args.epoch_age) {
        let what = format!("--epoch-age {} is not from 30d to 365d", args.epoch_age);
        return Err(Failure::new(Exit::Usage, what));
    }
    if !(Period::seconds(60)..=Period::days(14)).contains(&args.max_run) {
        return Err(Failure::new(Exit::Usage, format!("--max-run {} is not from 1m to 14d", args.max_run)));
    }
    let seconds = |period: Period| period.duration().as_secs();
    Ok(Life { max_age: seconds(epoch.age(None)), max_run: seconds(epoch.max_run), keep: None })
}

async fn make(
    args: &InitArgs,
    repository: &Repository,
    request: &Init,
    console: &Console,
) -> Result<Initialised, Failure> {
    let runtime = Runtime::real();
    let mode = if args.output.output == Format::Table { Mode::Plain } else { Mode::None };
    let display = Display::start(
        DisplayOptions { mode, style: console.style, memory: None },
        Box::new(std::io::stderr()),
    );
    let reporter = display.reporter();
    // Everything that needs no store comes first, so that a mistake leaves no objects in one.
    let owners = prepare(&runtime, request).await?;
    let fresh = store::Fresh::of(&repository.url);
    let options = store::options(repository, None, !args.join);
    let store = store::store(&options, &runtime, &reporter).await?;
    has_marker(&store, args.join).await?;
    let probed = probe_store(&store, &runtime).await?;
    if mode == Mode::Plain {
        probed.findings.iter().for_each(|finding| console.finding(finding));
    }
    refuse_unfit(&store, &probed)?;
    refuse_unlocked(&store, &probed.abilities, args.no_lock)?;
    let made = init::make(&store, &runtime, request, owners, &reporter).await?;
    fresh.keep();
    drop(display.finish());
    Ok(made)
}

/// Probes the store under a random writer id that no writer uses.
async fn probe_store(store: &Arc<dyn Store>, runtime: &Runtime) -> Result<Probed, Failure> {
    Ok(probe(store, runtime, WriterId(runtime.random())).await?)
}

fn refuse_unfit(store: &Arc<dyn Store>, probed: &Probed) -> Result<(), Failure> {
    let Some(problem) = probed.findings.iter().find(|finding| finding.weight == Weight::Problem) else {
        return Ok(());
    };
    let mut failure = Failure::new(Exit::Usage, format!("{} cannot hold a repository", store.describe()))
        .fact("because", problem.what.clone());
    failure.remedy.clone_from(&problem.remedy);
    Err(failure)
}

fn refuse_unlocked(store: &Arc<dyn Store>, abilities: &Abilities, no_lock: bool) -> Result<(), Failure> {
    if no_lock || abilities.object_lock != Switch::Off {
        return Ok(());
    }
    let what = format!("{} can lock objects and the bucket does not", store.describe());
    Err(Failure::new(Exit::Usage, what)
        .fact("so", "whoever holds the writer's credentials could delete backups; nothing was created")
        .remedy("make a bucket with object lock, or say --no-lock"))
}

#[derive(Serialize)]
struct Shown {
    repository: String,
    writer: String,
    plan: String,
    epoch: String,
    owners: Vec<ShownOwner>,
    files: Vec<PathBuf>,
}

#[derive(Serialize)]
struct ShownOwner {
    name: String,
    recipient: String,
    proven: bool,
}

impl Shown {
    fn of(made: &Initialised, args: &InitArgs) -> Self {
        let owner = |one: &crate::keys::recovery_sheet::ProvenOwner| ShownOwner {
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

fn tell(made: &Initialised, args: &InitArgs, console: &Console) {
    let unproven: Vec<String> =
        made.owners.iter().filter(|one| !one.proven).map(|one| one.owner.name()).collect();
    let proof = match (made.owners.len(), unproven.len()) {
        (_, 0) => "proven by every owner".to_owned(),
        (all, open) if all == open => "NOT proven by any owner yet".to_owned(),
        _ => format!("NOT yet proven by {}", unproven.join(", ")),
    };
    let id = made.key.repository.to_string();
    console.good(&format!(
        "repository {} created; the first epoch of plan {} is open, {proof}",
        short_hash(&id),
        args.plan_name
    ));
    for (about, wanted) in FILES {
        let names: Vec<String> = made
            .files
            .iter()
            .filter(|file| wanted(file))
            .map(|file| file.strip_prefix(".").unwrap_or(file).display().to_string())
            .collect();
        if !names.is_empty() {
            console.say(&format!("  {}", names.join(", ")));
            console.say(&format!("      {about}"));
        }
    }
    if !unproven.is_empty() {
        console.say("  → each of them: kbak keys check --identity HIS-KEY --signer kbak.pub --repo …");
    }
}

type Wanted = fn(&Path) -> bool;

fn ends(file: &Path, ends: &[&str]) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    ends.iter().any(|end| name.ends_with(end))
}

/// The purpose of each file, with a test for its name.
const FILES: [(&str, Wanted); 4] = [
    (
        "for the machine that backs up: the first signs, the second names chunks; neither reads a backup",
        |file| ends(file, &[".key", ".epoch"]),
    ),
    ("pins this writer: needed to restore and to verify; keep a copy away from the bucket", |file| {
        ends(file, &[".pub"])
    }),
    ("print one and put it beside an owner's key: it says how to restore, with or without kbak", |file| {
        ends(file, &["recovery.html", "recovery.txt"])
    }),
    ("the same two keys for the cluster: seal them, or kubectl apply -f, then delete them here", |file| {
        ends(file, &[".yaml"])
    }),
];
