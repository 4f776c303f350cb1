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

/// Cuts a text into the tokens of its statements. Comments and lines that begin with a backslash
/// (meta-commands of psql, such as the `\restrict` that newer tools write) are left out.
pub(super) fn split_statements(text: &str) -> Vec<Vec<Token>> {
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
                let value = read_quoted(c, &mut rest);
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
fn read_quoted(quote: char, rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> String {
    let mut value = String::new();
    while let Some(c) = rest.next() {
        if c == quote && rest.next_if_eq(&quote).is_none() {
            break;
        }
        value.push(c);
    }
    value
}

/// Quotes a name for SQL.
pub(crate) fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a text for SQL where `standard_conforming_strings` is on.
pub(crate) fn quote_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
