//! The end of a run: its report goes to the person, to programs, to metrics and to Kubernetes.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use super::options::{Progress, RunArgs};
use super::out::{self, Format};
use super::prompt;
use super::terminal::Talk;
use crate::report::display::{Display, DisplayOptions, Mode};
use crate::report::event::{Meter, Reporter};
use crate::report::failure::{Exit, Failure};
use crate::report::memory::resident;
use crate::report::metrics::openmetrics;
use crate::report::run::{FailureReport, RunReport, Stored};
use crate::report::summary::{summary, termination_message};
use crate::repository::private_file::folder_of;

/// Shows the run as the arguments ask for.
pub(super) fn display(args: &RunArgs, talk: &Talk, memory: Option<u64>) -> Display {
    started(args.progress, talk, memory)
}

/// The same for verbs that carry no bytes.
pub(super) fn shown(progress: Progress, talk: &Talk) -> Display {
    started(progress, talk, None)
}

fn started(progress: Progress, talk: &Talk, memory: Option<u64>) -> Display {
    let mode = match progress {
        Progress::Auto if talk.is_terminal() => Mode::Bars,
        Progress::Auto | Progress::Plain => Mode::Plain,
        Progress::Json => Mode::Json,
        Progress::None => Mode::None,
    };
    Display::start(DisplayOptions { mode, style: talk.style, memory }, Box::new(std::io::stderr()))
}

/// A report of a run that nothing is known of yet but its place and its beginning.
pub(super) fn begin(verb: &str, repository: &str, plan: Option<&str>) -> RunReport {
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
        coverage: None,
        failure: None,
    }
}

/// What a meter said last, by the item's name.
pub(super) fn meter<'a>(meters: &'a [std::sync::Arc<Meter>], item: &str) -> Option<&'a Meter> {
    meters.iter().map(AsRef::as_ref).find(|meter| meter.item == item)
}

/// A run so short that its warnings still stand on the screen.
const FRESH: Duration = Duration::from_secs(30);

/// Ends the display, completes the report, and hands it on. What cannot be written is said; it
/// does not change what the run did.
pub(super) fn end(
    report: RunReport,
    failure: Option<&Failure>,
    display: Display,
    reporter: &Reporter,
    args: &RunArgs,
    format: Format,
    talk: &Talk,
) -> Result<Exit, Failure> {
    let report = complete(report, failure, display, reporter);
    hand_on(report, failure, args, format, talk)
}

/// Hands a complete report on: to files, to programs, to the person.
pub(super) fn hand_on(
    report: RunReport,
    failure: Option<&Failure>,
    args: &RunArgs,
    format: Format,
    talk: &Talk,
) -> Result<Exit, Failure> {
    leave(&report, args, talk);
    if format != Format::Table
        && let Err(mut unwritten) = out::value(&report, format)
    {
        if let Some(failure) = failure {
            talk.failure(failure);
            return Ok(report.exit);
        }
        // What the run did is done, whoever hears of it.
        unwritten.what = format!("{}, but its report: {}", report.verdict, unwritten.what);
        unwritten.exit = if report.exit == Exit::Safe { Exit::Partial } else { report.exit };
        return Err(unwritten.remedy("nothing is to be done again; --report-file FILE takes the report too"));
    }
    match failure {
        // As an event the report holds the failure too.
        Some(failure) if args.progress != Progress::Json => {
            talk.failure(failure);
            Ok(report.exit)
        }
        _ => tell(report, args, talk),
    }
}

/// Ends the display, and completes the report with what was seen meanwhile.
pub(super) fn complete(
    mut report: RunReport,
    failure: Option<&Failure>,
    display: Display,
    reporter: &Reporter,
) -> RunReport {
    let recorder = display.finish();
    (report.warnings, report.warnings_left_out) = recorder.warnings();
    report.finished = Timestamp::now();
    (report.stored.bytes, report.stored.packs) = reporter.stored_so_far();
    report.stored.requests.insert("retried".into(), recorder.retries());
    report.memory_peak = resident().map(|resident| resident.peak);
    if let Some(failure) = failure {
        failed(&mut report, failure);
    }
    report
}

fn failed(report: &mut RunReport, failure: &Failure) {
    report.exit = failure.exit;
    report.verdict.clone_from(&failure.what);
    report.failure = Some(FailureReport::from(failure));
}

/// A run that failed before it began, as with a plan that cannot be read, leaves the files that the
/// arguments ask for, too: whoever watches a CronJob reads nothing else.
pub(super) fn unbegun(
    verb: &str,
    repository: &str,
    plan: Option<&str>,
    failure: Failure,
    args: &RunArgs,
    talk: &Talk,
) -> Failure {
    let failure = prompt::interrupted().unwrap_or(failure);
    let mut report = begin(verb, repository, plan);
    failed(&mut report, &failure);
    leave(&report, args, talk);
    failure
}

/// Tells a person how the run ended.
pub(super) fn tell(mut report: RunReport, args: &RunArgs, talk: &Talk) -> Result<Exit, Failure> {
    // What was told a moment ago is not told twice; what has scrolled away is.
    let shown = !matches!(args.progress, Progress::Json | Progress::None);
    if shown && report.duration() < FRESH {
        report.warnings.clear();
        report.warnings_left_out = 0;
    }
    talk.summary(&report, || summary(&report, talk.style));
    Ok(report.exit)
}

/// The most of a metrics file that is read again.
const MOST_METRICS: u64 = 1 << 20;

/// What a file of metrics says; nothing where it is none, as a pipe.
fn before(file: &Path) -> String {
    let mut text = String::new();
    let is_file = file.metadata().is_ok_and(|meta| meta.is_file());
    if is_file && let Ok(file) = File::open(file) {
        // What is no text was not ours.
        let _ = file.take(MOST_METRICS).read_to_string(&mut text);
    }
    text
}

/// The files that the arguments ask for.
pub(super) fn leave(report: &RunReport, args: &RunArgs, talk: &Talk) {
    let written = |file: &Path, text: &str| {
        if let Err(error) = replace(file, text) {
            talk.warn(&format!("{}: not written: {error}", file.display()));
        }
    };
    if let Some(file) = &args.metrics_file {
        written(file, &openmetrics(report, &before(file)));
    }
    if let Some(file) = &args.report_file {
        match serde_json::to_string_pretty(report) {
            Ok(text) => written(file, &(text + "\n")),
            Err(error) => talk.warn(&format!("{}: not written: {error}", file.display())),
        }
    }
    let log = args.termination_log.clone().or_else(|| {
        let pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
        let file = PathBuf::from("/dev/termination-log");
        (pod && file.exists()).then_some(file)
    });
    if let Some(file) = log {
        // The kubelet has mounted this file: it is written in place.
        if let Err(error) = std::fs::write(&file, termination_message(report)) {
            talk.warn(&format!("{}: not written: {error}", file.display()));
        }
    }
}

/// Replaces a file whole, so that a collector that reads meanwhile never sees half of it. A link leads
/// to the file that is replaced; a device or a pipe is written into, and never replaced.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let target;
    // Names for what is open already, such as /dev/stdout, lead to devices, pipes and files alike.
    let open = file.is_symlink() && ["/dev", "/proc"].iter().any(|folder| file.starts_with(folder));
    let file = match std::fs::metadata(file) {
        Ok(meta) if open || !meta.is_file() => {
            return std::fs::OpenOptions::new().append(true).open(file)?.write_all(text.as_bytes());
        }
        Ok(_) => {
            target = std::fs::canonicalize(file)?;
            target.as_path()
        }
        // A link that leads nowhere yet: its target is made.
        Err(_) if file.symlink_metadata().is_ok() => return std::fs::write(file, text),
        Err(_) => file,
    };
    let mut new = tempfile::Builder::new().prefix(".kbak-").tempfile_in(folder_of(file))?;
    new.write_all(text.as_bytes())?;
    // Collectors run as other users; nothing in it is secret.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    new.as_file().set_permissions(mode)?;
    new.persist(file).map_err(|error| error.error)?;
    Ok(())
}
