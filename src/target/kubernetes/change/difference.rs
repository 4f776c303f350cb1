//! Differences between two JSON values. A missing field and null are equivalent. An empty map or list is a value:
//! in a NetworkPolicy `podSelector: {}` selects all, and some fields are chosen by their name alone.
//!
//! Each function visits every pair of values once, however deep lists are nested.

use serde_json::{Map, Value};

use crate::kubernetes::count_step;

/// Returns the part of `wanted` that is not in `existing`, as a merge patch. A list that differs is replaced
/// whole. With `exact`, elements of lists must not have more fields than wanted.
pub(crate) fn missing(wanted: &Value, existing: Option<&Value>, exact: bool) -> Option<Value> {
    count_step();
    match (wanted, existing) {
        (Value::Object(wanted), Some(Value::Object(existing))) => {
            let patch: Map<String, Value> = wanted
                .iter()
                .filter_map(|(name, value)| Some((name.clone(), missing(value, existing.get(name), exact)?)))
                .collect();
            (!patch.is_empty()).then_some(Value::Object(patch))
        }
        _ => (!is_contained(wanted, existing, exact)).then(|| wanted.clone()),
    }
}

/// True if `existing` lacks a field of `wanted` or has another value for it.
pub(crate) fn differs(wanted: &Value, existing: &Value) -> bool {
    !is_contained(wanted, Some(existing), true)
}

/// True if `existing` has all fields of `wanted`.
fn is_contained(wanted: &Value, existing: Option<&Value>, exact: bool) -> bool {
    count_step();
    match (wanted, existing) {
        (Value::Object(wanted), Some(Value::Object(existing))) => {
            wanted.iter().all(|(name, value)| is_contained(value, existing.get(name), exact))
        }
        (Value::Array(wanted), Some(Value::Array(existing))) => {
            let is_same = |(one, other): (&Value, &Value)| match exact {
                true => is_equal(Some(one), Some(other)),
                false => is_contained(one, Some(other), exact),
            };
            wanted.len() == existing.len() && wanted.iter().zip(existing).all(is_same)
        }
        (wanted, None) => wanted.is_null(),
        (wanted, Some(existing)) => wanted == existing,
    }
}

/// True if both values have the same fields.
pub(crate) fn is_equal(one: Option<&Value>, other: Option<&Value>) -> bool {
    count_step();
    match (one, other) {
        (Some(Value::Object(one)), Some(Value::Object(other))) => {
            one.iter().all(|(name, value)| is_equal(Some(value), other.get(name)))
                && other.iter().all(|(name, value)| one.contains_key(name) || value.is_null())
        }
        (Some(Value::Array(one)), Some(Value::Array(other))) => {
            one.len() == other.len() && one.iter().zip(other).all(|(a, b)| is_equal(Some(a), Some(b)))
        }
        (Some(value), None) | (None, Some(value)) => value.is_null(),
        (one, other) => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::steps_so_far;
    use proptest::prelude::*;
    use serde_json::json;

    /// The values of an object, itself included.
    fn size(value: &Value) -> u64 {
        1 + match value {
            Value::Array(list) => list.iter().map(size).sum(),
            Value::Object(map) => map.values().map(size).sum(),
            _ => 0,
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..3_i64).prop_map(Value::from),
            "[ab]{0,1}".prop_map(Value::from),
        ];
        leaf.prop_recursive(12, 200, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[abc]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// Nests a value in lists and maps to the deepest level that is parsed.
    fn nested(mut value: Value, levels: usize, list: bool) -> Value {
        for _ in 0..levels {
            value = if list { json!([value]) } else { json!({"a": [value]}) };
        }
        value
    }

    /// The definition of containment: as it reads, in steps that double with each level of lists.
    fn lacks(wanted: &Value, existing: Option<&Value>, exact: bool) -> bool {
        match (wanted, existing) {
            (Value::Object(wanted), Some(Value::Object(existing))) => {
                wanted.iter().any(|(name, value)| lacks(value, existing.get(name), exact))
            }
            (Value::Array(all), Some(Value::Array(have))) => {
                let differ = |(one, other): (&Value, &Value)| {
                    lacks(one, Some(other), exact) || (exact && lacks(other, Some(one), exact))
                };
                all.len() != have.len() || all.iter().zip(have).any(differ)
            }
            (wanted, Some(existing)) => wanted != existing,
            (wanted, None) => !wanted.is_null(),
        }
    }

    proptest! {
        #[test]
        fn comparison_follows_its_definition(one in any_value(), other in any_value(), exact in any::<bool>()) {
            for (a, b) in [(&one, &other), (&other, &one), (&one, &one)] {
                prop_assert_eq!(missing(a, Some(b), exact).is_some(), lacks(a, Some(b), exact));
                prop_assert_eq!(differs(a, b), lacks(a, Some(b), true));
                let equal = !lacks(a, Some(b), true) && !lacks(b, Some(a), true);
                prop_assert_eq!(is_equal(Some(a), Some(b)), equal);
            }
        }

        #[test]
        fn comparison_takes_steps_in_proportion_to_the_size(
            one in any_value(), other in any_value(), levels in 0_usize..100, list in any::<bool>(), exact in any::<bool>(),
        ) {
            let (one, other) = (nested(one, levels, list), nested(other, levels, list));
            for (a, b) in [(&one, &other), (&one, &one)] {
                // Each value is visited by both functions, and a leaf twice by the first.
                let most = 3 * (size(a) + size(b));
                let before = steps_so_far();
                missing(a, Some(b), exact);
                is_equal(Some(a), Some(b));
                let steps = steps_so_far() - before;
                prop_assert!(steps <= most, "{steps} steps for {most}");
            }
        }
    }
}
