//! Recipients: the public keys that a backup is encrypted to. Private keys are rejected, and never shown.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};

use super::problem::Position;
use crate::keys;
use crate::keys::Owner;

/// The reason why a text is no recipient. It does not contain the text, which may be a pasted secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecipientError {
    /// The text is a private key.
    #[error("this is a private key; a plan takes public keys only")]
    PrivateKey,
    /// The text is the name of a file.
    #[error("this is the name of a file; give the key itself")]
    FileName,
    /// An age key that lacks characters or has wrong ones.
    #[error("this age key is incomplete or mistyped")]
    Damaged,
    /// Any other error of an owner's public key.
    #[error("this is not a public key of an owner: {0}")]
    Owner(keys::RecipientError),
}

/// An owner, given by their public key as `kbak keygen` prints it: `age1… [ssh-ed25519 AAAA…] [comment]`, or
/// by an SSH public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient(Owner);

impl Recipient {
    /// Returns the owner with this public key.
    pub fn owner(&self) -> &Owner {
        &self.0
    }
}

impl FromStr for Recipient {
    type Err = RecipientError;

    fn from_str(text: &str) -> Result<Self, RecipientError> {
        if find_private_key(text).is_some() {
            return Err(RecipientError::PrivateKey);
        }
        text.parse().map(Self).map_err(|error| {
            let file = text.contains('/') && !text.contains(' ');
            let file = file || [".pub", ".key", ".txt"].iter().any(|end| text.ends_with(end));
            match error {
                keys::RecipientError::Private => RecipientError::PrivateKey,
                keys::RecipientError::Malformed | keys::RecipientError::Unsupported(_) if file => {
                    RecipientError::FileName
                }
                keys::RecipientError::Malformed if text.starts_with("age1") => RecipientError::Damaged,
                other => RecipientError::Owner(other),
            }
        })
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_line())
    }
}

impl Serialize for Recipient {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
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
            "description": "An owner's public key as kbak keygen prints it, or an SSH public key."
        })
    }
}

/// Returns the first position of something that looks like a private key: an age identity, the identity of an
/// age plugin, a PEM or OpenSSH private key.
#[must_use]
pub fn find_private_key(text: &str) -> Option<Position> {
    // Bech32 may be all upper or all lower case.
    const MARKS: [&str; 3] = ["age-secret-key-", "age-plugin-", "private key-----"];
    let lower = text.to_ascii_lowercase();
    let at = MARKS.iter().filter_map(|mark| lower.find(mark)).min()?;
    Some(Position::of(text, at))
}
