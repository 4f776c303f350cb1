//! Statements for `psql`, and their results.
//!
//! They go through the tool's input, because they may hold password hashes. Errors give the SQLSTATE and no
//! text of a statement.

use tokio::io::AsyncWriteExt as _;

use crate::runtime::kill_point;
use crate::source::database::DatabaseError;
use crate::source::database::postgres::client::{connection, start};
use crate::source::database::postgres::{PSQL_OPTIONS, Postgres};

/// The largest accepted list of results, in bytes.
const MAX_RESULTS: usize = 64 << 20;
/// The settings of each session. If strings do not conform, a backslash could end one early; the others may
/// be set for all roles, also by a restore before this one.
const PREAMBLE: &[u8] = b"SET standard_conforming_strings = on;\n\
    SET default_transaction_read_only = off;\nSET statement_timeout = 0;\n";
/// The line that follows a committed transaction.
const COMMITTED: &str = "committed";

/// Changes of a server, each with its purpose, that are made in one transaction: a process that is killed
/// leaves all of them or none. A change that the server refuses takes no effect, and the others do.
pub(super) struct Transaction<P> {
    script: String,
    purposes: Vec<P>,
}

/// A change that the server refused.
pub(super) struct RefusedChange<P> {
    /// The purpose of the change.
    pub(super) purpose: P,
    /// The SQLSTATE of its first failed statement.
    pub(super) state: String,
}

impl<P> Transaction<P> {
    pub(super) fn new() -> Self {
        Self { script: String::new(), purposes: Vec::new() }
    }

    /// Adds a change: statements, each with its semicolon, that take effect together. If one is refused, the
    /// changes that `otherwise` adds are made instead.
    pub(super) fn add(&mut self, purpose: P, steps: &[String], otherwise: impl FnOnce(&mut Self)) {
        let id = self.purposes.len();
        self.purposes.push(purpose);
        self.script.push_str("SAVEPOINT kbak;\n");
        for step in steps {
            self.script.push_str(step);
            self.script.push_str(&format!("\n\\if :ERROR\n\\echo {id} :SQLSTATE\n\\endif\n"));
        }
        // Fails after a refused step.
        self.script.push_str("RELEASE SAVEPOINT kbak;\n\\if :ERROR\n");
        self.script.push_str("ROLLBACK TO SAVEPOINT kbak;\nRELEASE SAVEPOINT kbak;\n");
        otherwise(self);
        self.script.push_str("\\endif\n");
    }

    /// Makes the changes. Returns those that the server refused, in the order of their statements. Fails with
    /// [`DatabaseError`] if none was made.
    pub(super) async fn run(
        self,
        server: &Postgres,
        database: &str,
    ) -> Result<Vec<RefusedChange<P>>, DatabaseError> {
        if self.purposes.is_empty() {
            return Ok(Vec::new());
        }
        let begin = format!("BEGIN;\n\\set ON_ERROR_STOP 0\n{}\\set ON_ERROR_STOP 1\n", self.script);
        // A transaction that failed as a whole refuses the statement before COMMIT, which itself would not.
        let end = format!("SET standard_conforming_strings = on;\nCOMMIT;\n\\echo {COMMITTED}\n");
        let output = run_script(server, database, &[&begin, &end]).await?;
        let mut states: Vec<Option<String>> = vec![None; self.purposes.len()];
        let mut is_committed = false;
        for line in output.lines() {
            let result =
                line.split_once(' ').and_then(|(id, state)| Some((id.parse::<usize>().ok()?, state)));
            match result {
                // The first state is the reason; later statements fail because of it.
                Some((id, state)) => match states.get_mut(id) {
                    Some(first) => drop(first.get_or_insert_with(|| state.to_owned())),
                    None => return Err(unreadable(server)),
                },
                None => is_committed |= line == COMMITTED,
            }
        }
        if !is_committed {
            return Err(unreadable(server));
        }
        let results = self.purposes.into_iter().zip(states);
        Ok(results.filter_map(|(purpose, state)| Some(RefusedChange { purpose, state: state? })).collect())
    }
}

fn unreadable(server: &Postgres) -> DatabaseError {
    let source = std::io::Error::other("the results of a transaction are incomplete");
    server.config.io_error("understand psql's answer", source)
}

/// Runs one statement. `operation` names it in the error.
pub(super) async fn run(
    server: &Postgres,
    database: &str,
    operation: &str,
    statement: &str,
) -> Result<(), DatabaseError> {
    match run_script(server, database, &[&format!("{statement};\n")]).await {
        Ok(_) => Ok(()),
        Err(error @ DatabaseError::ToolFailed { .. }) if !error.is_unreachable() => {
            Err(DatabaseError::Refused {
                name: server.config.name.clone(),
                operation: operation.to_owned(),
                reason: explain(&error.to_string()),
            })
        }
        Err(error) => Err(error),
    }
}

/// Explains an SQLSTATE, or an error that holds one.
pub(super) fn explain(error: &str) -> String {
    let known = [
        ("42704", "this server lacks the role or setting"),
        ("42501", "the user who restores may not do it"),
        ("22023", "this server refuses the value"),
        ("42710", "another object has this name"),
        ("42939", "this server reserves the name"),
        ("55006", "other sessions use it"),
        ("42601", "this server's version does not know the statement"),
    ];
    match known.iter().find(|(code, _)| error.contains(code)) {
        Some((code, reason)) => format!("{reason} ({code})"),
        None => error.to_owned(),
    }
}

/// Runs a script, given in parts, up to its first error, and returns its output.
async fn run_script(server: &Postgres, database: &str, parts: &[&str]) -> Result<String, DatabaseError> {
    let dbname = connection(database);
    let arguments = ["--set=VERBOSITY=sqlstate", "--dbname", &dbname, "--file=-"];
    let arguments = PSQL_OPTIONS.iter().copied().chain(arguments);
    let mut tool = start(&server.config, &server.tools, "psql", arguments, true)?;
    let timeout = tool.timeout_error();
    let written = tokio::time::timeout(tool.idle_timeout(), write_script(tool.stdin(), parts));
    // Results are read meanwhile: psql waits while nobody takes them.
    let (written, output) = tokio::join!(written, tool.output(MAX_RESULTS));
    // A tool that ended early reports the reason itself.
    let output = output?;
    match written {
        Ok(Ok(())) => {}
        Ok(Err(source)) => return Err(server.config.io_error("write to psql", source)),
        Err(_) => return Err(timeout),
    }
    String::from_utf8(output)
        .map_err(|error| server.config.io_error("understand psql's answer", std::io::Error::other(error)))
}

async fn write_script(stdin: Option<tokio::process::ChildStdin>, parts: &[&str]) -> std::io::Result<()> {
    let Some(mut stdin) = stdin else { return Ok(()) };
    stdin.write_all(PREAMBLE).await?;
    for part in parts {
        stdin.write_all(part.as_bytes()).await?;
        kill_point("restore.script.written");
    }
    stdin.shutdown().await
}
