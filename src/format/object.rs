//! [`SealedObject`]: the only type of value that can be written to a store, made only in `format`.

use std::fmt;

use bytes::Bytes;

use super::{ids::ObjectHash, layout::ObjectKey};

/// An object in its stored form, with its key and its SHA-256.
///
/// Its constructor is private to `format`: only encrypted containers, signed documents, pack reference
/// lists, the marker and the probe become `SealedObject`, and [`crate::store::Store::put`] takes nothing
/// else. So plaintext cannot reach a store.
#[derive(Clone)]
pub struct SealedObject {
    key: ObjectKey,
    bytes: Bytes,
    hash: ObjectHash,
}

impl SealedObject {
    pub(crate) fn new(key: ObjectKey, bytes: Bytes, hash: ObjectHash) -> Self {
        Self { key, bytes, hash }
    }

    /// Creates a probe: random bytes under the writer's probe prefix, stored unencrypted.
    #[must_use]
    pub fn probe(writer: super::ids::WriterId, random: [u8; 32]) -> Self {
        let key = super::layout::probe(writer, &random[..16]);
        Self::new(key, Bytes::copy_from_slice(&random), ObjectHash::of(&random))
    }

    /// Returns the key of the object.
    pub fn key(&self) -> &ObjectKey {
        &self.key
    }

    /// Returns the bytes to store.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Returns the bytes, and drops the rest.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Returns the SHA-256 of the bytes.
    pub fn hash(&self) -> ObjectHash {
        self.hash
    }
}

impl fmt::Debug for SealedObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedObject({}, {} B)", self.key, self.bytes.len())
    }
}
