//! The list cutter against a JSON parser: same items and metadata whatever the order, spacing and
//! content; and no panic on any input.

use kbak::kubernetes::{KindInfo, read_item_meta, split_list, to_json_line};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn kind() -> KindInfo {
    KindInfo {
        group: "demo.io".to_owned(),
        version: "v1".to_owned(),
        plural: "things".to_owned(),
        kind: "Thing".to_owned(),
        namespaced: true,
        subresources: Vec::new(),
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no NaN", |n| n.is_finite()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[\\\\\"\\]\\[{}:,\n]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::vec((any::<String>(), inner), 0..6)
                .prop_map(|pairs| Value::from(pairs.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Generates an object as a server returns it: a name, perhaps its kind, and other fields.
fn any_object() -> impl Strategy<Value = Value> {
    let fields = proptest::collection::vec((any::<String>(), any_value()), 0..4);
    ("[a-z]{1,10}", 0u64..1000, any::<bool>(), any::<bool>(), fields).prop_map(
        |(name, revision, version, kind, fields)| {
            let mut object: Map<_, _> = fields.into_iter().collect();
            object.remove("kind");
            object.remove("apiVersion");
            object.insert("metadata".into(), json!({"name": name, "resourceVersion": revision.to_string()}));
            if version {
                object.insert("apiVersion".into(), json!("demo.io/v1"));
            }
            if kind {
                object.insert("kind".into(), json!("Thing"));
            }
            Value::from(object)
        },
    )
}

/// Generates a list, its members in any order, on one line or on many.
fn any_list() -> impl Strategy<Value = (Vec<Value>, String)> {
    let items = proptest::collection::vec(any_object(), 0..6);
    (items, any::<bool>(), any::<bool>(), any_value()).prop_map(|(items, pretty, last, noise)| {
        let metadata = json!({"resourceVersion": "77", "continue": "to\"k", "remainingItemCount": 5});
        let text = |value: &Value| {
            let text = if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
            text.expect("JSON")
        };
        let (metadata, noise, all) = (text(&metadata), text(&noise), text(&Value::from(items.clone())));
        let body = if last {
            format!("{{\"apiVersion\":\"v1\",\"items\":{all},\"x\":{noise},\"kind\":\"L\",\"metadata\":{metadata}}}\n")
        } else {
            format!(" {{ \"metadata\" : {metadata} ,\r\n\t\"it\\u0065ms\" : {all} , \"items2\":{noise}}}")
        };
        (items, body)
    })
}

proptest! {
    #[test]
    fn items_match_those_of_a_json_parser((items, body) in any_list()) {
        let page = split_list(body.as_bytes()).expect("a list");
        prop_assert_eq!(&page.metadata.resource_version, "77");
        prop_assert_eq!(&page.metadata.continue_token, "to\"k");
        prop_assert_eq!(page.metadata.remaining_item_count, Some(5));
        prop_assert_eq!(page.items.len(), items.len());
        for (index, (range, item)) in page.items.iter().zip(&items).enumerate() {
            let bytes = &body.as_bytes()[range.clone()];
            let meta = read_item_meta(bytes, index).expect("an object");
            prop_assert_eq!(&meta.name, &item["metadata"]["name"]);
            prop_assert_eq!(&meta.resource_version, &item["metadata"]["resourceVersion"]);
            let line = to_json_line(bytes, &meta, &kind());
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            prop_assert_eq!(line.last(), Some(&b'\n'));
            let mut wanted = item.clone();
            wanted["apiVersion"] = json!("demo.io/v1");
            wanted["kind"] = json!("Thing");
            prop_assert_eq!(serde_json::from_slice::<Value>(&line).expect("JSON"), wanted);
        }
    }

    #[test]
    fn truncated_list_is_rejected((_, body) in any_list(), at in any::<proptest::sample::Index>()) {
        let body = body.trim_end();
        let length = at.index(body.len());
        prop_assert!(split_list(&body.as_bytes()[..length]).is_err());
    }

    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(prop_oneof![
        3 => proptest::sample::select(b"{}[]\",:\\ \nitemsmetadata0".to_vec()), 1 => any::<u8>()], 0..200))
    {
        if let Ok(page) = split_list(&bytes) {
            for range in page.items {
                let _ = read_item_meta(&bytes[range], 0);
            }
        }
    }

    #[test]
    fn invalid_objects_are_rejected((items, body) in any_list(), at in any::<proptest::sample::Index>()) {
        prop_assume!(!items.is_empty());
        let page = split_list(body.as_bytes()).expect("a list");
        let mut item = body.as_bytes()[page.items[0].clone()].to_vec();
        let place = at.index(item.len());
        item[place] = 0x01;
        // A control character is valid nowhere in JSON, so the parser must reject it.
        prop_assert!(read_item_meta(&item, 0).is_err());
    }
}

#[test]
fn number_spelling_and_key_order_are_kept() {
    let body = br#"{"kind":"L","items":[{"z":1.0,"a":1e2,"n":123456789012345678901234567890,"metadata":{"name":"x"}}],"metadata":{}}"#;
    let page = split_list(body).expect("a list");
    let item = &body[page.items[0].clone()];
    let line = to_json_line(item, &read_item_meta(item, 0).expect("an object"), &kind());
    assert_eq!(
        std::str::from_utf8(&line).expect("text"),
        concat!(
            r#"{"apiVersion":"demo.io/v1","kind":"Thing","z":1.0,"a":1e2,"n":123456789012345678901234567890,"#,
            r#""metadata":{"name":"x"}}"#,
            "\n"
        )
    );
}

#[test]
fn only_one_complete_list_object_is_accepted() {
    let page = split_list(br#"{"items":null,"metadata":{}}"#).expect("an empty list");
    assert!(page.items.is_empty());
    for body in [
        r#"{"metadata":{}}"#,
        r#"{"items":[],"items":[]}"#,
        r#"{"items":{}}"#,
        r#"{"items":[]} {}"#,
        r#"{"items":[],"metadata":null}"#,
        r#"[{},[]]"#,
    ] {
        assert!(split_list(body.as_bytes()).is_err(), "{body}");
    }
}
