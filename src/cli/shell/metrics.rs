//! A run as metrics: OpenMetrics text for the node exporter's textfile collector, Prometheus text for a Pushgateway.
//!
//! The names are stable, because dashboards and alarms depend on them.

use std::sync::atomic::AtomicU64;

use jiff::Timestamp;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::report::coverage::UndeclaredKind;
use crate::report::item_state::ItemState;
use crate::report::run::RunReport;

type Labels = Vec<(String, String)>;
/// Figures of one run are gauges, because each run sets them anew.
type Figure = Family<Labels, Gauge>;
type Seconds = Family<Labels, Gauge<f64, AtomicU64>>;

const LAST_SUCCESS: &str = "last_success_timestamp_seconds";
const NEXT_DUE: &str = "next_due_timestamp_seconds";

/// Returns the text, with `# EOF` at its end. `before` is the text that it replaces. A run that did not look
/// up the last success keeps the earlier values, so that an alarm on its age does not fall silent.
#[must_use]
pub fn openmetrics(report: &RunReport, before: &str) -> String {
    let mut registry = Registry::with_prefix("kbak");
    let run = base(report);
    moments(&mut registry, report, &run, before);
    whole(&mut registry, report, &run);
    items(&mut registry, report, &run);
    uncovered(&mut registry, report, &run);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = encode(&mut text, &registry);
    text
}

/// Returns the metrics in the text format of Prometheus (0.0.4), as a Pushgateway takes them. All of kbak's are
/// gauges, whose lines are the same in both formats; only OpenMetrics has a line at its end.
#[must_use]
pub fn prometheus_text(report: &RunReport) -> String {
    let text = openmetrics(report, "");
    text.lines().filter(|line| *line != "# EOF").flat_map(|line| [line, "\n"]).collect()
}

/// Adds the numbers of undeclared things; none if coverage was not checked: that must not silence an alarm.
fn uncovered(registry: &mut Registry, report: &RunReport, run: &Labels) {
    let Some(coverage) = &report.coverage else { return };
    let help = "Things in the cluster that the plan does not declare";
    let family = figure(registry, "uncovered", help);
    for what in UndeclaredKind::ALL {
        set(&family, &with(run, "what", what.name()), coverage.count(what) as u64);
    }
    let help = "Kinds of things that could not be looked at for coverage";
    set(&figure(registry, "coverage_unseen", help), run, coverage.unseen.len() as u64);
}

fn base(report: &RunReport) -> Labels {
    let mut labels = vec![("verb".to_owned(), report.verb.clone())];
    labels.extend(report.plan.iter().map(|plan| ("plan".to_owned(), plan.clone())));
    labels
}

fn with(labels: &Labels, name: &str, value: &str) -> Labels {
    let mut labels = labels.clone();
    labels.push((name.to_owned(), value.to_owned()));
    labels
}

fn figure(registry: &mut Registry, name: &str, help: &str) -> Figure {
    let family = Figure::default();
    registry.register(name, help, family.clone());
    family
}

fn set(family: &Figure, labels: &Labels, value: u64) {
    family.get_or_create(labels).set(i64::try_from(value).unwrap_or(i64::MAX));
}

fn seconds(registry: &mut Registry, name: &str, help: &str) -> Seconds {
    let family = Seconds::default();
    registry.register(name, help, family.clone());
    family
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of this millennium are exact in f64")]
fn unix(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}

fn moments(registry: &mut Registry, report: &RunReport, run: &Labels, before: &str) {
    let last = seconds(registry, "last_run_timestamp_seconds", "When the last run ended");
    last.get_or_create(run).set(unix(report.finished));
    let known = report.last_success.map(unix);
    if let Some(at) = known.or_else(|| earlier(LAST_SUCCESS, before, run)) {
        let help = "When the newest snapshot in which every declared item is safe was taken; for other verbs, \
                    when the last successful run ended";
        seconds(registry, LAST_SUCCESS, help).get_or_create(run).set(at);
    }
    if let Some(at) = report.next_due.map(unix).or_else(|| earlier(NEXT_DUE, before, run)) {
        let help =
            "When the next snapshot in which every declared item is safe is due, by the plan's schedule";
        seconds(registry, NEXT_DUE, help).get_or_create(run).set(at);
    }
    let duration = seconds(registry, "run_duration_seconds", "How long the last run took");
    duration.get_or_create(run).set(report.duration().as_secs_f64());
}

/// Returns the value of a metric of the same labels from an earlier text.
fn earlier(name: &str, before: &str, run: &Labels) -> Option<f64> {
    let mut registry = Registry::with_prefix("kbak");
    set(&figure(&mut registry, "labels", ""), run, 0);
    let mut sample = String::new();
    let _ = encode(&mut sample, &registry);
    let labels = sample.lines().find_map(|line| line.strip_prefix("kbak_labels")?.strip_suffix(" 0"))?;
    before.lines().find_map(|line| {
        let value = line.strip_prefix("kbak_")?.strip_prefix(name)?.strip_prefix(labels)?;
        value.trim().parse().ok().filter(|at: &f64| at.is_finite())
    })
}

fn whole(registry: &mut Registry, report: &RunReport, run: &Labels) {
    let exit =
        figure(registry, "run_exit_code", "The exit code of the last run; 0: every declared item is safe");
    set(&exit, run, u64::from(report.exit.code()));
    if let Some(snapshot) = &report.snapshot {
        let sequence =
            figure(registry, "snapshot_sequence", "The sequence of the snapshot; head names its manifest");
        set(&sequence, &with(run, "head", &snapshot.hash), snapshot.sequence);
    }
    if let Some(peak) = report.memory_peak {
        set(&figure(registry, "memory_peak_bytes", "The most memory that was resident"), run, peak);
    }
    let bytes = figure(registry, "stored_bytes", "Bytes that the last run sent to the store");
    set(&bytes, run, report.stored.bytes);
    let packs = figure(registry, "stored_packs", "Packs that the last run sent to the store");
    set(&packs, run, report.stored.packs);
    let requests = figure(registry, "store_requests", "Requests that the last run sent to the store");
    for (kind, count) in &report.stored.requests {
        set(&requests, &with(run, "operation", kind), *count);
    }
    let warnings = figure(registry, "warnings", "Warnings of the last run");
    set(&warnings, run, report.warnings.len() as u64 + report.warnings_left_out);
}

fn items(registry: &mut Registry, report: &RunReport, run: &Labels) {
    let states = figure(registry, "items", "Declared items by state");
    for state in ItemState::ALL {
        let number = report.items.iter().filter(|item| item.state == state).count() as u64;
        set(&states, &with(run, "state", &state.to_string()), number);
    }
    let help = "1 where the item is safe in this snapshot: whole, and no wreck of what it was";
    let safe = figure(registry, "item_safe", help);
    let bytes = figure(registry, "item_bytes", "Bytes of the item that went through");
    let new = figure(registry, "item_new_bytes", "Bytes of the item that the store did not have yet");
    let gaps = figure(registry, "item_gaps", "Gaps of the item");
    for item in &report.items {
        let labels = with(run, "item", &item.item);
        set(&safe, &labels, u64::from(item.state.is_safe()));
        set(&bytes, &labels, item.bytes);
        set(&new, &labels, item.new_bytes);
        set(&gaps, &labels, item.gaps.len() as u64);
    }
}
