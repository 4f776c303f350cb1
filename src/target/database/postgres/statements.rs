//! Runs statements in a server through `psql`.

use tokio::io::AsyncWriteExt as _;

use crate::source::database::DatabaseError;
use crate::source::database::postgres::{Postgres, Property};
use crate::source::database::tool::{Tool, connection};

/// A property in the backup that was not applied.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct NotApplied {
    /// The property in words: `the comment`.
    pub what: String,
    /// The reason.
    pub reason: String,
}

/// Runs statements one by one. Returns those that the server refuses; the others still run.
pub(crate) async fn apply<'a>(
    server: &Postgres,
    properties: impl IntoIterator<Item = &'a Property>,
) -> Result<Vec<NotApplied>, DatabaseError> {
    let mut missing = Vec::new();
    for property in properties {
        match run_script(server, &server.config().maintenance, &format!("{}\n", property.sql)).await {
            Ok(()) => {}
            Err(error @ DatabaseError::Failed { .. }) if !error.is_unreachable() => {
                let reason = explained(&error.to_string());
                missing.push(NotApplied { what: property.what.clone(), reason });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(missing)
}

/// Explains a server error. Errors carry only codes, so that no value is repeated.
fn explained(error: &str) -> String {
    let known = [
        ("42704", "the role or setting is not in this server"),
        ("42501", "the user who restores may not"),
        ("22023", "this server does not take the value"),
    ];
    match known.iter().find(|(code, _)| error.contains(code)) {
        Some((code, reason)) => format!("{reason} ({code})"),
        None => error.to_owned(),
    }
}

/// Runs one statement.
pub(crate) async fn run(server: &Postgres, database: &str, statement: &str) -> Result<(), DatabaseError> {
    run_script(server, database, &format!("{statement};\n")).await
}

/// Runs statements that kbak made. They go through the tool's input, because they may hold password
/// hashes, and stop at the first error. Errors give the SQLSTATE and no text of the statement.
pub(crate) async fn run_script(server: &Postgres, database: &str, script: &str) -> Result<(), DatabaseError> {
    let dbname = connection(database);
    let arguments = [
        "--no-psqlrc",
        "--no-password",
        "--quiet",
        "--set=ON_ERROR_STOP=1",
        "--set=VERBOSITY=sqlstate",
        "--dbname",
        &dbname,
        "--file=-",
    ];
    let mut tool = Tool::start(server.config(), server.tools(), "psql", arguments, true)?;
    if let Some(mut stdin) = tool.stdin() {
        let written = tokio::time::timeout(tool.silence(), async {
            // If it is off, a backslash could end a string early.
            stdin.write_all(b"SET standard_conforming_strings = on;\n").await?;
            stdin.write_all(script.as_bytes()).await?;
            stdin.shutdown().await
        });
        match written.await {
            // A tool that ended early reports the reason itself.
            Ok(_) => {}
            Err(_) => return Err(tool.stuck()),
        }
    }
    tool.succeed().await.map(|_| ())
}

/// Quotes a name for SQL.
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a text for SQL where `standard_conforming_strings` is on.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
