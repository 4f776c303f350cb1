//! Lines of YAML. Names from a cluster are quoted, and cannot leave their line.

/// A text that grows by lines.
#[derive(Debug, Default)]
pub(super) struct Yaml(String);

impl Yaml {
    /// A line at a depth of two spaces each.
    pub(super) fn line(&mut self, depth: usize, text: &str) {
        self.0.push_str(&"  ".repeat(depth));
        self.0.push_str(&one_line(text));
        self.0.push('\n');
    }

    /// A comment.
    pub(super) fn comment(&mut self, depth: usize, text: &str) {
        self.line(depth, &format!("# {text}"));
    }

    /// An empty line, but never two.
    pub(super) fn gap(&mut self) {
        if !self.0.ends_with("\n\n") && !self.0.is_empty() {
            self.0.push('\n');
        }
    }

    pub(super) fn text(self) -> String {
        self.0
    }
}

/// Text without what ends a line or steers a terminal: names come from a cluster.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A scalar: as it is where YAML can read it only as text, else in double quotes.
pub(super) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./@".contains(c);
    let letter = text.chars().next().is_some_and(|c| c.is_ascii_alphabetic());
    let word = !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
        .contains(&text.to_ascii_lowercase().as_str());
    if letter && word && text.chars().all(plain) {
        return text.to_owned();
    }
    // JSON's strings are YAML's, too.
    serde_json::Value::from(text).to_string()
}

/// A list on one line.
pub(super) fn list(items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
    format!("[{}]", items.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_stay_text() {
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
        let mut yaml = Yaml::default();
        yaml.comment(0, "a\nspec: evil");
        assert_eq!(yaml.text(), "# a?spec: evil\n");
    }
}
