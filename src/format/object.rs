//! What may leave for a store: a [`Sealed`] object, made only by this crate's `format` module.

use std::fmt;

use bytes::Bytes;

use super::ids::ObjectHash;
use super::layout::ObjectKey;

/// An object in its stored form, with its key and its SHA-256.
///
/// Its constructor is private to `format`: only encrypted containers, signed statements, needs
/// lists and the probe become `Sealed`, and [`crate::store::Store::put`] takes nothing else. So
/// plaintext cannot reach a store.
#[derive(Clone)]
pub struct Sealed {
    key: ObjectKey,
    bytes: Bytes,
    hash: ObjectHash,
}

impl Sealed {
    pub(in crate::format) fn new(key: ObjectKey, bytes: Bytes, hash: ObjectHash) -> Self {
        Self { key, bytes, hash }
    }

    /// A probe: random bytes under the writer's probe prefix. They say nothing, so they may be
    /// stored as they are.
    #[must_use]
    pub fn probe(writer: super::ids::WriterId, random: [u8; 32]) -> Self {
        let key = super::layout::probe(writer, &random[..16]);
        Self::new(key, Bytes::copy_from_slice(&random), ObjectHash::of(&random))
    }

    /// Where it goes.
    #[must_use]
    pub fn key(&self) -> &ObjectKey {
        &self.key
    }

    /// What is stored.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// SHA-256 of what is stored.
    #[must_use]
    pub fn hash(&self) -> ObjectHash {
        self.hash
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({}, {} B)", self.key, self.bytes.len())
    }
}
