//! Checks databases: that the server answers, the tools fit, and the account may read everything.

use futures::StreamExt as _;
use serde::Deserialize;
use tokio::time::Instant;

use super::{DatabaseJob, Finding, Unresolved, within};
use crate::report::event::Reporter;
use crate::report::text::{plural, size};
use crate::source::database::postgres::{Chosen, Postgres};
use crate::source::database::{DatabaseError, TlsMode};

/// The number of servers queried in parallel.
const PARALLEL: usize = 4;
/// The maximum number of databases of one server whose tables are checked.
const MOST_DATABASES: usize = 100;

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
                    Ok(job) => within(name, server(name, job)).await,
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

async fn server(name: &str, job: &DatabaseJob) -> Vec<Finding> {
    match tried(name, job).await {
        Ok(findings) => findings,
        Err(error) => vec![failed(name, job, error)],
    }
}

fn failed(name: &str, job: &DatabaseJob, error: DatabaseError) -> Finding {
    let remedy = match &error {
        DatabaseError::Tool { needed, .. } => {
            format!("install the client tools of PostgreSQL {needed} or newer where kbak runs")
        }
        DatabaseError::Failed { .. } | DatabaseError::Stuck { .. } => {
            let (host, port) = (&job.config.host, job.config.port);
            format!("is the server up at {host} port {port}, and do user, password and pg_hba.conf fit?")
        }
        _ => "correct it in the plan".to_owned(),
    };
    Finding::problem(name, error.to_string()).remedy(remedy)
}

async fn tried(name: &str, job: &DatabaseJob) -> Result<Vec<Finding>, DatabaseError> {
    let began = Instant::now();
    let server = Postgres::connect(&job.config).await?;
    let replica: bool =
        server.ask(&job.config.maintenance, "SELECT to_json(pg_catalog.pg_is_in_recovery())").await?;
    let Chosen { open: databases, closed, absent } = server.choose(&job.databases).await?;
    let bytes = databases.iter().map(|database| database.size).sum();
    let role = if replica { "replica" } else { "primary" };
    let what = format!(
        "{} {role}, pg_dump {}, {}, {}",
        server.server_version(),
        server.tools().version,
        plural(databases.len() as u64, "database", "databases"),
        size(bytes)
    );
    let mut findings = vec![Finding::good(name, what)];
    if !absent.is_empty() {
        let what = format!("the server has no database of that name: {}", absent.join(", "));
        let remedy = "correct databases: in the plan; or accept the gap absent there";
        findings.push(Finding::problem(name, what).remedy(remedy));
    }
    if !closed.is_empty() {
        let what = format!("no dump of databases that take no connections: {}", closed.join(", "));
        let remedy = "ALTER DATABASE … ALLOW_CONNECTIONS true; or accept the gap no-connections in the plan";
        findings.push(Finding::problem(name, what).remedy(remedy));
    } else if databases.is_empty() && absent.is_empty() {
        let what = "the server has no database of the names that the plan wants";
        findings.push(Finding::problem(name, what).remedy("correct databases: in the plan"));
    }
    for database in databases.iter().take(MOST_DATABASES) {
        findings.extend(readable(name, &server, &database.name).await);
    }
    if databases.len() > MOST_DATABASES {
        let more = databases.len() - MOST_DATABASES;
        findings.push(Finding::note(name, format!("the rights in {more} more databases were not looked at")));
    }
    if !server.reads_passwords() {
        let what = "the passwords of roles may not be read: the backup is without them, and after a restore \
                    somebody has to set them anew";
        findings.push(Finding::note(name, what));
    }
    if !job.config.is_socket() && job.config.tls == TlsMode::AllowPlaintext {
        let what = "tls: allow-plaintext: rows may pass the network in clear text";
        findings.push(Finding::warning(name, what).remedy("use tls: verify-full, with caFile"));
    }
    if let Some(first) = findings.first_mut() {
        first.millis = Some(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
    }
    Ok(findings)
}

/// Finds the tables that a dump of one database could not read: pg_dump ends at the first such table.
async fn readable(name: &str, server: &Postgres, database: &str) -> Option<Finding> {
    const QUESTION: &str = "SELECT json_build_object('tables', count(*), 'first', min(quote_ident(n.nspname) || '.' || quote_ident(c.relname))) \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p', 'm', 'S') AND c.relpersistence <> 't' \
         AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%' \
         AND NOT (has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'))";
    #[derive(Deserialize)]
    struct Unreadable {
        tables: u64,
        first: Option<String>,
    }
    let user = &server.config().user;
    match server.ask::<Unreadable>(database, QUESTION).await {
        Ok(Unreadable { tables: 0, .. }) => None,
        Ok(Unreadable { tables, first }) => {
            let tables = plural(tables, "table or sequence", "tables and sequences");
            let what = format!(
                "{user} may not read {tables} of {database}, {} among them",
                first.unwrap_or_default()
            );
            let remedy = match server.server_major() {
                14.. => format!("GRANT pg_read_all_data TO \"{user}\";"),
                _ => format!("GRANT SELECT ON ALL TABLES IN SCHEMA … TO \"{user}\"; and on sequences"),
            };
            Some(Finding::problem(name, what).remedy(remedy))
        }
        Err(error) => {
            let remedy = format!("GRANT CONNECT ON DATABASE \"{database}\" TO \"{user}\";");
            Some(Finding::problem(name, error.to_string()).remedy(remedy))
        }
    }
}
