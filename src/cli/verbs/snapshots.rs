//! `kbak snapshots`: lists the snapshots that pinned signers signed. Only `--failed` needs an identity.

use std::collections::HashSet;
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::failure::{Exit, Failure};
use crate::cli::options::reading;
use crate::cli::options::{OutputArgs, ReadArgs};
use crate::cli::shell::console::Console;
use crate::cli::shell::output;
use crate::cli::shell::output::{Column, Format};
use crate::cli::shell::signals::until_signalled;
use crate::format::ids::ObjectHash;
use crate::keys::Identity;
use crate::report::event::Reporter;
use crate::report::item_state::ItemState;
use crate::report::run::RunReport;
use crate::report::text::{plural, short_hash, utc};
use crate::repository::chain::Snapshot;
use crate::repository::epoch::wraps;
use crate::repository::read::damage;
use crate::repository::read::open::PlanView;
use crate::repository::reports;

/// Arguments of `kbak snapshots`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  kbak snapshots --repo s3://backups/prod --signer kbak.pub
  kbak snapshots --repo file:///srv/backups --signer kbak.pub -o json | jq '.[-1].hash'
  kbak snapshots --repo … --signer … --identity owner.key
  kbak snapshots --failed --repo … --signer … --identity owner.key

Plans and items stand in the store as ids. With --identity plans are named as well; kbak show names
items.")]
pub struct SnapshotsArgs {
    /// List failed runs instead, by the reports that they left in the store; needs --identity
    #[arg(long)]
    pub failed: bool,
    /// Options for the repository and the keys of its readers.
    #[command(flatten)]
    pub repository: ReadArgs,
    /// The output format.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Serialize)]
struct Row {
    writer: String,
    plan: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
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

/// A plan in the list.
struct Listed {
    view: PlanView,
    /// True if no invalid snapshot is stored with a higher number than the newest valid one.
    sound: bool,
    /// The plan's name, if an identity opened its newest snapshot.
    name: Option<String>,
}

/// Runs `kbak snapshots`: lists snapshots, or with `--failed` the reports of failed runs.
pub(crate) fn run(args: &SnapshotsArgs, console: &Console) -> Result<Exit, Failure> {
    if args.failed {
        return failed(args, console);
    }
    let reporter = console.reporter();
    let named = !args.repository.reader.identity.is_empty();
    let identities = if named { reading::keys(&args.repository.reader)? } else { Vec::new() };
    let plans = until_signalled(list(args, named.then_some(&identities[..]), &reporter))?;
    for Listed { view: plan, sound, .. } in &plans {
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
    let rows: Vec<Row> = plans.iter().flat_map(rows).collect();
    let mut columns = vec![Column::Left("PLAN")];
    columns.extend(named.then_some(Column::Left("NAME")));
    columns.extend([
        Column::Right("SNAPSHOT"),
        Column::Left("FINISHED"),
        Column::Left("SAFE"),
        Column::Left("HASH"),
        Column::Left(""),
    ]);
    output::listing(args.output.output, &columns, rows.iter().map(|row| line(row, named)), &rows)?;
    // A list that omits a whole plan must not end as a success.
    let unread: Vec<&PlanView> =
        plans.iter().map(|plan| &plan.view).filter(|plan| plan.is_unread()).collect();
    if !unread.is_empty() {
        let of = plural(unread.len() as u64, "plan", "plans");
        let what = format!("the snapshots of {of} lie there, and none of them can be read");
        return Err(damage::unread(what, unread.into_iter()).into());
    }
    if args.output.output == Format::Table && rows.is_empty() {
        let plans = plural(plans.len() as u64, "plan", "plans");
        console.say(&format!("no snapshots yet ({plans} with an epoch)"));
    }
    Ok(Exit::Safe)
}

/// Returns the plans. A plan is named if `identities` open its newest snapshot.
async fn list(
    args: &SnapshotsArgs,
    identities: Option<&[Arc<Identity>]>,
    reporter: &Reporter,
) -> Result<Vec<Listed>, Failure> {
    let view = reading::view(&args.repository, reporter).await?;
    let mut plans = Vec::new();
    for plan in view.plans(&reading::which(&args.repository.reader, "latest")).await? {
        let (mut sound, mut name) = (true, None);
        if let Some(latest) = plan.chain.latest() {
            // A snapshot that the selector `latest` refuses is not marked as the latest.
            sound = plan.newer_damage(latest).is_empty();
            if let Some(identities) = identities {
                match view.open(&plan, latest, identities, reading::MEMORY).await {
                    Ok(opened) => name = Some(opened.body().plan_name.clone()),
                    Err(error) => {
                        reporter.warn(format!("plan {}", plan.plan), format!("not named: {error}"));
                    }
                }
            }
        }
        plans.push(Listed { view: plan, sound, name });
    }
    Ok(plans)
}

fn line(row: &Row, named: bool) -> Vec<String> {
    let mark = match (row.latest, row.head) {
        (true, _) => "latest",
        (false, true) => "head",
        _ => "",
    };
    let safe = match row.safe == row.items {
        true => format!("{} of {}", row.safe, row.items),
        false => format!("{} of {} !", row.safe, row.items),
    };
    let mut cells = vec![row.plan.clone()];
    cells.extend(named.then(|| row.name.clone().unwrap_or_default()));
    cells.extend([
        format!("{:06}", row.sequence),
        utc(row.finished),
        safe,
        short_hash(&row.hash),
        mark.into(),
    ]);
    cells
}

/// Lists failed runs, oldest first.
fn failed(args: &SnapshotsArgs, console: &Console) -> Result<Exit, Failure> {
    let identities = reading::keys(&args.repository.reader)?;
    let reporter = console.reporter();
    let found = until_signalled(async {
        let view = reading::view(&args.repository, &reporter).await?;
        let mut opened = Vec::new();
        for plan in view.plans(&reading::which(&args.repository.reader, "latest")).await? {
            for stored in &plan.epochs.all {
                let keys =
                    wraps::open(&view.store, &view.runtime, &stored.epoch, &identities, &reporter).await;
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
    output::listing(args.output.output, &columns, runs.iter().map(line), &runs)?;
    if runs.is_empty() && args.output.output == Format::Table {
        console.say("no failed run has left a report");
    }
    if closed > 0 {
        console
            .warn(&format!("{} not opened with this identity", plural(closed, "report was", "reports were")));
    }
    Ok(Exit::Safe)
}

/// Returns a row for each snapshot of a plan, oldest first.
fn rows(listed: &Listed) -> Vec<Row> {
    let chain = &listed.view.chain;
    let heads: HashSet<ObjectHash> = chain.heads().into_iter().map(|head| head.manifest.hash()).collect();
    let latest = chain.latest().filter(|_| listed.sound).map(|latest| latest.manifest.hash());
    let fine = |state: ItemState| state.is_safe() || state == ItemState::Accepted;
    let row = |snapshot: &Snapshot| {
        let (envelope, hash) = (snapshot.envelope(), snapshot.manifest.hash());
        Row {
            writer: listed.view.writer.to_string(),
            plan: listed.view.plan.to_string(),
            name: listed.name.clone(),
            sequence: envelope.seq,
            hash: hash.to_string(),
            started: envelope.started,
            finished: envelope.finished,
            epoch: envelope.epoch.to_string(),
            items: envelope.items.len(),
            safe: envelope.items.iter().filter(|item| fine(item.state)).count(),
            head: heads.contains(&hash),
            latest: latest == Some(hash),
        }
    };
    chain.iter().map(row).collect()
}
