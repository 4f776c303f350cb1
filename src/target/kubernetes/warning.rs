//! Warnings of the server, whose text may quote values of an object, and of kbak itself.

use serde::Serialize;

use super::ObjectRef;

/// A warning about a restored object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case", tag = "by", content = "text")]
pub enum Warning {
    /// A warning of the API server, as far as it may be shown.
    Server(String),
    /// A warning of kbak.
    Own(String),
}

impl Warning {
    /// Returns the text of the warning.
    #[must_use]
    pub fn text(&self) -> &str {
        let (Self::Server(text) | Self::Own(text)) = self;
        text
    }
}

/// Returns the names of fields that the server reports as pruned in the headers of its answer: the kind is
/// defined differently than in the backup. Holds no values.
pub(crate) fn pruned_fields(headers: &[String]) -> Vec<String> {
    let fields = headers
        .iter()
        .flat_map(|header| warning_texts(header))
        .filter_map(|text| Some(text.strip_prefix("unknown field \"")?.strip_suffix('"')?.to_owned()));
    fields.take(MAX_PER_ANSWER).collect()
}

/// The largest number of warnings read from one answer.
const MAX_PER_ANSWER: usize = 8;

/// Returns the warnings in the headers of `object` that may be shown. A policy's message may quote any value,
/// and so may any text about a Secret.
pub(crate) fn shown_warnings(object: &ObjectRef, headers: &[String]) -> Vec<Warning> {
    let texts = headers.iter().flat_map(|header| warning_texts(header)).take(MAX_PER_ANSWER);
    let secret = object.resource == "secrets";
    let mut warnings: Vec<Warning> = texts
        .map(|text| match (policy_of(&text), secret) {
            (Some(policy), _) => format!("{object}: {policy} warned about it; its text is not shown"),
            (None, true) => {
                format!("{object}: the server warned about it; the text is not shown, it may quote values")
            }
            (None, false) => text,
        })
        .map(Warning::Server)
        .collect();
    warnings.dedup();
    warnings
}

/// Returns the texts of `299 - "text" "date", 299 - "text"` (RFC 9111, section 5.5), without code, agent and
/// date. A header in another form is returned whole.
fn warning_texts(header: &str) -> Vec<String> {
    let mut texts = Vec::new();
    let mut rest = header;
    while let Some((text, after)) = first_warning(rest) {
        texts.push(text);
        // A date may follow; the next warning begins after a comma.
        let Some((_, next)) = after.split_once(',').filter(|(date, _)| date.matches('"').count() != 1) else {
            return texts;
        };
        rest = next;
    }
    if texts.is_empty() {
        texts.push(header.to_owned());
    }
    texts
}

/// Returns the first warning's text, and the rest after it.
fn first_warning(header: &str) -> Option<(String, &str)> {
    let (code, rest) = header.trim_start().split_once(' ')?;
    let (_agent, rest) = rest.split_once(' ')?;
    let quoted = rest.strip_prefix('"')?;
    if code.len() != 3 || !code.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut text = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((text, &quoted[at + 1..])),
            '\\' => text.push(chars.next()?.1),
            c => text.push(c),
        }
    }
    None
}

/// Returns the policy and its binding, by name, if the text comes from a policy.
fn policy_of(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("Validation failed for ")?;
    super::refusal::policy_name(rest).or_else(|| Some("an admission policy".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(resource: &str, header: &str) -> Vec<String> {
        let object = ObjectRef {
            resource: resource.into(),
            kind: "K".into(),
            namespace: "shop".into(),
            name: "db".into(),
        };
        shown_warnings(&object, &[header.to_owned()])
            .iter()
            .map(|warning| warning.text().to_owned())
            .collect()
    }

    #[test]
    fn warning_texts_are_extracted_from_headers() {
        assert_eq!(shown("pods", r#"299 - "unknown field \"spec.x\"""#), [r#"unknown field "spec.x""#]);
        assert_eq!(
            shown("pods", r#"299 - "a, b", 299 x "c" "Wed, 25 Nov 2026 01:02:03 GMT""#),
            ["a, b", "c"]
        );
        assert_eq!(shown("pods", "no such form"), ["no such form"]);
    }

    #[test]
    fn warnings_quote_no_values() {
        let of_policy = r#"299 - "Validation failed for ValidatingAdmissionPolicy 'p.example' with binding 'b': the password is hunter2""#;
        let named = "K/shop/db: ValidatingAdmissionPolicy p.example with binding b warned about it; its text is not shown";
        assert_eq!(shown("configmaps", of_policy), [named]);
        assert_eq!(shown("secrets", of_policy), [named]);
        let other = r#"299 - "Validation failed for hunter2""#;
        assert!(!shown("configmaps", other)[0].contains("hunter2"));
        assert!(!shown("secrets", r#"299 - "hunter2 is weak""#)[0].contains("hunter2"));
    }
}
