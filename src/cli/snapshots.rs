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
use crate::report::run::RunReport;
use crate::report::text::{plural, short_hash, utc};
use crate::repository::chain::Snapshot;
use crate::repository::open::PlanView;
use crate::repository::{keys, reports};

/// What `kbak snapshots` takes.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  kbak snapshots --repo s3://backups/prod --signer kbak.pub
  kbak snapshots --repo file:///srv/backups --signer kbak.pub -o json | jq '.[-1].hash'
  kbak snapshots --failed --repo … --signer … --identity owner.key

Plans and items stand in the store as ids; kbak show names them for whom an owner's key opens.")]
pub struct SnapshotsArgs {
    /// List failed runs instead, by the reports that they left in the store; needs --identity
    #[arg(long)]
    pub failed: bool,
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
    if args.failed {
        return failed(args, talk);
    }
    let reporter = talk.reporter();
    let plans = until_signalled(async {
        let view = reading::view(&args.repository, &reporter).await?;
        let mut plans = Vec::new();
        for plan in view.plans(&reading::which(&args.repository.reader, "latest")).await? {
            // What `latest` refuses is not marked as the latest.
            let sound = match plan.chain.latest() {
                Some(latest) => view.newer_damage(&plan, latest).await?.is_empty(),
                None => true,
            };
            plans.push((plan, sound));
        }
        Ok(plans)
    })?;
    for (plan, sound) in &plans {
        if !sound {
            let what = "something newer lies there and does not count: latest is refused, name a snapshot";
            reporter.warn(format!("plan {}", plan.plan), what);
        }
        for (object, error) in &plan.chain.rejected {
            reporter.warn(object.to_string(), format!("this is no snapshot of a pinned writer: {error}"));
        }
        for broken in plan.breaks() {
            reporter.warn(format!("chain of plan {}", plan.plan), broken.to_string());
        }
    }
    let rows: Vec<Row> = plans
        .iter()
        .flat_map(|(plan, sound)| plan.chain.iter().map(move |one| row(plan, one, *sound)))
        .collect();
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

/// Lists failed runs, oldest first.
fn failed(args: &SnapshotsArgs, talk: &Talk) -> Result<Exit, Failure> {
    let identities = reading::keys(&args.repository.reader)?;
    let reporter = talk.reporter();
    let found = until_signalled(async {
        let view = reading::view(&args.repository, &reporter).await?;
        let mut opened = Vec::new();
        for plan in view.plans(&reading::which(&args.repository.reader, "latest")).await? {
            for stored in &plan.epochs.all {
                let keys = keys::open(&view.store, &view.world, &stored.epoch, &identities, &reporter).await;
                opened.extend(keys.map(|(keys, _)| keys.identity));
            }
        }
        let mut found = Vec::new();
        for writer in view.writers() {
            let keys = view.records(writer).await?.reports;
            found.extend(reports::read(&view.store, &keys, &opened).await?);
        }
        Ok(found)
    })?;
    let closed = found.iter().filter(|(_, report)| report.is_none()).count() as u64;
    let mut runs: Vec<RunReport> = found.into_iter().filter_map(|(_, report)| report).collect();
    runs.sort_by_key(|run| run.finished);
    let columns =
        [Column::Left("FINISHED"), Column::Left("PLAN"), Column::Left("EXIT"), Column::Left("WHAT")];
    let line = |run: &RunReport| {
        let plan = run.plan.clone().unwrap_or_default();
        vec![utc(run.finished), plan, run.exit.code().to_string(), run.verdict.clone()]
    };
    out::listing(args.output.output, &columns, runs.iter().map(line), &runs)?;
    if runs.is_empty() && args.output.output == Format::Table {
        talk.say("no failed run has left a report");
    }
    if closed > 0 {
        talk.warn(&format!("{} not opened with this identity", plural(closed, "report was", "reports were")));
    }
    Ok(Exit::Safe)
}

fn row(plan: &PlanView, snapshot: &Snapshot, sound: bool) -> Row {
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
        latest: sound && plan.chain.latest().is_some_and(is),
    }
}
