//! Whether a label selector takes an object. The plan's check has read the selector; a term that
//! is none takes nothing.

use std::collections::BTreeMap;

/// Whether `selector` (`a=b`, `a!=b`, `a in (b,c)`, `a notin (b,c)`, `a`, `!a`, joined by commas)
/// takes an object of these labels.
pub(super) fn selects(selector: &str, labels: &BTreeMap<String, String>) -> bool {
    let mut depth = 0u32;
    let terms = selector.split(|c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    terms.map(str::trim).filter(|term| !term.is_empty()).all(|term| takes(term, labels))
}

fn takes(term: &str, labels: &BTreeMap<String, String>) -> bool {
    let has = |key: &str| labels.get(key.trim()).map(String::as_str);
    if let Some((key, values)) = term.split_once('(') {
        let within = |key: &str| {
            let value = has(key);
            values.trim_end_matches(')').split(',').any(|one| value == Some(one.trim()))
        };
        let key = key.trim();
        return match key.strip_suffix(" notin") {
            // As Kubernetes has it, an object without the label is not among the values either.
            Some(key) => !within(key),
            None => key.strip_suffix(" in").is_some_and(within),
        };
    }
    if let Some((key, value)) = term.split_once("!=") {
        return has(key) != Some(value.trim());
    }
    if let Some((key, value)) = term.split_once('=') {
        return has(key) == Some(value.trim_start_matches('=').trim());
    }
    match term.strip_prefix('!') {
        Some(key) => has(key).is_none(),
        None => has(term).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operator_is_understood() {
        let labels: BTreeMap<String, String> =
            [("app", "shop"), ("tier", "db")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        for yes in [
            "",
            "app=shop",
            "app == shop",
            "app!=x",
            "x!=y",
            "app in (a, shop)",
            "x notin (a)",
            "app",
            "!x",
            "app=shop,tier in (db,x),!y",
        ] {
            assert!(selects(yes, &labels), "{yes}");
        }
        for no in ["app=x", "app!=shop", "app in (a,b)", "app notin (shop)", "x", "!app", "app=shop,tier=x"] {
            assert!(!selects(no, &labels), "{no}");
        }
    }
}
