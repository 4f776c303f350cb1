//! Label selectors, as Kubernetes reads them: `a=b`, `a!=b`, `a in (b,c)`, `a notin (b,c)`, `a`, `!a`.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use super::selection::{selector_problem, split_terms};

/// A text that is no label selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; write a=b, a!=b, a in (b,c), a notin (b,c), a or !a, joined by commas")]
pub struct LabelSelectorError(String);

/// A label selector. An object matches if all terms hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
}

impl LabelSelector {
    /// True if `labels`, an object of strings or null, match.
    pub fn matches(&self, labels: &Value) -> bool {
        self.matches_by(|key| labels.get(key).and_then(Value::as_str))
    }

    /// True if an object matches whose label values `label` returns by key.
    pub fn matches_by<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|term| {
            let value = label(&term.key);
            match (&term.operator, value) {
                (Operator::In(all), Some(value)) => all.iter().any(|one| one == value),
                (Operator::NotIn(all), Some(value)) => all.iter().all(|one| one != value),
                (Operator::In(_) | Operator::Exists, None) | (Operator::DoesNotExist, Some(_)) => false,
                (Operator::NotIn(_) | Operator::DoesNotExist, None) | (Operator::Exists, Some(_)) => true,
            }
        })
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, Requirement { key, operator }) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            match operator {
                Operator::In(all) if all.len() == 1 => write!(f, "{comma}{key}={}", all[0])?,
                Operator::NotIn(all) if all.len() == 1 => write!(f, "{comma}{key}!={}", all[0])?,
                Operator::In(all) => write!(f, "{comma}{key} in ({})", all.join(","))?,
                Operator::NotIn(all) => write!(f, "{comma}{key} notin ({})", all.join(","))?,
                Operator::Exists => write!(f, "{comma}{key}")?,
                Operator::DoesNotExist => write!(f, "{comma}!{key}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for LabelSelector {
    type Err = LabelSelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(problem) = selector_problem(text) {
            return Err(LabelSelectorError(problem));
        }
        Ok(Self(split_terms(text).into_iter().map(|term| read(term.trim())).collect()))
    }
}

/// Parses a term that [`selector_problem`] has accepted.
fn read(term: &str) -> Requirement {
    let owned = |text: &str| text.trim().to_owned();
    if let Some((head, values)) = term.split_once('(') {
        let mut words = head.split_whitespace();
        let key = words.next().unwrap_or_default().to_owned();
        let values = values.trim_end_matches(')').split(',').map(owned).collect();
        let operator =
            if words.next() == Some("in") { Operator::In(values) } else { Operator::NotIn(values) };
        return Requirement { key, operator };
    }
    for (sign, equal) in [("!=", false), ("==", true), ("=", true)] {
        if let Some((key, value)) = term.split_once(sign) {
            let values = vec![owned(value)];
            return Requirement {
                key: owned(key),
                operator: if equal { Operator::In(values) } else { Operator::NotIn(values) },
            };
        }
    }
    match term.strip_prefix('!') {
        Some(key) => Requirement { key: owned(key), operator: Operator::DoesNotExist },
        None => Requirement { key: owned(term), operator: Operator::Exists },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_match_as_in_kubernetes() {
        let labels = json!({"app": "web", "tier": "front"});
        for (text, fits) in [
            ("app=web", true),
            ("app==web,tier!=back", true),
            ("app in (db, web)", true),
            ("app notin (web)", false),
            ("tier", true),
            ("!tier", false),
            ("!missing", true),
            ("missing!=x", true),
            ("missing=x", false),
        ] {
            let selector: LabelSelector = text.parse().expect("a selector");
            assert_eq!(selector.matches(&labels), fits, "{text}");
            let again: LabelSelector = selector.to_string().parse().expect("a selector");
            assert_eq!(again, selector, "{text}");
        }
        "a in b".parse::<LabelSelector>().expect_err("no selector");
        assert!("app=web".parse::<LabelSelector>().is_ok_and(|s| !s.matches(&Value::Null)));
    }
}
