//! `kbak show`: one snapshot, with its items and streams by name. `kbak export` writes the same details.

use std::collections::BTreeMap;

use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::gaps::gap_report;
use crate::cli::failure::{Exit, Failure};
use crate::cli::options::reading::{self, OpenedSnapshot};
use crate::cli::options::{OutputArgs, ReadArgs};
use crate::cli::shell::console::Console;
use crate::cli::shell::output::{self, OutputFormat};
use crate::cli::shell::style::padded;
use crate::format::body::{Item, Stream};
use crate::report::item_state::ItemState;
use crate::report::run::GapReport;
use crate::report::text::{plain, plural, size, span, utc_and_local};

/// Arguments of `kbak show`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  kbak show --repo s3://backups/prod --signer kbak.pub --identity owner.key
  kbak show 42 --repo … --signer … --identity … -o yaml")]
pub struct ShowArgs {
    /// latest, a number, or the first six digits of a hash or more
    #[arg(value_name = "SNAPSHOT", default_value = "latest")]
    pub snapshot: String,
    #[command(flatten)]
    pub repository: ReadArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Runs `kbak show`.
pub(crate) fn run(args: &ShowArgs, console: &Console) -> Result<Exit, Failure> {
    let shown = reading::with_snapshot(&args.repository, &args.snapshot, console, |opened| async move {
        Ok(SnapshotDetails::of(&opened))
    })?;
    match args.output.output {
        OutputFormat::Table => output::write_text(&shown.text(&TimeZone::system()))?,
        format => output::write_value(&shown, format)?,
    }
    Ok(Exit::Safe)
}

#[derive(Serialize)]
pub(crate) struct SnapshotDetails {
    repository: String,
    writer: String,
    plan: String,
    plan_id: String,
    sequence: u64,
    hash: String,
    started: Timestamp,
    finished: Timestamp,
    next_before: Option<Timestamp>,
    epoch: String,
    tool: String,
    host: String,
    items: Vec<ItemDetails>,
}

#[derive(Serialize)]
struct ItemDetails {
    name: String,
    kind: String,
    state: ItemState,
    millis: u64,
    streams: Vec<StreamDetails>,
    gaps: Vec<GapReport>,
    notes: Vec<GapReport>,
    facts: BTreeMap<String, serde_json::Value>,
}

#[derive(Serialize)]
struct StreamDetails {
    name: String,
    format: String,
    bytes: u64,
    members: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

impl SnapshotDetails {
    /// Collects the facts of a snapshot that are shown.
    pub(crate) fn of(opened: &OpenedSnapshot) -> Self {
        let (snapshot, body) = (opened.snapshot.snapshot(), opened.snapshot.body());
        let envelope = snapshot.envelope();
        Self {
            repository: envelope.repository.to_string(),
            writer: envelope.writer.to_string(),
            plan: body.plan_name.clone(),
            plan_id: envelope.plan.to_string(),
            sequence: envelope.seq,
            hash: snapshot.manifest.hash().to_string(),
            started: envelope.started,
            finished: envelope.finished,
            next_before: envelope.next_before,
            epoch: envelope.epoch.to_string(),
            tool: body.tool.clone(),
            host: body.host.clone(),
            items: body.items.iter().map(ItemDetails::of).collect(),
        }
    }

    /// Renders the details as text, with times also in `zone`.
    pub(crate) fn text(&self, zone: &TimeZone) -> String {
        // Signed times are whole seconds.
        let took = match self.finished.duration_since(self.started).unsigned_abs() {
            took if took.as_secs() == 0 => "less than 1 s".to_owned(),
            took => span(took),
        };
        let mut facts = vec![
            ("snapshot", format!("{:06} of plan {}", self.sequence, self.plan)),
            ("finished", format!("{}, after {}", utc_and_local(self.finished, zone), took)),
            ("hash", format!("sha256:{}", self.hash)),
            ("by", format!("{} on {}", self.tool, self.host)),
            ("writer", self.writer.clone()),
            ("epoch", self.epoch.clone()),
        ];
        if let Some(next) = self.next_before {
            facts.push(("next", format!("promised before {}", utc_and_local(next, zone))));
        }
        let mut lines: Vec<String> =
            facts.iter().map(|(name, value)| format!("{}   {}", padded(name, 8), plain(value))).collect();
        for item in &self.items {
            lines.push(String::new());
            item.lines(&mut lines);
        }
        lines.join("\n") + "\n"
    }
}

/// The number of streams, gaps and notes of an item that the table lists.
const MAX_LISTED: usize = 40;

impl ItemDetails {
    fn of(item: &Item) -> Self {
        let stream = |stream: &Stream| StreamDetails {
            name: stream.name.clone(),
            format: stream.format.clone(),
            bytes: stream.length,
            members: stream.members,
            sha256: stream.sha256.map(|hash| hash.to_string()),
        };
        Self {
            name: item.name.clone(),
            kind: item.kind.clone(),
            state: item.state,
            millis: item.millis,
            streams: item.streams.iter().map(stream).collect(),
            gaps: item.gaps.iter().map(gap_report).collect(),
            notes: item.notes.iter().map(gap_report).collect(),
            facts: item.facts.clone(),
        }
    }

    fn lines(&self, lines: &mut Vec<String>) {
        let mark = match self.state {
            state if state.is_safe() => "✓",
            ItemState::Accepted => "!",
            _ => "✗",
        };
        let bytes: u64 = self.streams.iter().map(|stream| stream.bytes).sum();
        lines.push(format!("{mark} {}   {}, {}", plain(&self.name), self.state, size(bytes)));
        let width =
            self.streams.iter().take(MAX_LISTED).map(|stream| plain(&stream.name).chars().count()).max();
        for stream in self.streams.iter().take(MAX_LISTED) {
            let name = padded(&plain(&stream.name), width.unwrap_or(0));
            let members = match stream.members {
                0 => String::new(),
                members => format!("   {}", plural(members, "entry", "entries")),
            };
            lines.push(format!("    {name}   {:>8}{members}", size(stream.bytes)));
        }
        more(lines, self.streams.len(), "stream");
        for (mark, list) in [("✗", &self.gaps), ("·", &self.notes)] {
            for gap in list.iter().take(MAX_LISTED) {
                let object = plain(&gap.object).into_owned();
                lines.push(format!("    {mark} {object}: {} ({})", plain(&gap.reason), gap.code));
            }
            more(lines, list.len(), if mark == "✗" { "gap" } else { "note" });
        }
    }
}

fn more(lines: &mut Vec<String>, all: usize, what: &str) {
    if all > MAX_LISTED {
        let more = plural((all - MAX_LISTED) as u64, what, &format!("{what}s"));
        lines.push(format!("    and {more} more with -o json"));
    }
}
