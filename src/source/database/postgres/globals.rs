//! Splits the text of `pg_dumpall --globals-only` into statements of known shapes.
//!
//! A dump in plain SQL is a program. Piped to `psql`, it may run its author's meta-commands on the
//! machine that restores (CVE-2025-8714, CVE-2026-18408). So it is never piped. It is cut into
//! tokens by the rules of the server's lexer. A statement is kept only if it has exactly one of the
//! shapes that create roles and memberships, or give a role settings, a comment or rights. All
//! others are counted as refused, also tablespaces, because they name folders on the server.

use std::collections::BTreeMap;

use super::properties::{Property, first_words, role_property};
use super::tokens::{Token, split_statements, to_sql};

/// A statement that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalStatement {
    /// The role that it creates or changes; for a membership, the member.
    pub role: String,
    /// True if it creates the role.
    pub creates_role: bool,
    /// The SQL text rebuilt from its tokens, with a semicolon. It may hold a password hash: never show it.
    pub sql: String,
}

/// The statements of a globals dump.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Globals {
    /// Statements of known shapes, in order.
    pub statements: Vec<GlobalStatement>,
    /// Further properties of roles: the role and the statement.
    pub properties: Vec<(String, Property)>,
    /// Statements of other shapes: their first two words and their number.
    pub refused: BTreeMap<String, u64>,
}

impl std::fmt::Debug for Globals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Globals")
            .field("statements", &self.statements.len())
            .field("refused", &self.refused)
            .finish()
    }
}

/// Role options that take no value. Each also exists with `NO` in front.
const ROLE_OPTIONS: &[&str] =
    &["SUPERUSER", "INHERIT", "CREATEROLE", "CREATEDB", "LOGIN", "REPLICATION", "BYPASSRLS"];

/// Splits the text into statements and keeps those of known shapes.
#[must_use]
pub fn split_globals(text: &str) -> Globals {
    let mut globals = Globals::default();
    for statement in split_statements(text) {
        match role_statement(&statement) {
            Some((role, creates_role)) => {
                globals.statements.push(GlobalStatement { role, creates_role, sql: to_sql(&statement) });
            }
            // Settings of the session that reads the text.
            None if matches!(statement.first(), Some(Token::Word(word)) if word == "SET") => {}
            None => match role_property(&statement) {
                Some(property) => globals.properties.push(property),
                None => {
                    let words: Vec<&str> = statement.iter().map(Token::word).collect();
                    *globals.refused.entry(first_words(&words)).or_default() += 1;
                }
            },
        }
    }
    globals
}

/// Returns the role that a statement of a known shape concerns, and true if it creates the role.
fn role_statement(tokens: &[Token]) -> Option<(String, bool)> {
    let word =
        |index: usize, wanted: &str| matches!(tokens.get(index), Some(Token::Word(word)) if word == wanted);
    if word(0, "CREATE") && word(1, "ROLE") && tokens.len() == 3 {
        return Some((tokens[2].name()?, true));
    }
    if word(0, "ALTER") && word(1, "ROLE") && word(3, "WITH") {
        return are_role_options(&tokens[4..]).then_some((tokens[2].name()?, false));
    }
    if word(0, "GRANT") && word(2, "TO") {
        tokens[1].name()?;
        return are_grant_options(&tokens[4..]).then_some((tokens[3].name()?, false));
    }
    None
}

/// Returns true if the rest of `ALTER ROLE … WITH` has a known shape.
fn are_role_options(mut tokens: &[Token]) -> bool {
    while let Some((first, rest)) = tokens.split_first() {
        let Token::Word(word) = first else { return false };
        tokens = match (word.as_str(), rest) {
            (word, rest) if ROLE_OPTIONS.contains(&word.strip_prefix("NO").unwrap_or(word)) => rest,
            ("CONNECTION", [Token::Word(limit), Token::Word(_), rest @ ..]) if limit == "LIMIT" => rest,
            ("CONNECTION", [Token::Word(limit), Token::Other('-'), Token::Word(_), rest @ ..])
                if limit == "LIMIT" =>
            {
                rest
            }
            ("PASSWORD", [Token::Text(_), rest @ ..]) => rest,
            ("VALID", [Token::Word(until), Token::Text(_), rest @ ..]) if until == "UNTIL" => rest,
            _ => return false,
        };
    }
    true
}

/// Checks the rest of `GRANT … TO …`: options with TRUE, FALSE or OPTION, and the grantor.
fn are_grant_options(tokens: &[Token]) -> bool {
    let by = tokens.windows(3).position(
        |three| matches!(three, [Token::Word(granted), Token::Word(by), _] if granted == "GRANTED" && by == "BY"),
    );
    let (options, by) = tokens.split_at(by.unwrap_or(tokens.len()));
    let fits = |token: &Token| match token {
        Token::Word(word) => {
            ["WITH", "ADMIN", "INHERIT", "SET", "OPTION", "TRUE", "FALSE"].contains(&word.as_str())
        }
        Token::Other(',') => true,
        _ => false,
    };
    options.iter().all(fits) && (by.is_empty() || (by.len() == 3 && by[2].name().is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_statements_of_known_shape_are_kept() {
        let text = "-- x; y\n\\restrict abc\nSET default_transaction_read_only = off;\n\
            CREATE ROLE shop;\nALTER ROLE shop WITH NOSUPERUSER INHERIT LOGIN CONNECTION LIMIT -1 PASSWORD 'SCRAM-SHA-256$4096:a''b' VALID UNTIL 'infinity';\n\
            CREATE ROLE \"we\"\"ird; DROP\";\nGRANT shop TO \"we\"\"ird; DROP\" WITH ADMIN OPTION GRANTED BY postgres;\n\
            CREATE TABLESPACE t LOCATION '/x';\nALTER ROLE shop SET search_path TO 'evil';\nDROP ROLE shop;\n\
            ALTER ROLE shop WITH SUPERUSER \\! id;\nCREATE ROLE a b;\n\\! id\nCREATE ROLE unended";
        let globals = split_globals(text);
        let kept: Vec<&str> = globals.statements.iter().map(|statement| statement.sql.as_str()).collect();
        assert_eq!(
            kept,
            [
                "CREATE ROLE shop;",
                "ALTER ROLE shop WITH NOSUPERUSER INHERIT LOGIN CONNECTION LIMIT - 1 PASSWORD 'SCRAM-SHA-256$4096:a''b' VALID UNTIL 'infinity';",
                "CREATE ROLE \"we\"\"ird; DROP\";",
                "GRANT shop TO \"we\"\"ird; DROP\" WITH ADMIN OPTION GRANTED BY postgres;",
            ]
        );
        assert_eq!(globals.refused.values().sum::<u64>(), 5, "{:?}", globals.refused);
        let properties: Vec<&str> =
            globals.properties.iter().map(|(_, property)| property.sql.as_str()).collect();
        assert_eq!(properties, ["ALTER ROLE shop SET search_path TO 'evil';"]);
        assert!(!kept.iter().any(|sql| sql.contains("\\!")));
    }
}
