//! The template of a webhook's body: JSON text with fields as `{{summary}}`.
//!
//! There are fields and nothing else: no loops, no functions, no files. Each value is escaped for JSON,
//! so that a name in a report cannot change the form of the body.

use serde_json::{Number, Value};

use super::problem::suggest;

/// The fields of a notice that name nothing of the backup, in the order of the default body.
pub const NOTICE_FIELDS: [&str; 19] = [
    "verb",
    "plan",
    "status",
    "outcome",
    "exit",
    "summary",
    "snapshot",
    "head",
    "started",
    "finished",
    "seconds",
    "items",
    "unsafeItems",
    "gaps",
    "bytes",
    "storedBytes",
    "storedPacks",
    "warnings",
    "version",
];

/// The fields that can name objects, databases, folders or the bucket. Only a template sends them.
pub const NAMING_FIELDS: [&str; 3] = ["verdict", "unsafeNames", "repository"];

/// The fields whose values are text. The others are numbers, or `null` where there is none.
const TEXT_FIELDS: [&str; 11] = [
    "verb",
    "plan",
    "status",
    "outcome",
    "summary",
    "head",
    "started",
    "finished",
    "version",
    "verdict",
    "unsafeNames",
];

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoticeTemplate(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(String),
}

/// A template that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoticeTemplateError {
    /// A field does not end.
    #[error("the template has {{{{ without }}}}")]
    Unclosed,
    /// There is no such field.
    #[error("the template has no field {name:?}")]
    UnknownField {
        /// The name in the template.
        name: String,
        /// A known field of a similar name.
        similar: Option<&'static str>,
    },
    /// The body would be no JSON.
    #[error("the body is not JSON: {reason}")]
    NotJson {
        /// The reason, with the place in the body.
        reason: String,
    },
}

impl NoticeTemplate {
    /// Parses a template. It is tried with values, and the result must be JSON.
    ///
    /// # Errors
    /// [`NoticeTemplateError`]; the template's own text is not repeated, because it may hold a token.
    pub fn parse(text: &str) -> Result<Self, NoticeTemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, behind) = after.split_once("}}").ok_or(NoticeTemplateError::Unclosed)?;
            let name = name.trim();
            if !NOTICE_FIELDS.contains(&name) && !NAMING_FIELDS.contains(&name) {
                return Err(unknown_field(name));
            }
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Field(name.to_owned()));
            rest = behind;
        }
        parts.push(Part::Text(rest.to_owned()));
        let template = Self(parts);
        let body = template.render(sample);
        match serde_json::from_str::<serde::de::IgnoredAny>(&body) {
            Ok(_) => Ok(template),
            Err(error) => Err(NoticeTemplateError::NotJson { reason: error.to_string() }),
        }
    }

    /// Returns the body. Text becomes the inside of a JSON string, other values become JSON.
    pub fn render(&self, value: impl Fn(&str) -> Value) -> String {
        let mut body = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => body.push_str(text),
                Part::Field(name) => match value(name) {
                    text @ Value::String(_) => {
                        let quoted = text.to_string();
                        body.push_str(&quoted[1..quoted.len() - 1]);
                    }
                    other => body.push_str(&other.to_string()),
                },
            }
        }
        body
    }
}

/// Returns a value of the kind that a field has. Text has a space, so that it is no JSON without quotes.
fn sample(name: &str) -> Value {
    match TEXT_FIELDS.contains(&name) || name == "repository" {
        true => Value::String("some text".to_owned()),
        false => Value::Number(Number::from(1)),
    }
}

fn unknown_field(name: &str) -> NoticeTemplateError {
    let similar = suggest(name, NOTICE_FIELDS.iter().chain(&NAMING_FIELDS).copied());
    // A long name is a forgotten brace, and what follows may be a token.
    let name: String = name.chars().take(32).collect();
    NoticeTemplateError::UnknownField { name, similar }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_change_the_form_of_the_body() {
        let template = NoticeTemplate::parse(r#"{"text": "{{ verdict }}", "exit": {{exit}}}"#).expect("good");
        let body = template.render(|name| match name {
            "exit" => Value::from(3),
            _ => Value::from("\"}, {\"b\\\n\""),
        });
        let parsed: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(parsed, serde_json::json!({"text": "\"}, {\"b\\\n\"", "exit": 3}));
    }

    #[test]
    fn mistakes_are_found_when_the_template_is_read() {
        use NoticeTemplateError::{NotJson, Unclosed, UnknownField};
        assert_eq!(NoticeTemplate::parse("{\"a\": \"{{plan\"}"), Err(Unclosed));
        let near = UnknownField { name: "sumary".into(), similar: Some("summary") };
        assert_eq!(NoticeTemplate::parse("\"{{sumary}}\""), Err(near));
        assert!(matches!(NoticeTemplate::parse("{{plan}}"), Err(NotJson { .. })), "text without quotes");
        assert!(matches!(NoticeTemplate::parse("{\"a\": {{exit}}"), Err(NotJson { .. })));
    }
}
