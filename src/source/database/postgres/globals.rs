//! Splits the text of `pg_dumpall --globals-only` into statements of known shapes.
//!
//! A dump in plain SQL is a program. Piped to `psql`, it may run its author's meta-commands on the
//! machine that restores (CVE-2025-8714, CVE-2026-18408). So it is never piped. It is cut into
//! tokens by the rules of the server's lexer. A statement is kept only if it has exactly one of the
//! shapes that create roles and memberships, or give a role settings, a comment or rights. All
//! others are counted as refused, also tablespaces, because they name folders on the server.

use std::collections::BTreeMap;

use crate::source::database::postgres::properties::{Property, first_words, of_role};

/// A statement that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalStatement {
    /// The role that it creates or changes; for a membership, the member.
    pub role: String,
    /// True if it creates the role.
    pub creates: bool,
    /// The SQL text rebuilt from its tokens, with a semicolon. It may hold a password hash: never
    /// show it.
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

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// A bare word or number, as written.
    Word(String),
    /// A quoted identifier, without its quotes, doubled quotes made single.
    Quoted(String),
    /// A string, without its quotes.
    Text(String),
    /// Any other character.
    Other(char),
}

impl Token {
    /// Returns a bare word, or a character that a shape may name; otherwise an empty string.
    pub(crate) fn word(&self) -> &str {
        match self {
            Self::Word(word) => word,
            Self::Other(',') => ",",
            Self::Other('=') => "=",
            Self::Other('-') => "-",
            _ => "",
        }
    }

    pub(crate) fn is_text(&self) -> bool {
        matches!(self, Self::Text(_))
    }
}

/// Returns true if the tokens are strings with commas between them.
pub(crate) fn literal_list(tokens: &[Token]) -> bool {
    tokens.len() % 2 == 1
        && tokens
            .iter()
            .enumerate()
            .all(|(at, token)| if at % 2 == 0 { token.is_text() } else { token.word() == "," })
}

/// Role options that take no value.
const OPTIONS: &[&str] = &[
    "SUPERUSER",
    "NOSUPERUSER",
    "INHERIT",
    "NOINHERIT",
    "CREATEROLE",
    "NOCREATEROLE",
    "CREATEDB",
    "NOCREATEDB",
    "LOGIN",
    "NOLOGIN",
    "REPLICATION",
    "NOREPLICATION",
    "BYPASSRLS",
    "NOBYPASSRLS",
];

/// Splits the text into statements and keeps those of known shapes.
#[must_use]
pub fn split_globals(text: &str) -> Globals {
    let mut globals = Globals::default();
    for statement in statements(text) {
        match shape(&statement) {
            Some((role, creates)) => {
                globals.statements.push(GlobalStatement { role, creates, sql: sql(&statement) });
            }
            // Settings of the session that reads the text.
            None if matches!(statement.first(), Some(Token::Word(word)) if word == "SET") => {}
            None => match of_role(&statement) {
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
fn shape(tokens: &[Token]) -> Option<(String, bool)> {
    let word =
        |index: usize, wanted: &str| matches!(tokens.get(index), Some(Token::Word(word)) if word == wanted);
    if word(0, "CREATE") && word(1, "ROLE") && tokens.len() == 3 {
        return Some((name(&tokens[2])?, true));
    }
    if word(0, "ALTER") && word(1, "ROLE") && word(3, "WITH") {
        return options(&tokens[4..]).then_some((name(&tokens[2])?, false));
    }
    if word(0, "GRANT") && word(2, "TO") {
        name(&tokens[1])?;
        return granted(&tokens[4..]).then_some((name(&tokens[3])?, false));
    }
    None
}

pub(crate) fn name(token: &Token) -> Option<String> {
    match token {
        Token::Quoted(name) => Some(name.clone()),
        Token::Word(name) if !name.starts_with(|c: char| c.is_ascii_digit()) => Some(name.clone()),
        _ => None,
    }
}

/// Returns true if the rest of `ALTER ROLE … WITH` has a known shape.
fn options(mut tokens: &[Token]) -> bool {
    while let Some((first, rest)) = tokens.split_first() {
        let Token::Word(word) = first else { return false };
        tokens = match (word.as_str(), rest) {
            (word, rest) if OPTIONS.contains(&word) => rest,
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
fn granted(tokens: &[Token]) -> bool {
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
    options.iter().all(fits) && (by.is_empty() || (by.len() == 3 && name(&by[2]).is_some()))
}

/// Rebuilds a statement's text from its tokens.
pub(crate) fn sql(tokens: &[Token]) -> String {
    let mut text = String::new();
    for token in tokens {
        if !text.is_empty() {
            text.push(' ');
        }
        match token {
            Token::Word(word) => text.push_str(word),
            Token::Quoted(name) => text.push_str(&format!("\"{}\"", name.replace('"', "\"\""))),
            Token::Text(value) => text.push_str(&format!("'{}'", value.replace('\'', "''"))),
            Token::Other(other) => text.push(*other),
        }
    }
    text.push(';');
    text
}

/// Cuts a text into the tokens of its statements. Comments and lines that begin with a backslash
/// (meta-commands of psql, such as the `\restrict` that newer tools write) are left out.
pub(crate) fn statements(text: &str) -> Vec<Vec<Token>> {
    let (mut all, mut statement) = (Vec::new(), Vec::new());
    let mut rest = text.chars().peekable();
    let mut line_begins = true;
    while let Some(c) = rest.next() {
        let begins = std::mem::replace(&mut line_begins, c == '\n');
        match c {
            '\\' if begins => while rest.next_if(|c| *c != '\n').is_some() {},
            '-' if rest.peek() == Some(&'-') => while rest.next_if(|c| *c != '\n').is_some() {},
            ';' => all.push(std::mem::take(&mut statement)),
            c if c.is_whitespace() => {}
            '"' | '\'' => {
                let value = quoted(c, &mut rest);
                statement.push(match c {
                    _ if value.contains('\0') => Token::Other('\0'),
                    '"' => Token::Quoted(value),
                    _ => Token::Text(value),
                });
            }
            c if c.is_alphanumeric() || c == '_' => {
                let mut word = String::from(c);
                while let Some(c) = rest.next_if(|c| c.is_alphanumeric() || *c == '_' || *c == '$') {
                    word.push(c);
                }
                statement.push(Token::Word(word));
            }
            c => statement.push(Token::Other(c)),
        }
    }
    if !statement.is_empty() {
        // A statement without its end gets a token that no shape accepts.
        statement.push(Token::Other('…'));
        all.push(statement);
    }
    all
}

/// Returns the value up to the closing quote; a doubled quote stands for one.
fn quoted(quote: char, rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> String {
    let mut value = String::new();
    while let Some(c) = rest.next() {
        if c == quote && rest.next_if_eq(&quote).is_none() {
            break;
        }
        value.push(c);
    }
    value
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
