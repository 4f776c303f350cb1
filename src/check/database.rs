//! Checks databases: the server answers, the tools fit, and the user may read everything.

use futures::StreamExt as _;
use tokio::time::Instant;

use super::{DatabaseJob, Finding, Unresolved, within};
use crate::plan::TlsMode;
use crate::report::event::Reporter;
use crate::report::text::{plural, size};
use crate::source::database::{DatabaseError, Omission, SelectedDatabases, connect};

const PARALLEL: usize = 4;
/// The maximum number of databases of one server whose tables are checked.
const MAX_DATABASES: usize = 100;

pub(super) async fn check(
    jobs: &[(String, Result<DatabaseJob, Unresolved>)],
    reporter: &Reporter,
) -> Vec<Finding> {
    if jobs.is_empty() {
        return Vec::new();
    }
    let meter = reporter.meter("databases", "servers");
    meter.add_total(jobs.len() as u64);
    let found: Vec<Vec<Finding>> = futures::stream::iter(jobs)
        .map(|(name, job)| {
            let meter = meter.clone();
            async move {
                let findings = match job {
                    Ok(job) => {
                        let part = async {
                            let findings = findings(name, job).await;
                            findings.unwrap_or_else(|error| vec![failed(name, job, &error)])
                        };
                        within(name, part).await
                    }
                    Err(unresolved) => vec![unresolved.finding(name)],
                };
                meter.add_done(1);
                findings
            }
        })
        .buffered(PARALLEL)
        .collect()
        .await;
    meter.end();
    found.into_iter().flatten().collect()
}

fn failed(name: &str, job: &DatabaseJob, error: &DatabaseError) -> Finding {
    let remedy = match error {
        DatabaseError::MissingTool { engine, needed, .. } => {
            format!("install the client tools of {engine} {needed} or newer where kbak runs")
        }
        DatabaseError::ToolFailed { .. } | DatabaseError::TimedOut { .. } => {
            let (host, port) = (&job.config.host, job.config.port);
            format!(
                "check that the server runs at {host} port {port} and accepts this user and password from here"
            )
        }
        _ => "correct it in the plan".to_owned(),
    };
    Finding::problem(name, error.to_string()).remedy(remedy)
}

async fn findings(name: &str, job: &DatabaseJob) -> Result<Vec<Finding>, DatabaseError> {
    let began = Instant::now();
    let server = connect(&job.config).await?;
    let described = server.describe().await?;
    let SelectedDatabases { databases, omissions, absent } = server.select(&job.databases).await?;
    let number = plural(databases.len() as u64, "database", "databases");
    let bytes = databases.iter().map(|database| database.size).sum();
    let mut findings = vec![Finding::good(name, format!("{described}, {number}, {}", size(bytes)))];
    if !absent.is_empty() {
        let what = format!("the server has no database of that name: {}", absent.join(", "));
        let remedy = "correct databases: in the plan; or accept the gap absent there";
        findings.push(Finding::problem(name, what).remedy(remedy));
    }
    for alike in omissions.chunk_by(|one, other| one.code == other.code) {
        let names: Vec<&str> = alike.iter().map(|omission| omission.object.as_str()).collect();
        let Omission { code, reason, remedy, .. } = &alike[0];
        let remedy = format!("{remedy}; or accept the gap {code} in the plan");
        findings.push(Finding::problem(name, format!("{}: {reason}", names.join(", "))).remedy(remedy));
    }
    if databases.is_empty() && absent.is_empty() && omissions.is_empty() {
        let what = "the server has no database of the names that the plan wants";
        findings.push(Finding::problem(name, what).remedy("correct databases: in the plan"));
    }
    for database in databases.iter().take(MAX_DATABASES) {
        let unreadable = server.check_access(&database.name).await;
        findings.extend(unreadable.map(|one| Finding::problem(name, one.reason).remedy(one.remedy)));
    }
    if databases.len() > MAX_DATABASES {
        let more = databases.len() - MAX_DATABASES;
        findings.push(Finding::note(name, format!("the rights in {more} more databases were not checked")));
    }
    for omission in server.omissions() {
        findings.push(Finding::note(name, omission.reason).remedy(omission.remedy));
    }
    if !job.config.is_socket() && job.config.tls == TlsMode::AllowPlaintext {
        let what = "tls: allow-plaintext: rows may pass the network in clear text";
        findings.push(Finding::warning(name, what).remedy("use tls: verify-full, with caFile"));
    }
    if let Some(first) = findings.first_mut() {
        first.measure(began);
    }
    Ok(findings)
}
