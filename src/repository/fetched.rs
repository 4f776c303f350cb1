//! Reads objects that are named by the hash of their content, and checks them against their name.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::format::{ids::ObjectHash, layout::ObjectKey};
use crate::store::{Store, StoreError, StoreErrorKind};

/// The bytes of a large object that are held at once while it is hashed.
const STEP: u64 = 8 << 20;

/// The result of reading an object by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched<T> {
    /// The object with the content that its name states.
    Valid(T),
    /// There is no object.
    Missing,
    /// Another content, an object longer than such an object can be, or not an object at all.
    Corrupt,
}

/// Reads an object of at most `limit` bytes and compares its SHA-256 with `hash`. Fails if the store cannot
/// be read.
pub async fn get(
    store: &Arc<dyn Store>,
    key: &ObjectKey,
    hash: ObjectHash,
    limit: u64,
) -> Result<Fetched<Bytes>, StoreError> {
    Ok(match absent(store.get(key, limit).await)? {
        Fetched::Valid(bytes) if ObjectHash::of(&bytes) != hash => Fetched::Corrupt,
        named => named,
    })
}

/// Compares the SHA-256 of an object of `size` bytes with `hash`. Hashes large objects in steps. Fails as
/// [`get`] does.
pub async fn check(
    store: &Arc<dyn Store>,
    key: &ObjectKey,
    hash: ObjectHash,
    size: u64,
) -> Result<Fetched<()>, StoreError> {
    if size <= STEP {
        return Ok(match get(store, key, hash, size).await? {
            Fetched::Valid(_) => Fetched::Valid(()),
            Fetched::Missing => Fetched::Missing,
            Fetched::Corrupt => Fetched::Corrupt,
        });
    }
    let mut hasher = Sha256::new();
    let mut at = 0;
    while at < size {
        let bytes = match absent(store.get_range(key, at..(at + STEP).min(size)).await)? {
            Fetched::Valid(bytes) if !bytes.is_empty() => bytes,
            Fetched::Valid(_) | Fetched::Corrupt => return Ok(Fetched::Corrupt),
            Fetched::Missing => return Ok(Fetched::Missing),
        };
        hasher.update(&bytes);
        at += bytes.len() as u64;
    }
    let found = ObjectHash(hasher.finalize().into());
    Ok(if found == hash { Fetched::Valid(()) } else { Fetched::Corrupt })
}

fn absent<T>(read: Result<T, StoreError>) -> Result<Fetched<T>, StoreError> {
    match read {
        Ok(value) => Ok(Fetched::Valid(value)),
        Err(StoreError { kind: StoreErrorKind::NotFound, .. }) => Ok(Fetched::Missing),
        Err(StoreError { kind: StoreErrorKind::TooLarge { .. } | StoreErrorKind::NotAFile, .. }) => {
            Ok(Fetched::Corrupt)
        }
        Err(error) => Err(error),
    }
}
