//! `kbak snapshots`: lists the snapshots that pinned signers signed. Only `--failed` needs an identity.

use std::collections::HashSet;
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::failure::{Exit, Failure};
use crate::cli::options::{OutputArgs, ReadArgs, reading};
use crate::cli::shell::console::Console;
use crate::cli::shell::output::Column::{Left, Right};
use crate::cli::shell::output::{self, OutputFormat};
use crate::cli::shell::signals::until_signalled;
use crate::format::ids::ObjectHash;
use crate::keys::Identity;
use crate::report::event::Reporter;
use crate::report::run::RunReport;
use crate::report::text::{plural, short_hash, utc};
use crate::repository::chain::Snapshot;
use crate::repository::epoch::wraps;
use crate::repository::read::damage;
use crate::repository::read::reader::StoredPlan;
use crate::repository::reports;

/// Arguments of `kbak snapshots`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  kbak snapshots --repo s3://backups/prod --signer kbak.pub
  kbak snapshots --repo file:///srv/backups --signer kbak.pub -o json | jq '.[-1].hash'
  kbak snapshots --repo … --signer … --identity owner.key
  kbak snapshots --failed --repo … --signer … --identity owner.key

The store holds ids of plans and items only. --identity adds the names of plans; kbak show prints the
names of items.")]
pub struct SnapshotsArgs {
    /// List the stored reports of failed runs instead of snapshots; needs --identity
    #[arg(long)]
    pub failed: bool,
    #[command(flatten)]
    pub repository: ReadArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Serialize)]
struct SnapshotRow {
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
struct ListedPlan {
    view: StoredPlan,
    /// True if no invalid snapshot is stored with a higher number than the newest valid one.
    latest_is_valid: bool,
    /// The plan's name, if an identity opened its newest snapshot.
    name: Option<String>,
}

/// Runs `kbak snapshots`: lists snapshots, or with `--failed` the reports of failed runs.
pub(crate) fn run(args: &SnapshotsArgs, console: &Console) -> Result<Exit, Failure> {
    if args.failed {
        return list_failed_runs(args, console);
    }
    let reporter = console.reporter();
    let named = !args.repository.reader.identity.is_empty();
    let identities = if named { reading::required_identities(&args.repository.reader)? } else { Vec::new() };
    let plans = until_signalled(read_plans(args, named.then_some(&identities[..]), &reporter))?;
    for ListedPlan { view: plan, latest_is_valid, .. } in &plans {
        if !latest_is_valid {
            let what = "a newer invalid snapshot is stored: latest is refused, name a snapshot by its number";
            reporter.warn(format!("plan {}", plan.plan), what);
        }
        for (object, error) in &plan.chain.rejected {
            reporter.warn(object.to_string(), format!("not a snapshot of a pinned writer: {error}"));
        }
        for broken in plan.breaks() {
            reporter.warn(format!("chain of plan {}", plan.plan), broken.to_string());
        }
    }
    let rows: Vec<SnapshotRow> = plans.iter().flat_map(snapshot_rows).collect();
    let mut columns = vec![Left("PLAN")];
    columns.extend(named.then_some(Left("NAME")));
    columns.extend([Right("SNAPSHOT"), Left("FINISHED"), Left("SAFE"), Left("HASH"), Left("")]);
    output::write_list(args.output.output, &columns, rows.iter().map(|row| table_row(row, named)), &rows)?;
    // A list that omits a whole plan must not end as a success.
    let unread: Vec<&StoredPlan> =
        plans.iter().map(|plan| &plan.view).filter(|plan| plan.is_unreadable()).collect();
    if !unread.is_empty() {
        let of = plural(unread.len() as u64, "plan", "plans");
        let what = format!("the snapshots of {of} are stored, and none of them can be read");
        return Err(damage::unreadable(what, unread.into_iter()).into());
    }
    if args.output.output == OutputFormat::Table && rows.is_empty() {
        let plans = plural(plans.len() as u64, "plan", "plans");
        console.line(&format!("no snapshots yet ({plans} with an epoch)"));
    }
    Ok(Exit::Safe)
}

/// Returns the plans. A plan is named if `identities` open its newest snapshot.
async fn read_plans(
    args: &SnapshotsArgs,
    identities: Option<&[Arc<Identity>]>,
    reporter: &Reporter,
) -> Result<Vec<ListedPlan>, Failure> {
    let view = reading::open_repository(&args.repository, reporter).await?;
    let mut plans = Vec::new();
    for plan in view.plans(&reading::snapshot_selector(&args.repository.reader, "latest")).await? {
        let (mut latest_is_valid, mut name) = (true, None);
        if let Some(latest) = plan.chain.latest() {
            // A snapshot that the selector `latest` refuses is not marked as the latest.
            latest_is_valid = plan.newer_damage(latest).is_empty();
            if let Some(identities) = identities {
                match view.open(&plan, latest, identities, reading::READER_MEMORY).await {
                    Ok(opened) => name = Some(opened.body().plan_name.clone()),
                    Err(error) => {
                        reporter
                            .warn(format!("plan {}", plan.plan), format!("its name cannot be read: {error}"));
                    }
                }
            }
        }
        plans.push(ListedPlan { view: plan, latest_is_valid, name });
    }
    Ok(plans)
}

fn table_row(row: &SnapshotRow, named: bool) -> Vec<String> {
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
fn list_failed_runs(args: &SnapshotsArgs, console: &Console) -> Result<Exit, Failure> {
    let identities = reading::required_identities(&args.repository.reader)?;
    let reporter = console.reporter();
    let found = until_signalled(async {
        let view = reading::open_repository(&args.repository, &reporter).await?;
        let mut opened = Vec::new();
        let which = reading::snapshot_selector(&args.repository.reader, "latest");
        let (plans, report_keys) = view.plans_and_reports(&which).await?;
        for plan in plans {
            for stored in &plan.epochs.all {
                let attested = plan.attested_wraps(stored.epoch.epoch);
                let keys =
                    wraps::open(&view.store, &view.runtime, &stored.epoch, &identities, attested, &reporter)
                        .await;
                opened.extend(keys.map(|(keys, _)| keys.identity));
            }
        }
        Ok(reports::read(&view.store, &report_keys, &opened).await?)
    })?;
    let closed = found.iter().filter(|(_, report)| report.is_none()).count() as u64;
    let mut runs: Vec<RunReport> = found.into_iter().filter_map(|(_, report)| report).collect();
    runs.sort_by_key(|run| run.finished);
    let columns = [Left("FINISHED"), Left("PLAN"), Left("EXIT"), Left("RESULT")];
    let line = |run: &RunReport| {
        let plan = run.plan.clone().unwrap_or_default();
        vec![utc(run.finished), plan, run.exit.code().to_string(), run.verdict.clone()]
    };
    output::write_list(args.output.output, &columns, runs.iter().map(line), &runs)?;
    if runs.is_empty() && args.output.output == OutputFormat::Table {
        console.line("the store holds no report of a failed run");
    }
    if closed > 0 {
        console
            .warn(&format!("{} not opened with this identity", plural(closed, "report was", "reports were")));
    }
    Ok(Exit::Safe)
}

/// Returns a row for each snapshot of a plan, oldest first.
fn snapshot_rows(listed: &ListedPlan) -> Vec<SnapshotRow> {
    let chain = &listed.view.chain;
    let heads: HashSet<ObjectHash> = chain.heads().into_iter().map(|head| head.manifest.hash()).collect();
    let latest = chain.latest().filter(|_| listed.latest_is_valid).map(|latest| latest.manifest.hash());
    let row = |snapshot: &Snapshot| {
        let (envelope, hash) = (snapshot.envelope(), snapshot.manifest.hash());
        SnapshotRow {
            writer: listed.view.writer.to_string(),
            plan: listed.view.plan.to_string(),
            name: listed.name.clone(),
            sequence: envelope.seq,
            hash: hash.to_string(),
            started: envelope.started,
            finished: envelope.finished,
            epoch: envelope.epoch.to_string(),
            items: envelope.items.len(),
            safe: envelope.items.iter().filter(|item| item.state.is_safe_or_accepted()).count(),
            head: heads.contains(&hash),
            latest: latest == Some(hash),
        }
    };
    chain.iter().map(row).collect()
}
