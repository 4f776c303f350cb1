//! The report of a run: from its start to its publication on the terminal, in files and for Kubernetes.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::notices::Notices;
use super::{ProgressMode, RunArgs};
use crate::cli::failure::{Exit, Failure};
use crate::cli::shell::console::Console;
use crate::cli::shell::display::{Display, DisplayMode, DisplayOptions};
use crate::cli::shell::metrics::openmetrics;
use crate::cli::shell::output::{self, OutputFormat};
use crate::cli::shell::prompt;
use crate::cli::shell::summary::{summary, termination_message};
use crate::keys::private_file::folder_of;
use crate::report::event::{Meter, Reporter};
use crate::report::item_state::ItemState;
use crate::report::memory::resident;
use crate::report::recorder::RecordedItem;
use crate::report::run::{FailureReport, ItemReport, RunReport, Stored};

/// Starts the progress display. It shows the memory beside the limit `memory`, if there is one.
pub(crate) fn start_display(progress: ProgressMode, console: &Console, memory: Option<u64>) -> Display {
    let mode = match progress {
        ProgressMode::Auto if console.is_terminal() => DisplayMode::Bars,
        ProgressMode::Auto | ProgressMode::Plain => DisplayMode::Plain,
        ProgressMode::Json => DisplayMode::Json,
        ProgressMode::None => DisplayMode::None,
    };
    Display::start(DisplayOptions { mode, style: console.style, memory }, Box::new(std::io::stderr()))
}

/// Returns the report of a run that has just started. Its exit code is 1 until the run sets another.
pub(crate) fn start(verb: &str, repository: &str, plan: Option<&str>) -> RunReport {
    let now = Timestamp::now();
    RunReport {
        verb: verb.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        repository: repository.into(),
        plan: plan.map(str::to_owned),
        started: now,
        finished: now,
        exit: Exit::Bug,
        verdict: String::new(),
        snapshot: None,
        items: Vec::new(),
        facts: Vec::new(),
        warnings: Vec::new(),
        warnings_left_out: 0,
        stored: Stored::default(),
        memory_peak: None,
        last_success: None,
        next_due: None,
        coverage: None,
        failure: None,
    }
}

/// Returns the meter of an item.
pub(crate) fn meter<'a>(meters: &'a [std::sync::Arc<Meter>], item: &str) -> Option<&'a Meter> {
    meters.iter().map(AsRef::as_ref).find(|meter| meter.item == item)
}

/// The duration below which a run's warnings are still visible on the screen.
const VISIBLE_TIME: Duration = Duration::from_secs(30);

/// The outputs of a run: progress, report files, standard output and the console.
pub(crate) struct RunOutput<'a> {
    pub(crate) args: &'a RunArgs,
    pub(crate) format: OutputFormat,
    pub(crate) console: &'a Console,
}

impl RunOutput<'_> {
    /// Starts the progress display. It shows the memory beside the limit `memory`, if there is one.
    pub(crate) fn start_display(&self, memory: Option<u64>) -> Display {
        start_display(self.args.progress, self.console, memory)
    }

    /// Writes the report files of a run that failed before it began, such as with an unreadable plan. The
    /// monitoring of a CronJob may read nothing else.
    pub(crate) fn report_failed_start(
        &self,
        verb: &str,
        repository: &str,
        plan: Option<&str>,
        failure: Failure,
        notices: &Notices,
    ) -> Failure {
        let failure = prompt::interrupted().unwrap_or(failure);
        let mut report = start(verb, repository, plan);
        if notices.is_empty() {
            set_failure(&mut report, &failure);
        } else {
            let display = self.start_display(None);
            let reporter = display.reporter();
            report = complete(report, Some(&failure), display, &reporter, notices);
        }
        self.write_files(&report);
        failure
    }

    /// Writes the summary of the run to standard error.
    pub(crate) fn summarize(&self, mut report: RunReport) -> Result<Exit, Failure> {
        // Recent warnings are not repeated; those that have scrolled away are.
        let shown = !matches!(self.args.progress, ProgressMode::Json | ProgressMode::None);
        if shown && report.duration() < VISIBLE_TIME {
            report.warnings.clear();
            report.warnings_left_out = 0;
        }
        self.console.summary(&report, || summary(&report, self.console.style));
        Ok(report.exit)
    }

    /// Ends the display, completes the report and publishes it. An unwritable report file is only a warning.
    pub(crate) fn finish(
        &self,
        report: RunReport,
        failure: Option<&Failure>,
        display: Display,
        reporter: &Reporter,
        notices: &Notices,
    ) -> Result<Exit, Failure> {
        let report = complete(report, failure, display, reporter, notices);
        self.publish(report, failure)
    }

    /// Publishes a complete report: to files, to standard output and to the terminal.
    pub(crate) fn publish(&self, report: RunReport, failure: Option<&Failure>) -> Result<Exit, Failure> {
        self.write_files(&report);
        if self.format != OutputFormat::Table
            && let Err(mut unwritten) =
                output::require_open(Exit::Partial).and_then(|()| output::write_value(&report, self.format))
        {
            if let Some(failure) = failure {
                self.console.failure(failure);
                return Ok(report.exit);
            }
            // The run has ended already: a report that is not written does not undo it.
            unwritten.what = format!("{}, but its report: {}", report.verdict, unwritten.what);
            unwritten.exit = if report.exit == Exit::Safe { Exit::Partial } else { report.exit };
            return Err(
                unwritten.remedy("do not run it again; --report-file FILE writes the report to a file")
            );
        }
        match failure {
            // With `--progress json` the summary event holds the failure too.
            Some(failure) if self.args.progress != ProgressMode::Json => {
                self.console.failure(failure);
                Ok(report.exit)
            }
            _ => self.summarize(report),
        }
    }

    /// Writes the files that the arguments ask for: metrics, report and termination log.
    pub(crate) fn write_files(&self, report: &RunReport) {
        let (args, console) = (self.args, self.console);
        let written = |file: &Path, text: &str| {
            if let Err(error) = replace(file, text) {
                console.warn(&format!("{}: not written: {error}", file.display()));
            }
        };
        if let Some(file) = &args.metrics_file {
            written(file, &openmetrics(report, &read_metrics(file)));
        }
        if let Some(file) = &args.report_file {
            match serde_json::to_string_pretty(report) {
                Ok(text) => written(file, &(text + "\n")),
                Err(error) => console.warn(&format!("{}: not written: {error}", file.display())),
            }
        }
        let log = args.termination_log.clone().or_else(|| {
            let pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
            let file = PathBuf::from("/dev/termination-log");
            (pod && file.exists()).then_some(file)
        });
        if let Some(file) = log {
            // The kubelet has mounted this file, so it is written in place.
            if let Err(error) = std::fs::write(&file, termination_message(report)) {
                console.warn(&format!("{}: not written: {error}", file.display()));
            }
        }
    }
}

/// Adds warnings, counters and the failure to the report, sends the notices, and ends the display. A notice that
/// was not sent is one more warning.
pub(crate) fn complete(
    mut report: RunReport,
    failure: Option<&Failure>,
    display: Display,
    reporter: &Reporter,
    notices: &Notices,
) -> RunReport {
    report.finished = Timestamp::now();
    (report.stored.bytes, report.stored.packs) = reporter.stored_so_far();
    report.stored.requests.insert("retried".into(), display.recorder().retries());
    report.memory_peak = resident().map(|resident| resident.peak);
    if let Some(failure) = failure {
        set_failure(&mut report, failure);
        add_begun_items(&mut report, &display.recorder().items(), &reporter.meters());
    }
    (report.warnings, report.warnings_left_out) = display.recorder().warnings();
    notices.send_end(&report, reporter);
    (report.warnings, report.warnings_left_out) = display.finish().warnings();
    report
}

/// Adds the items that a failed run began and that its report lacks.
fn add_begun_items(report: &mut RunReport, begun: &[RecordedItem], meters: &[Arc<Meter>]) {
    // A snapshot counts once it is committed; the next run reuses the data.
    let read = if report.verb == "backup" { "; read, and not committed" } else { "" };
    for RecordedItem { item, summary } in begun {
        if report.items.iter().any(|known| known.item == *item) {
            continue;
        }
        let meter = meter(meters, item);
        let reading = meter.map(Meter::read).unwrap_or_default();
        report.items.push(ItemReport {
            item: item.clone(),
            state: if summary.is_some() { ItemState::Pending } else { ItemState::Gap },
            summary: summary
                .as_ref()
                .map_or_else(|| "not finished".to_owned(), |text| format!("{text}{read}")),
            unit: meter.map_or("", |meter| meter.unit).to_owned(),
            done: reading.done,
            bytes: reading.bytes,
            new_bytes: reading.new_bytes,
            gaps: Vec::new(),
            objects: Vec::new(),
            newest_good: None,
            remedy: None,
        });
    }
}

fn set_failure(report: &mut RunReport, failure: &Failure) {
    report.exit = failure.exit;
    report.verdict.clone_from(&failure.what);
    report.failure = Some(FailureReport::from(failure));
}

/// The limit for reading an existing metrics file, in bytes.
const MAX_METRICS: u64 = 1 << 20;

/// Returns the text of an existing metrics file; empty if it is not a regular file, such as a pipe.
fn read_metrics(file: &Path) -> String {
    let mut text = String::new();
    let is_file = file.metadata().is_ok_and(|meta| meta.is_file());
    if is_file && let Ok(file) = File::open(file) {
        // A file that is not UTF-8 was not written by kbak.
        let _ = file.take(MAX_METRICS).read_to_string(&mut text);
    }
    text
}

/// Replaces a file atomically, so that a collector never reads half of it. A symbolic link is followed;
/// a device or a pipe is written to, and never replaced.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let target;
    // Links to open files, such as /dev/stdout, lead to devices, pipes and files alike.
    let open = file.is_symlink() && ["/dev", "/proc"].iter().any(|folder| file.starts_with(folder));
    let file = match std::fs::metadata(file) {
        Ok(meta) if open || !meta.is_file() => {
            return std::fs::OpenOptions::new().append(true).open(file)?.write_all(text.as_bytes());
        }
        Ok(_) => {
            target = std::fs::canonicalize(file)?;
            target.as_path()
        }
        // A dangling link: its target is created.
        Err(_) if file.symlink_metadata().is_ok() => return std::fs::write(file, text),
        Err(_) => file,
    };
    let mut new = tempfile::Builder::new().prefix(".kbak-").tempfile_in(folder_of(file))?;
    new.write_all(text.as_bytes())?;
    // Collectors run as other users, and the text holds no secret.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    new.as_file().set_permissions(mode)?;
    new.persist(file).map_err(|error| error.error)?;
    Ok(())
}
