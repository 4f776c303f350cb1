//! `kbak epoch`: opens, lists and closes epochs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::failure::{Exit, Failure};
use crate::cli::options::chain::{ChainArgs, WritableChain};
use crate::cli::options::key_files::read_owners;
use crate::cli::options::plan_args::load;
use crate::cli::options::{OutputArgs, StoreArgs, store};
use crate::cli::shell::console::Console;
use crate::cli::shell::output;
use crate::cli::shell::output::Column::{Left, Right};
use crate::cli::shell::passphrase::PassphrasePrompt;
use crate::cli::shell::signals::until_signalled;
use crate::format::epoch::Parameters;
use crate::format::ids::EpochId;
use crate::keys::private_file;
use crate::report::event::Reporter;
use crate::report::text::{plural, utc};
use crate::repository::epoch::counting;
use crate::repository::epoch::create::{self, EpochContext, EpochSettings, NewEpoch};
use crate::repository::epoch::stored::{EpochReader, Epochs, StoredEpoch};
use crate::repository::epoch::{current, wraps};
use crate::repository::records::{self, Records};
use crate::runtime::Runtime;
use crate::store::Store;

/// Arguments of `kbak epoch`.
#[derive(Debug, Args)]
pub struct EpochArgs {
    #[command(subcommand)]
    pub action: EpochAction,
}

/// The actions of `kbak epoch`.
#[derive(Debug, Subcommand)]
pub enum EpochAction {
    /// Open a new epoch now: new keys, and nothing of older epochs is reused
    #[command(after_long_help = "\
Examples:
  kbak epoch new --plan nightly.yaml
      after an owner left, or a key was lost

  kbak epoch new --outside epoch.handover --recipients-file owners.txt
      on an owner's machine: the writer never sees the private half

  kbak epoch new --plan nightly.yaml --handover epoch.handover
      the writer signs and stores it")]
    New(NewArgs),
    /// List the epochs of a plan
    #[command(after_long_help = "\
Examples:
  kbak epoch list --plan nightly.yaml
  kbak epoch list --repo s3://backups/prod --writer-key writer.key -o json")]
    List(ListArgs),
    /// Close the current epoch by opening its successor: then prune may delete in it
    #[command(after_long_help = "\
Examples:
  kbak epoch close --plan nightly.yaml")]
    Close(CloseArgs),
}

/// Arguments of `kbak epoch new`.
#[derive(Debug, Args)]
pub struct NewArgs {
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub chain: ChainArgs,
    /// Only create the keys of an epoch for a writer elsewhere, in this file. It is secret, but it
    /// cannot decrypt
    #[arg(long, value_name = "FILE", conflicts_with = "handover")]
    pub outside: Option<PathBuf>,
    /// Use the keys that an owner created with --outside
    #[arg(long, value_name = "FILE")]
    pub handover: Option<PathBuf>,
}

/// Arguments of `kbak epoch close`.
#[derive(Debug, Args)]
pub struct CloseArgs {
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub chain: ChainArgs,
}

/// Arguments of `kbak epoch list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub chain: ChainArgs,
    /// The trusted signers, whose receipts count [default: the plan's signersFile]
    #[arg(long, value_name = "FILE")]
    pub signer: Option<PathBuf>,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Runs the chosen action.
pub(crate) fn run(args: EpochArgs, console: &Console) -> Result<Exit, Failure> {
    match args.action {
        EpochAction::New(args) => match &args.outside {
            Some(file) => make_keys(&args, file.clone(), console),
            None => open_epoch(&args.chain, &args.store, args.handover, console),
        },
        EpochAction::Close(args) => open_epoch(&args.chain, &args.store, None, console),
        EpochAction::List(args) => list(&args, console),
    }
}

/// A plan's epochs and records, with the chain and the store that they come from.
struct PlanEpochs {
    store: Arc<dyn Store>,
    runtime: Runtime,
    chain: WritableChain,
    epochs: Epochs,
    records: Records,
}

/// Reads the epochs and records that the writer or a pinned signer signed.
async fn read_epochs(chain: WritableChain, runtime: Runtime) -> Result<PlanEpochs, Failure> {
    let reporter = Reporter::silent();
    let store = store::open_store(&chain.repository, None, false, &runtime, &reporter).await?;
    let (writer, plan) = (chain.key.writer, chain.key.plan(&chain.name));
    let (repository, signers) = (Some(chain.key.repository), &chain.signers);
    let records = records::list(&store, writer, repository, signers, &reporter).await?;
    let reader = EpochReader { store: &store, writer, plan, repository, signers, reporter: &reporter };
    let epochs = counting::list(reader, &records).await?;
    Ok(PlanEpochs { store, runtime, chain, epochs, records })
}

fn open_epoch(
    args: &ChainArgs,
    store: &StoreArgs,
    handover: Option<PathBuf>,
    console: &Console,
) -> Result<Exit, Failure> {
    let runtime = Runtime::real();
    let chain = WritableChain::open(args, store, console)?;
    let made = handover.map(|file| read_handover(&file)).transpose()?;
    let (epoch, closed, name) = until_signalled(async {
        let plan = read_epochs(chain, runtime).await?;
        let closed = plan.epochs.heads();
        Ok((create_epoch(&plan, made).await?, closed, plan.chain.name))
    })?;
    for id in &closed {
        console.success(&format!("epoch {id} of plan {name} is closed: no run starts in it any more"));
    }
    console.success(&format!(
        "epoch {epoch} of plan {name} is open: the next run reads and stores everything again"
    ));
    console.line(
        "  → owners: kbak keys check --identity OWNER-KEY --signer kbak.pub proves that they can open it",
    );
    Ok(Exit::Safe)
}

/// Creates an epoch, from the keys of a handover or from new ones.
async fn create_epoch(plan: &PlanEpochs, made: Option<NewEpoch>) -> Result<EpochId, Failure> {
    let PlanEpochs { store, runtime, chain, epochs, records } = plan;
    let settings = EpochSettings {
        owners: chain.owners.clone(),
        life: chain.durations,
        parameters: Parameters::default(),
        new_epoch: true,
        // Calling this verb is a request to change owners.
        change_owners: true,
        prompt: PassphrasePrompt::shared(None)?,
    };
    let plan = chain.key.plan(&chain.name);
    let keeper = chain.epoch_secret.open(&chain.key, &chain.name, runtime, &Reporter::silent()).await?;
    let context = EpochContext { store, runtime, key: &chain.key, plan, keeper: &*keeper };
    create::restore_missing_copies(context, epochs).await?;
    match made {
        Some(made) => {
            let held = keeper.load().await?.unwrap_or_default().secrets;
            let now = store.now().await?;
            Ok(create::create_epoch(context, &settings, epochs.heads(), made, (now, &held)).await?.0.epoch)
        }
        None => Ok(current::find_or_create(context, &settings, epochs, records).await?.epoch.epoch),
    }
}

fn read_handover(file: &Path) -> Result<NewEpoch, Failure> {
    let read = private_file::read(file)?;
    NewEpoch::from_hand_over(&read.bytes).map_err(|error| {
        Failure::usage(format!("{}: not the handover of an epoch", file.display())).because(error)
    })
}

fn make_keys(args: &NewArgs, file: PathBuf, console: &Console) -> Result<Exit, Failure> {
    let runtime = Runtime::real();
    let owners = match &args.chain.plan {
        Some(plan) => load(plan)?.plan.spec.owners(),
        None => read_owners(&args.chain.selected.recipient, args.chain.recipients_file.as_deref())?,
    };
    let prompt = PassphrasePrompt::shared(None)?;
    let made = until_signalled(async { Ok(create::generate_keys(&runtime, &owners, &prompt).await?) })?;
    private_file::create(&file, 0o600, made.to_hand_over().as_bytes())?;
    console.success(&format!(
        "{} written, mode 0600: epoch {} for {}",
        file.display(),
        made.id(),
        plural(owners.len() as u64, "owner", "owners")
    ));
    console.line("  → carry it to the writer in secret, then there: kbak epoch new --plan … --handover FILE");
    Ok(Exit::Safe)
}

#[derive(Serialize)]
struct EpochRow {
    epoch: EpochId,
    state: &'static str,
    created: Timestamp,
    not_after: Timestamp,
    closed_from: Timestamp,
    owners: usize,
    /// True if signers are pinned: only their receipts show owners that were added later.
    all_owners_known: bool,
    /// `None` if no signer is pinned whose receipt would count.
    proven: Option<bool>,
}

fn list(args: &ListArgs, console: &Console) -> Result<Exit, Failure> {
    let runtime = Runtime::real();
    let mut chain = WritableChain::open(&args.chain, &args.store, console)?;
    if let Some(file) = &args.signer {
        chain.pin_signers(file)?;
    }
    let pinned = chain.pinned;
    let (plan, now) = until_signalled(async {
        let plan = read_epochs(chain, runtime).await?;
        let now = plan.store.now().await?;
        Ok((plan, now))
    })?;
    for (key, error) in &plan.epochs.rejected {
        console.warn(&format!("{key} is not a valid epoch: {error}"));
    }
    let rows: Vec<EpochRow> = rows(&plan, now, pinned);
    let columns = [
        Left("EPOCH"),
        Left("STATE"),
        Left("CREATED"),
        Left("RUNS START UNTIL"),
        Right("OWNERS"),
        Left("PROVEN"),
    ];
    let line = |row: &EpochRow| {
        let proven = match row.proven {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "? (--signer)",
        };
        let (created, until) = (utc(row.created), utc(row.not_after));
        let least = if row.all_owners_known { "" } else { "at least " };
        let owners = format!("{least}{}", row.owners);
        vec![row.epoch.to_string(), row.state.into(), created, until, owners, proven.into()]
    };
    output::write_list(args.output.output, &columns, rows.iter().map(line), &rows)?;
    Ok(Exit::Safe)
}

fn rows(plan: &PlanEpochs, now: Timestamp, pinned: bool) -> Vec<EpochRow> {
    let own = plan.chain.key.signing.public();
    let current = plan.epochs.open_own(now, own).next().map(|stored| stored.epoch.epoch);
    let holders = wraps::list(&plan.epochs, &plan.records);
    let row = |(stored, holders): (&StoredEpoch, &wraps::Row)| {
        let state = match current {
            Some(id) if id == stored.epoch.epoch => "current",
            _ if plan.epochs.may_start(stored, now) => "open",
            _ if now < plan.epochs.closed_from(stored) => "ending",
            _ => "closed",
        };
        EpochRow {
            epoch: stored.epoch.epoch,
            state,
            created: stored.epoch.created,
            not_after: plan.epochs.starts_until(stored),
            closed_from: plan.epochs.closed_from(stored),
            owners: holders.holders.len(),
            all_owners_known: pinned,
            proven: pinned.then_some(holders.proven),
        }
    };
    plan.epochs.all.iter().zip(&holders).map(row).collect()
}
