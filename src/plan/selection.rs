//! Glob patterns for names, and the grammar of label selectors.

/// A pattern that no name can match.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no pattern for names: letters, digits, -, ., _, : with * for any text and ? for one character"
)]
pub struct GlobError(pub String);

/// A pattern that no name of a database can match.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no pattern for names of databases: it is empty, too long, or ends with a lone backslash")]
pub struct FreeGlobError(pub String);

/// A glob pattern for names: `*` matches any text, `?` one character. It must match the whole name, and is
/// case-sensitive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    text: String,
    parts: Vec<Part>,
}

/// An element of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Any text.
    Any,
    /// Any one character.
    One,
    /// This character.
    Is(char),
}

impl Part {
    fn of(c: char) -> Self {
        match c {
            '*' => Self::Any,
            '?' => Self::One,
            c => Self::Is(c),
        }
    }
}

impl Glob {
    /// Parses a pattern.
    ///
    /// # Errors
    /// Fails if it is empty, longer than 253 bytes, or has a character that no name has.
    pub fn new(pattern: &str) -> Result<Self, GlobError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-._:*?".contains(c);
        if pattern.is_empty() || pattern.len() > 253 || !pattern.chars().all(fits) {
            return Err(GlobError(pattern.to_owned()));
        }
        Ok(Self::parsed(pattern, pattern.chars().map(Part::of).collect()))
    }

    fn parsed(pattern: &str, parts: Vec<Part>) -> Self {
        Self { text: pattern.to_owned(), parts }
    }

    /// Parses a pattern for names with arbitrary characters, such as those of databases. A backslash makes
    /// the next character literal.
    ///
    /// # Errors
    /// Fails if it is empty, longer than 253 bytes, has a NUL, or ends with a lone backslash.
    pub fn of_any(pattern: &str) -> Result<Self, FreeGlobError> {
        let wrong = || FreeGlobError(pattern.to_owned());
        let mut parts = Vec::new();
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            parts.push(match c {
                '\\' => Part::Is(chars.next().ok_or_else(wrong)?),
                c => Part::of(c),
            });
        }
        if parts.is_empty() || pattern.len() > 253 || pattern.contains('\0') {
            return Err(wrong());
        }
        Ok(Self::parsed(pattern, parts))
    }

    /// Returns the pattern for [`Self::of_any`] that matches only this name.
    #[must_use]
    pub fn escape(name: &str) -> String {
        let escaped = |c: char| matches!(c, '*' | '?' | '\\').then_some('\\').into_iter().chain([c]);
        name.chars().flat_map(escaped).collect()
    }

    /// Creates a pattern from a literal of this program, which is known to be valid.
    pub(crate) fn known(pattern: &'static str) -> Self {
        debug_assert!(Self::new(pattern).is_ok(), "{pattern} is no pattern");
        Self::parsed(pattern, pattern.chars().map(Part::of).collect())
    }

    /// True if it matches `name`. The time is linear in the product of their lengths.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let pattern = &self.parts;
        let (mut p, mut n) = (0, 0);
        // The last `*`, and the end of the text it matches so far: the only place to backtrack to.
        let mut star: Option<(usize, usize)> = None;
        while n < name.len() {
            match pattern.get(p) {
                Some(Part::Any) => {
                    star = Some((p, n));
                    p += 1;
                }
                Some(&part) if part == Part::One || part == Part::Is(name[n]) => {
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
        pattern[p..].iter().all(|part| *part == Part::Any)
    }

    /// Returns the pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the name, if the pattern matches exactly one.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        let letter = |part: &Part| if let Part::Is(c) = part { Some(*c) } else { None };
        self.parts.iter().map(letter).collect()
    }

    /// True if it matches every name.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.parts.iter().all(|part| *part == Part::Any)
    }
}

/// Returns the reason why a text is no label selector, if it is none. The grammar is that of Kubernetes:
/// `a=b`, `a==b`, `a!=b`, `a in (b,c)`, `a notin (b,c)`, `a`, `!a`, joined by commas.
pub(super) fn selector_problem(text: &str) -> Option<String> {
    split_terms(text).into_iter().find_map(|term| {
        let term = term.trim();
        let bad = || Some(format!("{term:?} is no part of a label selector"));
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
pub fn exclusions(selector: &str) -> Option<String> {
    let terms: Vec<&str> = split_terms(selector).into_iter().filter(|term| leaves_out(term)).collect();
    (!terms.is_empty()).then(|| terms.join(","))
}

/// True if a selector has a term that includes objects (`a=b`, `a in (b)`, `a`).
#[must_use]
pub fn picks_out(selector: &str) -> bool {
    split_terms(selector).into_iter().any(|term| !leaves_out(term))
}

fn leaves_out(term: &str) -> bool {
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
            assert_eq!(exclusions(selector).as_deref(), left_out, "{selector}");
            assert_eq!(picks_out(selector), picks, "{selector}");
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
            assert_eq!(Glob::of_any(pattern).expect("a pattern").matches(name), fits, "{pattern} on {name}");
        }
        for name in ["plain", "x//y 50% a*", "a?\\b", "\\"] {
            assert!(Glob::of_any(&Glob::escape(name)).expect("a pattern").matches(name), "{name}");
        }
        assert!(Glob::of_any("a\\").is_err() && Glob::of_any("").is_err());
        assert!(Glob::new("a b").is_err() && Glob::new("").is_err() && Glob::new("a/b").is_err());
    }
}
