//! `kbak keys`: checks, adds and lists the owners that can open epochs.

use std::sync::Arc;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::failure::{Exit, Failure};
use crate::cli::options::keyring::{identities, owners, required_pin};
use crate::cli::options::reading;
use crate::cli::options::{OutputArgs, ReadArgs};
use crate::cli::shell::console::Console;
use crate::cli::shell::output;
use crate::cli::shell::output::{Column, Format};
use crate::cli::shell::signals::until_signalled;
use crate::format::ids::RecipientId;
use crate::keys::{Identity, Owner};
use crate::report::text::{plural, short_hash, utc};
use crate::repository::epoch::wraps;
use crate::repository::epoch::wraps::Desk;
use crate::repository::read::damage;
use crate::repository::read::open::{PlanView, View};

/// Arguments of `kbak keys`.
#[derive(Debug, Args)]
pub struct KeysArgs {
    /// The action.
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

An epoch that no owner has opened yet is unproven: nothing else would notice a recipient that was
mistyped or swapped. An owner whose signing key is not in kbak.pub can leave no receipt: that is said,
and the epoch stays unproven. Exit codes: 0 every identity opens every epoch and the receipts are
stored, 2 they cannot be stored, 3 an identity does not open an epoch.")]
    Check(CheckArgs),
    /// Let one more owner open what the given one opens
    #[command(after_long_help = "\
Examples:
  kbak keys add --owner \"age1… carol\" --repo s3://backups/prod --signer kbak.pub --identity owner.key

Add her to the plan's recipients too, so that later epochs include her.")]
    Add(AddArgs),
    /// List epochs, who can open each, and who has
    #[command(after_long_help = "\
Examples:
  kbak keys list --repo s3://backups/prod --signer kbak.pub")]
    List(CheckArgs),
}

/// Arguments of `kbak keys check` and `kbak keys list`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Options for the repository and the keys of its readers.
    #[command(flatten)]
    pub repository: ReadArgs,
    /// The output format.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Arguments of `kbak keys add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// The public key of the new owner, from himself, never from a bucket
    #[arg(long, value_name = "KEY")]
    pub owner: String,
    /// Options for the repository and the keys of its readers.
    #[command(flatten)]
    pub repository: ReadArgs,
    /// The output format.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Runs the chosen action.
pub(crate) fn run(args: &KeysArgs, console: &Console) -> Result<Exit, Failure> {
    match &args.action {
        KeysAction::Check(args) => check(args, console),
        KeysAction::Add(args) => add(args, console),
        KeysAction::List(args) => list(args, console),
    }
}

async fn plans(from: &ReadArgs, console: &Console) -> Result<(View, Vec<PlanView>), Failure> {
    let view = reading::view(from, &console.reporter()).await?;
    let plans = view.plans(&reading::which(&from.reader, "latest")).await?;
    if plans.iter().all(|plan| plan.epochs.all.is_empty()) {
        let what = format!("no epoch in {} that a pinned key signed", view.store.describe());
        if plans.iter().any(PlanView::is_unread) {
            return Err(damage::unread(what, plans.iter()).into());
        }
        let mut failure = Failure::new(Exit::Usage, what).remedy("is this the right kbak.pub?");
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

fn check(args: &CheckArgs, console: &Console) -> Result<Exit, Failure> {
    let held = reading::keys(&args.repository.reader)?;
    let (rows, unstored) = until_signalled(async {
        let (view, plans) = plans(&args.repository, console).await?;
        let desk = desk(&view);
        let (mut rows, mut unstored) = (Vec::new(), None);
        for plan in &plans {
            for row in wraps::check(desk, &plan.epochs, &held).await? {
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
    let columns = [
        Column::Left("PLAN"),
        Column::Left("EPOCH"),
        Column::Left("IDENTITY"),
        Column::Left("OPENS"),
        Column::Left("RECEIPT"),
    ];
    let line = |row: &CheckRow| {
        let opens = if row.opened { "yes" } else { "NO" };
        let receipt = row.receipt.as_deref().map_or_else(|| "none".into(), short_hash);
        vec![row.plan.clone(), row.epoch.clone(), row.identity.clone(), opens.into(), receipt]
    };
    output::listing(args.output.output, &columns, rows.iter().map(line), &rows)?;
    let closed = rows.iter().filter(|row| !row.opened).count() as u64;
    if closed == 0 {
        console.good(&format!("{} opened", plural(rows.len() as u64, "epoch", "epochs")));
        return unstored.map_or(Ok(Exit::Safe), |why| Err(no_receipt(why)));
    }
    console.warn(&format!("{} not opened", plural(closed, "epoch was", "epochs were")));
    console.say("  → an owner who opens it can add this key: kbak keys add --owner … --identity HIS-KEY");
    Ok(Exit::Partial)
}

/// Returns the failure for epochs that were opened, but whose receipts could not be stored.
fn no_receipt(why: Failure) -> Failure {
    let what = "every epoch was opened, but the receipts of it could not be stored: others go on \
                seeing these epochs as unproven";
    let mut failure = Failure::new(why.exit, what).fact("because", why.what.clone());
    failure.remedy = Some("run it again with credentials that may put objects".to_owned());
    failure.because(why)
}

fn desk(view: &View) -> Desk<'_> {
    Desk { store: &view.store, runtime: &view.runtime, signers: &view.signers, reporter: &view.reporter }
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

fn add(args: &AddArgs, console: &Console) -> Result<Exit, Failure> {
    let new = owners(std::slice::from_ref(&args.owner), None)?.remove(0);
    let (held, prompt): (Vec<Arc<Identity>>, _) = identities(&args.repository.reader)?;
    if held.is_empty() {
        reading::keys(&args.repository.reader)?;
    }
    let rows = until_signalled(async {
        let (view, plans) = plans(&args.repository, console).await?;
        let mut rows = Vec::new();
        for plan in &plans {
            let records = view.records(plan.writer).await?;
            for row in wraps::add(desk(&view), &plan.epochs, &records, &held, &new, &prompt).await? {
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
    if args.output.output != Format::Table {
        output::value(&rows, args.output.output)?;
    }
    if rows.is_empty() {
        console.good(&format!("{} can open every epoch already", new.name()));
    }
    for row in &rows {
        match &row.error {
            None => {
                console.good(&format!("{} can open epoch {} of plan {}", new.name(), row.epoch, row.plan))
            }
            Some(error) => console.warn(&format!("epoch {} of plan {}: {error}", row.epoch, row.plan)),
        }
    }
    console.say(
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

fn list(args: &CheckArgs, console: &Console) -> Result<Exit, Failure> {
    let pin = required_pin(args.repository.reader.signer.as_deref())?;
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
    let columns = [
        Column::Left("PLAN"),
        Column::Left("EPOCH"),
        Column::Left("OWNER"),
        Column::Left("KEY"),
        Column::Left("OPENED"),
    ];
    let line = |row: &ListRow| {
        let opened = row.opened.map_or_else(|| "never".into(), utc);
        let owner = if row.added_later { format!("{} (added later)", row.owner) } else { row.owner.clone() };
        vec![row.plan.clone(), row.epoch.clone(), owner, short_hash(&row.fingerprint), opened]
    };
    output::listing(args.output.output, &columns, rows.iter().map(line), &rows)?;
    let mut unproven: Vec<&str> =
        rows.iter().filter(|row| !row.epoch_proven).map(|row| row.epoch.as_str()).collect();
    unproven.dedup();
    if !unproven.is_empty() {
        console.warn(&format!("no owner has opened {} yet", unproven.join(", ")));
        console.say("  → kbak keys check --identity owner.key");
    }
    Ok(Exit::Safe)
}

/// Returns the name that the pin gives the owner of a key.
fn name_of(owners: &[Owner], id: RecipientId) -> String {
    let owner = owners.iter().find(|owner| owner.recipient.id() == id);
    owner.map_or_else(|| "not in kbak.pub".into(), Owner::name)
}
