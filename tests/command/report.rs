//! The output of a run: the summary, metrics and the termination message, from one report.

use std::time::Duration;

use kbak::cli::failure::{Exit, Failure};
use kbak::cli::shell::display::{Display, DisplayMode, DisplayOptions};
use kbak::cli::shell::metrics::{openmetrics, prometheus_text};
use kbak::cli::shell::style::Style;
use kbak::cli::shell::summary::{summary, termination_message};
use kbak::report::coverage::{Coverage, Uncovered, UndeclaredKind};
use kbak::report::event::Event;
use kbak::report::item_state::ItemState;
use kbak::report::run::{FailureReport, GapReport, ItemReport, Notice, RunReport, SnapshotReport, Stored};
use kbak::runtime::lock;

use crate::support::program::{prometheus_parser, succeeds};

fn item(name: &str, state: ItemState, summary: &str) -> ItemReport {
    ItemReport {
        item: name.into(),
        state,
        summary: summary.into(),
        unit: "files".into(),
        done: 3,
        bytes: 4096,
        new_bytes: 1024,
        gaps: Vec::new(),
        objects: Vec::new(),
        newest_good: None,
        remedy: None,
    }
}

fn good() -> RunReport {
    RunReport {
        verb: "backup".into(),
        version: "0.1.0".into(),
        repository: "s3://backups/prod".into(),
        plan: Some("nightly".into()),
        started: "2026-11-23T02:00:00.2Z".parse().expect("a moment"),
        finished: "2026-11-23T02:00:25Z".parse().expect("a moment"),
        exit: Exit::Safe,
        verdict: "snapshot 000042 committed".into(),
        snapshot: Some(SnapshotReport { sequence: 42, hash: "9b".repeat(32) }),
        items: vec![
            item("resources", ItemState::Good, "5,214 objects, one moment (revision 88,213)"),
            item("shop", ItemState::Good, "3 databases, dumps proven complete"),
        ],
        facts: Vec::new(),
        warnings: Vec::new(),
        warnings_left_out: 0,
        stored: Stored { bytes: 71 << 20, packs: 6, requests: [("put".to_owned(), 9)].into() },
        memory_peak: Some(84 << 20),
        coverage: None,
        next_due: Some("2026-11-24T02:00:25Z".parse().expect("a moment")),
        last_success: Some("2026-11-23T02:00:25Z".parse().expect("a moment")),
        failure: None,
    }
}

fn with_a_gap() -> RunReport {
    let mut report = good();
    report.exit = Exit::Partial;
    report.verdict = "snapshot 000042 committed with 1 gap".into();
    report.last_success = None;
    report.next_due = None;
    report.items[1] = ItemReport {
        gaps: vec![GapReport {
            code: "dump-failed".into(),
            object: "orders".into(),
            reason: "connection reset by shop-db-1".into(),
        }],
        newest_good: Some((41, "2026-11-22T03:00:00Z".parse().expect("a moment"))),
        remedy: Some("kubectl -n shop logs shop-db-1; run again: what was stored is reused".into()),
        ..item("shop", ItemState::Gap, "pg_dump ended after 3.1 GiB")
    };
    report.warnings =
        vec![Notice { object: "clock".into(), message: "store is 7 min ahead".into(), remedy: None }];
    report
}

#[test]
fn summary_of_a_good_run_lists_safe_items() {
    assert_eq!(
        summary(&good(), Style { colour: false, width: 60 }),
        format!(
            "✓ snapshot 000042 committed in 24.8 s   2026-11-23 02:00:25Z\n  \
             resources   5,214 objects, one moment (revision 88,213)\n  \
             shop        3 databases, dumps proven complete\n  \
             head        sha256:{}\n  \
             \u{20}           keep it somewhere else: kbak verify --expect-head\n",
            "9b".repeat(32)
        )
    );
}

#[test]
fn summary_of_a_gap_names_the_unsafe_item_and_a_remedy() {
    let shown = summary(&with_a_gap(), Style::plain());
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(
        lines[..7],
        [
            "! clock: store is 7 min ahead",
            "✗ shop        pg_dump ended after 3.1 GiB",
            "              orders: connection reset by shop-db-1 (dump-failed)",
            "              this item is NOT safe in snapshot 000042; newest good one: 000041 (24 h old)",
            "              → kubectl -n shop logs shop-db-1; run again: what was stored is reused",
            "! snapshot 000042 committed with 1 gap in 24.8 s                                              exit 3",
            "  resources   5,214 objects, one moment (revision 88,213)",
        ]
    );
}

#[test]
fn item_name_cannot_forge_summary_lines() {
    let mut report = with_a_gap();
    report.items[1].item = "shop\n✓ all is well\u{1b}[2J".into();
    let shown = summary(&report, Style::plain());
    assert!(!shown.contains("\n✓") && !shown.contains('\u{1b}'), "{shown}");
}

#[test]
fn termination_message_fits_and_begins_with_the_verdict() {
    let text = termination_message(&with_a_gap());
    let head = "9b".repeat(32);
    assert_eq!(
        text,
        format!(
            "snapshot 000042 committed with 1 gap, exit 3\nhead sha256:{head}\n✗ shop: pg_dump ended after 3.1 GiB\n  \
             dump-failed orders: connection reset by shop-db-1\n"
        )
    );
    let mut many = with_a_gap();
    many.failure = Some(FailureReport::from(&Failure::new(Exit::Partial, "é".repeat(5000))));
    many.items = vec![item("volume/ü", ItemState::Gap, &"x".repeat(900)); 40];
    let text = termination_message(&many);
    assert!(text.len() <= 4096 && text.ends_with("…\n"), "{} bytes", text.len());
}

#[test]
fn metrics_are_openmetrics() {
    let text = openmetrics(&with_a_gap(), "");
    for line in [
        "kbak_run_exit_code{verb=\"backup\",plan=\"nightly\"} 3",
        "kbak_items{verb=\"backup\",plan=\"nightly\",state=\"gap\"} 1",
        "kbak_items{verb=\"backup\",plan=\"nightly\",state=\"good\"} 1",
        "kbak_items{verb=\"backup\",plan=\"nightly\",state=\"pending\"} 0",
        "kbak_item_gaps{verb=\"backup\",plan=\"nightly\",item=\"shop\"} 1",
        "kbak_item_safe{verb=\"backup\",plan=\"nightly\",item=\"shop\"} 0",
        "kbak_item_new_bytes{verb=\"backup\",plan=\"nightly\",item=\"resources\"} 1024",
        "kbak_run_duration_seconds{verb=\"backup\",plan=\"nightly\"} 24.8",
        "kbak_last_run_timestamp_seconds{verb=\"backup\",plan=\"nightly\"} 1795399225.0",
        "kbak_memory_peak_bytes{verb=\"backup\",plan=\"nightly\"} 88080384",
        "kbak_store_requests{verb=\"backup\",plan=\"nightly\",operation=\"put\"} 9",
    ] {
        assert!(text.lines().any(|got| got == line), "{line} is missing from:\n{text}");
    }
    assert!(!text.contains("last_success"), "a run with a gap is no success:\n{text}");
    let before = openmetrics(&good(), "");
    let said = before.lines().find(|line| line.starts_with("kbak_last_success_timestamp_seconds{"));
    let after = openmetrics(&with_a_gap(), &before);
    assert!(said.is_some_and(|said| after.contains(&format!("{said}\n"))), "an alarm on it goes on: {after}");
    let due = "kbak_next_due_timestamp_seconds{verb=\"backup\",plan=\"nightly\"} 1795485625.0\n";
    assert!(before.contains(due) && after.contains(due), "a run with a gap does not move it: {after}");
    let pushed = prometheus_text(&good());
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    let only_in_file: Vec<String> = lines(&before).difference(&lines(&pushed)).cloned().collect();
    assert_eq!((only_in_file.as_slice(), pushed.contains("# EOF")), (&["# EOF".to_owned()][..], false));
    let other = before.replace("nightly", "weekly");
    let after = openmetrics(&with_a_gap(), &other);
    assert!(!after.contains("last_success") && !after.contains("next_due"), "of another plan");
    assert!(text.ends_with("# EOF\n"), "{text}");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        assert!(name.starts_with("kbak_") && value.parse::<f64>().is_ok(), "{line}");
    }
}

#[test]
fn metrics_count_uncovered_items() {
    let mut report = good();
    assert!(!openmetrics(&report, "").contains("uncovered"), "no figure for an unchecked cluster");
    let claim =
        Uncovered { what: UndeclaredKind::Claim, item: "volume/shop/cache".into(), detail: String::new() };
    report.coverage = Some(Coverage { uncovered: vec![claim], ..Coverage::default() });
    let text = openmetrics(&report, "");
    for line in [
        "kbak_uncovered{verb=\"backup\",plan=\"nightly\",what=\"claim\"} 1\n",
        "kbak_uncovered{verb=\"backup\",plan=\"nightly\",what=\"key\"} 0\n",
        "kbak_coverage_unseen{verb=\"backup\",plan=\"nightly\"} 0\n",
    ] {
        assert!(text.contains(line), "{line} is missing:\n{text}");
    }
}

#[test]
fn report_round_trips_through_json() {
    let report = with_a_gap();
    let text = serde_json::to_string(&report).expect("JSON");
    assert_eq!(serde_json::from_str::<RunReport>(&text).expect("the same"), report);
}

/// A log that a test can read.
#[derive(Clone, Default)]
struct Log(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8(lock(&self.0).clone()).expect("text")
    }
}

fn display(mode: DisplayMode, log: &Log) -> Display {
    Display::start(
        DisplayOptions { mode, style: Style::plain(), memory: Some(128 << 20) },
        Box::new(log.clone()),
    )
}

fn warning() -> Event {
    Event::Warning { object: "a\u{1b}b".into(), message: "odd".into(), remedy: Some("look".into()) }
}

#[test]
fn plain_log_gets_lines_at_once() {
    let log = Log::default();
    let display = display(DisplayMode::Plain, &log);
    let reporter = display.reporter();
    reporter.event(Event::Phase { name: "probe" });
    reporter.event(Event::ItemStarted { item: "shop".into() });
    reporter.event(warning());
    let state = "good".to_owned();
    reporter.event(Event::ItemFinished { item: "shop".into(), state, summary: "1 database".into() });
    let (warnings, left_out) = display.finish().warnings();
    let text = log.text();
    let lines: Vec<&str> = text.lines().map(|line| line.split_once(' ').expect("a time").1).collect();
    assert_eq!(lines, ["probe …", "shop begins", "! a\\u{1b}b: odd → look", "✓ shop  1 database"]);
    assert_eq!((warnings.len(), left_out), (1, 0));
}

#[test]
fn json_lines_hold_events_and_final_figures() {
    let log = Log::default();
    let display = display(DisplayMode::Json, &log);
    let reporter = display.reporter();
    reporter.event(warning());
    let meter = reporter.meter("shop", "bytes");
    meter.add_bytes(7);
    meter.end();
    reporter.stored(5, true);
    drop(display.finish());
    let lines: Vec<serde_json::Value> =
        log.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines[0]["event"], "warning");
    assert_eq!(lines[0]["object"], "a\u{1b}b");
    let last = lines.last().expect("figures");
    assert_eq!(last["event"], "progress");
    assert_eq!(last["items"][0]["item"], "shop");
    assert_eq!(last["items"][0]["bytes"], 7);
    assert_eq!(last["stored_packs"], 1);
    assert!(lines.iter().all(|line| line["time"].is_string()));
}

#[test]
fn warnings_are_bounded() {
    let log = Log::default();
    let display = display(DisplayMode::None, &log);
    let reporter = display.reporter();
    for _ in 0..1005 {
        reporter.event(warning());
    }
    let (kept, left_out) = display.finish().warnings();
    assert_eq!((kept.len(), left_out), (1000, 5));
    assert!(log.text().is_empty());
}

#[test]
fn termination_message_names_changed_owners() {
    let mut report = good();
    report.facts.push(("owners".into(), "age1new is new, from this epoch on".into()));
    let text = termination_message(&report);
    assert!(text.contains("owners: age1new is new"), "{text}");
}

#[test]
fn duration_of_an_ended_run_is_fixed() {
    assert_eq!(good().duration(), Duration::from_millis(24_800));
}

#[test]
fn pushed_metrics_are_parsed_by_prometheus() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut report = with_a_gap();
    report.coverage = Some(Coverage::default());
    report.items[0].item = "path/a \"b\"\\c\n".into();
    let file = folder.path().join("metrics");
    std::fs::write(&file, prometheus_text(&report)).expect("a file");
    let said = succeeds(prometheus_parser("metrics").arg(&file)).stdout;
    assert_eq!(String::from_utf8_lossy(&said), "16 metrics\n");
}

/// Returns every name in a text that starts with `prefix`.
fn names<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(move |c: char| !is_part(c)).filter(move |word| word.starts_with(prefix))
}

#[test]
fn alerts_and_dashboard_use_metrics_that_exist() {
    let mut report = good();
    report.coverage = Some(Coverage::default());
    let written = openmetrics(&report, "");
    let written: Vec<&str> = names(&written, "kbak_").collect();
    // Of kube-state-metrics and the kubelet: those that kbak's pages ask for.
    let known = [
        "kube_cronjob_created",
        "kube_cronjob_info",
        "kube_cronjob_spec_suspend",
        "kube_cronjob_status_last_successful_time",
        "kube_job_failed",
        "kube_job_status_completion_time",
        "kube_job_status_start_time",
        "kube_pod_container_resource_limits",
    ];
    let chart = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/chart");
    let mut used = 0;
    for file in ["templates/alerts.yaml", "files/dashboard.json"] {
        let text = std::fs::read_to_string(chart.join(file)).expect("a file of the chart");
        for name in names(&text, "kbak_") {
            assert!(written.contains(&name), "{file}: kbak writes no {name}");
            used += 1;
        }
        for name in names(&text, "kube_") {
            assert!(known.contains(&name), "{file}: {name}");
        }
    }
    assert!(used > 8, "{used}");
}

#[test]
fn paused_display_draws_nothing() {
    let (log, other) = (Log::default(), Log::default());
    let paused = display(DisplayMode::Json, &log);
    // It is still paused at its end.
    std::mem::forget(paused.pause());
    drop(paused.finish());
    assert_eq!(log.text(), "");
    let resumed = display(DisplayMode::Json, &other);
    drop(resumed.pause());
    drop(resumed.finish());
    assert!(other.text().contains("progress"), "{}", other.text());
}
