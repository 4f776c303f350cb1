//! `kbak epoch`: opens, lists and closes epochs.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::failure::{Exit, Failure};
use crate::cli::options::chain::{Chain, ChainArgs};
use crate::cli::options::keyring::owners;
use crate::cli::options::store;
use crate::cli::options::{OutputArgs, StoreArgs};
use crate::cli::shell::console::{Console, PassphrasePrompt};
use crate::cli::shell::output;
use crate::cli::shell::output::Column;
use crate::cli::shell::signals::until_signalled;
use crate::format::epoch::Parameters;
use crate::format::ids::EpochId;
use crate::keys::private_file;
use crate::report::event::Reporter;
use crate::report::text::{plural, utc};
use crate::repository::epoch::create;
use crate::repository::epoch::create::{EpochContext, Made, Wanted};
use crate::repository::epoch::stored;
use crate::repository::epoch::stored::Epochs;
use crate::repository::records::{self, Records};
use crate::runtime::Runtime;
use crate::store::Store;

/// Arguments of `kbak epoch`.
#[derive(Debug, Args)]
pub struct EpochArgs {
    /// The action.
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
    /// Options for the repository's store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Options for the plan and its keys.
    #[command(flatten)]
    pub chain: ChainArgs,
    /// Only make keys, for a writer elsewhere, into this file: it holds a secret, though not the
    /// one that decrypts
    #[arg(long, value_name = "FILE", conflicts_with = "handover")]
    pub outside: Option<PathBuf>,
    /// Take the keys that an owner made with --outside
    #[arg(long, value_name = "FILE")]
    pub handover: Option<PathBuf>,
}

/// Arguments of `kbak epoch close`.
#[derive(Debug, Args)]
pub struct CloseArgs {
    /// Options for the repository's store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Options for the plan and its keys.
    #[command(flatten)]
    pub chain: ChainArgs,
}

/// Arguments of `kbak epoch list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Options for the repository's store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Options for the plan and its keys.
    #[command(flatten)]
    pub chain: ChainArgs,
    /// The pin, which says whose receipts count [default: the plan's signersFile]
    #[arg(long, value_name = "FILE")]
    pub signer: Option<PathBuf>,
    /// The output format.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Runs the chosen action.
pub(crate) fn run(args: EpochArgs, console: &Console) -> Result<Exit, Failure> {
    match args.action {
        EpochAction::New(args) => match &args.outside {
            Some(file) => outside(&args, file.clone(), console),
            None => open(&args.chain, &args.store, args.handover, console),
        },
        EpochAction::Close(args) => open(&args.chain, &args.store, None, console),
        EpochAction::List(args) => list(&args, console),
    }
}

/// A plan's epochs and records, with the chain and the store that they come from.
struct Seen {
    store: Arc<dyn Store>,
    runtime: Runtime,
    chain: Chain,
    epochs: Epochs,
    records: Records,
}

/// Reads the epochs and records that the writer or a pinned signer signed.
async fn look(chain: Chain, runtime: Runtime) -> Result<Seen, Failure> {
    let reporter = Reporter::silent();
    let store = store::store(&store::options(&chain.repository, None, false), &runtime, &reporter).await?;
    let (writer, plan) = (chain.key.writer, chain.key.plan(&chain.name));
    let (repository, signers) = (Some(chain.key.repository), &chain.signers);
    let epochs = stored::list(&store, writer, plan, repository, signers, &reporter).await?;
    let records = records::list(&store, writer, repository, signers, &reporter).await?;
    Ok(Seen { store, runtime, chain, epochs, records })
}

fn open(
    args: &ChainArgs,
    store: &StoreArgs,
    handover: Option<PathBuf>,
    console: &Console,
) -> Result<Exit, Failure> {
    let runtime = Runtime::real();
    let chain = Chain::open(args, store, &runtime, console)?;
    let made = handover.map(|file| read_handover(&file)).transpose()?;
    let (epoch, closed, name) = until_signalled(async {
        let seen = look(chain, runtime).await?;
        let closed = seen.epochs.heads();
        Ok((born(&seen, made).await?, closed, seen.chain.name))
    })?;
    for id in &closed {
        console.good(&format!("epoch {id} of plan {name} is closed: no run starts in it any more"));
    }
    console.good(&format!(
        "epoch {epoch} of plan {name} is open: the next run reads and stores everything anew"
    ));
    console
        .say("  → owners: kbak keys check --identity HIS-KEY --signer kbak.pub proves that they can open it");
    Ok(Exit::Safe)
}

/// Creates an epoch, from the keys of a handover or from new ones.
async fn born(seen: &Seen, made: Option<Made>) -> Result<EpochId, Failure> {
    let Seen { store, runtime, chain, epochs, records } = seen;
    let wanted = Wanted {
        owners: chain.owners.clone(),
        life: chain.life,
        parameters: Parameters::default(),
        new_epoch: true,
        // Calling this verb is a request to change owners.
        change_owners: true,
        prompt: PassphrasePrompt::shared(None)?,
    };
    let plan = chain.key.plan(&chain.name);
    let context = EpochContext { store, runtime, key: &chain.key, plan, keeper: &chain.keeper };
    create::mend(context, epochs).await?;
    match made {
        Some(made) => {
            let now = store.now().await?;
            Ok(create::create_epoch(context, &wanted, epochs.heads(), made, now).await?.0.epoch)
        }
        None => Ok(create::ready(context, &wanted, epochs, records).await?.epoch.epoch),
    }
}

fn read_handover(file: &std::path::Path) -> Result<Made, Failure> {
    let read = private_file::read(file)?;
    Made::from_hand_over(&read.bytes).map_err(|error| {
        Failure::new(Exit::Usage, format!("{}: no epoch that was handed over", file.display())).because(error)
    })
}

fn outside(args: &NewArgs, file: PathBuf, console: &Console) -> Result<Exit, Failure> {
    let runtime = Runtime::real();
    let owners = match &args.chain.plan {
        Some(plan) => crate::cli::verbs::plan::load(plan)?.plan.spec.owners(),
        None => owners(&args.chain.recipient, args.chain.recipients_file.as_deref())?,
    };
    let prompt = PassphrasePrompt::shared(None)?;
    let made = until_signalled(async { Ok(create::make(&runtime, &owners, &prompt).await?) })?;
    private_file::create(&file, 0o600, made.to_hand_over().as_bytes())?;
    console.good(&format!(
        "{} written, mode 0600: epoch {} for {}",
        file.display(),
        made.id(),
        plural(owners.len() as u64, "owner", "owners")
    ));
    console.say("  → carry it to the writer in secret, then there: kbak epoch new --plan … --handover FILE");
    Ok(Exit::Safe)
}

#[derive(Serialize)]
struct Row {
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
    let mut chain = Chain::open(&args.chain, &args.store, &runtime, console)?;
    if let Some(file) = &args.signer {
        chain.pin(file)?;
    }
    let pinned = chain.pinned;
    let (seen, now) = until_signalled(async {
        let seen = look(chain, runtime).await?;
        let now = seen.store.now().await?;
        Ok((seen, now))
    })?;
    for (key, error) in &seen.epochs.rejected {
        console.warn(&format!("{key} is no epoch that counts: {error}"));
    }
    let rows: Vec<Row> = rows(&seen, now, pinned);
    let columns = [
        Column::Left("EPOCH"),
        Column::Left("STATE"),
        Column::Left("CREATED"),
        Column::Left("RUNS START UNTIL"),
        Column::Right("OWNERS"),
        Column::Left("PROVEN"),
    ];
    let line = |row: &Row| {
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
    output::listing(args.output.output, &columns, rows.iter().map(line), &rows)?;
    Ok(Exit::Safe)
}

fn rows(seen: &Seen, now: Timestamp, pinned: bool) -> Vec<Row> {
    let own = seen.chain.key.signing.public();
    let current = seen.epochs.open_own(now, own).next().map(|stored| stored.epoch.epoch);
    let holders = crate::repository::epoch::wraps::list(&seen.epochs, &seen.records);
    let row = |(stored, holders): (&stored::StoredEpoch, &crate::repository::epoch::wraps::Row)| {
        let state = match current {
            Some(id) if id == stored.epoch.epoch => "current",
            _ if seen.epochs.may_start(stored, now) => "open",
            _ if now < seen.epochs.closed_from(stored) => "ending",
            _ => "closed",
        };
        Row {
            epoch: stored.epoch.epoch,
            state,
            created: stored.epoch.created,
            not_after: seen.epochs.starts_until(stored),
            closed_from: seen.epochs.closed_from(stored),
            owners: holders.holders.len(),
            all_owners_known: pinned,
            proven: pinned.then_some(holders.proven),
        }
    };
    seen.epochs.all.iter().zip(&holders).map(row).collect()
}
