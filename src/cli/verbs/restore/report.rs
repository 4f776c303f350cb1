//! Turns the results of a restore into the items of its report.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use crate::cli::failure::{Exit, Failure};
use crate::cli::verbs::gaps::{gap_report, missing};
use crate::cli::verbs::restore::objects::ObjectRecorder;
use crate::cli::verbs::restore::text;
use crate::format::body::Item;
use crate::format::name::Name;
use crate::report::error::causes;
use crate::report::event::{Event, Reporter};
use crate::report::item_state::ItemState;
use crate::report::run::{GapReport, ItemReport};
use crate::report::text::{count, plural, size};
use crate::restore::error::ItemError;
use crate::restore::folder::Paths;
use crate::restore::job::{DatabasesReport, RestoreObserver, Restored};
use crate::runtime::lock;
use crate::target::database::{GlobalsReport, NotApplied, RestoredDatabase};
use crate::target::kubernetes::{ObjectRef, Outcome, Plan, RestoreReport, Warning};
use crate::target::volume::VolumeReport;

/// Collects the items of a report during the run, and warns.
pub(super) struct ReportBuilder<'a> {
    /// Receives events and warnings.
    pub(super) reporter: &'a Reporter,
    /// The selected paths of a folder.
    pub(super) paths: Option<&'a Paths>,
    /// Records the outcomes of Kubernetes objects.
    pub(super) objects: ObjectRecorder,
    /// The finished items, each with true if its backup is damaged.
    pub(super) items: &'a Mutex<Vec<(ItemReport, bool)>>,
}

impl RestoreObserver for ReportBuilder<'_> {
    fn planned(&self, item: &Item, plan: &Plan) {
        for warning in text::warnings(plan) {
            self.reporter.warn(item.name.clone(), warning);
        }
    }

    fn object(&self, object: &ObjectRef, outcome: &Outcome) {
        self.objects.record(object, outcome);
    }

    fn finished(&self, item: &Item, result: Result<Restored, ItemError>) {
        let summary = match result {
            Ok(restored) => self.summarize(item, restored),
            Err(error) => Summary::failed(item, &error.into()),
        };
        let state = if summary.whole { ItemState::Good } else { ItemState::Gap };
        let name = item.name.clone();
        let (word, text) = (state.to_string(), summary.text.clone());
        self.reporter.event(Event::ItemFinished { item: name.clone(), state: word, summary: text });
        let meters = self.reporter.meters();
        let meter = meters.iter().find(|meter| meter.item == name);
        let reading = meter.map(|meter| meter.read()).unwrap_or_default();
        let report = ItemReport {
            state,
            summary: summary.text,
            unit: meter.map_or("", |meter| meter.unit).to_owned(),
            done: reading.done,
            bytes: reading.bytes,
            new_bytes: 0,
            gaps: summary.gaps,
            objects: if item.kind == "resources" { self.objects.finish(self.reporter) } else { Vec::new() },
            newest_good: None,
            remedy: summary.remedy,
            item: name,
        };
        lock(self.items).push((report, summary.damaged));
    }
}

impl ReportBuilder<'_> {
    fn summarize(&self, item: &Item, restored: Restored) -> Summary {
        match restored {
            Restored::Archive(bytes) => {
                Summary::new(item, None, format!("{} as tar", size(bytes)), Vec::new())
            }
            Restored::Folder { target, report, absent } => {
                folder(item, self.paths, &target, &report, &absent)
            }
            Restored::Databases(report) => databases(item, report),
            Restored::Cluster(report) => self.cluster(item, &report),
            Restored::Files(folder, files) => {
                let number = plural(files.files, "file", "files");
                let summary = format!("{number}, {} beneath {}", size(files.bytes), folder.display());
                Summary::new(item, None, summary, text::absent(&files.absent))
            }
        }
    }

    fn cluster(&self, item: &Item, report: &RestoreReport) -> Summary {
        for warning in &report.warnings {
            let by = if let Warning::Server(_) = warning { "API server" } else { item.name.as_str() };
            self.reporter.warn(by, warning.text());
        }
        if report.owners_lost > 0 {
            let owners = plural(report.owners_lost, "owner", "owners");
            self.reporter.warn(item.name.clone(), format!("{owners} left out: the owner is not there"));
        }
        let parts = counted(
            format!("{} created", plural(report.created, "object", "objects")),
            &[
                (report.existed, "there already and left alone"),
                (report.patched, "brought to what the backup says"),
                (report.replaced, "replaced"),
                (report.skipped.values().sum(), "left out by a rule (-o json has the reasons)"),
                (report.suspended, "suspended"),
                (report.held.values().sum(), "held back"),
                (report.relinked, "linked to their owners again"),
            ],
        );
        let gaps = if report.is_whole() { Vec::new() } else { text::gaps(report) };
        Summary { remedy: text::remedy(report), ..Summary::new(item, None, parts, gaps) }
    }
}

/// The result of an item, in words.
struct Summary {
    /// True if everything selected was restored.
    whole: bool,
    /// True if the stored backup of the item is damaged.
    damaged: bool,
    /// The result in one line.
    text: String,
    /// The parts that were not restored.
    gaps: Vec<GapReport>,
    /// The next step for the user.
    remedy: Option<String>,
}

impl Summary {
    /// Returns the summary for these paths of an item, or all of it. `gaps` lists data that the target did
    /// not take; gaps of the snapshot are added.
    fn new(item: &Item, paths: Option<&Paths>, text: String, mut gaps: Vec<GapReport>) -> Self {
        let before = gaps.len();
        gaps.extend(missing(item, paths).map(gap_report));
        let lacks = gaps.len() > before;
        Self {
            whole: gaps.is_empty() && (item.state.is_complete() || paths.is_some()),
            damaged: false,
            text,
            gaps,
            remedy: lacks.then(|| "what the snapshot lacks may be in an earlier one: kbak snapshots".into()),
        }
    }

    fn failed(item: &Item, failure: &Failure) -> Self {
        Self {
            whole: false,
            damaged: failure.exit == Exit::Damaged,
            text: "not restored".into(),
            gaps: vec![gap("not-restored", item.name.clone(), causes(failure))],
            remedy: failure.remedy.clone(),
        }
    }
}

fn gap(code: &str, object: String, reason: String) -> GapReport {
    GapReport { code: code.into(), object, reason }
}

/// Returns `first`, followed by the numbers that are not zero.
fn counted(first: String, numbers: &[(u64, &str)]) -> String {
    let numbers = numbers.iter().filter(|(number, _)| *number > 0);
    let rest = numbers.map(|(number, what)| format!("{} {what}", count(*number)));
    std::iter::once(first).chain(rest).collect::<Vec<_>>().join(", ")
}

fn folder(item: &Item, paths: Option<&Paths>, to: &Path, report: &VolumeReport, absent: &[Name]) -> Summary {
    let files = plural(report.files, "file", "files");
    let text = counted(
        format!("{files}, {} in {}", size(report.bytes), to.display()),
        &[(report.present, "there already"), (report.deleted, "deleted")],
    );
    let mut gaps: Vec<GapReport> = Vec::new();
    for failure in &report.failures {
        let path = Name(failure.path.clone()).display();
        gaps.push(gap(failure.reason.kind().code(), path, failure.reason.to_string()));
    }
    for (loss, tallied) in report.lost.iter() {
        let example = tallied.examples.first().map(|path| Name(path.clone()).display()).unwrap_or_default();
        let times = plural(tallied.count, "time", "times");
        gaps.push(gap("attribute-lost", example, format!("{} could not be kept, {times}", loss.name())));
    }
    if report.deletion_held_back {
        let why = "nothing was deleted: something could not be restored, or the snapshot does not name all that \
                   it lacks";
        gaps.push(gap("deletion-held-back", to.display().to_string(), why.into()));
    }
    let mut summary = Summary::new(item, paths, text, gaps);
    if report.failed.is_empty() && !report.lost.is_empty() {
        summary.remedy = Some("owners and attributes are kept when root restores".into());
    }
    let nothing = |path: &Name| gap("absent", path.display(), "the snapshot holds nothing there".into());
    summary.gaps.extend(absent.iter().map(nothing));
    summary.whole &= absent.is_empty();
    summary
}

fn databases(item: &Item, report: DatabasesReport) -> Summary {
    let (mut restored, mut damaged, mut remedy) = (0, false, None);
    let mut gaps: Vec<GapReport> = Vec::new();
    let mut failed = |object: String, error: ItemError| {
        let failure = Failure::from(error);
        damaged |= failure.exit == Exit::Damaged;
        let failed = gap("not-restored", object, causes(&failure));
        remedy = remedy.take().or(failure.remedy);
        failed
    };
    let mut roles = String::new();
    match report.globals {
        Some(Ok(globals)) => {
            roles = describe_roles(&globals);
            gaps.extend(globals_gaps(globals));
        }
        Some(Err(error)) => gaps.push(failed("the roles".into(), error)),
        None => {}
    }
    for database in report.databases {
        match database.result {
            Ok(result) => {
                restored += 1;
                gaps.extend(database_gaps(&database.database, result));
            }
            Err(error) => gaps.push(failed(database.stream, error)),
        }
    }
    let text = format!("{} restored{roles}", plural(restored, "database", "databases"));
    let summary = Summary::new(item, None, text, gaps);
    Summary { damaged, remedy: remedy.or(summary.remedy.clone()), ..summary }
}

/// Returns the gaps of a restored database.
pub(super) fn database_gaps(database: &str, restored: RestoredDatabase) -> Vec<GapReport> {
    let named = |code: &'static str| {
        move |one: NotApplied| gap(code, database.to_owned(), format!("{}: {}", one.property, one.reason))
    };
    let mut gaps: Vec<GapReport> = restored.refused.into_iter().map(named("not-restored")).collect();
    if restored.more_refused > 0 {
        let more = plural(restored.more_refused, "further error", "further errors");
        gaps.push(gap("not-restored", database.to_owned(), more));
    }
    gaps.extend(restored.not_applied.into_iter().map(named("not-applied")));
    gaps
}

/// Describes the result for roles as the end of a line. Existing roles keep their passwords and settings,
/// whatever the backup says of them.
fn describe_roles(report: &GlobalsReport) -> String {
    let mut text = String::new();
    if !report.created.is_empty() {
        text.push_str(&format!(", {} created", plural(report.created.len() as u64, "role", "roles")));
    }
    if !report.existed.is_empty() {
        text.push_str(&format!("; existing roles kept, with their settings: {}", report.existed.join(", ")));
    }
    text
}

/// Returns the gaps of roles. An existing role that is kept and is the same has no gap.
pub(super) fn globals_gaps(report: GlobalsReport) -> Vec<GapReport> {
    let refused: BTreeMap<String, u64> = report.refused;
    let refused = refused.into_iter().map(|(words, times)| {
        let times = plural(times, "statement", "statements");
        gap("not-applied", words, format!("{times} of the backup's globals.sql that kbak does not run"))
    });
    refused
        .chain(report.not_applied.into_iter().map(|one| gap("not-applied", one.property, one.reason)))
        .collect()
}
