//! Keys of objects that a pinned key signed: each ends in the hash of its object and a signature over the
//! key before it. So a listing alone discards what nobody signed, however much of it there is.
//!
//! ```text
//! signature = Ed25519( "kbak v1 key" ‖ 0 ‖ key up to the last hyphen )
//! ```
//!
//! The signature of a key proves no content: every document has one of its own, for its own namespace.

use super::ids::ObjectHash;
use super::layout::{self, ObjectKey, SignedParts, UnsignedKey};
use super::namespace::Namespace;
use super::signers::Signers;
use super::signing_key::{KeyError, PublicKey, SigningKey};

/// The start of what the signature of a key covers. No SSHSIG begins with it.
const CONTEXT: &[u8] = b"kbak v1 key\0";

impl SigningKey {
    /// Signs the key of an object.
    pub fn sign_key(&self, key: UnsignedKey) -> Result<ObjectKey, KeyError> {
        let signature = self.sign_bytes(&message(&key))?;
        Ok(key.with(&signature))
    }
}

impl Signers {
    /// Returns the hash in `key` and its signer, if that is pinned for `principal` and `namespace`.
    #[must_use]
    pub fn signed_hash(
        &self,
        principal: &str,
        namespace: Namespace,
        key: &ObjectKey,
    ) -> Option<(ObjectHash, PublicKey)> {
        let SignedParts { unsigned, hash, signature } = layout::split_signature(key)?;
        let message = message(&unsigned);
        let signer =
            self.lookup(principal, namespace).find(|pinned| pinned.verifies(&message, &signature))?;
        Some((hash, signer))
    }
}

fn message(key: &UnsignedKey) -> Vec<u8> {
    [CONTEXT, key.as_str().as_bytes()].concat()
}
