//! Splits the text of `pg_dumpall --globals-only` into statements of known shapes.
//!
//! A dump in plain SQL is a program. Piped to `psql`, it may run its author's meta-commands on the
//! machine that restores (CVE-2025-8714, CVE-2026-18408). So it is never piped. It is cut into
//! tokens by the rules of the server's lexer. A statement is kept only if it has exactly one of the
//! shapes that create roles and memberships, or give a role settings, a comment or rights. All
//! others are counted as refused, also tablespaces, because they name folders on the server.

use std::collections::BTreeMap;

use super::properties::{Property, first_words, role_property, setting_of_all_roles};
use super::tokens::{Token, split_statements, to_sql};

/// A role.
#[derive(Clone, PartialEq, Eq)]
pub struct Role {
    /// The role's name.
    pub name: String,
    /// Its options as SQL, such as `NOLOGIN` or `CONNECTION LIMIT 3`, by the option's name. `PASSWORD` holds
    /// a hash: never show it.
    pub options: BTreeMap<&'static str, String>,
}

impl std::fmt::Debug for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let options: Vec<&&str> = self.options.keys().collect();
        f.debug_struct("Role").field("name", &self.name).field("options", &options).finish()
    }
}

/// A membership of a role in another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The role.
    pub role: String,
    /// The member of it.
    pub member: String,
    /// The statement that grants it.
    pub sql: String,
    /// The role that granted it, and the same statement without it.
    pub granted_by: Option<(String, String)>,
}

impl Membership {
    /// Returns the statement that grants it without the role that granted it.
    #[must_use]
    pub fn without_grantor(&self) -> &str {
        self.granted_by.as_ref().map_or(&self.sql, |(_, without)| without)
    }
}

/// The statements of a globals dump.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Globals {
    /// Roles, in order.
    pub roles: Vec<Role>,
    /// Memberships, in order.
    pub memberships: Vec<Membership>,
    /// Further properties of roles: the role and the statement.
    pub properties: Vec<(String, Property)>,
    /// Settings for all roles.
    pub settings_of_all: Vec<Property>,
    /// Statements of other shapes: their first two words and their number.
    pub refused: BTreeMap<String, u64>,
}

impl std::fmt::Debug for Globals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Globals")
            .field("roles", &self.roles)
            .field("refused", &self.refused)
            .finish_non_exhaustive()
    }
}

/// Role options that take no value. Each also exists with `NO` in front.
const ROLE_OPTIONS: &[&str] =
    &["SUPERUSER", "INHERIT", "CREATEROLE", "CREATEDB", "LOGIN", "REPLICATION", "BYPASSRLS"];
/// The option that holds the hash of a password.
pub const PASSWORD: &str = "PASSWORD";
/// The option that limits the number of connections. A role without it has no limit.
pub const CONNECTION_LIMIT: &str = "CONNECTION LIMIT";
/// The option that ends the validity of the password. A role without it has no such end.
pub const VALID_UNTIL: &str = "VALID UNTIL";

/// Splits the text into statements and keeps those of known shapes.
#[must_use]
pub fn split_globals(text: &str) -> Globals {
    let mut globals = Globals::default();
    let mut positions: BTreeMap<String, usize> = BTreeMap::new();
    for statement in split_statements(text) {
        let words: Vec<&str> = statement.iter().map(Token::word).collect();
        match words.as_slice() {
            // Settings of the session that reads the text.
            ["SET", ..] => continue,
            ["CREATE", "ROLE", _] => {
                if let Some(name) = statement[2].name()
                    && !positions.contains_key(&name)
                {
                    positions.insert(name.clone(), globals.roles.len());
                    globals.roles.push(Role { name, options: BTreeMap::new() });
                    continue;
                }
            }
            ["ALTER", "ROLE", _, "WITH", ..] => {
                let position = statement[2].name().and_then(|name| positions.get(&name).copied());
                if let (Some(at), Some(options)) = (position, role_options(&statement[4..])) {
                    globals.roles[at].options.extend(options);
                    continue;
                }
            }
            ["GRANT", _, "TO", _, ..] => {
                if let Some(membership) = membership(&statement) {
                    globals.memberships.push(membership);
                    continue;
                }
            }
            _ => {
                if let Some(property) = setting_of_all_roles(&statement) {
                    globals.settings_of_all.push(property);
                    continue;
                }
                if let Some(property) = role_property(&statement) {
                    globals.properties.push(property);
                    continue;
                }
            }
        }
        *globals.refused.entry(first_words(&words)).or_default() += 1;
    }
    globals
}

/// Returns the options of `ALTER ROLE … WITH` as SQL, by name; `None` for an unknown shape.
fn role_options(mut tokens: &[Token]) -> Option<BTreeMap<&'static str, String>> {
    let mut options = BTreeMap::new();
    while let Some((first, rest)) = tokens.split_first() {
        let Token::Word(word) = first else { return None };
        let plain = word.strip_prefix("NO").unwrap_or(word);
        let (name, length) = match (word.as_str(), rest) {
            _ if ROLE_OPTIONS.contains(&plain) => (*ROLE_OPTIONS.iter().find(|option| **option == plain)?, 1),
            ("CONNECTION", [Token::Word(limit), Token::Word(_), ..]) if limit == "LIMIT" => {
                (CONNECTION_LIMIT, 3)
            }
            ("CONNECTION", [Token::Word(limit), Token::Other('-'), Token::Word(_), ..])
                if limit == "LIMIT" =>
            {
                (CONNECTION_LIMIT, 4)
            }
            ("PASSWORD", [Token::Text(_), ..]) => (PASSWORD, 2),
            ("VALID", [Token::Word(until), Token::Text(_), ..]) if until == "UNTIL" => (VALID_UNTIL, 3),
            _ => return None,
        };
        let (option, rest) = tokens.split_at_checked(length)?;
        options.insert(name, to_sql(option).trim_end_matches(';').to_owned());
        tokens = rest;
    }
    Some(options)
}

/// Returns the membership that a `GRANT … TO …` gives, if it has a known shape: options with TRUE, FALSE or
/// OPTION, and the grantor.
fn membership(tokens: &[Token]) -> Option<Membership> {
    let by = tokens.windows(3).position(
        |three| matches!(three, [Token::Word(granted), Token::Word(by), _] if granted == "GRANTED" && by == "BY"),
    );
    let (grant, by) = tokens.split_at(by.unwrap_or(tokens.len()));
    let fits = |token: &Token| match token {
        Token::Word(word) => {
            ["WITH", "ADMIN", "INHERIT", "SET", "OPTION", "TRUE", "FALSE"].contains(&word.as_str())
        }
        Token::Other(',') => true,
        _ => false,
    };
    let granted_by = match by {
        [] => None,
        [_, _, grantor] => Some((grantor.name()?, to_sql(grant))),
        _ => return None,
    };
    let (role, member) = (grant.get(1)?.name()?, grant.get(3)?.name()?);
    let has_known_options = grant.get(4..)?.iter().all(fits);
    has_known_options.then(|| Membership { role, member, sql: to_sql(tokens), granted_by })
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
            ALTER ROLE shop WITH SUPERUSER \\! id;\nALTER ROLE other WITH SUPERUSER;\nCREATE ROLE a b;\n\
            ALTER ROLE ALL SET statement_timeout TO '77s';\nALTER ROLE \"ALL\" SET work_mem TO '9MB';\n\
            \\! id\nCREATE ROLE unended";
        let globals = split_globals(text);
        let names: Vec<&str> = globals.roles.iter().map(|role| role.name.as_str()).collect();
        assert_eq!(names, ["shop", "we\"ird; DROP"]);
        let options: Vec<&str> = globals.roles[0].options.values().map(String::as_str).collect();
        let expected = [
            "CONNECTION LIMIT - 1",
            "INHERIT",
            "LOGIN",
            "PASSWORD 'SCRAM-SHA-256$4096:a''b'",
            "NOSUPERUSER",
            "VALID UNTIL 'infinity'",
        ];
        assert_eq!(options, expected);
        let [membership] = globals.memberships.as_slice() else { panic!("{globals:?}") };
        let granted = "GRANT shop TO \"we\"\"ird; DROP\" WITH ADMIN OPTION";
        assert_eq!(membership.sql, format!("{granted} GRANTED BY postgres;"));
        assert_eq!(membership.granted_by, Some(("postgres".to_owned(), format!("{granted};"))));
        assert_eq!(globals.refused.values().sum::<u64>(), 6, "{:?}", globals.refused);
        let properties: Vec<String> =
            globals.properties.iter().map(|(_, property)| property.steps.concat()).collect();
        let settings =
            ["ALTER ROLE shop SET search_path TO 'evil';", "ALTER ROLE \"ALL\" SET work_mem TO '9MB';"];
        assert_eq!(properties, settings);
        let of_all = &globals.settings_of_all[0];
        assert_eq!(of_all.steps, ["ALTER ROLE ALL SET statement_timeout TO '77s';"]);
        assert_eq!(of_all.description, "the setting statement_timeout of all roles");
        assert!(!format!("{globals:?}").contains("SCRAM"));
    }
}
