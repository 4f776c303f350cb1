//! Writes lines of YAML. Names from a cluster are quoted and cannot break out of their line.

use serde_json::Value;

/// YAML text that is built line by line.
#[derive(Debug, Default)]
pub(super) struct Yaml(String);

impl Yaml {
    /// Adds a line, indented by two spaces per level of `depth`.
    pub(super) fn line(&mut self, depth: usize, text: &str) {
        self.0.push_str(&"  ".repeat(depth));
        self.0.push_str(&one_line(text));
        self.0.push('\n');
    }

    pub(super) fn comment(&mut self, depth: usize, text: &str) {
        self.line(depth, &format!("# {text}"));
    }

    /// Adds a field, if it has a value.
    pub(super) fn optional(&mut self, depth: usize, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.line(depth, &format!("{name}: {}", quoted(value)));
        }
    }

    /// Adds an empty line, but never two in a row.
    pub(super) fn gap(&mut self) {
        if !self.0.ends_with("\n\n") && !self.0.is_empty() {
            self.0.push('\n');
        }
    }

    pub(super) fn text(self) -> String {
        self.0
    }
}

/// Replaces control characters, which end a line or steer a terminal: names come from a cluster.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Returns a scalar: unquoted if YAML can read it only as text, else in double quotes.
pub(super) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./@".contains(c);
    let letter = text.chars().next().is_some_and(|c| c.is_ascii_alphabetic());
    let word = !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
        .contains(&text.to_ascii_lowercase().as_str());
    if letter && word && text.chars().all(plain) {
        return text.to_owned();
    }
    // JSON strings are also YAML strings.
    Value::from(text).to_string()
}

/// Returns a list on one line.
pub(super) fn list(items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
    format!("[{}]", items.join(", "))
}

/// Returns a value on one line, in flow style.
pub(super) fn flow(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|(name, value)| format!("{}: {}", quoted(name), flow(value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::String(text) => quoted(text),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ambiguous_scalars_are_quoted_and_comments_stay_on_one_line() {
        for (text, written) in [
            ("shop", "shop"),
            ("true", "\"true\""),
            ("123", "\"123\""),
            ("a: b", "\"a: b\""),
            ("*", "\"*\""),
            ("", "\"\""),
        ] {
            assert_eq!(quoted(text), written);
        }
        let value = serde_json::json!({"a": [1, "true", {"b c": null}], "d": "x"});
        assert_eq!(flow(&value), "{a: [1, \"true\", {\"b c\": null}], d: x}");
        let mut yaml = Yaml::default();
        yaml.comment(0, "a\nspec: evil");
        assert_eq!(yaml.text(), "# a?spec: evil\n");
    }
}
