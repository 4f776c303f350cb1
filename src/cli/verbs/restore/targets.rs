//! Checks the target of each kind of item in a restore, and restores folders.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt as _;

use crate::cli::failure::{Exit, Failure};
use crate::cli::options::reading;
use crate::cli::options::reading::OpenedSnapshot;
use crate::cli::options::restore_values::Allowed;
use crate::cli::shell::output;
use crate::cli::shell::output::OutputFormat;
use crate::cli::verbs::gaps::{gap_report, missing};
use crate::cli::verbs::restore::{RestoreArgs, beneath, lies_in};
use crate::format::body::Item;
use crate::format::name::Name;
use crate::pipeline::reader::StreamReader;
use crate::report::event::Meter;
use crate::report::run::{GapReport, ObjectReport};
use crate::report::text::{count, plural, size};
use crate::restore::folder::{self, Look, Paths};
use crate::restore::streams;
use crate::source::volume::parse_exclude_patterns;
use crate::target::volume::{DeletionExceptions, ExistingFiles, TargetOptions, VolumeReport};

/// The result of restoring an item.
#[derive(Debug)]
pub(crate) struct Done {
    /// The item's name.
    pub(crate) item: String,
    /// True if everything selected was restored.
    pub(crate) whole: bool,
    /// True if the stored backup of the item is damaged.
    pub(crate) damaged: bool,
    /// The result in one line.
    pub(crate) summary: String,
    /// The parts that were not restored.
    pub(crate) gaps: Vec<GapReport>,
    /// Objects with another outcome than `Created`.
    pub(crate) objects: Vec<ObjectReport>,
    /// The next step for the user.
    pub(crate) remedy: Option<String>,
}

impl Done {
    /// Returns the result for a whole item; `gaps` lists data that the target did not take.
    pub(crate) fn new(item: &Item, summary: String, gaps: Vec<GapReport>) -> Self {
        Self::of(item, None, summary, gaps)
    }

    /// Returns the result for these paths of an item, or all of it. Gaps of the snapshot are added.
    fn of(item: &Item, paths: Option<&Paths>, summary: String, mut gaps: Vec<GapReport>) -> Self {
        let before = gaps.len();
        gaps.extend(missing(item, paths).map(gap_report));
        let lacks = gaps.len() > before;
        Self {
            item: item.name.clone(),
            whole: gaps.is_empty() && (item.state.is_complete() || paths.is_some()),
            damaged: false,
            summary,
            gaps,
            objects: Vec::new(),
            remedy: lacks.then(|| "what the snapshot lacks may be in an earlier one: kbak snapshots".into()),
        }
    }

    /// Returns the result of an item that failed.
    pub(crate) fn failed(item: &Item, failure: &Failure) -> Self {
        let reason =
            std::iter::once(failure.what.clone()).chain(failure.causes()).collect::<Vec<_>>().join(": ");
        let gap = GapReport { code: "not-restored".into(), object: item.name.clone(), reason };
        Self {
            item: item.name.clone(),
            whole: false,
            damaged: failure.exit == Exit::Damaged,
            summary: "not restored".into(),
            gaps: vec![gap],
            objects: Vec::new(),
            remedy: failure.remedy.clone(),
        }
    }
}

/// Checks that every selected item has a target, before anything is changed.
pub(crate) fn check(args: &RestoreArgs, items: &[&Item]) -> Result<(), Failure> {
    let mut without = Vec::new();
    for item in items {
        let there = match item.kind.as_str() {
            "volume" => args.to.is_some() || args.tar,
            "database" => args.database.is_some(),
            "resources" => args.cluster || args.resources_to.is_some(),
            _ => true,
        };
        if !there {
            without.push((item.name.clone(), target_option(&item.kind)));
        }
    }
    let folders = items.iter().filter(|item| item.kind == "volume").count();
    if args.tar && (folders != 1 || items.len() != 1) {
        return Err(Failure::new(Exit::Usage, "--tar writes one folder, and this is not one")
            .remedy("choose it with --item"));
    }
    if args.tar && args.dry_run.is_none() {
        output::require_open(Exit::Partial)?;
        if args.output.output != OutputFormat::Table {
            return Err(Failure::new(Exit::Usage, "--tar and --output both write to standard output")
                .remedy("--report-file FILE takes the report"));
        }
    }
    if args.tar && !args.path.is_empty() {
        return Err(Failure::new(Exit::Usage, "--tar writes the whole folder")
            .remedy("leave --path out, or restore the path with --to"));
    }
    if !args.path.is_empty() && folders != 1 {
        return Err(Failure::new(Exit::Usage, "--path names a path in one folder, and this is not one")
            .remedy("choose the folder with --item"));
    }
    if without.is_empty() || args.dry_run.is_some() {
        return Ok(());
    }
    let mut failure = Failure::new(Exit::Usage, "nothing says where this goes; nothing was changed");
    for (item, option) in without {
        failure = failure.fact(item, option);
    }
    Err(failure.remedy("give the target, or choose items with --item; --dry-run shows all"))
}

fn target_option(kind: &str) -> &'static str {
    match kind {
        "volume" => "--to FOLDER, or --tar",
        "database" => "--database URL",
        _ => "--cluster, or --resources-to FOLDER",
    }
}

/// Describes the target of an item.
pub(crate) fn describe(args: &RestoreArgs, item: &Item, items: usize) -> String {
    match item.kind.as_str() {
        "volume" if args.tar => "standard output, as tar".into(),
        "volume" => match &args.to {
            Some(to) => {
                let to = beneath(to, item, items > 1);
                let deletes = ExistingFiles::from(args.existing_files) == ExistingFiles::DeleteExtra;
                let so = if deletes { ", where all else is deleted (not listed here)" } else { "" };
                format!("{}{so}", to.path().display())
            }
            None => "(no --to)".into(),
        },
        "database" if args.database.is_some() => "the server of --database".into(),
        "database" => "(no --database)".into(),
        "resources" if args.cluster => "the cluster".into(),
        "resources" => match &args.resources_to {
            Some(to) => format!("files beneath {}", to.display()),
            None => "(no --cluster and no --resources-to)".into(),
        },
        _ => "(not restored by this version)".into(),
    }
}

/// Restores a folder, or a part of it.
pub(crate) async fn folder(
    args: &RestoreArgs,
    opened: &OpenedSnapshot,
    item: &Item,
    items: usize,
    meter: &Arc<Meter>,
) -> Result<Done, Failure> {
    let stream = streams::only_stream(item)?;
    let reader = opened.snapshot.read(stream)?;
    if args.tar {
        to_stdout(&reader, meter).await?;
        return Ok(Done::new(item, format!("{} as tar", size(stream.length)), Vec::new()));
    }
    let to = args.to.as_deref().unwrap_or(Path::new("."));
    let to = beneath(to, item, items > 1);
    let paths = paths(args, &reader).await?;
    let options = TargetOptions {
        existing: args.existing_files.into(),
        allow_devices: args.allow.contains(&Allowed::Devices),
        allow_other_xattrs: args.allow.contains(&Allowed::Xattrs),
        deletion_exceptions: keep(item, opened.snapshot.body().items.iter())?,
        ..TargetOptions::default()
    };
    let (report, absent) =
        folder::into_folder(&reader, paths.as_ref(), to.clone(), options, &opened.view.runtime, meter)
            .await?;
    let mut done = folder_done(item, paths.as_ref(), &to.path(), &report);
    done.gaps.extend(absent.iter().map(|path| GapReport {
        code: "absent".into(),
        object: path.display(),
        reason: "the snapshot holds nothing there".into(),
    }));
    done.whole &= absent.is_empty();
    Ok(done)
}

/// Returns the paths that a restore of an item never deletes: its gaps and excluded paths, and the folders
/// of other items in it.
fn keep<'a>(item: &'a Item, all: impl Iterator<Item = &'a Item>) -> Result<DeletionExceptions, Failure> {
    let lacks = item.gaps.iter().chain(&item.notes);
    let named = lacks.clone().all(|gap| !gap.object.bytes().is_empty());
    let others = all.filter_map(|other| lies_in(other, item)).map(|path| path.as_bytes().to_vec());
    let paths = lacks.map(|gap| gap.object.bytes().to_vec()).filter(|path| !path.is_empty());
    let excluded = item.facts.get("exclude").cloned().unwrap_or_default();
    let excluded: Vec<String> = serde_json::from_value(excluded).unwrap_or_default();
    let excluded = parse_exclude_patterns(&excluded).map_err(|error| {
        Failure::new(Exit::Damaged, format!("{}: what it excluded cannot be read", item.name)).because(error)
    })?;
    Ok(DeletionExceptions { paths: paths.chain(others).collect(), excluded, all_named: named })
}

/// Returns the entries and bytes that would be restored. Fails if the target cannot take them.
pub(crate) async fn look(
    args: &RestoreArgs,
    opened: &OpenedSnapshot,
    item: &Item,
    items: usize,
) -> Result<Look, Failure> {
    let reader = opened.snapshot.read(streams::only_stream(item)?)?;
    let paths = paths(args, &reader).await?;
    let to = args.to.as_deref().map(|to| beneath(to, item, items > 1));
    Ok(folder::look_at_folder(&reader, paths.as_ref(), to.as_ref(), args.existing_files.into()).await?)
}

/// Returns the selected paths; `None` selects all.
async fn paths(args: &RestoreArgs, reader: &StreamReader) -> Result<Option<Paths>, Failure> {
    let mut names: Vec<Name> = Vec::new();
    for path in &args.path {
        names.push(reading::resolve_path(reader, path.as_bytes()).await?);
    }
    Ok((!names.is_empty()).then_some(Paths(names)))
}

/// Writes a stream to standard output. Unlike in a list, a pipe that is closed early is a failure: the
/// restore is not complete.
async fn to_stdout(reader: &StreamReader, meter: &Meter) -> Result<(), Failure> {
    use std::io::Write as _;
    let failed = |error: std::io::Error| {
        Failure::new(Exit::Partial, "standard output took only a part of the folder").because(error)
    };
    meter.add_bytes_total(reader.body().length);
    let mut out = std::io::stdout();
    let mut bytes = reader.bytes();
    while let Some(piece) = bytes.next().await {
        let piece = piece?;
        out.write_all(&piece).map_err(failed)?;
        meter.add_bytes(piece.len() as u64);
    }
    out.flush().map_err(failed)
}

fn folder_done(item: &Item, paths: Option<&Paths>, to: &Path, report: &VolumeReport) -> Done {
    let mut parts = vec![format!(
        "{}, {} in {}",
        plural(report.files, "file", "files"),
        size(report.bytes),
        to.display()
    )];
    for (number, what) in [(report.present, "there already"), (report.deleted, "deleted")] {
        if number > 0 {
            parts.push(format!("{} {what}", count(number)));
        }
    }
    let mut gaps: Vec<GapReport> = report
        .failures
        .iter()
        .map(|failure| GapReport {
            code: failure.reason.kind().code().into(),
            object: Name(failure.path.clone()).display(),
            reason: failure.reason.to_string(),
        })
        .collect();
    for (loss, tallied) in report.lost.iter() {
        let example = tallied.examples.first().map(|path| Name(path.clone()).display()).unwrap_or_default();
        gaps.push(GapReport {
            code: "attribute-lost".into(),
            object: example,
            reason: format!("{} could not be kept, {}", loss.name(), plural(tallied.count, "time", "times")),
        });
    }
    if report.deletion_held_back {
        gaps.push(GapReport {
            code: "deletion-held-back".into(),
            object: to.display().to_string(),
            reason: "nothing was deleted: something could not be restored, or the snapshot does not name all that \
                     it lacks".into(),
        });
    }
    let mut done = Done::of(item, paths, parts.join(", "), gaps);
    if report.failed.is_empty() && !report.lost.is_empty() {
        done.remedy = Some("owners and attributes are kept when root restores".into());
    }
    done
}
