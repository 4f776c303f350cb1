//! Reports the parts of roles and databases that a restore did not bring back.

use crate::report::run::GapReport;
use crate::report::text::plural;
use crate::target::database::{GlobalsReport, NotApplied};

/// Renders the result for roles as the end of a line. Existing roles keep their passwords and settings,
/// whatever the backup says of them.
pub(crate) fn roles(report: &GlobalsReport) -> String {
    let mut text = String::new();
    if !report.created.is_empty() {
        text.push_str(&format!(", {} made", plural(report.created.len() as u64, "role", "roles")));
    }
    if !report.existed.is_empty() {
        text.push_str(&format!("; left as they are, with their settings: {}", report.existed.join(", ")));
    }
    text
}

/// Returns the gaps of roles. An existing role that is left as it is has no gap.
pub(crate) fn of_roles(report: GlobalsReport) -> Vec<GapReport> {
    let refused = report.refused.into_iter().map(|(what, times)| {
        let times = plural(times, "statement", "statements");
        gap(what, format!("{times} of the backup's globals.sql that kbak does not run"))
    });
    let missing = report.missing.into_iter().map(|one| gap(one.what, one.reason));
    refused.chain(missing).collect()
}

/// Returns the gaps of a database.
pub(crate) fn of_database(database: &str, missing: Vec<NotApplied>) -> Vec<GapReport> {
    let named = |one: NotApplied| gap(database.to_owned(), format!("{}: {}", one.what, one.reason));
    missing.into_iter().map(named).collect()
}

fn gap(object: String, reason: String) -> GapReport {
    GapReport { code: "not-applied".into(), object, reason }
}
