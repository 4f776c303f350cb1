//! The JSON Schema of plans, for editors, and the list of their fields; both are made from the types.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Value;

use super::restore_spec::RestorePlan;
use super::spec::BackupPlan;

/// Returns the schema of a backup plan, as JSON Schema draft 2020-12.
#[must_use]
pub fn schema() -> Value {
    schema_of::<BackupPlan>("BackupPlan")
}

/// Returns the schema of a restore plan.
#[must_use]
pub fn restore_schema() -> Value {
    schema_of::<RestorePlan>("RestorePlan")
}

fn schema_of<T: JsonSchema>(kind: &str) -> Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    schema.insert("$id".into(), format!("https://kbak.dev/schema/v1/{}.json", kind.to_lowercase()).into());
    schema.insert("title".into(), format!("kbak {kind}").into());
    schema.to_value()
}

/// One field of a plan, as docs/plan.md lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldDoc {
    /// The field's path: `spec.databases[].engine`.
    pub path: String,
    /// The possible values: `string`, `postgresql | mariadb`, `list of string`, …
    pub values: String,
    /// The default as JSON, if there is one that is not empty.
    pub default: Option<String>,
    /// `true` if the field is required.
    pub required: bool,
    /// The description.
    pub description: String,
}

/// Returns every field of a backup plan, in the order of the types.
#[must_use]
pub fn fields() -> Vec<FieldDoc> {
    fields_of(&schema())
}

/// Returns every field of a restore plan.
#[must_use]
pub fn restore_fields() -> Vec<FieldDoc> {
    fields_of(&restore_schema())
}

fn fields_of(root: &Value) -> Vec<FieldDoc> {
    let mut found = Vec::new();
    add_fields(root, root, "", &mut found);
    found
}

fn add_fields(root: &Value, object: &Value, path: &str, found: &mut Vec<FieldDoc>) {
    let required: Vec<&str> = strings(&object["required"]);
    let Some(properties) = object["properties"].as_object() else { return };
    for (name, field) in properties {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let shape = resolve(root, field);
        let list = shape["type"] == "array" || strings(&shape["type"]).contains(&"array");
        let inner = if list { resolve(root, &shape["items"]) } else { shape };
        found.push(FieldDoc {
            path: path.clone(),
            values: values(root, shape),
            default: default_of(root, field, shape),
            required: required.contains(&name.as_str()),
            description: text(&field["description"])
                .or_else(|| text(&shape["description"]))
                .unwrap_or_default(),
        });
        let deeper = if list { format!("{path}[]") } else { path };
        add_fields(root, inner, &deeper, found);
        for variant in inner["oneOf"].as_array().into_iter().flatten() {
            let before = found.len();
            add_fields(root, variant, &deeper, found);
            // Each variant requires its own field, but a plan has only one of the variants.
            found[before..].iter_mut().for_each(|field| field.required = false);
        }
    }
}

/// Follows references; of a schema that may be null takes the form that is not.
fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    if let Some(name) = schema["$ref"].as_str().and_then(|link| link.strip_prefix("#/$defs/")) {
        return resolve(root, &root["$defs"][name]);
    }
    for list in ["anyOf", "allOf"] {
        let forms = schema[list].as_array().map_or(&[][..], Vec::as_slice);
        let mut real = forms.iter().filter(|form| form["type"] != "null");
        if let (Some(one), None) = (real.next(), real.next()) {
            return resolve(root, one);
        }
    }
    schema
}

fn values(root: &Value, shape: &Value) -> String {
    let constants: Vec<&str> =
        shape["oneOf"].as_array().into_iter().flatten().filter_map(|one| one["const"].as_str()).collect();
    if !constants.is_empty() {
        return constants.join(" | ");
    }
    if let Some(one) = shape["const"].as_str() {
        return one.to_owned();
    }
    let several = strings(&shape["enum"]);
    if !several.is_empty() {
        return several.join(" | ");
    }
    if let Some(forms) = shape["anyOf"].as_array() {
        let forms: Vec<String> = forms.iter().map(|form| values(root, resolve(root, form))).collect();
        return forms.join(" | ");
    }
    let kinds = match &shape["type"] {
        Value::String(one) => vec![one.as_str()],
        other => strings(other),
    };
    let kind = kinds.into_iter().find(|kind| *kind != "null").unwrap_or("object");
    match kind {
        "array" => format!("list of {}", values(root, resolve(root, &shape["items"]))),
        "string" => match shape["pattern"].as_str() {
            Some(pattern) if pattern.contains("/s$") => "rate".into(),
            Some(pattern) if pattern.contains("Ki") => "size".into(),
            Some(pattern) if pattern.contains("[0-9]+y") => "period".into(),
            Some(pattern) if pattern.contains("{4}") => "day".into(),
            Some(pattern) if pattern.contains("age1") => "public key".into(),
            _ => "string".into(),
        },
        other => other.into(),
    }
}

fn default_of(root: &Value, field: &Value, shape: &Value) -> Option<String> {
    // The default of a block is described by its fields.
    if shape["properties"].is_object() || resolve(root, shape)["properties"].is_object() {
        return None;
    }
    match &field["default"] {
        Value::Null => None,
        Value::Array(list) if list.is_empty() => None,
        Value::Object(map) if map.is_empty() => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(|text| text.replace('\n', " "))
}
