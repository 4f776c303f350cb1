//! Ids and hashes: fixed-size values with one canonical text form, lower-case hex.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The error for text that is not the canonical form of an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not {bytes} bytes in lower-case hex")]
pub struct IdError {
    /// The number of bytes in the id.
    pub bytes: usize,
}

/// Returns `bytes` as lower-case hex.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Reads exactly `N` bytes of lower-case hex. Upper case and other lengths are rejected, so that
/// every value has one text form (canonical parsing, docs/format.md).
pub fn from_hex<const N: usize>(text: &str) -> Result<[u8; N], IdError> {
    let error = IdError { bytes: N };
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return Err(error);
    }
    let mut bytes = [0u8; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (digit(pair[0]).ok_or_else(|| error.clone())? << 4)
            | digit(pair[1]).ok_or_else(|| error.clone())?;
    }
    Ok(bytes)
}

fn digit(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    }
}

macro_rules! hex_ids {
    ($($(#[$doc:meta])* $name:ident: $len:literal;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&to_hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                from_hex::<$len>(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}

hex_ids! {
    /// SHA-256 of a stored object: its name, and the checksum that is sent to the store.
    ObjectHash: 32;
    /// Keyed BLAKE3 of a chunk's plaintext, under the key of its domain and kind.
    ChunkId: 32;
    /// The id of a repository: random, fixed by `init`.
    RepositoryId: 16;
    /// The id of a writer: random, fixed by `init`; never a hash of a key, so that keys can rotate.
    WriterId: 16;
    /// The id of an epoch: random.
    EpochId: 16;
    /// The id of a plan, domain or item in paths and envelopes: the first 8 bytes of BLAKE3
    /// keyed with the names key, so that a name cannot be read or guessed from the store.
    NameId: 8;
    /// The id of a recipient: SHA-256 of its canonical text, without a comment. Epochs name their owners
    /// by it, so that a bucket lists no keys.
    RecipientId: 32;
    /// The commitment to an epoch's secret (K_epoch) in epoch.json.
    Commitment: 32;
}

impl RecipientId {
    /// Returns the form that people compare: `SHA256:` and the first 16 hex digits.
    pub fn short(&self) -> String {
        format!("SHA256:{}…", to_hex(&self.0[..8]))
    }
}

impl ObjectHash {
    /// Returns the hash of a whole object.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::{Digest, Sha256};
        Self(Sha256::digest(bytes).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lower_case_hex_of_the_right_length_is_accepted() {
        let id = NameId([0, 1, 2, 0xab, 0xcd, 0xef, 0xff, 0x10]);
        assert_eq!(id.to_string(), "000102abcdefff10");
        assert_eq!("000102abcdefff10".parse(), Ok(id));
        for bad in ["000102ABcdefff10", "000102abcdefff1", "000102abcdefff100", "g00102abcdefff10", ""] {
            assert!(bad.parse::<NameId>().is_err(), "{bad:?} must be refused");
        }
    }
}
