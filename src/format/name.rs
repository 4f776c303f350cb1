//! Names from file systems and clusters as JSON; they need not be UTF-8.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::report::text::is_hostile;

/// A name or path as bytes. In JSON it is a string if it is UTF-8, else `{"b64": "…"}`.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(pub Vec<u8>);

impl Name {
    /// Returns the bytes of the name.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the name for a terminal. [Hostile](is_hostile) characters and bytes that are not UTF-8 are
    /// escaped: a name must not control it. Backslashes are escaped too, so that no two names look the same.
    pub fn display(&self) -> String {
        let mut shown = String::with_capacity(self.0.len());
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\\' => shown.push_str("\\\\"),
                    c if is_hostile(c) => shown.extend(c.escape_default()),
                    c => shown.push(c),
                }
            }
            for byte in chunk.invalid() {
                shown.push_str(&format!("\\x{byte:02x}"));
            }
        }
        shown
    }

    /// Decodes the escapes of [`Name::display`]. Returns `None` if there are none. A text with escapes may
    /// also be a literal name.
    pub fn unescaped(&self) -> Option<Self> {
        let (mut bytes, mut rest, mut found) = (Vec::with_capacity(self.0.len()), self.bytes(), false);
        while let Some((&first, after)) = rest.split_first() {
            match escape(rest) {
                Some((meant, length)) => {
                    bytes.extend(meant);
                    (rest, found) = (&rest[length..], true);
                }
                None => {
                    bytes.push(first);
                    rest = after;
                }
            }
        }
        found.then_some(Self(bytes))
    }
}

/// Reads the escape at the beginning of a text. Returns the bytes that it stands for, and its length.
fn escape(text: &[u8]) -> Option<(Vec<u8>, usize)> {
    let hex = |digits: &[u8]| u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
    match text {
        [b'\\', b'\\', ..] => Some((b"\\".to_vec(), 2)),
        [b'\\', b'n', ..] => Some((b"\n".to_vec(), 2)),
        [b'\\', b'r', ..] => Some((b"\r".to_vec(), 2)),
        [b'\\', b't', ..] => Some((b"\t".to_vec(), 2)),
        // `display` uses this form only for bytes that are not UTF-8.
        [b'\\', b'x', high, low, ..] => {
            let byte = u8::try_from(hex(&[*high, *low])?).ok().filter(|byte| !byte.is_ascii())?;
            Some((vec![byte], 4))
        }
        [b'\\', b'u', b'{', rest @ ..] => {
            let end = rest.iter().take(7).position(|&byte| byte == b'}')?;
            let c = char::from_u32(hex(&rest[..end])?).filter(|c| is_hostile(*c))?;
            Some((c.to_string().into_bytes(), end + 4))
        }
        _ => None,
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
    fn names_decode_unchanged_from_one_json_form() {
        for bytes in [&b"plain"[..], b"quote\"\n", b"\xff\xfe", "ä".as_bytes(), b""] {
            let text = serde_json::to_string(&Name::from(bytes)).unwrap();
            assert_eq!(serde_json::from_str::<Name>(&text).unwrap().0, bytes);
        }
        assert!(serde_json::from_str::<Name>(r#"{"b64":"YQ=="}"#).is_err(), "two texts for one name");
        assert_eq!(Name::from(&b"a\x1b[2J\xff"[..]).display(), "a\\u{1b}[2J\\xff");
    }

    #[test]
    fn displayed_names_decode_to_the_original() {
        for name in [
            &b"back\\slash"[..],
            b"a\\nb",
            b"\\\\x1b\\",
            b"non\xffutf8\xfe",
            b"a\n\t\x1b[2J",
            "gnp.\u{202e}exe".as_bytes(),
        ] {
            let shown = Name::from(name).display();
            assert_eq!(Name::from(shown.as_str()).unescaped(), Some(Name::from(name)), "{shown}");
        }
        for plain in ["plain", "C:\\dir\\x41", "\\u{41}", "\\x", "\\u{"] {
            assert_eq!(Name::from(plain).unescaped(), None, "{plain}");
        }
    }
}
