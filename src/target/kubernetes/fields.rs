//! Access to the fields of objects.

use serde_json::{Map, Value};

pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// True if the value is an object of an API server.
pub(crate) fn is_object(value: &Value) -> bool {
    !text(value, "/metadata/uid").is_empty()
}

pub(crate) fn label<'a>(object: &'a Value, name: &str) -> &'a str {
    object.pointer("/metadata/labels").and_then(|all| all.get(name)?.as_str()).unwrap_or_default()
}

pub(crate) fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.pointer("/metadata/annotations")?.get(name)?.as_str()
}

pub(crate) fn each<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    object.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// Returns the elements of the list at `pointer`, to be changed.
pub(crate) fn each_mut<'a>(
    object: &'a mut Value,
    pointer: &str,
) -> impl Iterator<Item = &'a mut Value> + use<'a> {
    object.pointer_mut(pointer).and_then(Value::as_array_mut).into_iter().flatten()
}

pub(crate) fn map<'a>(object: &'a Value, pointer: &str) -> Option<&'a Map<String, Value>> {
    object.pointer(pointer)?.as_object()
}

pub(crate) fn map_mut<'a>(object: &'a mut Value, pointer: &str) -> Option<&'a mut Map<String, Value>> {
    object.pointer_mut(pointer)?.as_object_mut()
}
