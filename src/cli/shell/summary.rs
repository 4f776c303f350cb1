//! The last lines of a run: the outcome, the safety of each item, the remedies.

use jiff::Timestamp;

use super::style::{Style, padded, width};
use crate::cli::failure::Exit;
use crate::report::item_state::ItemState;
use crate::report::run::{ItemReport, RunReport};
use crate::report::text::{about, plain, plural, span, utc};

/// The maximum number of gaps shown per item; the JSON report has all.
const MAX_GAPS: usize = 5;
/// The maximum number of warnings shown.
const MAX_WARNINGS: usize = 20;

/// Returns the lines, each with a newline. A failure is left out, because `failure::render` shows it.
#[must_use]
pub fn summary(report: &RunReport, style: Style) -> String {
    let mut lines = Vec::new();
    for notice in report.warnings.iter().take(MAX_WARNINGS) {
        lines.push(format!("{} {}: {}", style.warn("!"), plain(&notice.object), plain(&notice.message)));
        if let Some(remedy) = &notice.remedy {
            lines.push(format!("  → {}", plain(remedy)));
        }
    }
    let more = report.warnings.len().saturating_sub(MAX_WARNINGS) as u64 + report.warnings_left_out;
    if more > 0 {
        lines.push(format!(
            "{} and {} in the JSON report",
            style.warn("!"),
            plural(more, "more warning", "more warnings")
        ));
    }
    let label = label_width(report);
    for item in report.unsafe_items() {
        push_unsafe_item(&mut lines, report, item, label, style);
    }
    push_verdict(&mut lines, report, style);
    for item in report.items.iter().filter(|item| item.state.is_safe() || item.state == ItemState::Accepted) {
        let mark = match item.state {
            ItemState::Accepted => " (a gap that the plan accepts)",
            _ => "",
        };
        lines.push(format!("  {}   {}{mark}", padded(&plain(&item.item), label), plain(&item.summary)));
    }
    for (name, value) in &report.facts {
        lines.push(format!("  {}   {}", padded(name, label), plain(value)));
    }
    if let Some(snapshot) = &report.snapshot
        && report.verb == "backup"
    {
        lines.push(format!("  {}   sha256:{}", padded("head", label), snapshot.hash));
        let hint = "keep it somewhere else: kbak verify --expect-head";
        lines.push(format!("  {}   {}", padded("", label), style.dim(hint)));
    }
    lines.join("\n") + "\n"
}

fn label_width(report: &RunReport) -> usize {
    let items = report.items.iter().map(|item| width(&plain(&item.item)));
    let facts = report.facts.iter().map(|(name, _)| width(name));
    items.chain(facts).max().unwrap_or(0).clamp(9, 40)
}

fn push_unsafe_item(
    lines: &mut Vec<String>,
    report: &RunReport,
    item: &ItemReport,
    label: usize,
    style: Style,
) {
    let name = padded(&plain(&item.item), label);
    let indent = " ".repeat(label + 5);
    lines.push(format!("{} {name}   {}", style.bad("✗"), plain(&item.summary)));
    for gap in item.gaps.iter().take(MAX_GAPS) {
        lines.push(format!("{indent}{}: {} ({})", plain(&gap.object), plain(&gap.reason), gap.code));
    }
    if item.gaps.len() > MAX_GAPS {
        let more = (item.gaps.len() - MAX_GAPS) as u64;
        lines.push(format!("{indent}and {} in the JSON report", plural(more, "more gap", "more gaps")));
    }
    if report.verb == "backup" {
        lines.push(format!("{indent}{}", not_safe(report, item)));
    }
    if let Some(remedy) = &item.remedy {
        lines.push(format!("{indent}→ {}", plain(remedy)));
    }
}

fn not_safe(report: &RunReport, item: &ItemReport) -> String {
    let here = match &report.snapshot {
        Some(snapshot) => format!("this item is NOT safe in snapshot {:06}", snapshot.sequence),
        None => "this item is NOT safe".to_owned(),
    };
    match item.newest_good {
        Some((sequence, at)) => {
            format!("{here}; newest good one: {sequence:06} ({} old)", age(report.finished, at))
        }
        None => format!("{here}, and no earlier snapshot that could be read holds a good copy"),
    }
}

fn age(now: Timestamp, at: Timestamp) -> String {
    about(now.duration_since(at).unsigned_abs())
}

fn push_verdict(lines: &mut Vec<String>, report: &RunReport, style: Style) {
    let text = format!("{} in {}", plain(&report.verdict), span(report.duration()));
    let (mark, end) = match report.exit {
        Exit::Safe => (style.good("✓"), utc(report.finished)),
        Exit::Partial => (style.warn("!"), format!("exit {}", report.exit.code())),
        _ => (style.bad("✗"), format!("exit {}", report.exit.code())),
    };
    // The mark takes two columns, whatever its colour.
    let narrower = Style { width: style.width.saturating_sub(2), ..style };
    lines.push(format!("{mark} {}", narrower.at_the_right(&text, &end)));
}

/// Returns the message that Kubernetes keeps of a pod's end: verdict, head, changed owners, failure, unsafe items
/// and the first gaps of each. At most 4096 bytes, as the kubelet takes.
#[must_use]
pub fn termination_message(report: &RunReport) -> String {
    const MAX_BYTES: usize = 4096;
    const GAPS: usize = 3;
    let mut text = format!("{}, exit {}\n", plain(&report.verdict), report.exit.code());
    if let Some(snapshot) = &report.snapshot {
        text.push_str(&format!("head sha256:{}\n", snapshot.hash));
    }
    let failure = report.failure.iter().flat_map(|failure| {
        let causes = failure.causes.iter().map(|cause| format!("because {}", plain(cause)));
        let remedy = failure.remedy.iter().map(|remedy| format!("→ {}", plain(remedy)));
        std::iter::once(plain(&failure.what).into_owned()).chain(causes).chain(remedy)
    });
    let items = report.unsafe_items().flat_map(|item| {
        let gaps = item.gaps.iter().take(GAPS);
        let gaps =
            gaps.map(|gap| format!("  {} {}: {}", plain(&gap.code), plain(&gap.object), plain(&gap.reason)));
        std::iter::once(format!("✗ {}: {}", plain(&item.item), plain(&item.summary))).chain(gaps)
    });
    // Who may edit the plan can add an owner: its other owners should learn of it.
    let owners = report.facts_named("owners").map(|text| format!("owners: {}", plain(text)));
    for line in owners.chain(failure).chain(items) {
        let line = &line[..line.floor_char_boundary(600)];
        if text.len() + line.len() + 8 > MAX_BYTES {
            text.push_str("…\n");
            break;
        }
        text.push_str(line);
        text.push('\n');
    }
    text
}
