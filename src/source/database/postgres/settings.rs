//! Settings of all roles as SQL: `pg_dumpall` leaves them out.

use super::tokens::{quote_identifier, quote_literal};

/// Settings whose value is a list of quoted names. Each name is a string of its own in `SET`
/// (`variable_is_guc_list_quote` in `src/bin/pg_dump/dumputils.c`).
const LISTS: &[&str] = &[
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// Returns statements that give all roles these settings (`name=value`, as `pg_db_role_setting` holds them);
/// an empty text without settings.
pub(super) fn settings_of_all_roles(settings: &[String]) -> String {
    let mut text = String::new();
    for (name, value) in settings.iter().filter_map(|setting| setting.split_once('=')) {
        let is_list = LISTS.contains(&name.to_ascii_lowercase().as_str());
        let names = is_list.then(|| split_list(value)).flatten().filter(|names| !names.is_empty());
        let values = names.unwrap_or_else(|| vec![value.to_owned()]);
        let values: Vec<String> = values.iter().map(|value| quote_literal(value)).collect();
        text.push_str(&format!("ALTER ROLE ALL SET {} TO {};\n", quote_identifier(name), values.join(", ")));
    }
    if text.is_empty() {
        return text;
    }
    let head = "--\n-- Settings of all roles\n--\n\nSET client_encoding = 'UTF8';\n\
                SET standard_conforming_strings = on;\n\n";
    format!("{head}{text}\n\n")
}

/// Splits a list of names, some of them quoted, as the server does (`SplitGUCList`); `None` if a quote has no
/// end.
fn split_list(list: &str) -> Option<Vec<String>> {
    let (mut names, mut rest) = (Vec::new(), list.trim());
    while !rest.is_empty() {
        let (name, tail) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let mut end = quoted.find('"')?;
                while quoted[end + 1..].starts_with('"') {
                    end += 2 + quoted[end + 2..].find('"')?;
                }
                (quoted[..end].replace("\"\"", "\""), &quoted[end + 1..])
            }
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].trim_end().to_owned(), &rest[end..])
            }
        };
        names.push(name);
        rest = match tail.trim_start().strip_prefix(',') {
            Some(more) => more.trim_start(),
            None if tail.trim().is_empty() => "",
            None => return None,
        };
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_of_a_list_is_a_string_of_its_own() {
        for (list, names) in [
            (r#""$user", public"#, &["$user", "public"][..]),
            (r#""a b","c,d", "e""f""#, &["a b", "c,d", "e\"f"]),
            (r#""""#, &[""]),
            (r#"" ""#, &[" "]),
            (r#""a\b""#, &[r"a\b"]),
            ("ünï", &["ünï"]),
            ("", &[]),
        ] {
            assert_eq!(split_list(list).expect("a list"), names, "{list}");
        }
        for broken in ["\"a", "\"a\"b", "\"a\"\""] {
            assert_eq!(split_list(broken), None, "{broken}");
        }
    }

    #[test]
    fn values_that_are_no_list_stay_whole() {
        let settings = ["my.path=C:\\x, 'y'=z".to_owned(), "search_path=\"a b\", public".to_owned()];
        let text = settings_of_all_roles(&settings);
        let path = "ALTER ROLE ALL SET \"my.path\" TO E'C:\\\\x, ''y''=z';\n";
        assert!(text.contains(path), "{text}");
        assert!(text.contains("ALTER ROLE ALL SET \"search_path\" TO 'a b', 'public';\n"), "{text}");
        assert_eq!(settings_of_all_roles(&[]), "");
    }
}
