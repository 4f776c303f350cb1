//! `kbak snapshots`: what the store holds, as the pinned signers signed it. Needs no identity.

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::options::{OutputArgs, ReadArgs};
use super::out::{self, Column, Format};
use super::reading;
use super::signals::until_signalled;
use super::terminal::Talk;
use crate::format::manifest::ItemState;
use crate::report::failure::{Exit, Failure};
use crate::report::text::{plural, short_hash, utc};
use crate::repository::chain::Snapshot;
use crate::repository::open::PlanView;

/// What `kbak snapshots` takes.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  kbak snapshots --repo s3://backups/prod --signer kbak.pub
  kbak snapshots --repo file:///srv/backups --signer kbak.pub -o json | jq '.[-1].hash'

Plans and items stand in the store as ids; kbak show names them for whom an owner's key opens.")]
pub struct SnapshotsArgs {
    /// From where, and with which keys.
    #[command(flatten)]
    pub repository: ReadArgs,
    /// How it is written.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Serialize)]
struct Row {
    writer: String,
    plan: String,
    sequence: u64,
    hash: String,
    started: Timestamp,
    finished: Timestamp,
    epoch: String,
    items: usize,
    safe: usize,
    head: bool,
    latest: bool,
}

/// Lists snapshots.
pub(super) fn run(args: &SnapshotsArgs, talk: &Talk) -> Result<Exit, Failure> {
    let reporter = talk.reporter();
    let plans = until_signalled(async {
        let view = reading::view(&args.repository, &reporter).await?;
        view.plans(&reading::which(&args.repository.reader, "latest")).await
    })?;
    for plan in &plans {
        for (object, error) in &plan.chain.rejected {
            reporter.warn(object.to_string(), format!("this is no snapshot of a pinned writer: {error}"));
        }
        for broken in plan.breaks() {
            reporter.warn(format!("chain of plan {}", plan.plan), broken.to_string());
        }
    }
    let rows: Vec<Row> =
        plans.iter().flat_map(|plan| plan.chain.iter().map(move |one| row(plan, one))).collect();
    let columns = [
        Column::Left("PLAN"),
        Column::Right("SNAPSHOT"),
        Column::Left("FINISHED"),
        Column::Left("SAFE"),
        Column::Left("HASH"),
        Column::Left(""),
    ];
    let line = |row: &Row| {
        let mark = match (row.latest, row.head) {
            (true, _) => "latest",
            (false, true) => "head",
            _ => "",
        };
        let safe = if row.safe == row.items {
            format!("{} of {}", row.safe, row.items)
        } else {
            format!("{} of {} !", row.safe, row.items)
        };
        vec![
            row.plan.clone(),
            format!("{:06}", row.sequence),
            utc(row.finished),
            safe,
            short_hash(&row.hash),
            mark.into(),
        ]
    };
    out::listing(args.output.output, &columns, rows.iter().map(line), &rows)?;
    if args.output.output == Format::Table && rows.is_empty() {
        let plans = plural(plans.len() as u64, "plan", "plans");
        talk.say(&format!("no snapshots yet ({plans} with an epoch)"));
    }
    Ok(Exit::Safe)
}

fn row(plan: &PlanView, snapshot: &Snapshot) -> Row {
    let envelope = snapshot.envelope();
    let hash = snapshot.manifest.hash();
    let is = |other: &Snapshot| other.manifest.hash() == hash;
    let fine = |state: ItemState| state.is_safe() || state == ItemState::Accepted;
    Row {
        writer: plan.writer.to_string(),
        plan: plan.plan.to_string(),
        sequence: envelope.seq,
        hash: hash.to_string(),
        started: envelope.started,
        finished: envelope.finished,
        epoch: envelope.epoch.to_string(),
        items: envelope.items.len(),
        safe: envelope.items.iter().filter(|item| fine(item.state)).count(),
        head: plan.chain.heads().into_iter().any(is),
        latest: plan.chain.latest().is_some_and(is),
    }
}
