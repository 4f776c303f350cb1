//! Messages of PostgreSQL's client tools, without what they quote of rows and statements.

use crate::source::database::tool::ToolMessages;

/// The beginnings of messages of the tools that read and write rows. All other lines go on with a message, and
/// quote rows and statements.
const MESSAGES: &[&str] = &["pg_dump: ", "pg_dumpall: ", "pg_restore: "];
/// The beginnings of messages of `psql`, to which kbak gives statements without rows.
const PSQL_MESSAGES: &[&str] = &["psql:", "ERROR:", "FATAL:", "PANIC:"];
/// Words before a quoted name. All other quoted texts may be values.
const BEFORE_NAMES: &[&str] = &[
    "aggregate",
    "at",
    "class",
    "collation",
    "column",
    "constraint",
    "database",
    "domain",
    "encoding",
    "extension",
    "file",
    "for",
    "function",
    "host",
    "index",
    "language",
    "library",
    "method",
    "name",
    "object",
    "operator",
    "parameter",
    "partition",
    "policy",
    "publication",
    "relation",
    "role",
    "rule",
    "schema",
    "sequence",
    "server",
    "socket",
    "table",
    "tablespace",
    "trigger",
    "type",
    "user",
    "view",
    "wrapper",
];
/// The line in place of one that says that a function raised the error before it.
pub(crate) const RAISED: &str = "CONTEXT:  a function raised it";

/// The messages of `pg_dump`, `pg_dumpall` and `pg_restore`.
pub(super) const OF_ROW_TOOLS: ToolMessages =
    ToolMessages { shown: shown_line, is_progress, text_hidden_by, unreachable: UNREACHABLE };

/// The messages of `psql`.
pub(super) const OF_PSQL: ToolMessages = ToolMessages { shown: shown_psql_line, ..OF_ROW_TOOLS };

/// Messages of libpq for a server that is unreachable or went away (fe-connect.c, strerror(3)).
const UNREACHABLE: &[&str] = &[
    "connection refused",
    "connection reset",
    "timed out",
    "timeout expired",
    "no route to host",
    "no such file or directory",
    "could not translate host name",
    "closed the connection unexpectedly",
    "no connection to the server",
];

fn shown_psql_line(line: &str) -> Option<String> {
    PSQL_MESSAGES.iter().any(|start| line.starts_with(start)).then(|| without_values(line))
}

/// Returns a message without the values that it quotes, or the place in a table that it tells of.
fn shown_line(line: &str) -> Option<String> {
    if let Some(context) = line.strip_prefix("CONTEXT:  ") {
        return place(context);
    }
    let is_message = MESSAGES.iter().any(|start| line.starts_with(start));
    if !is_message || line.contains("Command was:") {
        return None;
    }
    Some(if is_progress(line) { line.to_owned() } else { without_values(line) })
}

/// Returns table, line and column of `COPY t, line 7, column a: "…"`, and tells of functions that may have written
/// the message themselves.
fn place(context: &str) -> Option<String> {
    if let Some(copy) = context.strip_prefix("COPY ") {
        let (table, rest) = copy.rsplit_once(", line ").filter(|(table, _)| !table.contains('"'))?;
        let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
        return Some(format!("CONTEXT:  COPY {table}, line {number}"));
    }
    let is_raised =
        context.starts_with("PL/") && (context.contains(" at RAISE") || !context.contains(" line "));
    is_raised.then(|| RAISED.to_owned())
}

/// Returns the message without quoted texts that are no names.
fn without_values(line: &str) -> String {
    // A value at the end may hold quotes and anything else.
    let (line, end) = match line.split_once(": \"") {
        Some((head, _)) => (head, ": …"),
        None => (line, ""),
    };
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, quoted)) = rest.split_once('"') {
        text.push_str(before);
        let (quoted, after) = quoted.split_once('"').unwrap_or((quoted, ""));
        let word = before.split_whitespace().next_back().unwrap_or_default();
        let is_name = BEFORE_NAMES.contains(&word);
        text.push_str(&format!("\"{}\"", if is_name { quoted } else { "…" }));
        rest = after;
    }
    text + rest + end
}

/// Returns true for the lines that `pg_restore --verbose` adds.
fn is_progress(line: &str) -> bool {
    let marks = ["error: ", "fatal: ", "warning: ", "hint: ", "detail: "];
    let Some((_, text)) = line.split_once(": ").filter(|_| !line.starts_with("CONTEXT:")) else {
        return false;
    };
    line.starts_with("pg_restore: ") && !marks.iter().any(|mark| text.starts_with(mark))
}

/// Returns the message before `line` without its text, if a function raised it: it may quote anything.
pub(crate) fn text_hidden_by(line: &str, before: &str) -> Option<String> {
    (line == RAISED).then(|| {
        let head = before.split_once("ERROR:").map_or("", |(head, _)| head);
        format!("{head}ERROR:  a function of the database raised it; the server's log has the text")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::database::Password;
    use crate::source::database::tool::shown;

    #[test]
    fn row_values_and_passwords_are_masked() {
        let stderr = b"pg_restore: error: COPY failed for table \"t\": ERROR:  invalid input syntax for type integer: \"canary\"\n\
            CONTEXT:  COPY t, line 7, column a: \"canary\"\nERROR: canary goes on\npg_canary\nDETAIL:  Key (a)=(canary)\n\
            pg_restore: error: COPY failed for table \"u\": ERROR:  value \"canary\" is out of range for type integer\n\
            CONTEXT:  COPY public.u, line 12: \"1, line 9 canary\"\n\
            pg_restore: error: server says hunter2\nCommand was: INSERT canary\n";
        let shown = shown(stderr, Some(&Password::new("hunter2".to_owned())), &OF_ROW_TOOLS);
        assert!(!shown.contains("canary") && !shown.contains("hunter2"), "{shown}");
        for part in ["invalid input syntax", "table \"t\"", "COPY t, line 7", "value \"…\" is out of range"]
        {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }

    #[test]
    fn texts_that_functions_raise_are_hidden() {
        let stderr = b"pg_restore: error: could not execute query: ERROR:  bad customer canary\n\
            CONTEXT:  PL/pgSQL function named(integer) line 1 at RAISE\nCommand was: CREATE INDEX\n";
        let shown = shown(stderr, None, &OF_ROW_TOOLS);
        assert!(
            !shown.contains("canary") && shown.contains("a function of the database raised it"),
            "{shown}"
        );
    }

    #[test]
    fn names_stay_in_messages() {
        for line in [
            "pg_restore: error: could not execute query: ERROR:  relation \"mention\" does not exist",
            "pg_restore: error: could not execute query: ERROR:  must be member of role \"shop\"",
            "pg_dump: error: connection to server on socket \"/run/.s.PGSQL.5432\" failed: FATAL:  database \"x\" does not exist",
            "pg_restore: creating COMMENT \"public.TABLE odd\"name\"",
            "pg_restore: error: COPY failed for table \"t\": ERROR:  null value in column \"a\" of relation \"t\" violates not-null constraint",
        ] {
            assert_eq!(shown_line(line).as_deref(), Some(line));
        }
    }
}
