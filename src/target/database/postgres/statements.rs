//! Runs statements in a server through `psql`.

use tokio::io::AsyncWriteExt as _;

use super::NotApplied;
use crate::source::database::DatabaseError;
use crate::source::database::postgres::client::{connection, start};
use crate::source::database::postgres::properties::Property;
use crate::source::database::postgres::{PSQL_OPTIONS, Postgres};

/// Runs statements one by one. Returns those that the server refuses; the others still run.
pub(super) async fn apply(
    server: &Postgres,
    properties: &[&Property],
) -> Result<Vec<NotApplied>, DatabaseError> {
    let mut not_applied = Vec::new();
    for property in properties {
        match run_script(server, &server.config.maintenance_database, &format!("{}\n", property.sql)).await {
            Ok(()) => {}
            Err(error @ DatabaseError::ToolFailed { .. }) if !error.is_unreachable() => {
                let reason = explain(&error.to_string());
                not_applied.push(NotApplied { property: property.description.clone(), reason });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(not_applied)
}

/// Explains a server error. Errors carry only codes, so that no value is repeated.
fn explain(error: &str) -> String {
    let known = [
        ("42704", "this server lacks the role or setting"),
        ("42501", "the user who restores may not set it"),
        ("22023", "this server refuses the value"),
    ];
    match known.iter().find(|(code, _)| error.contains(code)) {
        Some((code, reason)) => format!("{reason} ({code})"),
        None => error.to_owned(),
    }
}

/// Runs one statement.
pub(super) async fn run(server: &Postgres, database: &str, statement: &str) -> Result<(), DatabaseError> {
    run_script(server, database, &format!("{statement};\n")).await
}

/// Runs statements that kbak made. They go through the tool's input, because they may hold password
/// hashes, and stop at the first error. Errors give the SQLSTATE and no text of the statement.
pub(super) async fn run_script(server: &Postgres, database: &str, script: &str) -> Result<(), DatabaseError> {
    let dbname = connection(database);
    let arguments = ["--set=VERBOSITY=sqlstate", "--dbname", &dbname, "--file=-"];
    let arguments = PSQL_OPTIONS.iter().copied().chain(arguments);
    let mut tool = start(&server.config, &server.tools, "psql", arguments, true)?;
    if let Some(mut stdin) = tool.stdin() {
        let written = tokio::time::timeout(tool.idle_timeout(), async {
            // If it is off, a backslash could end a string early.
            stdin.write_all(b"SET standard_conforming_strings = on;\n").await?;
            stdin.write_all(script.as_bytes()).await?;
            stdin.shutdown().await
        });
        match written.await {
            // A tool that ended early reports the reason itself.
            Ok(_) => {}
            Err(_) => return Err(tool.timeout_error()),
        }
    }
    tool.wait_success().await
}
