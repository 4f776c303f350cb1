//! Strict JSON for signed lines, which has the same meaning for every reader.
//!
//! Parsers differ on duplicate keys, on numbers beyond 2^53 and on floats, so a signed line with
//! any of them could mean one thing to kbak and another to `jq`. They are rejected in known and
//! unknown fields alike (RFC 8259 section 4 and 6; I-JSON, RFC 7493).

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// The greatest integer that every JSON reader keeps exactly.
pub const MAX_INTEGER: u64 = (1 << 53) - 1;

/// The error for text that is not strict JSON of the expected shape.
#[derive(Debug, thiserror::Error)]
#[error("not strict JSON: {0}")]
pub struct JsonError(#[from] serde_json::Error);

/// Reads one strict JSON value of the shape `T`.
///
/// The error names the position and, for a field of another type, the value found. So this is for
/// signed, public text; text that holds secrets needs [`parse_secret`].
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, JsonError> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    Strict.deserialize(&mut reader)?;
    reader.end()?;
    Ok(serde_json::from_slice(text)?)
}

/// The error for text that is not strict JSON of the expected shape; gives the position only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not strict JSON of the wanted shape at line {line}, column {column}")]
pub struct SecretJsonError {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
}

/// Reads JSON as [`parse`] does, for text that holds secrets: the error quotes none of it.
pub fn parse_secret<T: DeserializeOwned>(text: &[u8]) -> Result<T, SecretJsonError> {
    parse(text).map_err(|JsonError(error)| SecretJsonError { line: error.line(), column: error.column() })
}

/// Visits a value and rejects constructs that have more than one meaning.
#[derive(Clone, Copy)]
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("strict JSON")
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        if value > MAX_INTEGER { Err(E::custom("an integer beyond 2^53")) } else { Ok(()) }
    }
    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.visit_u64(value.unsigned_abs())
    }
    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        Err(E::custom("a number that is no integer"))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Self)?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key) {
                return Err(A::Error::custom("a duplicate key"));
            }
            map.next_value_seed(Self)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ambiguous_json_is_rejected() {
        for bad in [
            r#"{"a":1,"a":2}"#,
            r#"{"x":{"a":1,"\u0061":2}}"#,
            r#"{"a":1.0}"#,
            r#"{"a":1e3}"#,
            r#"{"a":-0}"#,
            r#"{"a":9007199254740992}"#,
            r#"{"a":-9007199254740992}"#,
            r#"{"a":99999999999999999999}"#,
            r#"{"a":1}{}"#,
            r#"{"a":1} x"#,
            "{\"a\":\"\\ud800\"}",
        ] {
            assert!(parse::<serde_json::Value>(bad.as_bytes()).is_err(), "{bad} must be refused");
        }
        assert!(parse::<serde_json::Value>(b"{\"a\":\"\xff\"}").is_err(), "not UTF-8");
        assert!(parse::<serde_json::Value>(br#"{"a":9007199254740991,"b":[-1,{"a":null}]}"#).is_ok());
    }

    #[test]
    fn parse_errors_do_not_quote_secrets() {
        let error = parse_secret::<Vec<u8>>(br#"["AGE-SECRET-KEY-1"]"#).unwrap_err();
        assert!(!error.to_string().contains("AGE"), "{error}");
    }
}
