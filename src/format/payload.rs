//! The payload of an age file: ChaCha20-Poly1305 in blocks of 64 KiB (age-encryption.org/v1, "Payload").
//!
//! The age crate makes and reads headers, and with them the keys of payloads. Blocks are encrypted and decrypted
//! here, where they lie, by the library that TLS uses too: age copies each of them twice and clears it byte by byte,
//! which took a tenth of a restore.

use std::cell::RefCell;
use std::collections::HashSet;

use age::{DecryptError, EncryptError};
use age_core::format::{FILE_KEY_BYTES, FileKey, Stanza};
use age_core::primitives::hkdf;
use age_core::secrecy::ExposeSecret as _;
use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

/// The plaintext of one block, in bytes.
pub(super) const BLOCK: usize = 64 << 10;
/// The tag that follows each block, in bytes.
pub(super) const TAG: usize = 16;
/// The salt of the payload's key, between the header and the first block, in bytes.
pub(super) const SALT: usize = 16;

/// The error for a payload that is not whole, not authentic, or too long for its blocks to be numbered.
#[derive(Debug, thiserror::Error)]
#[error("a block of the payload is missing, or is not authentic")]
pub(super) struct PayloadError;

/// Hands the file key of one header to a recipient or identity, and keeps it for the payload.
pub(super) struct KeepKey<'a, T: ?Sized> {
    inner: &'a T,
    file_key: RefCell<Option<Zeroizing<[u8; FILE_KEY_BYTES]>>>,
}

impl<'a, T: ?Sized> KeepKey<'a, T> {
    pub(super) fn new(inner: &'a T) -> Self {
        Self { inner, file_key: RefCell::new(None) }
    }

    fn keep(&self, file_key: &FileKey) {
        *self.file_key.borrow_mut() = Some(Zeroizing::new(*file_key.expose_secret()));
    }

    /// Returns the cipher of the payload that follows `salt`; `None` if no header was made or read.
    pub(super) fn into_blocks(self, salt: &[u8]) -> Option<BlockCipher> {
        let file_key = self.file_key.into_inner()?;
        let key = Zeroizing::new(hkdf(salt, b"payload", &file_key[..]));
        let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &key[..]).ok()?);
        Some(BlockCipher { key, number: Some(0) })
    }
}

impl age::Recipient for KeepKey<'_, dyn age::Recipient + '_> {
    fn wrap_file_key(&self, file_key: &FileKey) -> Result<(Vec<Stanza>, HashSet<String>), EncryptError> {
        self.keep(file_key);
        self.inner.wrap_file_key(file_key)
    }
}

impl age::Identity for KeepKey<'_, dyn age::Identity + '_> {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        let unwrapped = self.inner.unwrap_stanza(stanza)?;
        Some(unwrapped.inspect(|file_key| self.keep(file_key)))
    }
}

/// Encrypts or decrypts the blocks of one payload, in order.
pub(super) struct BlockCipher {
    key: LessSafeKey,
    /// The number of the next block; `None` after the last.
    number: Option<u64>,
}

impl BlockCipher {
    /// Returns the next nonce: the block's number in 11 bytes, then 1 if it is the last one.
    fn next(&mut self, is_last: bool) -> Result<Nonce, PayloadError> {
        let number = self.number.take().ok_or(PayloadError)?;
        if !is_last {
            self.number = Some(number.checked_add(1).ok_or(PayloadError)?);
        }
        let mut nonce = [0; NONCE_LEN];
        nonce[3..11].copy_from_slice(&number.to_be_bytes());
        nonce[11] = u8::from(is_last);
        Ok(Nonce::assume_unique_for_key(nonce))
    }

    /// Encrypts the bytes from `start` on as the next block, and appends its tag.
    pub(super) fn seal(
        &mut self,
        bytes: &mut Vec<u8>,
        start: usize,
        is_last: bool,
    ) -> Result<(), PayloadError> {
        let nonce = self.next(is_last)?;
        let block = &mut bytes[start..];
        let tag =
            self.key.seal_in_place_separate_tag(nonce, Aad::empty(), block).map_err(|_| PayloadError)?;
        bytes.extend_from_slice(tag.as_ref());
        Ok(())
    }

    /// Decrypts the next block and appends its plaintext to `out`. After an error `out` holds nothing of use.
    fn open(&mut self, block: &[u8], is_last: bool, out: &mut Vec<u8>) -> Result<(), PayloadError> {
        let is_first = self.number == Some(0);
        let nonce = self.next(is_last)?;
        let length = block.len().checked_sub(TAG).ok_or(PayloadError)?;
        if length == 0 && !is_first {
            return Err(PayloadError);
        }
        let start = out.len();
        out.extend_from_slice(block);
        self.key.open_in_place(nonce, Aad::empty(), &mut out[start..]).map_err(|_| PayloadError)?;
        out.truncate(start + length);
        Ok(())
    }

    /// Decrypts a whole payload, and stops when `out` holds more than `limit` bytes.
    pub(super) fn open_all(
        mut self,
        mut payload: &[u8],
        limit: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), PayloadError> {
        loop {
            let (block, rest) = payload.split_at(payload.len().min(BLOCK + TAG));
            self.open(block, rest.is_empty(), out)?;
            if rest.is_empty() || out.len() as u64 > limit {
                return Ok(());
            }
            payload = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;
    use crate::format::container::{ContainerKey, DataIdentity, Sealer, open};

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
    }

    fn seal(identity: &DataIdentity, plaintext: &[u8]) -> Vec<u8> {
        let mut sealer = Sealer::to_recipient(&identity.recipient(), plaintext.len()).unwrap();
        // In parts that do not end where blocks do.
        plaintext.chunks(50_000).for_each(|part| sealer.write(part).unwrap());
        sealer.finish().unwrap().0.to_vec()
    }

    fn of_age(identity: &DataIdentity) -> age::x25519::Identity {
        identity.expose().expose_secret().parse().unwrap()
    }

    fn open_with_age(identity: &DataIdentity, sealed: &[u8]) -> Vec<u8> {
        let (identity, mut plaintext) = (of_age(identity), Vec::new());
        let identity: &dyn age::Identity = &identity;
        let reader = age::Decryptor::new(sealed).unwrap().decrypt(std::iter::once(identity));
        reader.unwrap().read_to_end(&mut plaintext).unwrap();
        plaintext
    }

    fn seal_with_age(identity: &DataIdentity, plaintext: &[u8]) -> Vec<u8> {
        let (recipient, mut sealed) = (of_age(identity).to_public(), Vec::new());
        let recipient: &dyn age::Recipient = &recipient;
        let encryptor = age::Encryptor::with_recipients(std::iter::once(recipient)).unwrap();
        let mut writer = encryptor.wrap_output(&mut sealed).unwrap();
        writer.write_all(plaintext).unwrap();
        writer.finish().unwrap();
        sealed
    }

    #[test]
    fn payloads_are_those_of_the_age_crate() {
        let identity = DataIdentity::generate();
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 5] {
            let plaintext = bytes(length);
            assert_eq!(open_with_age(&identity, &seal(&identity, &plaintext)), plaintext, "{length}");
            let sealed = seal_with_age(&identity, &plaintext);
            let opened = open(&sealed, &ContainerKey::Identity(&identity), length as u64);
            assert_eq!(opened.unwrap(), plaintext, "{length}");
        }
    }

    #[test]
    fn truncated_and_rearranged_payloads_are_rejected() {
        let identity = DataIdentity::generate();
        let sealed = seal(&identity, &bytes(3 * BLOCK));
        let refused = |sealed: &[u8]| open(sealed, &ContainerKey::Identity(&identity), u64::MAX - 1).is_err();
        assert!(!refused(&sealed));
        let block = BLOCK + TAG;
        let header = sealed.len() - 3 * block;
        for length in [header, header + TAG, header + block, header + 2 * block, sealed.len() - 1] {
            assert!(refused(&sealed[..length]), "{length}");
        }
        let mut longer = sealed.clone();
        longer.extend_from_slice(&[0; TAG]);
        assert!(refused(&longer));
        let (first, second) = (header..header + block, header + block..header + 2 * block);
        let swapped =
            [&sealed[..header], &sealed[second.clone()], &sealed[first], &sealed[second.end..]].concat();
        assert!(refused(&swapped));
        let mut changed = sealed;
        changed[header + 5] ^= 1;
        assert!(refused(&changed));
    }

    #[test]
    fn empty_block_after_others_is_rejected() {
        let identity = DataIdentity::generate();
        let recipient = identity.recipient();
        let mut sealer = Sealer::to_recipient(&recipient, BLOCK).unwrap();
        sealer.write(&bytes(BLOCK)).unwrap();
        sealer.seal_block(false).unwrap();
        let sealed = sealer.finish().unwrap().0;
        assert!(open(&sealed, &ContainerKey::Identity(&identity), BLOCK as u64).is_err());
    }
}
