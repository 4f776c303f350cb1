//! Encryption and decryption of the symmetric objects of a domain: index, cache, record, state.

use bytes::Bytes;

use super::container::{ContainerError, ContainerKey, Sealer, open as open_container};
use super::ids::{NameId, ObjectHash};
use super::layout::{EpochPath, ObjectClass};
use super::{derive::DomainKey, object::SealedObject};

/// Encrypts `plaintext` as an object of `class` in `domain`.
pub(super) fn seal(
    path: &EpochPath,
    domain: NameId,
    key: &DomainKey,
    class: ObjectClass,
    plaintext: &[u8],
) -> Result<SealedObject, ContainerError> {
    let (bytes, hash) = encrypt(key, class, plaintext)?;
    Ok(SealedObject::new(path.in_domain(domain, class, hash), bytes, hash))
}

/// Encrypts `plaintext` for `class`. Returns the age file and its hash.
pub(super) fn encrypt(
    key: &DomainKey,
    class: ObjectClass,
    plaintext: &[u8],
) -> Result<(Bytes, ObjectHash), ContainerError> {
    let passphrase = key.passphrase(class).ok_or(ContainerError::NotAKey)?;
    let mut sealer = Sealer::with_passphrase(&passphrase, plaintext.len())?;
    sealer.write(plaintext)?;
    sealer.finish()
}

/// Decrypts an object of `class` of at most `limit` bytes of plaintext.
pub(super) fn open(
    sealed: &[u8],
    key: &DomainKey,
    class: ObjectClass,
    limit: u64,
) -> Result<Vec<u8>, ContainerError> {
    let passphrase = key.passphrase(class).ok_or(ContainerError::NotAKey)?;
    open_container(sealed, &ContainerKey::Passphrase(&passphrase), limit)
}

/// Appends counts as little-endian `u32`.
pub(super) fn put_counts(out: &mut Vec<u8>, counts: &[usize]) {
    for &count in counts {
        out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
    }
}

/// Removes and returns the first `N` bytes.
pub(super) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

/// Removes and returns a little-endian `u32` from the front.
pub(super) fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    take(rest).map(u32::from_le_bytes)
}

/// Removes and returns a little-endian `u64` from the front.
pub(super) fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    take(rest).map(u64::from_le_bytes)
}
