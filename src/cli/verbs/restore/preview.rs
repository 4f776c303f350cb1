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
use crate::cli::verbs::restore::{DryRun, Head, RestoreArgs, text};
use crate::format::body::Item;
use crate::format::name::Name;
use crate::report::run::GapReport;
use crate::report::text::{plain, plural, size};
use crate::restore::job::RestoreJob;
use crate::restore::{ItemPreview, ResourcesPreview};
use crate::target::kubernetes::{Decision, Plan};

/// Bytes of decisions that are kept in memory; more go to a private temporary file.
const MAX_IN_MEMORY: usize = 4 << 20;
/// The gaps of an item that are printed.
const MAX_GAPS: usize = 10;

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
    /// True if the snapshot holds all of the item, or of the selected paths.
    #[serde(skip)]
    is_whole: bool,
}

/// Plans the restore and changes nothing.
pub(super) async fn make(args: &RestoreArgs, head: Head, job: &RestoreJob<'_>) -> Result<Preview, Failure> {
    let mut items = Vec::with_capacity(job.items.len());
    for item in &job.items {
        items.push(line(args, job, item).await?);
    }
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
    let resources = job.preview_resources(args.dry_run == Some(DryRun::Server), &mut decided).await?;
    match failed {
        None => Ok(Preview { head, items, resources, objects }),
        Some(error) => {
            Err(Failure::new(Exit::Unreachable, "the plan cannot be kept in a temporary file").because(error))
        }
    }
}

async fn line(args: &RestoreArgs, job: &RestoreJob<'_>, item: &Item) -> Result<Line, Failure> {
    let mut bytes: u64 = item.streams.iter().map(|stream| stream.length).sum();
    let mut absent = Vec::new();
    let what = match job.preview_item(item).await? {
        ItemPreview::Databases(number) => plural(number, "database", "databases"),
        ItemPreview::Objects(number) => plural(number, "object", "objects"),
        ItemPreview::Folder(look) => {
            bytes = look.bytes;
            absent = look.absent.iter().map(Name::display).collect();
            plural(look.members, "entry", "entries")
        }
    };
    let target = describe_target(args, item, job.items.len());
    let paths = job.paths.as_ref();
    let gaps: Vec<GapReport> = missing(item, paths).map(gap_report).collect();
    let is_whole = gaps.is_empty() && (item.state.is_complete() || paths.is_some());
    let (item, kind) = (item.name.clone(), item.kind.clone());
    Ok(Line { item, kind, what, bytes, target, absent, gaps, is_whole })
}

impl Preview {
    /// Prints the preview and returns its exit code.
    pub(crate) fn show(mut self, format: OutputFormat, console: &Console) -> Result<Exit, Failure> {
        if format != OutputFormat::Table {
            self.write(format)?;
            return Ok(self.exit());
        }
        let mut text = format!("{}, sha256:{}\n", self.head, self.head.hash);
        for Line { item, what, bytes, target, absent, gaps, .. } in &self.items {
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

    /// Returns the exit code that the restore would have, as far as can be foreseen.
    fn exit(&self) -> Exit {
        let planned = self.resources.plan.as_ref().is_none_or(Plan::is_whole);
        let stored = self.items.iter().all(|line| line.absent.is_empty() && line.is_whole);
        if planned && stored && self.resources.unmatched.is_empty() { Exit::Safe } else { Exit::Partial }
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
