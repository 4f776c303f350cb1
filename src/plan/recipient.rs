//! Recipients: the public keys that a backup is encrypted to. Private keys are refused wherever
//! they stand, and never shown.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};

use super::problem::Position;

/// Why a text is no recipient. The text itself is left out: it may be a secret that was pasted
/// into the wrong place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecipientError {
    /// A private key.
    #[error("this is a private key; a plan takes public keys only")]
    PrivateKey,
    /// Neither an age nor an SSH public key.
    #[error("this is no age or SSH public key (age1…, ssh-ed25519 …, ssh-rsa …)")]
    Unknown,
    /// The right kind of key, cut short or with letters that no such key has.
    #[error("this {0} key is damaged: it is cut short or mistyped")]
    Damaged(&'static str),
    /// A name of a file.
    #[error("this is the name of a file; a plan takes the key itself")]
    FileName,
}

/// A public key in its text form: `age1…`, `age1<plugin>1…`, `ssh-ed25519 …` or `ssh-rsa …`.
///
/// The form is checked here; whether the key stands for a point or a device is checked when it is
/// used.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Recipient(String);

impl Recipient {
    /// The text, with one space between its fields.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How a person tells it from others in one line: `age1qz…7x`, `ssh-ed25519 ops@example`.
    #[must_use]
    pub fn short(&self) -> String {
        let mut fields = self.0.splitn(3, ' ');
        let (Some(kind), key, comment) = (fields.next(), fields.next(), fields.next()) else {
            return self.0.clone();
        };
        match (key, comment) {
            (Some(_), Some(comment)) => format!("{kind} {comment}"),
            (Some(key), None) => format!("{kind} …{}", tail(key, 8)),
            (None, _) => format!("{}…{}", &kind[..kind.len().min(6)], tail(kind, 2)),
        }
    }

    /// What makes two texts the same key: a comment does not.
    #[must_use]
    pub fn key(&self) -> &str {
        let end = self.0.match_indices(' ').nth(1).map_or(self.0.len(), |(at, _)| at);
        &self.0[..end]
    }
}

fn tail(text: &str, count: usize) -> &str {
    &text[text.len().saturating_sub(count)..]
}

impl FromStr for Recipient {
    type Err = RecipientError;

    fn from_str(text: &str) -> Result<Self, RecipientError> {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if find_private_key(&text).is_some() {
            return Err(RecipientError::PrivateKey);
        }
        if let Some(rest) = text.strip_prefix("age1") {
            // Bech32 (BIP 173): after the last `1` come data letters, six of which are a checksum.
            let data = rest.rsplit('1').next().unwrap_or(rest);
            let letters = |c: char| "qpzry9x8gf2tvdw0s3jn54khce6mua7l".contains(c);
            let plain = !rest.contains('1');
            if !data.chars().all(letters) || data.len() < 7 || (plain && rest.len() != 58) {
                return Err(RecipientError::Damaged("age"));
            }
            return Ok(Self(text));
        }
        for (kind, least) in [("ssh-ed25519", 68), ("ssh-rsa", 200)] {
            if let Some(rest) = text.strip_prefix(kind) {
                let key = rest.split(' ').nth(1).unwrap_or("");
                let letters = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
                if key.len() < least || !key.starts_with("AAAA") || !key.chars().all(letters) {
                    return Err(RecipientError::Damaged(kind));
                }
                return Ok(Self(text));
            }
        }
        let file = text.contains('/') || [".pub", ".key", ".txt"].iter().any(|end| text.ends_with(end));
        Err(if file { RecipientError::FileName } else { RecipientError::Unknown })
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Recipient {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Recipient {
    fn schema_name() -> Cow<'static, str> {
        "Recipient".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^(age1|ssh-ed25519 |ssh-rsa )",
            "description": "A public key: age1…, an age plugin's age1…1…, ssh-ed25519 … or ssh-rsa …."
        })
    }
}

/// Where a text holds something that looks like a private key: an age identity, an age plugin's
/// identity, a PEM or OpenSSH private key.
#[must_use]
pub fn find_private_key(text: &str) -> Option<Position> {
    // Bech32 may be all upper or all lower case.
    const MARKS: [&str; 3] = ["age-secret-key-", "age-plugin-", "private key-----"];
    let lower = text.to_ascii_lowercase();
    let at = MARKS.iter().filter_map(|mark| lower.find(mark)).min()?;
    Some(Position::of(text, at))
}
