//! Parses the line of a stored object.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::kubernetes::{MAX_NESTING, nesting_of};

/// The reason of an object with more levels than are parsed.
pub(crate) const TOO_DEEP: &str = "TooDeep";

/// A stored object.
pub(crate) enum StoredObject {
    /// The whole object.
    Whole(Value),
    /// An object with more than [`MAX_NESTING`] levels: its name, labels and UID.
    TooDeep(Value),
}

impl StoredObject {
    /// Parses a line. Fails if no backup writes such a line.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, &'static str> {
        match serde_json::from_slice(line) {
            Ok(object) => Ok(Self::Whole(object)),
            Err(_) if nesting_of(line) > MAX_NESTING => {
                let head: Head = serde_json::from_slice(line).map_err(|_| NOT_JSON)?;
                Ok(Self::TooDeep(head.into_object()))
            }
            Err(_) => Err(NOT_JSON),
        }
    }

    /// Returns the object, or the known part of it.
    pub(crate) fn known(&self) -> &Value {
        let (Self::Whole(object) | Self::TooDeep(object)) = self;
        object
    }
}

const NOT_JSON: &str = "it is not JSON";

/// The parts of an object that are read at any depth of the others.
#[derive(Deserialize)]
struct Head {
    metadata: Metadata,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: String,
    namespace: Option<String>,
    uid: String,
    labels: BTreeMap<String, String>,
    deletion_timestamp: Option<String>,
}

impl Head {
    fn into_object(self) -> Value {
        let Metadata { name, namespace, uid, labels, deletion_timestamp } = self.metadata;
        let mut metadata = json!({"name": name, "uid": uid, "labels": labels});
        if let Some(namespace) = namespace {
            metadata["namespace"] = Value::from(namespace);
        }
        if let Some(time) = deletion_timestamp {
            metadata["deletionTimestamp"] = Value::from(time);
        }
        json!({ "metadata": metadata })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_of_any_depth_has_a_name() {
        for levels in [1, 50, 1000, 100_000] {
            let (open, close) = ("[{\"a\":".repeat(levels), "}]".repeat(levels));
            let line = format!(
                r#"{{"spec":{open}1{close},"metadata":{{"name":"a","namespace":"shop","labels":{{"x":"1"}}}}}}"#
            );
            let object = StoredObject::parse(line.as_bytes()).expect("an object");
            assert_eq!(matches!(object, StoredObject::Whole(_)), levels <= 50, "{levels}");
            assert_eq!(object.known()["metadata"]["name"], "a");
            assert_eq!(object.known()["metadata"]["labels"]["x"], "1");
        }
        assert!(StoredObject::parse(b"{").is_err());
        assert!(StoredObject::parse("[".repeat(500).as_bytes()).is_err());
    }
}
