//! `kbak keys`: checks, adds and lists the owners that can open epochs.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::failure::{Exit, Failure};
use crate::cli::options::key_files::{read_identities, read_owners, read_required_pin};
use crate::cli::options::{OutputArgs, ReadArgs, reading};
use crate::cli::shell::console::Console;
use crate::cli::shell::output::{self, Column::Left, OutputFormat};
use crate::cli::shell::signals::until_signalled;
use crate::cli::verbs::cut_off::{self, CUT_OFF_HELP, CutOffArgs};
use crate::format::ids::RecipientId;
use crate::keys::Owner;
use crate::report::text::{plural, short_hash, utc};
use crate::repository::epoch::wraps::{self, KeyContext};
use crate::repository::read::damage;
use crate::repository::read::reader::{RepositoryReader, StoredPlan};

/// Arguments of `kbak keys`.
#[derive(Debug, Args)]
pub struct KeysArgs {
    #[command(subcommand)]
    pub action: KeysAction,
}

/// The actions of `kbak keys`.
#[derive(Debug, Subcommand)]
pub enum KeysAction {
    /// Prove that a private key opens every epoch, and sign a receipt for it
    #[command(after_long_help = "\
Examples:
  kbak keys check --repo s3://backups/prod --signer kbak.pub --identity owner.key

An epoch that no owner has opened yet is unproven: a mistyped or swapped recipient would go unnoticed.
An owner whose signing key is not in kbak.pub cannot store a receipt: this is printed, and the epoch
stays unproven. Exit codes: 0 every identity opens every epoch and the receipts are
stored, 2 they cannot be stored, 3 an identity does not open an epoch.")]
    Check(KeysReadArgs),
    /// Let another owner open the epochs that the identity opens
    #[command(after_long_help = "\
Examples:
  kbak keys add --owner \"age1… carol\" --repo s3://backups/prod --signer kbak.pub --identity owner.key

Add the key to the plan's recipients too, so that later epochs include this owner.")]
    Add(KeysAddArgs),
    /// Revoke a key that somebody may have stolen, in the pin first and in the repository
    #[command(after_long_help = CUT_OFF_HELP)]
    CutOff(CutOffArgs),
    /// List epochs, the owners that can open each, and those that have
    #[command(after_long_help = "\
Examples:
  kbak keys list --repo s3://backups/prod --signer kbak.pub")]
    List(KeysReadArgs),
}

/// Arguments of `kbak keys check` and `kbak keys list`.
#[derive(Debug, Args)]
pub struct KeysReadArgs {
    #[command(flatten)]
    pub repository: ReadArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Arguments of `kbak keys add`.
#[derive(Debug, Args)]
pub struct KeysAddArgs {
    /// The public key of the new owner, handed over by them, never taken from a bucket
    #[arg(long, value_name = "KEY")]
    pub owner: String,
    #[command(flatten)]
    pub repository: ReadArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Runs the chosen action.
pub(crate) fn run(args: &KeysArgs, console: &Console) -> Result<Exit, Failure> {
    match &args.action {
        KeysAction::Check(args) => check(args, console),
        KeysAction::Add(args) => add(args, console),
        KeysAction::CutOff(args) => cut_off::run(args, console),
        KeysAction::List(args) => list(args, console),
    }
}

async fn plans(from: &ReadArgs, console: &Console) -> Result<(RepositoryReader, Vec<StoredPlan>), Failure> {
    let view = reading::open_repository(from, &console.reporter()).await?;
    let plans = view.plans(&reading::snapshot_selector(&from.reader, "latest")).await?;
    if plans.iter().all(|plan| plan.epochs.all.is_empty()) {
        let what = format!("no epoch in {} that a pinned key signed", view.store.describe());
        if plans.iter().any(StoredPlan::is_unreadable) {
            return Err(damage::unreadable(what, plans.iter()).into());
        }
        let mut failure =
            Failure::usage(what).remedy("check that --signer names the kbak.pub of this repository");
        if let Some((object, error)) = plans.iter().flat_map(|plan| &plan.epochs.rejected).next() {
            failure = failure.fact(object.to_string(), error.to_string());
        }
        return Err(failure);
    }
    Ok((view, plans))
}

#[derive(Serialize)]
struct CheckRow {
    plan: String,
    epoch: String,
    identity: String,
    opened: bool,
    receipt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

fn check(args: &KeysReadArgs, console: &Console) -> Result<Exit, Failure> {
    let held = reading::required_identities(&args.repository.reader)?;
    let (rows, unstored) = until_signalled(async {
        let (view, plans) = plans(&args.repository, console).await?;
        let context = context(&view);
        let (mut rows, mut unstored) = (Vec::new(), None);
        for plan in &plans {
            let records = view.records(plan.writer).await?;
            for row in wraps::check(context, &plan.epochs, &records, &held).await? {
                let (receipt, lost) = match row.receipt {
                    Ok(receipt) => (receipt, None),
                    Err(error) => (None, Some(Failure::from(error))),
                };
                let closed = row.opened.as_ref().err().map(ToString::to_string);
                rows.push(CheckRow {
                    plan: plan.plan.to_string(),
                    epoch: row.epoch.to_string(),
                    identity: row.identity,
                    opened: row.opened.is_ok(),
                    receipt: receipt.map(|hash| hash.to_string()),
                    error: closed.or_else(|| lost.as_ref().map(|failure| failure.what.clone())),
                });
                unstored = unstored.or(lost);
            }
        }
        Ok((rows, unstored))
    })?;
    let columns = [Left("PLAN"), Left("EPOCH"), Left("IDENTITY"), Left("OPENS"), Left("RECEIPT")];
    let line = |row: &CheckRow| {
        let opens = if row.opened { "yes" } else { "NO" };
        let receipt = row.receipt.as_deref().map_or_else(|| "none".into(), short_hash);
        vec![row.plan.clone(), row.epoch.clone(), row.identity.clone(), opens.into(), receipt]
    };
    output::write_list(args.output.output, &columns, rows.iter().map(line), &rows)?;
    let closed = rows.iter().filter(|row| !row.opened).count() as u64;
    if closed == 0 {
        console.success(&format!("{} opened", plural(rows.len() as u64, "epoch", "epochs")));
        return unstored.map_or(Ok(Exit::Safe), |why| Err(no_receipt(why)));
    }
    console.warn(&format!("{} not opened", plural(closed, "epoch was", "epochs were")));
    console.line("  → an owner who opens it can add this key: kbak keys add --owner … --identity OWNER-KEY");
    Ok(Exit::Partial)
}

/// Returns the failure for epochs that were opened, but whose receipts could not be stored.
fn no_receipt(why: Failure) -> Failure {
    let what = "every epoch was opened, but the receipts could not be stored: others still \
                see these epochs as unproven";
    Failure::new(why.exit, what)
        .fact("because", why.what.clone())
        .remedy("run it again with credentials that may put objects")
        .because(why)
}

fn context(view: &RepositoryReader) -> KeyContext<'_> {
    let RepositoryReader { store, signers, runtime, reporter } = view;
    KeyContext { store, runtime, signers, reporter }
}

#[derive(Serialize)]
struct AddRow {
    plan: String,
    epoch: String,
    added: bool,
    wrap: Option<String>,
    receipt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

fn add(args: &KeysAddArgs, console: &Console) -> Result<Exit, Failure> {
    let new = read_owners(std::slice::from_ref(&args.owner), None)?.remove(0);
    let reader = &args.repository.reader;
    let (held, prompt) = read_identities(&reader.identity, reader.passphrase_file.as_deref())?;
    if held.is_empty() {
        reading::required_identities(reader)?;
    }
    let rows = until_signalled(async {
        let (view, plans) = plans(&args.repository, console).await?;
        let mut rows = Vec::new();
        for plan in &plans {
            let records = view.records(plan.writer).await?;
            for row in wraps::add(context(&view), &plan.epochs, &records, &held, &new, &prompt).await? {
                rows.push(AddRow {
                    plan: plan.plan.to_string(),
                    epoch: row.epoch.to_string(),
                    added: row.wrap.is_ok(),
                    wrap: row.wrap.as_ref().ok().map(ToString::to_string),
                    receipt: row.receipt.map(|hash| hash.to_string()),
                    error: row.wrap.err().map(|error| Failure::from(error).what),
                });
            }
        }
        Ok(rows)
    })?;
    if args.output.output != OutputFormat::Table {
        output::write_value(&rows, args.output.output)?;
    }
    if rows.is_empty() {
        console.success(&format!("{} already can open every epoch", new.name()));
    }
    for row in &rows {
        match &row.error {
            None => {
                console.success(&format!("{} can open epoch {} of plan {}", new.name(), row.epoch, row.plan))
            }
            Some(error) => console.warn(&format!("epoch {} of plan {}: {error}", row.epoch, row.plan)),
        }
    }
    console.line(
        "  → add the same key to the plan's recipients, or the next run closes the epoch to keep it out",
    );
    Ok(if rows.iter().all(|row| row.added) { Exit::Safe } else { Exit::Partial })
}

#[derive(Serialize)]
struct ListRow {
    plan: String,
    epoch: String,
    created: Timestamp,
    owner: String,
    fingerprint: String,
    added_later: bool,
    opened: Option<Timestamp>,
    /// True if this owner has opened the epoch.
    proven: bool,
    /// True if any owner has opened the epoch.
    epoch_proven: bool,
}

fn list(args: &KeysReadArgs, console: &Console) -> Result<Exit, Failure> {
    let pin = read_required_pin(args.repository.reader.signer.as_deref())?;
    let rows = until_signalled(async {
        let (view, plans) = plans(&args.repository, console).await?;
        let mut rows = Vec::new();
        for plan in &plans {
            let records = view.records(plan.writer).await?;
            for row in wraps::list(&plan.epochs, &records) {
                rows.extend(row.holders.iter().map(|holder| ListRow {
                    plan: plan.plan.to_string(),
                    epoch: row.epoch.to_string(),
                    created: row.created,
                    owner: name_of(&pin.owners, holder.recipient),
                    fingerprint: holder.recipient.to_string(),
                    added_later: holder.later,
                    opened: holder.opened,
                    proven: holder.opened.is_some(),
                    epoch_proven: row.proven,
                }));
            }
        }
        Ok(rows)
    })?;
    let columns = [Left("PLAN"), Left("EPOCH"), Left("OWNER"), Left("KEY"), Left("OPENED")];
    let line = |row: &ListRow| {
        let opened = row.opened.map_or_else(|| "never".into(), utc);
        let owner = if row.added_later { format!("{} (added later)", row.owner) } else { row.owner.clone() };
        vec![row.plan.clone(), row.epoch.clone(), owner, short_hash(&row.fingerprint), opened]
    };
    output::write_list(args.output.output, &columns, rows.iter().map(line), &rows)?;
    let mut unproven: Vec<&str> =
        rows.iter().filter(|row| !row.epoch_proven).map(|row| row.epoch.as_str()).collect();
    unproven.dedup();
    if !unproven.is_empty() {
        console.warn(&format!("no owner has opened {} yet", unproven.join(", ")));
        console.line("  → kbak keys check --identity owner.key");
    }
    Ok(Exit::Safe)
}

/// Returns the name that the pin gives the owner of a key.
fn name_of(owners: &[Owner], id: RecipientId) -> String {
    let owner = owners.iter().find(|owner| owner.recipient.id() == id);
    owner.map_or_else(|| "not in kbak.pub".into(), Owner::name)
}
