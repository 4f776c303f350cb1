//! Names from file systems and clusters, which need not be UTF-8, as JSON.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A name or path as bytes: a JSON string where it is UTF-8, else `{"b64": "…"}`.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(pub Vec<u8>);

impl Name {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// For a terminal: control characters and bytes that are not UTF-8 are escaped, so that a
    /// name from a backup cannot steer the terminal it is shown on.
    #[must_use]
    pub fn display(&self) -> String {
        let mut shown = String::with_capacity(self.0.len());
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
            }
            for byte in chunk.invalid() {
                shown.push_str(&format!("\\x{byte:02x}"));
            }
        }
        shown
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<&[u8]> for Name {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", self.display())
    }
}

#[derive(Serialize, Deserialize)]
struct Encoded<'a> {
    b64: std::borrow::Cow<'a, str>,
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Encoded { b64: BASE64_STANDARD.encode(&self.0).into() }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either<'a> {
            Text(#[serde(borrow)] std::borrow::Cow<'a, str>),
            Encoded(Encoded<'a>),
        }
        match Either::deserialize(deserializer)? {
            Either::Text(text) => Ok(Self(text.into_owned().into_bytes())),
            Either::Encoded(encoded) => {
                let bytes =
                    BASE64_STANDARD.decode(encoded.b64.as_bytes()).map_err(serde::de::Error::custom)?;
                if std::str::from_utf8(&bytes).is_ok() {
                    return Err(serde::de::Error::custom("base64 of a name that is UTF-8"));
                }
                Ok(Self(bytes))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_for_one_name() {
        for bytes in [&b"plain"[..], b"quote\"\n", b"\xff\xfe", "ä".as_bytes(), b""] {
            let text = serde_json::to_string(&Name::from(bytes)).unwrap();
            assert_eq!(serde_json::from_str::<Name>(&text).unwrap().0, bytes);
        }
        assert!(serde_json::from_str::<Name>(r#"{"b64":"YQ=="}"#).is_err(), "two texts for one name");
        assert_eq!(Name::from(&b"a\x1b[2J\xff"[..]).display(), "a\\u{1b}[2J\\xff");
    }
}
