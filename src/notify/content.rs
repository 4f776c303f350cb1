//! The content of notices. By default it names nothing of the backup: no object, database, folder or bucket.

use serde_json::{Map, Value};

use super::RunEnd;
use crate::plan::{NOTICE_FIELDS, NoticeTemplate};
use crate::report::outcome::Outcome;
use crate::report::text::{plural, span};

/// Returns how a run ended, in one line without names:
/// `backup of plan nightly: partial (exit 3), snapshot 000042, 1 of 3 items not safe, 24.8 s`.
#[must_use]
pub fn summary(end: RunEnd<'_>) -> String {
    let report = end.report;
    let plan = report.plan.as_ref().map(|plan| format!(" of plan {plan}")).unwrap_or_default();
    let mut text = format!("{}{plan}: {} (exit {})", report.verb, outcome(report.exit), end.code);
    if let Some(snapshot) = &report.snapshot {
        text.push_str(&format!(", snapshot {:06}", snapshot.sequence));
    }
    let (all, bad) = (report.items.len() as u64, report.unsafe_items().count() as u64);
    match (all, bad) {
        (0, _) => {}
        (all, 0) => text.push_str(&format!(", {}", plural(all, "item", "items"))),
        (all, bad) => text.push_str(&format!(", {bad} of {} not safe", plural(all, "item", "items"))),
    }
    text.push_str(&format!(", {}", span(report.duration())));
    text
}

/// Returns a webhook's body: the template's, or all fields that name nothing.
pub(super) fn body(end: RunEnd<'_>, template: Option<&NoticeTemplate>) -> String {
    match template {
        Some(template) => template.render(|name| field(end, name)),
        None => {
            let fields = NOTICE_FIELDS.iter().map(|name| ((*name).to_owned(), field(end, name)));
            Value::Object(fields.collect::<Map<_, _>>()).to_string()
        }
    }
}

/// Returns the value of a field of a notice.
fn field(end: RunEnd<'_>, name: &str) -> Value {
    let report = end.report;
    let is_success = report.exit == Outcome::Safe;
    match name {
        "verb" => report.verb.clone().into(),
        "plan" => report.plan.clone().unwrap_or_default().into(),
        "status" => if is_success { "success" } else { "failure" }.into(),
        "outcome" => outcome(report.exit).into(),
        "exit" => end.code.into(),
        "summary" => summary(end).into(),
        "snapshot" => report.snapshot.as_ref().map(|snapshot| snapshot.sequence).into(),
        "head" => report.snapshot.as_ref().map(|snapshot| snapshot.hash.clone()).unwrap_or_default().into(),
        "started" => report.started.to_string().into(),
        "finished" => report.finished.to_string().into(),
        "seconds" => report.duration().as_secs_f64().into(),
        "items" => report.items.len().into(),
        "unsafeItems" => report.unsafe_items().count().into(),
        "gaps" => report.items.iter().map(|item| item.gaps.len()).sum::<usize>().into(),
        "bytes" => report.items.iter().map(|item| item.bytes).sum::<u64>().into(),
        "storedBytes" => report.stored.bytes.into(),
        "storedPacks" => report.stored.packs.into(),
        "warnings" => (report.warnings.len() as u64 + report.warnings_left_out).into(),
        "version" => report.version.clone().into(),
        "verdict" => report.verdict.clone().into(),
        "unsafeNames" => {
            report.unsafe_items().map(|item| item.item.as_str()).collect::<Vec<_>>().join(", ").into()
        }
        "repository" => report.repository.clone().into(),
        _ => Value::Null,
    }
}

/// Returns the word for an outcome.
fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Safe => "complete",
        Outcome::Bug => "bug",
        Outcome::Usage => "configuration",
        Outcome::Partial => "partial",
        Outcome::Damaged => "damaged",
        Outcome::Unreachable => "unreachable",
        Outcome::Interrupted => "interrupted",
    }
}
