//! The depth of nested lists and maps in an object, and the steps of walks over objects.
//!
//! Anybody who may create an object chooses its depth. API servers take ten thousand levels; the parser of
//! this crate takes [`MAX_NESTING`]. Every walk over a parsed object visits each value a fixed number of times.

use serde_json::Value;

/// The most levels of lists and maps in an object that is parsed: the limit of `serde_json`.
pub const MAX_NESTING: usize = 127;

/// Returns the number of levels of lists and maps in valid JSON. Reads each byte once, without recursion.
#[must_use]
pub fn nesting_of(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0_usize);
    let (mut in_text, mut escaped) = (false, false);
    for byte in json {
        match (*byte, in_text) {
            _ if escaped => escaped = false,
            (b'\\', true) => escaped = true,
            (b'"', _) => in_text = !in_text,
            (b'{' | b'[', false) => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (b'}' | b']', false) => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// True for a map or a list without entries.
#[must_use]
pub fn is_empty_collection(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(all) => all.is_empty(),
        _ => false,
    }
}

#[cfg(any(test, feature = "testing"))]
static STEPS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// Counts one step of a walk over an object, so that tests can hold a walk to the size of the object. Every
/// function that walks an object by recursion calls it.
#[inline]
pub fn count_step() {
    #[cfg(any(test, feature = "testing"))]
    STEPS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
}

/// Returns the steps of all walks of this process so far.
#[cfg(any(test, feature = "testing"))]
#[must_use]
pub fn steps_so_far() -> u64 {
    STEPS.load(std::sync::atomic::Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_counted_outside_of_texts() {
        for (json, wanted) in [
            ("1", 0),
            ("{}", 1),
            (r#"{"a":[{"b":[]}],"c":[]}"#, 4),
            (r#"{"a":"[[[[","b":"\"[[[","c\\":["x"]}"#, 2),
            (r#"["\\",[["\\\""]]]"#, 3),
        ] {
            assert_eq!(nesting_of(json.as_bytes()), wanted, "{json}");
        }
    }

    #[test]
    fn deepest_parsed_object_has_the_largest_nesting() {
        for (levels, parses) in [(MAX_NESTING, true), (MAX_NESTING + 1, false)] {
            let json = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
            assert_eq!(nesting_of(json.as_bytes()), levels);
            assert_eq!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), parses, "{levels} levels");
        }
    }
}
