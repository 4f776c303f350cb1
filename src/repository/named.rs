//! Objects that are named by the hash of their content: read, and checked against their name.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::format::ids::ObjectHash;
use crate::format::layout::ObjectKey;
use crate::store::{Store, StoreError, StoreErrorKind};

/// How much of a large object is held while it is hashed, in bytes.
const STEP: u64 = 8 << 20;

/// What lies under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named<T> {
    /// What the name promises.
    Is(T),
    /// Nothing.
    Missing,
    /// Something else, something longer than such an object can be, or no object at all.
    Altered,
}

/// Reads an object of at most `limit` bytes whose SHA-256 is `hash`.
///
/// # Errors
/// When the store cannot say what lies there.
pub async fn get(
    store: &Arc<dyn Store>,
    key: &ObjectKey,
    hash: ObjectHash,
    limit: u64,
) -> Result<Named<Bytes>, StoreError> {
    Ok(match absent(store.get(key, limit).await)? {
        Named::Is(bytes) if ObjectHash::of(&bytes) != hash => Named::Altered,
        named => named,
    })
}

/// Hashes an object of `size` bytes, however large, without holding it, and compares.
///
/// # Errors
/// As [`get`].
pub async fn check(
    store: &Arc<dyn Store>,
    key: &ObjectKey,
    hash: ObjectHash,
    size: u64,
) -> Result<Named<()>, StoreError> {
    if size <= STEP {
        return Ok(match get(store, key, hash, size).await? {
            Named::Is(_) => Named::Is(()),
            Named::Missing => Named::Missing,
            Named::Altered => Named::Altered,
        });
    }
    let mut hasher = Sha256::new();
    let mut at = 0;
    while at < size {
        let bytes = match absent(store.get_range(key, at..(at + STEP).min(size)).await)? {
            Named::Is(bytes) if !bytes.is_empty() => bytes,
            Named::Is(_) | Named::Altered => return Ok(Named::Altered),
            Named::Missing => return Ok(Named::Missing),
        };
        hasher.update(&bytes);
        at += bytes.len() as u64;
    }
    let found = ObjectHash(hasher.finalize().into());
    Ok(if found == hash { Named::Is(()) } else { Named::Altered })
}

fn absent<T>(read: Result<T, StoreError>) -> Result<Named<T>, StoreError> {
    match read {
        Ok(value) => Ok(Named::Is(value)),
        Err(StoreError { kind: StoreErrorKind::NotFound, .. }) => Ok(Named::Missing),
        Err(StoreError { kind: StoreErrorKind::TooLarge { .. } | StoreErrorKind::NotAFile, .. }) => {
            Ok(Named::Altered)
        }
        Err(error) => Err(error),
    }
}
