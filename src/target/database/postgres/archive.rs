//! Restores an archive through `pg_restore`, and collects the entries that the server refuses.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::{DatabaseRestore, DumpReader, NotApplied, RestoredDatabase};
use super::properties::apply_properties;
use crate::runtime::{kill_point, lock};
use crate::source::database::DatabaseError;
use crate::source::database::postgres::Postgres;
use crate::source::database::postgres::archive::{ArchiveError, ArchiveScanner};
use crate::source::database::postgres::client::{connection, start_observed};
use crate::source::database::postgres::messages::text_hidden_by;
use crate::source::database::tool::{LineObserver, Tool};

/// The number of bytes that are written to `pg_restore` at once.
pub(super) const WRITE_SIZE: usize = 256 << 10;
/// The most refused entries that are named.
pub(super) const MAX_NAMED: usize = 100;
/// Parts of messages that say that the connection ended, so that no later entry was restored.
const CONNECTION_LOST: &[&str] = &[
    "closed the connection unexpectedly",
    "connection has been closed unexpectedly",
    "no connection to the server",
    "terminating connection",
    "could not receive data from server",
    "could not send data to server",
];

/// The entries of an archive that `pg_restore` could not restore, from its messages. It goes on after each,
/// and says at its end that it went through the whole archive.
#[derive(Debug, Default)]
struct EntryErrors {
    /// The entry of the next errors.
    entry: String,
    named: Vec<NotApplied>,
    more: u64,
    is_at_end: bool,
    is_disconnected: bool,
}

impl EntryErrors {
    fn read_line(&mut self, line: &str) {
        let Some(message) = line.strip_prefix("pg_restore: ") else {
            return self.read_context(line);
        };
        if let Some(entry) = started_entry(message) {
            self.entry = entry;
        } else if message.starts_with("warning: errors ignored on restore") {
            self.is_at_end = true;
        } else if let Some(error) = message.strip_prefix("error: ") {
            // Each later entry fails after it, and is not refused.
            self.is_disconnected |= CONNECTION_LOST.iter().any(|words| error.contains(words));
            if self.named.len() < MAX_NAMED {
                let reason = error.strip_prefix("could not execute query: ").unwrap_or(error).to_owned();
                self.named.push(NotApplied { property: self.entry.clone(), reason });
            } else {
                self.more += 1;
            }
        }
    }

    /// Adds to the last error where it happened.
    fn read_context(&mut self, line: &str) {
        let Some(last) = self.named.last_mut().filter(|_| self.more == 0) else { return };
        if let Some(hidden) = text_hidden_by(line, &last.reason) {
            last.reason = hidden;
        } else if let Some(place) = line.strip_prefix("CONTEXT:  ") {
            last.reason.push_str(&format!(" ({place})"));
        }
    }
}

/// Returns kind and name of the entry that a message of `--verbose` says is restored next.
fn started_entry(message: &str) -> Option<String> {
    let data = message.strip_prefix("processing data for table ").map(|name| format!("TABLE DATA {name}"));
    let entry = data.or_else(|| {
        let kinds = ["creating ", "executing ", "processing "];
        kinds.iter().find_map(|verb| message.strip_prefix(verb)).map(str::to_owned)
    })?;
    // A quoted name ends the message. Quotes in it are not doubled.
    Some(match (entry.split_once('"'), entry.strip_suffix('"')) {
        (Some((kind, _)), Some(quoted)) => format!("{kind}{}", &quoted[kind.len() + 1..]),
        _ => entry,
    })
}

/// Restores an archive into a database that is empty, and its properties after that.
pub(super) async fn restore_archive(
    server: &Postgres,
    request: &DatabaseRestore,
    dump: &mut DumpReader<'_>,
) -> Result<RestoredDatabase, DatabaseError> {
    let database = &request.database;
    let mut dbname = connection(database);
    let question = "SELECT to_json(current_setting('default_transaction_read_only'))";
    if server.query::<String>(database, question).await? == "on" {
        // The archive's own statements do not switch it off.
        dbname.push_str(" options='-c default_transaction_read_only=off'");
    }
    // Verbose, because it names the entries of errors only then.
    let mut arguments = vec!["--verbose", "--no-password", "--dbname", &dbname];
    if request.no_owner {
        arguments.extend(["--no-owner", "--no-privileges"]);
    }
    let errors: Arc<Mutex<EntryErrors>> = Arc::default();
    let observed = errors.clone();
    let observer = LineObserver(Box::new(move |line| lock(&observed).read_line(line)));
    let mut tool =
        start_observed(&server.config, &server.tools, "pg_restore", arguments, true, Some(observer))?;
    let mut scanner = ArchiveScanner::default();
    let written = write_archive(server, database, &mut tool, dump, &mut scanner).await?;
    kill_point("restore.archive.written");
    let ended = tool.wait_success().await;
    let errors = std::mem::take(&mut *lock(&errors));
    match ended {
        // It counts the errors and goes on: what it refused is named, and all else is there.
        Err(DatabaseError::ToolFailed { .. }) if errors.is_at_end && !errors.is_disconnected => {}
        ended => ended?,
    }
    written.map_err(|source| {
        server.config.io_error(format!("write the archive of {database} to pg_restore"), source)
    })?;
    kill_point("restore.archive.restored");
    let statements = scanner.take_database_statements();
    let is_verified_complete = match scanner.finish() {
        Ok(_) => true,
        Err(ArchiveError::UnknownVersion(..)) => false,
        Err(error) => {
            return Err(DatabaseError::IncompleteDump {
                name: server.config.name.clone(),
                database: database.clone(),
                problem: error.to_string(),
            });
        }
    };
    let not_applied = if is_verified_complete {
        apply_properties(server, request, &statements).await?
    } else {
        vec![unknown_format()]
    };
    kill_point("restore.properties.applied");
    let (refused, more_refused) = (errors.named, errors.more);
    Ok(RestoredDatabase { is_verified_complete, refused, more_refused, not_applied })
}

/// Returns what is not applied of an archive whose format is unknown.
pub(super) fn unknown_format() -> NotApplied {
    NotApplied {
        property: "owner, rights, limits, settings and comment of the database".into(),
        reason: "the archive's format is newer than this version of kbak knows".into(),
    }
}

/// Writes the archive to the tool and closes its input. Returns the tool's end of the pipe as an inner
/// error: a tool that ends early gives a better reason itself.
async fn write_archive(
    server: &Postgres,
    database: &str,
    tool: &mut Tool,
    archive: &mut DumpReader<'_>,
    scanner: &mut ArchiveScanner,
) -> Result<std::io::Result<()>, DatabaseError> {
    let Some(mut stdin) = tool.stdin() else { return Ok(Ok(())) };
    let mut buffer = vec![0; WRITE_SIZE];
    loop {
        let read = archive.read(&mut buffer).await;
        let count =
            read.map_err(|source| server.config.io_error(format!("read the archive of {database}"), source))?;
        if count == 0 {
            return Ok(stdin.shutdown().await);
        }
        scanner.feed(&buffer[..count]);
        // Building an index may take longer than anything else; meanwhile the tool reads nothing.
        match tokio::time::timeout(tool.idle_timeout(), stdin.write_all(&buffer[..count])).await {
            Ok(Ok(())) => kill_point("restore.archive.part.written"),
            Ok(Err(error)) => return Ok(Err(error)),
            Err(_) => return Err(tool.timeout_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::database::postgres::messages::RAISED;

    #[test]
    fn refused_entries_are_named_with_the_reason() {
        let mut errors = EntryErrors::default();
        for line in [
            "pg_restore: connecting to database for restore",
            "pg_restore: executing MATERIALIZED VIEW DATA counts",
            "pg_restore: while PROCESSING TOC:",
            "pg_restore: from TOC entry 3327; 0 16397 MATERIALIZED VIEW DATA counts demo",
            "pg_restore: error: could not execute query: ERROR:  relation \"mention\" does not exist",
            "pg_restore: creating TABLE \"public.fine\"",
            "pg_restore: creating EXTENSION \"hstore\"",
            "pg_restore: from TOC entry 2; 3079 16385 EXTENSION hstore ",
            "pg_restore: error: could not execute query: ERROR:  permission denied",
            "pg_restore: error: could not execute query: ERROR:  and once more",
            "pg_restore: creating COMMENT \"public.TABLE odd\"name\"",
            "pg_restore: error: could not execute query: ERROR:  odd",
            "pg_restore: processing data for table \"public.two words\"",
            "pg_restore: error: COPY failed for table \"two words\": ERROR:  invalid input",
            "CONTEXT:  COPY two words, line 7",
            "pg_restore: creating INDEX \"public.named\"",
            "pg_restore: error: could not execute query: ERROR:  bad customer canary",
            RAISED,
        ] {
            errors.read_line(line);
        }
        let named: Vec<String> =
            errors.named.iter().map(|one| format!("{}: {}", one.property, one.reason)).collect();
        assert_eq!(
            named,
            [
                "MATERIALIZED VIEW DATA counts: ERROR:  relation \"mention\" does not exist",
                "EXTENSION hstore: ERROR:  permission denied",
                "EXTENSION hstore: ERROR:  and once more",
                "COMMENT public.TABLE odd\"name: ERROR:  odd",
                "TABLE DATA public.two words: COPY failed for table \"two words\": ERROR:  invalid input (COPY two words, line 7)",
                "INDEX public.named: ERROR:  a function of the database raised it; the server's log has the text",
            ]
        );
        assert!(!errors.is_at_end && !errors.is_disconnected);
        errors.read_line(
            "pg_restore: error: could not execute query: server closed the connection unexpectedly",
        );
        errors.read_line("pg_restore: warning: errors ignored on restore: 5");
        assert!(errors.is_at_end && errors.is_disconnected);
    }
}
