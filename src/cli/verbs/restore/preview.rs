//! `kbak restore --dry-run`: plans a restore, and prints the plan as text, JSON or YAML.

use std::io::{Seek as _, SeekFrom, Write};

use serde::Serialize;
use serde_json::json;

use crate::cli::failure::{Exit, Failure};
use crate::cli::shell::console::Console;
use crate::cli::shell::output;
use crate::cli::shell::output::OutputFormat;
use crate::cli::verbs::gaps::{gap_report, missing};
use crate::cli::verbs::restore::job::describe_target;
use crate::cli::verbs::restore::report::{database_gaps, globals_gaps};
use crate::cli::verbs::restore::{DryRun, Head, RestoreArgs, text};
use crate::format::body::Item;
use crate::format::name::Name;
use crate::report::error::causes;
use crate::report::run::GapReport;
use crate::report::text::{plain, plural, size};
use crate::restore::error::ItemError;
use crate::restore::job::RestoreJob;
use crate::restore::{DatabasePreview, DatabasesPreview, ItemPreview, ResourcesPreview};
use crate::target::database::TargetState;
use crate::target::kubernetes::{Decision, Plan};

/// Bytes of decisions that are kept in memory; more go to a private temporary file.
const MAX_IN_MEMORY: usize = 4 << 20;
/// The gaps of an item that are printed.
const MAX_GAPS: usize = 10;
/// The parts of an item that would not be restored and that are printed.
const MAX_REFUSED: usize = 30;

/// The planned restore: its items, and the decision for each object.
pub(crate) struct Preview {
    head: Head,
    items: Vec<Line>,
    resources: ResourcesPreview,
    /// The decision for each object, as JSON lines.
    objects: tempfile::SpooledTempFile,
}

#[derive(Serialize)]
struct Line {
    item: String,
    kind: String,
    what: String,
    bytes: u64,
    target: String,
    /// Selected paths that the snapshot does not hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    absent: Vec<String>,
    /// The parts of the item that the snapshot lacks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gaps: Vec<GapReport>,
    /// The databases of the target, and what would be done with each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    databases: Vec<DatabaseLine>,
    /// The parts that would not be restored, or not whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refused: Vec<String>,
    /// The outcome of the restore, as far as it can be foreseen.
    outcome: Exit,
}

#[derive(Serialize)]
struct DatabaseLine {
    database: String,
    /// `created`, `filled` or `dropped`; none if it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'static str>,
    text: String,
}

/// Plans the restore and changes nothing.
pub(super) async fn make(args: &RestoreArgs, head: Head, job: &RestoreJob<'_>) -> Result<Preview, Failure> {
    let mut items = Vec::with_capacity(job.items.len());
    for item in &job.items {
        items.push(line(args, job, item).await?);
    }
    let several = items.len() > 1;
    let mut objects = tempfile::SpooledTempFile::new(MAX_IN_MEMORY);
    let mut failed: Option<std::io::Error> = None;
    let mut decided = |decision: &Decision| {
        let written = serde_json::to_writer(&mut objects, decision)
            .map_err(std::io::Error::from)
            .and_then(|()| objects.write_all(b"\n"));
        if let Err(error) = written {
            failed.get_or_insert(error);
        }
    };
    let resources = match job.preview_resources(args.dry_run == Some(DryRun::Server), &mut decided).await {
        Ok(resources) => resources,
        // As in the run: the other items are restored all the same.
        Err(error) if several && !error.ends_run() => {
            let refused: Vec<&mut Line> = items.iter_mut().filter(|line| line.kind == "resources").collect();
            let (text, outcome) = refusal(error);
            for line in refused {
                line.refused.push(text.clone());
                line.outcome = outcome;
            }
            ResourcesPreview::default()
        }
        Err(error) => return Err(error.into()),
    };
    let is_whole = resources.plan.as_ref().is_none_or(Plan::is_whole) && resources.unmatched.is_empty();
    for line in items.iter_mut().filter(|line| line.kind == "resources") {
        if let Some(cluster) = &resources.cluster {
            line.target = format!("the cluster {cluster}");
        }
        if !is_whole && line.outcome == Exit::Safe {
            line.outcome = Exit::Partial;
        }
    }
    match failed {
        None => Ok(Preview { head, items, resources, objects }),
        Some(error) => {
            Err(Failure::new(Exit::Unreachable, "the plan cannot be kept in a temporary file").because(error))
        }
    }
}

/// Returns the reason of a refusal with its remedy, and the outcome of a run that goes on without the item.
fn refusal(error: ItemError) -> (String, Exit) {
    let failure = Failure::from(error);
    let outcome = if failure.exit == Exit::Damaged { Exit::Damaged } else { Exit::Partial };
    let remedy = failure.remedy.as_deref().map(|remedy| format!(" ({remedy})")).unwrap_or_default();
    (format!("{}{remedy}", causes(&failure)), outcome)
}

async fn line(args: &RestoreArgs, job: &RestoreJob<'_>, item: &Item) -> Result<Line, Failure> {
    let mut line = Line {
        item: item.name.clone(),
        kind: item.kind.clone(),
        what: String::new(),
        bytes: item.streams.iter().map(|stream| stream.length).sum(),
        target: describe_target(args, job, item),
        absent: Vec::new(),
        gaps: Vec::new(),
        databases: Vec::new(),
        refused: Vec::new(),
        outcome: Exit::Safe,
    };
    let paths = job.paths.as_ref();
    line.gaps = missing(item, paths).map(gap_report).collect();
    if !line.gaps.is_empty() || !(item.state.is_complete() || paths.is_some()) {
        line.outcome = Exit::Partial;
    }
    match job.preview_item(item).await {
        Ok(preview) => fill(&mut line, preview),
        // As in the run: of several items, the others are restored all the same.
        Err(error) if job.items.len() > 1 && !error.ends_run() => {
            let (text, outcome) = refusal(error);
            line.refused.push(text);
            line.outcome = outcome;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(line)
}

/// Adds what was foreseen for an item.
fn fill(line: &mut Line, preview: ItemPreview) {
    let mut refuse = |text: String| {
        line.refused.push(text);
        line.outcome = Exit::Partial;
    };
    match preview {
        ItemPreview::Objects(number) => line.what = plural(number, "object", "objects"),
        ItemPreview::Databases(number, preview) => {
            line.what = plural(number, "database", "databases");
            fill_databases(line, preview);
        }
        ItemPreview::Folder(look) => {
            line.bytes = look.bytes;
            line.what = plural(look.members, "entry", "entries");
            if look.refused_devices > 0 {
                refuse(format!(
                    "{} not made (--allow devices)",
                    plural(look.refused_devices, "device is", "devices are")
                ));
            }
            if look.foreign_owners > 0 {
                refuse(format!(
                    "this user cannot set owner and group of {} (root can)",
                    plural(look.foreign_owners, "entry", "entries")
                ));
            }
            if let Some(example) = look.stopped_example {
                let stopped = plural(look.stopped, "entry", "entries");
                let example = example.display();
                refuse(format!("{stopped}, as {example}: another entry exists in the target and stays"));
            }
            line.absent = look.absent.iter().map(Name::display).collect();
            if !line.absent.is_empty() {
                line.outcome = Exit::Partial;
            }
        }
    }
}

/// Adds what was foreseen for databases and roles.
fn fill_databases(line: &mut Line, preview: DatabasesPreview) {
    let (mut refused, mut damaged) = (Vec::new(), false);
    let mut refuse = |error: ItemError| {
        let (text, outcome) = refusal(error);
        damaged |= outcome == Exit::Damaged;
        text
    };
    match preview.globals {
        Some(Ok(globals)) => refused.extend(describe_gaps(globals_gaps(globals))),
        Some(Err(error)) => refused.push(format!("the roles: {}", refuse(error))),
        None => {}
    }
    for DatabasePreview { database, target } in preview.databases {
        let (action, text) = match target {
            Ok((state, contents)) => {
                refused.extend(describe_gaps(database_gaps(&database, contents)));
                describe_state(state)
            }
            Err(error) => {
                let text = refuse(error);
                refused.push(format!("{database}: {text}"));
                line.databases.push(DatabaseLine { database, action: None, text });
                continue;
            }
        };
        line.databases.push(DatabaseLine { database, action: Some(action), text });
    }
    if damaged {
        line.outcome = Exit::Damaged;
    } else if !refused.is_empty() {
        line.outcome = Exit::Partial;
    }
    line.refused.append(&mut refused);
}

fn describe_gaps(gaps: Vec<GapReport>) -> impl Iterator<Item = String> {
    gaps.into_iter().map(|GapReport { object, reason, .. }| format!("{object}: {reason}"))
}

/// Returns what is done with a database, in a word and in a sentence.
fn describe_state(state: TargetState) -> (&'static str, String) {
    match state {
        TargetState::Absent => ("created", "it is created".to_owned()),
        TargetState::Empty => ("filled", "it exists and is empty: it is filled".to_owned()),
        TargetState::Dropped(objects) => {
            let objects = plural(objects, "object", "objects");
            ("dropped", format!("it exists and is DROPPED first, with its {objects}"))
        }
    }
}

impl Preview {
    /// Prints the preview and returns its exit code.
    pub(crate) fn show(mut self, format: OutputFormat, console: &Console) -> Result<Exit, Failure> {
        if format != OutputFormat::Table {
            self.write(format)?;
            return Ok(self.exit());
        }
        let mut text = format!("{}, sha256:{}\n", self.head, self.head.hash);
        for Line { item, what, bytes, target, absent, gaps, databases, refused, .. } in &self.items {
            text.push_str(&format!("  {}   {what}, {} → {target}\n", plain(item), size(*bytes)));
            for path in absent {
                text.push_str(&format!("  absent   the snapshot holds nothing at {}\n", plain(path)));
            }
            for GapReport { object, reason, .. } in gaps.iter().take(MAX_GAPS) {
                text.push_str(&format!("  gap      {}: {}\n", plain(object), plain(reason)));
            }
            if gaps.len() > MAX_GAPS {
                text.push_str(&format!("  gap      {} more in -o json\n", gaps.len() - MAX_GAPS));
            }
            for DatabaseLine { database, action, text: what } in databases {
                if let Some(action) = action {
                    text.push_str(&format!("  {action}   {}: {what}\n", plain(database)));
                }
            }
            for why in refused.iter().take(MAX_REFUSED) {
                text.push_str(&format!("  not restored   {}\n", plain(why)));
            }
            if refused.len() > MAX_REFUSED {
                text.push_str(&format!("  not restored   {} more in -o json\n", refused.len() - MAX_REFUSED));
            }
        }
        let hash = self.resources.plan.as_ref().map(|plan| plan.hash.clone());
        if let Some(plan) = &self.resources.plan {
            text.push_str(&text::plan(plan));
        }
        for absent in &self.resources.unmatched {
            text.push_str(&format!("  {}\n", plain(&text::nothing_fits(absent))));
        }
        output::write_text(&text)?;
        let nothing = "nothing was changed; to do this: the same command without --dry-run";
        match hash {
            Some(hash) => {
                console.line(&format!("{nothing}, and with --plan-hash {} to do just this", &hash[..16]))
            }
            None => console.line(nothing),
        }
        Ok(self.exit())
    }

    /// Returns the outcome of the restore, as far as it can be foreseen.
    fn exit(&self) -> Exit {
        let is = |outcome| self.items.iter().any(|line| line.outcome == outcome);
        match self.items.iter().all(|line| line.outcome == Exit::Safe) {
            true => Exit::Safe,
            false if is(Exit::Damaged) => Exit::Damaged,
            false => Exit::Partial,
        }
    }

    /// Writes the preview as one document, and streams the objects into it.
    fn write(&mut self, format: OutputFormat) -> Result<(), Failure> {
        let head = json!({
            "snapshot": {"sequence": self.head.sequence, "hash": self.head.hash},
            "items": self.items,
            "plan": self.resources.plan,
            "absent": self.resources.unmatched,
        });
        let lines = self.lines();
        output::write(|out| {
            let lines = lines?;
            if format == OutputFormat::Yaml {
                let head = serde_saphyr::to_string(&head).map_err(std::io::Error::other)?;
                if lines.seek(SeekFrom::End(0))? == 0 {
                    return writeln!(out, "{head}objects: []");
                }
                lines.rewind()?;
                writeln!(out, "{head}objects:")?;
                // JSON is YAML, too.
                return copy(lines, out, "- ", "\n");
            }
            let head = serde_json::to_string_pretty(&head)?;
            write!(out, "{},\n  \"objects\": [", head.trim_end().trim_end_matches('}').trim_end())?;
            copy(lines, out, "\n    ", ",")?;
            writeln!(out, "\n  ]\n}}")
        })
    }

    fn lines(&mut self) -> std::io::Result<&mut tempfile::SpooledTempFile> {
        self.objects.rewind()?;
        Ok(&mut self.objects)
    }
}

/// Copies lines, with `before` in front of each and `between` between them.
fn copy(
    lines: &mut tempfile::SpooledTempFile,
    out: &mut dyn Write,
    before: &str,
    between: &str,
) -> std::io::Result<()> {
    use std::io::BufRead as _;
    let mut first = true;
    for line in std::io::BufReader::new(lines).lines() {
        if !std::mem::take(&mut first) {
            out.write_all(between.as_bytes())?;
        }
        out.write_all(before.as_bytes())?;
        out.write_all(line?.as_bytes())?;
    }
    if !first && between == "\n" {
        out.write_all(b"\n")?;
    }
    Ok(())
}
