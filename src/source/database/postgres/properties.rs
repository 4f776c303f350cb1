//! Statements of a dump about a database itself, and about roles after their creation: owner,
//! rights, limits, settings, comments. As in [`super::globals`], a statement is kept only if it has
//! a known shape, and is rebuilt from its tokens.

use super::tokens::{Token, is_literal_list, split_statements, to_sql};

/// The statement that ends `SET SESSION AUTHORIZATION`.
const RESET_GRANTOR: &str = "RESET SESSION AUTHORIZATION;";

/// A statement of a known shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    /// The property for display, such as `the setting search_path of the role shop`. Holds no value.
    pub description: String,
    /// The kind of the property, which decides about the right that it needs.
    pub kind: PropertyKind,
    /// The SQL statements that set it together, in order. They may hold secrets: never show them.
    pub steps: Vec<String>,
}

/// The kind of a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PropertyKind {
    /// A limit or a comment.
    Plain,
    /// A setting of a role that has no other scope, or of a database, or of all roles.
    Setting {
        /// The parameter.
        parameter: String,
    },
    /// A setting of a role in one database.
    SettingInDatabase {
        /// The parameter.
        parameter: String,
        /// The role.
        role: String,
        /// The database.
        database: String,
    },
    /// The right of a role to set a parameter.
    ParameterRight {
        /// The parameter.
        parameter: String,
    },
    /// Rights of a role in a database.
    DatabaseRight {
        /// The role.
        role: String,
        /// True if a role other than the owner granted them.
        has_grantor: bool,
    },
    /// The owner of a database.
    Owner {
        /// The role.
        role: String,
    },
}

impl PropertyKind {
    /// Returns true for what gives a role rights in a database, also as its owner.
    #[must_use]
    pub fn changes_rights(&self) -> bool {
        matches!(self, Self::ParameterRight { .. } | Self::DatabaseRight { .. } | Self::Owner { .. })
    }
}

/// The properties found in a dump's texts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    /// Statements of known shapes, in order.
    pub known: Vec<Property>,
    /// Descriptions of refused statements: a property's name, or the statement's first words.
    pub refused: Vec<String>,
}

/// Returns the statements about a database in the texts of an archive, for the database `target`.
#[must_use]
pub fn database_properties(texts: &[String], target: &str) -> Properties {
    let mut properties = Properties::default();
    // Rights that a role other than the owner granted are granted by that role again.
    let mut grantor: Option<String> = None;
    // Together, because the first may change the meaning of backslashes in all others.
    for mut tokens in split_statements(&texts.join("\n")) {
        let words: Vec<&str> = tokens.iter().map(Token::word).collect();
        match words.as_slice() {
            ["SET", "SESSION", "AUTHORIZATION", _] if tokens[3].name().is_some() => {
                grantor = Some(to_sql(&tokens));
            }
            ["RESET", "SESSION", "AUTHORIZATION"] => grantor = None,
            ["SET", "standard_conforming_strings", ..] => {}
            // kbak creates the database itself, without this statement.
            ["CREATE", "DATABASE", _, rest @ ..] => properties.refused.extend(unsupported_option(rest)),
            _ => match database_property(&tokens) {
                Some((at, description, mut kind)) => {
                    if let PropertyKind::DatabaseRight { has_grantor, .. } = &mut kind {
                        *has_grantor = grantor.is_some();
                    }
                    tokens[at] = Token::Quoted(target.to_owned());
                    let statement = to_sql(&tokens);
                    let steps = match &grantor {
                        Some(set) => vec![set.clone(), statement, RESET_GRANTOR.to_owned()],
                        None => vec![statement],
                    };
                    properties.known.push(Property { description, kind, steps });
                }
                None => properties.refused.push(first_words(&words)),
            },
        }
    }
    properties
}

/// Returns a creation option of the original database that kbak does not set.
fn unsupported_option(words: &[&str]) -> Option<String> {
    let has = |wanted: &[&str]| words.windows(wanted.len()).any(|some| some == wanted);
    if has(&["TABLESPACE"]) {
        return Some("the tablespace".into());
    }
    (has(&["LOCALE_PROVIDER", "=", "icu"]) || has(&["LOCALE_PROVIDER", "=", "builtin"]))
        .then(|| "the locale provider".into())
}

/// Returns the position of the database's name, the property in words, and its kind.
fn database_property(tokens: &[Token]) -> Option<(usize, String, PropertyKind)> {
    let words: Vec<&str> = tokens.iter().map(Token::word).collect();
    match words.as_slice() {
        ["ALTER", "DATABASE", _, "CONNECTION", "LIMIT", rest @ ..] if is_value(rest) => {
            Some((2, "the connection limit".into(), PropertyKind::Plain))
        }
        ["ALTER", "DATABASE", _, "IS_TEMPLATE", rest @ ..] if is_value(rest) => {
            Some((2, "that it is a template".into(), PropertyKind::Plain))
        }
        ["ALTER", "DATABASE", _, "SET", ..] => {
            let parameter = set_parameter(&tokens[4..])?;
            Some((2, format!("the setting {parameter}"), PropertyKind::Setting { parameter }))
        }
        ["ALTER", "ROLE", _, "IN", "DATABASE", _, "SET", ..] => {
            let (parameter, role) = (set_parameter(&tokens[7..])?, tokens[2].name()?);
            let (property, database) =
                (format!("the setting {parameter} of the role {role}"), tokens[5].name()?);
            Some((5, property, PropertyKind::SettingInDatabase { parameter, role, database }))
        }
        ["COMMENT", "ON", "DATABASE", _, "IS", _] if tokens[5].is_text() => {
            Some((3, "the comment".into(), PropertyKind::Plain))
        }
        [verb @ ("GRANT" | "REVOKE"), ..] => {
            let on = words.iter().position(|word| *word == "ON")?;
            let role = tokens.get(on + 4)?.name()?;
            let fits = words.get(on + 1) == Some(&"DATABASE") && are_privileges(&words[1..on]) && {
                let to = if *verb == "GRANT" { "TO" } else { "FROM" };
                words.get(on + 3) == Some(&to) && matches!(words[on + 5..], [] | ["WITH", "GRANT", "OPTION"])
            };
            let property = format!("rights of {role}");
            fits.then(|| (on + 2, property, PropertyKind::DatabaseRight { role, has_grantor: false }))
        }
        _ => None,
    }
    .filter(|(at, ..)| tokens.get(*at).is_some_and(|token| token.name().is_some()))
}

/// Recognizes a statement of `pg_dumpall --globals-only` about a role after its creation: settings,
/// a comment, rights to set parameters. Also returns the role.
pub(super) fn role_property(tokens: &[Token]) -> Option<(String, Property)> {
    let words: Vec<&str> = tokens.iter().map(Token::word).collect();
    let (role, property, kind) = match words.as_slice() {
        ["ALTER", "ROLE", _, "SET", ..] => {
            let parameter = set_parameter(&tokens[4..])?;
            (tokens[2].name()?, format!("the setting {parameter}"), PropertyKind::Setting { parameter })
        }
        ["ALTER", "ROLE", _, "IN", "DATABASE", _, "SET", ..] => {
            let (parameter, role) = (set_parameter(&tokens[7..])?, tokens[2].name()?);
            let database = tokens[5].name()?;
            let property = format!("the setting {parameter} in the database {database}");
            (role.clone(), property, PropertyKind::SettingInDatabase { parameter, role, database })
        }
        ["COMMENT", "ON", "ROLE", _, "IS", _] if tokens[5].is_text() => {
            (tokens[3].name()?, "the comment".to_owned(), PropertyKind::Plain)
        }
        ["GRANT", "SET" | "ALL", "ON", "PARAMETER", _, "TO", _]
        | ["GRANT", "ALTER", "SYSTEM", "ON", "PARAMETER", _, "TO", _] => {
            let parameter = tokens[tokens.len() - 3].name()?;
            let property = format!("the right to set {parameter}");
            (tokens.last()?.name()?, property, PropertyKind::ParameterRight { parameter })
        }
        _ => return None,
    };
    let description = format!("{property} of the role {role}");
    Some((role, Property { description, kind, steps: vec![to_sql(tokens)] }))
}

/// Recognizes a setting for all roles (`ALTER ROLE ALL SET …`). A role named `ALL` is always quoted.
pub(super) fn setting_of_all_roles(tokens: &[Token]) -> Option<Property> {
    let words: Vec<&str> = tokens.iter().map(Token::word).collect();
    let ["ALTER", "ROLE", "ALL", "SET", ..] = words.as_slice() else { return None };
    let parameter = set_parameter(&tokens[4..])?;
    let description = format!("the setting {parameter} of all roles");
    Some(Property { description, kind: PropertyKind::Setting { parameter }, steps: vec![to_sql(tokens)] })
}

/// Returns the parameter in the rest of `SET` if it is a name, `TO` or `=`, and strings.
fn set_parameter(tokens: &[Token]) -> Option<String> {
    let (parameter, rest) = tokens.split_first()?;
    let (to, values) = rest.split_first()?;
    let fits = matches!(to.word(), "TO" | "=") && is_literal_list(values);
    fits.then(|| parameter.name()).flatten()
}

/// Returns true for a number or a word, perhaps after an equals sign or a minus.
fn is_value(words: &[&str]) -> bool {
    let words = words.strip_prefix(&["="]).unwrap_or(words);
    let words = words.strip_prefix(&["-"]).unwrap_or(words);
    matches!(words, [word] if !word.is_empty() && word.chars().all(char::is_alphanumeric))
}

fn are_privileges(words: &[&str]) -> bool {
    let known = ["CREATE", "CONNECT", "TEMPORARY", "TEMP", "ALL", "GRANT", "OPTION", "FOR", ","];
    words.iter().all(|word| known.contains(word))
}

/// Returns the first two words of a statement, to name what was refused in a report. Quoted texts, which
/// may be secret, are shown as `…`; a bare name is shown, such as the role in `GRANT a TO b`.
pub(super) fn first_words(words: &[&str]) -> String {
    let known = words.iter().take(2).map(|word| if word.is_empty() { "…" } else { word });
    known.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_database_statements_are_kept() {
        let text = "CREATE DATABASE shop WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE = 'C';\n\
            ALTER DATABASE shop CONNECTION LIMIT = 7;\nALTER DATABASE shop IS_TEMPLATE = true;\n\
            ALTER DATABASE shop SET search_path TO 'a', 'b; \\! id';\n\
            ALTER ROLE clerk IN DATABASE shop SET \"work.mem\" TO '64MB';\n\
            COMMENT ON DATABASE shop IS 'it''s \\! id';\nREVOKE CONNECT,TEMPORARY ON DATABASE shop FROM PUBLIC;\n\
            SET SESSION AUTHORIZATION clerk;\nGRANT CONNECT ON DATABASE shop TO \"odd one\" WITH GRANT OPTION;\n\
            RESET SESSION AUTHORIZATION;\n\\! id\n\
            GRANT CONNECT ON DATABASE shop TO a, b;\nALTER DATABASE shop OWNER TO evil;\nDROP DATABASE shop;\n\
            ALTER DATABASE shop SET x TO \\! id;\nGRANT a TO b;\nALTER DATABASE shop SET x TO 'a' ; unended";
        let properties = database_properties(&[text.to_owned()], "new \"one\"");
        let sql: Vec<String> = properties.known.iter().map(|property| property.steps.concat()).collect();
        assert_eq!(
            sql,
            [
                "ALTER DATABASE \"new \"\"one\"\"\" CONNECTION LIMIT = 7;",
                "ALTER DATABASE \"new \"\"one\"\"\" IS_TEMPLATE = true;",
                "ALTER DATABASE \"new \"\"one\"\"\" SET search_path TO 'a' , E'b; \\\\! id';",
                "ALTER ROLE clerk IN DATABASE \"new \"\"one\"\"\" SET \"work.mem\" TO '64MB';",
                "COMMENT ON DATABASE \"new \"\"one\"\"\" IS E'it''s \\\\! id';",
                "REVOKE CONNECT , TEMPORARY ON DATABASE \"new \"\"one\"\"\" FROM PUBLIC;",
                "SET SESSION AUTHORIZATION clerk;GRANT CONNECT ON DATABASE \"new \"\"one\"\"\" TO \"odd one\" WITH GRANT OPTION;RESET SESSION AUTHORIZATION;",
                "ALTER DATABASE \"new \"\"one\"\"\" SET x TO 'a';",
            ]
        );
        assert_eq!(properties.refused.len(), 6, "{:?}", properties.refused);
    }
}
