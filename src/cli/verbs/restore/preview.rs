//! `kbak restore --dry-run`: plans a restore, and prints the plan as text, JSON or YAML.

use std::io::{Seek as _, Write};

use serde::Serialize;
use serde_json::json;

use crate::cli::failure::{Exit, Failure};
use crate::cli::options::reading::OpenedSnapshot;
use crate::cli::shell::console::Console;
use crate::cli::shell::output;
use crate::cli::shell::output::OutputFormat;
use crate::cli::verbs::restore;
use crate::cli::verbs::restore::{Head, RestoreArgs};
use crate::cli::verbs::restore::{resources, targets, text};
use crate::format::body::Item;
use crate::format::name::Name;
use crate::plan::RestoreSpec;
use crate::report::event::Reporter;
use crate::report::text::{plain, plural, size};
use crate::target::kubernetes::{Decision, Plan, UnmatchedSelector};

/// Bytes of decisions that are kept in memory; more go to a private temporary file.
const HELD: usize = 4 << 20;

/// The planned restore: its items, and the decision for each object.
pub(crate) struct Preview {
    head: Head,
    items: Vec<Line>,
    plan: Option<Plan>,
    /// Selectors that match no object, for a restore to files.
    absent: Vec<UnmatchedSelector>,
    /// The decision for each object, as JSON lines.
    objects: tempfile::SpooledTempFile,
    /// The first error that kept a decision from being stored.
    failed: Option<std::io::Error>,
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
}

/// Plans the restore and changes nothing.
pub(crate) async fn make(
    args: &RestoreArgs,
    opened: &OpenedSnapshot,
    items: &[&Item],
    spec: &RestoreSpec,
    reporter: &Reporter,
) -> Result<Preview, Failure> {
    let mut preview = Preview {
        head: restore::head(opened),
        items: Vec::with_capacity(items.len()),
        plan: None,
        absent: Vec::new(),
        objects: tempfile::SpooledTempFile::new(HELD),
        failed: None,
    };
    for item in items {
        preview.items.push(line(args, opened, item, items.len()).await?);
    }
    for item in items.iter().filter(|item| item.kind == "resources") {
        if args.resources_to.is_some() {
            preview.absent.extend(resources::absent(opened, item, spec).await?);
        }
        if !args.cluster {
            continue;
        }
        let (objects, failed) = (&mut preview.objects, &mut preview.failed);
        let mut told = |decision: &Decision| {
            let written = serde_json::to_writer(&mut *objects, decision)
                .map_err(std::io::Error::from)
                .and_then(|()| objects.write_all(b"\n"));
            if let Err(error) = written {
                failed.get_or_insert(error);
            }
        };
        preview.plan = Some(resources::plan(args, opened, item, spec, reporter, &mut told).await?);
    }
    match preview.failed.take() {
        None => Ok(preview),
        Some(error) => {
            Err(Failure::new(Exit::Unreachable, "the plan cannot be kept in a temporary file").because(error))
        }
    }
}

async fn line(
    args: &RestoreArgs,
    opened: &OpenedSnapshot,
    item: &Item,
    items: usize,
) -> Result<Line, Failure> {
    let bytes: u64 = item.streams.iter().map(|stream| stream.length).sum();
    let members: u64 = item.streams.iter().map(|stream| stream.members).sum();
    let mut absent = Vec::new();
    let (what, bytes) = match item.kind.as_str() {
        "database" => {
            let databases = item.streams.iter().filter(|stream| stream.format == "pgdump").count() as u64;
            (plural(databases, "database", "databases"), bytes)
        }
        "volume" if !item.streams.is_empty() => {
            let look = targets::look(args, opened, item, items).await?;
            absent = look.absent.iter().map(Name::display).collect();
            (plural(look.members, "entry", "entries"), look.bytes)
        }
        _ => (plural(members, "object", "objects"), bytes),
    };
    let target = targets::describe(args, item, items);
    Ok(Line { item: item.name.clone(), kind: item.kind.clone(), what, bytes, target, absent })
}

impl Preview {
    /// Prints the preview and returns its exit code.
    pub(crate) fn show(mut self, format: OutputFormat, console: &Console) -> Result<Exit, Failure> {
        if format != OutputFormat::Table {
            self.write(format)?;
            return Ok(self.exit());
        }
        let mut text = format!("{}, sha256:{}\n", self.head, self.head.hash);
        for Line { item, what, bytes, target, absent, .. } in &self.items {
            text.push_str(&format!("  {}   {what}, {} → {target}\n", plain(item), size(*bytes)));
            for path in absent {
                text.push_str(&format!("  absent   the snapshot holds nothing at {}\n", plain(path)));
            }
        }
        let hash = self.plan.as_ref().map(|plan| plan.hash.clone());
        if let Some(plan) = &self.plan {
            text.push_str(&text::plan(plan));
        }
        for absent in &self.absent {
            text.push_str(&format!("  {}\n", plain(&text::nothing_fits(absent))));
        }
        output::write_text(&text)?;
        let so = "nothing was changed; to do this: the same command without --dry-run";
        match hash {
            Some(hash) => {
                console.line(&format!("{so}, and with --plan-hash {} to do just this", &hash[..16]))
            }
            None => console.line(so),
        }
        Ok(self.exit())
    }

    /// Returns `Partial` if a selected object or path is not in the snapshot.
    fn exit(&self) -> Exit {
        let planned = self.plan.as_ref().is_none_or(|plan| plan.absent.is_empty());
        let absent = !self.absent.is_empty() || self.items.iter().any(|line| !line.absent.is_empty());
        if planned && !absent { Exit::Safe } else { Exit::Partial }
    }

    /// Writes the preview as one document, and streams the objects into it.
    fn write(&mut self, format: OutputFormat) -> Result<(), Failure> {
        let head = json!({
            "snapshot": {"sequence": self.head.sequence, "hash": self.head.hash},
            "items": self.items,
            "plan": self.plan,
            "absent": self.absent,
        });
        let lines = self.lines();
        output::write(|out| {
            let lines = lines?;
            if format == OutputFormat::Yaml {
                let head = serde_saphyr::to_string(&head).map_err(std::io::Error::other)?;
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
