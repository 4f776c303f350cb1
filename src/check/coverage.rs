//! Checks coverage. An undeclared Secret that cannot be recreated is a problem. Other undeclared things are
//! warnings, or problems too with `coverage: strict`.

use tokio::time::Instant;

use super::{ClusterJob, Finding, Severity};
use crate::report::coverage::UndeclaredKind;
use crate::report::event::Reporter;

pub(super) async fn check(job: &ClusterJob, reporter: &Reporter) -> Vec<Finding> {
    let Some(watch) = &job.coverage else {
        return Vec::new();
    };
    let began = Instant::now();
    let coverage = watch.run(reporter).await;
    let mut findings: Vec<Finding> = Vec::new();
    if coverage.uncovered.is_empty() && coverage.unseen.is_empty() {
        findings.push(Finding::good("coverage", coverage.summary()).took(began));
    }
    for line in coverage.findings() {
        let weight = match line.what {
            Some(UndeclaredKind::Key) => Severity::Problem,
            _ if coverage.strict => Severity::Problem,
            Some(_) => Severity::Warning,
            None => Severity::Note,
        };
        findings.push(Finding::new("coverage", weight, line.text).remedy(line.remedy));
    }
    for one in &coverage.accepted {
        findings
            .push(Finding::note("coverage", format!("{} is not declared, as the plan accepts", one.item)));
    }
    findings
}
