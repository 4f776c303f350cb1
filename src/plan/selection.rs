//! Globs for names, names of objects, and the grammar of label selectors.

use std::str::FromStr;

/// A pattern that no name can match.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a pattern for names; use letters, digits, -, ., _, : with * for any text and ? for one \
     character"
)]
pub struct GlobError(pub String);

/// A pattern that no name of a database can match.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a pattern for names of databases: it is empty, too long, or ends with a lone backslash"
)]
pub struct EscapedGlobError(pub String);

/// A glob pattern for names: `*` matches any text, `?` one character. It must match the whole name, and is
/// case-sensitive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    text: String,
    parts: Vec<Element>,
}

/// An element of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    /// Any text.
    AnyText,
    /// Any one character.
    AnyChar,
    /// This character.
    Literal(char),
}

impl Element {
    fn of(c: char) -> Self {
        match c {
            '*' => Self::AnyText,
            '?' => Self::AnyChar,
            c => Self::Literal(c),
        }
    }
}

impl Glob {
    /// Parses patterns.
    ///
    /// # Errors
    /// Fails at the first that [`Self::new`] refuses.
    pub fn parse_all(patterns: &[String]) -> Result<Vec<Self>, GlobError> {
        patterns.iter().map(|pattern| Self::new(pattern)).collect()
    }

    /// Parses patterns for names of databases, which may contain any character.
    ///
    /// # Errors
    /// Fails at the first that [`Self::with_escapes`] refuses.
    pub fn parse_all_with_escapes(patterns: &[String]) -> Result<Vec<Self>, EscapedGlobError> {
        patterns.iter().map(|pattern| Self::with_escapes(pattern)).collect()
    }

    /// Parses a pattern.
    ///
    /// # Errors
    /// Fails if it is empty, longer than 253 bytes, or has a character that no name has.
    pub fn new(pattern: &str) -> Result<Self, GlobError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-._:*?".contains(c);
        if pattern.is_empty() || pattern.len() > 253 || !pattern.chars().all(fits) {
            return Err(GlobError(pattern.to_owned()));
        }
        Ok(Self::from_parts(pattern, pattern.chars().map(Element::of).collect()))
    }

    fn from_parts(pattern: &str, parts: Vec<Element>) -> Self {
        Self { text: pattern.to_owned(), parts }
    }

    /// Parses a pattern for names with arbitrary characters, such as those of databases. A backslash makes
    /// the next character literal.
    /// Fails if it is empty, longer than 253 bytes, has a NUL, or ends with a lone backslash.
    pub fn with_escapes(pattern: &str) -> Result<Self, EscapedGlobError> {
        let wrong = || EscapedGlobError(pattern.to_owned());
        let mut parts = Vec::new();
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            parts.push(match c {
                '\\' => Element::Literal(chars.next().ok_or_else(wrong)?),
                c => Element::of(c),
            });
        }
        if parts.is_empty() || pattern.len() > 253 || pattern.contains('\0') {
            return Err(wrong());
        }
        Ok(Self::from_parts(pattern, parts))
    }

    /// Returns the pattern for [`Self::with_escapes`] that matches only this name.
    #[must_use]
    pub fn escape(name: &str) -> String {
        let escaped = |c: char| matches!(c, '*' | '?' | '\\').then_some('\\').into_iter().chain([c]);
        name.chars().flat_map(escaped).collect()
    }

    /// Creates a pattern from a literal of this program, which is known to be valid.
    pub(crate) fn from_static(pattern: &'static str) -> Self {
        debug_assert!(Self::new(pattern).is_ok(), "{pattern} is no pattern");
        Self::from_parts(pattern, pattern.chars().map(Element::of).collect())
    }

    /// True if it matches `name`. The time is linear in the product of their lengths.
    pub fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let pattern = &self.parts;
        let (mut p, mut n) = (0, 0);
        // The last `*`, and the end of the text it matches so far: the only place to backtrack to.
        let mut star: Option<(usize, usize)> = None;
        while n < name.len() {
            match pattern.get(p) {
                Some(Element::AnyText) => {
                    star = Some((p, n));
                    p += 1;
                }
                Some(&part) if part == Element::AnyChar || part == Element::Literal(name[n]) => {
                    p += 1;
                    n += 1;
                }
                _ => match star {
                    Some((at, taken)) => {
                        star = Some((at, taken + 1));
                        p = at + 1;
                        n = taken + 1;
                    }
                    None => return false,
                },
            }
        }
        pattern[p..].iter().all(|part| *part == Element::AnyText)
    }

    /// Returns the pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the name, if the pattern matches exactly one.
    pub fn name(&self) -> Option<String> {
        let letter = |part: &Element| if let Element::Literal(c) = part { Some(*c) } else { None };
        self.parts.iter().map(letter).collect()
    }

    /// True if it matches every name.
    pub fn is_everything(&self) -> bool {
        self.parts.iter().all(|part| *part == Element::AnyText)
    }
}

/// Returns the reason why a text is no label selector, if it is none. The grammar is that of Kubernetes:
/// `a=b`, `a==b`, `a!=b`, `a in (b,c)`, `a notin (b,c)`, `a`, `!a`, joined by commas.
pub(super) fn selector_problem(text: &str) -> Option<String> {
    split_terms(text).into_iter().find_map(|term| {
        let term = term.trim();
        let bad = || Some(format!("{term:?} is not a term of a label selector"));
        let key_of = |key: &str| is_label_key(key.trim());
        if let Some((key, values)) = term.split_once('(') {
            let words: Vec<&str> = key.split_whitespace().collect();
            let [key, "in" | "notin"] = words.as_slice() else { return bad() };
            let Some(values) = values.strip_suffix(')') else { return bad() };
            let fine = key_of(key) && values.split(',').all(|value| is_label_value(value.trim()));
            return if fine { None } else { bad() };
        }
        for sign in ["!=", "==", "="] {
            if let Some((key, value)) = term.split_once(sign) {
                return if key_of(key) && is_label_value(value.trim()) { None } else { bad() };
            }
        }
        if key_of(term.strip_prefix('!').unwrap_or(term)) { None } else { bad() }
    })
}

/// Returns the terms of a selector that only exclude objects (`a!=b`, `a notin (b)`, `!a`), if it has any.
#[must_use]
pub fn excluding_terms(selector: &str) -> Option<String> {
    let terms: Vec<&str> = split_terms(selector).into_iter().filter(|term| is_excluding(term)).collect();
    (!terms.is_empty()).then(|| terms.join(","))
}

/// True if a selector has a term that includes objects (`a=b`, `a in (b)`, `a`).
#[must_use]
pub fn includes_by_label(selector: &str) -> bool {
    split_terms(selector).into_iter().any(|term| !is_excluding(term))
}

fn is_excluding(term: &str) -> bool {
    let words = term.split('(').next().unwrap_or_default();
    term.trim_start().starts_with('!')
        || term.contains("!=")
        || words.split_whitespace().nth(1) == Some("notin")
}

pub(super) fn split_terms(text: &str) -> Vec<&str> {
    let mut depth = 0u32;
    text.split(|c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let prefix_fine = prefix.is_none_or(|prefix| {
        (1..=253).contains(&prefix.len())
            && prefix.split('.').all(|part| !part.is_empty() && is_label_value(part))
    });
    prefix_fine && !name.is_empty() && is_label_value(name)
}

fn is_label_value(value: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let ends = |c: char| c.is_ascii_alphanumeric();
    value.len() <= 63
        && value.chars().all(inner)
        && value.chars().next().is_none_or(ends)
        && value.chars().last().is_none_or(ends)
}

/// An object by its name: `deployments.apps/shop/web`, `namespaces/shop`; each part may be a glob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectName {
    /// The kind: `deployments.apps`.
    pub resource: Glob,
    /// The namespace; `None` for cluster-scoped objects.
    pub namespace: Option<Glob>,
    /// The object's name.
    pub name: Glob,
}

/// A text that names no object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not the name of an object; write KIND/NAMESPACE/NAME, as in deployments.apps/shop/web, or \
     KIND/NAME"
)]
pub struct ObjectNameError(String);

impl FromStr for ObjectName {
    type Err = ObjectNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let glob = |part: &str| Glob::new(part).map_err(|_| ObjectNameError(text.to_owned()));
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            [resource, name] => Ok(Self { resource: glob(resource)?, namespace: None, name: glob(name)? }),
            [resource, namespace, name] => {
                Ok(Self { resource: glob(resource)?, namespace: Some(glob(namespace)?), name: glob(name)? })
            }
            _ => Err(ObjectNameError(text.to_owned())),
        }
    }
}

/// True if `name` is a valid name of a namespace.
#[must_use]
pub fn is_namespace(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty()
        && name.len() <= 63
        && name.chars().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

impl ObjectName {
    /// True if an object of that name is meant; `namespace` is none for cluster-scoped objects.
    pub fn matches(&self, resource: &str, namespace: Option<&str>, name: &str) -> bool {
        let in_namespace = match (&self.namespace, namespace) {
            (None, None) => true,
            (Some(glob), Some(namespace)) => glob.matches(namespace),
            _ => false,
        };
        in_namespace && self.resource.matches(resource) && self.name.matches(name)
    }
}

impl std::fmt::Display for ObjectName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.resource.as_str())?;
        if let Some(namespace) = &self.namespace {
            write!(f, "/{}", namespace.as_str())?;
        }
        write!(f, "/{}", self.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excluding_terms_are_separated_from_including_terms() {
        for (selector, left_out, picks) in [
            ("kbak.dev/exclude!=true", Some("kbak.dev/exclude!=true"), false),
            ("app=web,tier notin (a,b),!old", Some("tier notin (a,b),!old"), true),
            ("app in (a,b)", None, true),
            ("app", None, true),
        ] {
            assert_eq!(excluding_terms(selector).as_deref(), left_out, "{selector}");
            assert_eq!(includes_by_label(selector), picks, "{selector}");
        }
    }

    #[test]
    fn globs_match_whole_names() {
        for (pattern, name, fits) in [
            ("*", "", true),
            ("a*c", "abbbc", true),
            ("a*c", "abbbcd", false),
            ("*.cert-manager.io", "issuers.cert-manager.io", true),
            ("a?c", "ac", false),
            ("**a**b", "xaxab", true),
            ("team-*-x*", "team-a-b-xy", true),
        ] {
            assert_eq!(Glob::new(pattern).expect("a pattern").matches(name), fits, "{pattern} on {name}");
        }
        for (pattern, name, fits) in [
            ("x//y \\*\\?", "x//y *?", true),
            ("x//y \\*\\?", "x//y ab", false),
            ("ä?*", "äöü", true),
            ("a\\\\b", "a\\b", true),
        ] {
            assert_eq!(
                Glob::with_escapes(pattern).expect("a pattern").matches(name),
                fits,
                "{pattern} on {name}"
            );
        }
        for name in ["plain", "x//y 50% a*", "a?\\b", "\\"] {
            assert!(Glob::with_escapes(&Glob::escape(name)).expect("a pattern").matches(name), "{name}");
        }
        assert!(Glob::with_escapes("a\\").is_err() && Glob::with_escapes("").is_err());
        assert!(Glob::new("a b").is_err() && Glob::new("").is_err() && Glob::new("a/b").is_err());
    }
}
