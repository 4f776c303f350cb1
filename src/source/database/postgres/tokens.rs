//! Cuts SQL text into tokens by the rules of the server's lexer, and rebuilds statements from them.

/// A token of SQL text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
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
    pub(super) fn word(&self) -> &str {
        match self {
            Self::Word(word) => word,
            Self::Other(',') => ",",
            Self::Other('=') => "=",
            Self::Other('-') => "-",
            _ => "",
        }
    }

    pub(super) fn is_text(&self) -> bool {
        matches!(self, Self::Text(_))
    }

    /// Returns the name if the token can be one.
    pub(super) fn name(&self) -> Option<String> {
        match self {
            Self::Quoted(name) => Some(name.clone()),
            Self::Word(name) if !name.starts_with(|c: char| c.is_ascii_digit()) => Some(name.clone()),
            _ => None,
        }
    }
}

/// Returns true if the tokens are strings with commas between them.
pub(super) fn is_literal_list(tokens: &[Token]) -> bool {
    tokens.len() % 2 == 1
        && tokens
            .iter()
            .enumerate()
            .all(|(at, token)| if at % 2 == 0 { token.is_text() } else { token.word() == "," })
}

/// Rebuilds a statement's text from its tokens.
pub(super) fn to_sql(tokens: &[Token]) -> String {
    let mut text = String::new();
    for token in tokens {
        if !text.is_empty() {
            text.push(' ');
        }
        match token {
            Token::Word(word) => text.push_str(word),
            Token::Quoted(name) => text.push_str(&quote_identifier(name)),
            Token::Text(value) => text.push_str(&quote_literal(value)),
            Token::Other(other) => text.push(*other),
        }
    }
    text.push(';');
    text
}

/// The character in place of bytes that are not UTF-8.
const REPLACEMENT: char = '\u{fffd}';

/// Cuts a text into the tokens of its statements. Comments and lines that begin with a backslash
/// (meta-commands of psql, such as the `\restrict` that newer tools write) are left out. A statement that
/// switches `standard_conforming_strings` off changes the meaning of backslashes in the strings after it.
pub(super) fn split_statements(text: &str) -> Vec<Vec<Token>> {
    let (mut all, mut statement) = (Vec::new(), Vec::new());
    let mut rest = text.chars().peekable();
    let (mut line_begins, mut backslash_escapes) = (true, false);
    while let Some(c) = rest.next() {
        let begins = std::mem::replace(&mut line_begins, c == '\n');
        match c {
            '\\' if begins => while rest.next_if(|c| *c != '\n').is_some() {},
            '-' if rest.peek() == Some(&'-') => while rest.next_if(|c| *c != '\n').is_some() {},
            ';' => {
                backslash_escapes = escapes_after(&statement).unwrap_or(backslash_escapes);
                all.push(std::mem::take(&mut statement));
            }
            c if c.is_whitespace() => {}
            'E' | 'e' if rest.next_if_eq(&'\'').is_some() => {
                statement.push(text_token(read_escaped(&mut rest), Token::Text));
            }
            '\'' if backslash_escapes => statement.push(text_token(read_escaped(&mut rest), Token::Text)),
            '\'' => statement.push(text_token(read_quoted(c, &mut rest), Token::Text)),
            '"' => statement.push(text_token(read_quoted(c, &mut rest), Token::Quoted)),
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

/// Returns true if a statement makes backslashes escape characters in plain strings, false if it ends that;
/// `None` for any other statement.
fn escapes_after(statement: &[Token]) -> Option<bool> {
    let [set, name, to, value] = statement else { return None };
    let is_switch = set.word() == "SET" && name.word() == "standard_conforming_strings";
    let value = match value {
        Token::Word(value) | Token::Text(value) => value.as_str(),
        _ => return None,
    };
    (is_switch && matches!(to.word(), "=" | "TO")).then_some(value == "off")
}

/// Returns the token of a quoted value. No shape accepts one that holds a NUL, which the server has nowhere,
/// or bytes that were not UTF-8, whose original is not known here.
fn text_token(value: Option<String>, token: impl FnOnce(String) -> Token) -> Token {
    match value {
        Some(value) if !value.contains(['\0', REPLACEMENT]) => token(value),
        _ => Token::Other(REPLACEMENT),
    }
}

/// Returns the value up to the closing quote; a doubled quote stands for one. `None` if the text ends first.
fn read_quoted(quote: char, rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    let mut value = String::new();
    loop {
        match rest.next()? {
            c if c == quote && rest.next_if_eq(&quote).is_none() => return Some(value),
            c => value.push(c),
        }
    }
}

/// Returns the value of a string with escapes (`E'…'`) up to its closing quote. `None` if the text ends first,
/// or for an escape that PostgreSQL's tools never write: they double backslashes and nothing else.
fn read_escaped(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    let (mut value, mut is_known) = (String::new(), true);
    loop {
        match rest.next()? {
            '\'' if rest.next_if_eq(&'\'').is_none() => return is_known.then_some(value),
            '\\' => match rest.next()? {
                c @ ('\\' | '\'') => value.push(c),
                _ => is_known = false,
            },
            c => value.push(c),
        }
    }
}

/// Quotes a name for SQL.
pub(crate) fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a text for SQL, whether or not the server takes a backslash in plain strings as an escape.
pub(crate) fn quote_literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", doubled.replace('\\', "\\\\")) } else { format!("'{doubled}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the last token of the only statement in `text`.
    fn value(text: &str) -> Token {
        let mut statements = split_statements(text);
        assert_eq!(statements.len(), 1, "{statements:?}");
        statements.remove(0).pop().expect("a token")
    }

    #[test]
    fn strings_with_escapes_have_the_value_that_the_server_reads() {
        for (text, expected) in [
            (r"SET a TO E'C:\\data\\x';", r"C:\data\x"),
            (r"SET a TO e'\\';", r"\"),
            (r"SET a TO E'it''s; \\! id';", r"it's; \! id"),
            (r"SET a TO E'quote \'';", "quote '"),
            ("SET a TO E'two\nlines';", "two\nlines"),
            (r"SET a TO 'C:\data';", r"C:\data"),
            (r"SET a TO '\';", r"\"),
            ("SET a TO 'ünï ☃ 😀';", "ünï ☃ 😀"),
            ("SET a TO '';", ""),
        ] {
            assert_eq!(value(text), Token::Text(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn strings_that_cannot_be_rebuilt_have_no_text_token() {
        for text in [r"SET a TO E'\n';", r"SET a TO E'\x41';", "SET a TO 'a\u{fffd}b';", "SET a TO 'a\0b';"] {
            assert!(!value(text).is_text(), "{text:?}");
        }
        for text in ["SET a TO 'unended", r"SET a TO E'unended\'", "SET a TO \"unended", r"SET a TO E'\"] {
            assert_eq!(value(text), Token::Other('…'), "{text:?}");
        }
    }

    #[test]
    fn backslashes_escape_in_plain_strings_after_the_switch() {
        let text = r"SET standard_conforming_strings = off; SET a TO '\\b\''; SET a TO E'\\';
            SET standard_conforming_strings = 'on'; SET a TO '\\b\';";
        let texts: Vec<Token> = split_statements(text).into_iter().filter_map(|mut one| one.pop()).collect();
        let text = |value: &str| Token::Text(value.to_owned());
        assert_eq!(texts[1..3], [text(r"\b'"), text(r"\")]);
        assert_eq!(texts[4], text(r"\\b\"));
    }

    #[test]
    fn statement_is_rebuilt_with_the_same_values() {
        let text = "COMMENT ON ROLE \"a\"\"b;--c\n\\! id\" IS E'it''s \\\\ \n\\\\! id';";
        let once = split_statements(text);
        let again = split_statements(&to_sql(&once[0]));
        assert_eq!(once, again);
    }
}
