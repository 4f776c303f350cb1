//! Containers: standard age files (age-encryption.org/v1), of two kinds.
//!
//! Packs and bodies are encrypted to the epoch's X25519 recipient: the writer cannot read them again. Index,
//! scan cache, state and records are symmetric: one scrypt stanza whose passphrase is a derived key in hex,
//! work factor 1, so that only holders of the domain's key can make or read them. `age -d` reads both.
//!
//! age does not authenticate the sender. Authenticity comes from the object name in a signed
//! manifest and from the id of each chunk.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::str::FromStr;

use age::secrecy::{ExposeSecret, SecretString};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::payload::{self, BlockCipher, KeepKey, PayloadError};
use super::{derive::Passphrase, derived_passphrase::DerivedPassphrase, ids::ObjectHash};
use crate::report::text::opaque_debug;

/// The plaintext of one encrypted block of an age payload, in bytes.
const BLOCK: u64 = payload::BLOCK as u64;
/// The length of the same block with its tag, in bytes.
const SEALED_BLOCK: u64 = BLOCK + payload::TAG as u64;
/// The most bytes that the header and nonce of a container take; a reader looks no further.
pub const MAX_HEADER: u64 = 4096;

/// The reason that a container was not made or opened.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// The identity or passphrase is not the one it was encrypted to.
    #[error("it is not encrypted to this key")]
    WrongKey,
    /// Not an age file, a truncated one, or one whose bytes were changed.
    #[error("it is damaged")]
    Damaged(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The plaintext is longer than the reader allows.
    #[error("its content is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// Text that is not an X25519 recipient or identity.
    #[error("it is not an age X25519 key")]
    NotAKey,
}

fn damaged(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ContainerError {
    ContainerError::Damaged(error.into())
}

/// The public half of an epoch: packs and bodies are encrypted to it.
#[derive(Clone)]
pub struct DataRecipient(age::x25519::Recipient);

impl FromStr for DataRecipient {
    type Err = ContainerError;
    fn from_str(text: &str) -> Result<Self, ContainerError> {
        let recipient: age::x25519::Recipient = text.parse().map_err(|_| ContainerError::NotAKey)?;
        // Each key has one accepted spelling.
        if recipient.to_string() == text { Ok(Self(recipient)) } else { Err(ContainerError::NotAKey) }
    }
}

impl fmt::Display for DataRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for DataRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataRecipient({self})")
    }
}

/// The private half of an epoch. Held only to create an epoch, and to restore.
#[derive(Clone)]
pub struct DataIdentity(age::x25519::Identity);

impl DataIdentity {
    /// Generates an identity from the operating system's randomness; `age` takes no other source.
    #[must_use]
    pub fn generate() -> Self {
        Self(age::x25519::Identity::generate())
    }

    /// Returns the public half.
    pub fn recipient(&self) -> DataRecipient {
        DataRecipient(self.0.to_public())
    }

    /// Returns `AGE-SECRET-KEY-1…`, to be put into a wrap.
    pub fn expose(&self) -> SecretString {
        self.0.to_string()
    }
}

impl FromStr for DataIdentity {
    type Err = ContainerError;
    fn from_str(text: &str) -> Result<Self, ContainerError> {
        let identity: age::x25519::Identity = text.parse().map_err(|_| ContainerError::NotAKey)?;
        let is_canonical = identity.to_string().expose_secret() == text;
        if is_canonical { Ok(Self(identity)) } else { Err(ContainerError::NotAKey) }
    }
}

opaque_debug!(DataIdentity: "DataIdentity(…)");

/// Returns the bytes that a container of `length` plaintext bytes takes at most, with tags, header and nonce.
/// A buffer of this capacity does not grow.
#[must_use]
pub fn sealed_capacity(length: usize) -> usize {
    length + length / 2048 + 4096
}

/// Encrypts data as it is written; holds at most one block of plaintext.
pub struct Sealer {
    bytes: Vec<u8>,
    /// The SHA-256 of the bytes before the open block.
    hash: Sha256,
    /// The start of the open block.
    open: usize,
    blocks: BlockCipher,
}

impl Sealer {
    /// Starts a container for an epoch. `length` is the expected length of the plaintext, in bytes.
    pub fn to_recipient(recipient: &DataRecipient, length: usize) -> Result<Self, ContainerError> {
        Self::start(&recipient.0, Vec::with_capacity(sealed_capacity(length)))
    }

    /// Starts a container for an epoch in `buffer`, whose content it replaces.
    pub fn to_recipient_in(recipient: &DataRecipient, mut buffer: Vec<u8>) -> Result<Self, ContainerError> {
        buffer.clear();
        Self::start(&recipient.0, buffer)
    }

    /// Starts a container under a passphrase derived from a domain's key.
    pub fn with_passphrase(passphrase: &Passphrase, length: usize) -> Result<Self, ContainerError> {
        Self::start(&DerivedPassphrase(passphrase), Vec::with_capacity(sealed_capacity(length)))
    }

    fn start(recipient: &dyn age::Recipient, mut bytes: Vec<u8>) -> Result<Self, ContainerError> {
        let recipient = KeepKey::new(recipient);
        let one: &dyn age::Recipient = &recipient;
        let encryptor = age::Encryptor::with_recipients(std::iter::once(one)).map_err(damaged)?;
        // Writes the header and the salt. The writer of age would add blocks, and is dropped.
        drop(encryptor.wrap_output(&mut bytes).map_err(damaged)?);
        let salt = bytes.last_chunk::<{ payload::SALT }>().ok_or_else(|| damaged(PayloadError))?;
        let blocks = recipient.into_blocks(salt).ok_or_else(|| damaged(PayloadError))?;
        let mut hash = Sha256::new();
        hash.update(&bytes);
        Ok(Self { open: bytes.len(), bytes, hash, blocks })
    }

    /// Adds plaintext.
    pub fn write(&mut self, mut plaintext: &[u8]) -> Result<(), ContainerError> {
        while !plaintext.is_empty() {
            // The last block must be known as such, so a full one is encrypted when more follows.
            if self.bytes.len() - self.open == payload::BLOCK {
                self.seal_block(false)?;
            }
            let room = payload::BLOCK - (self.bytes.len() - self.open);
            let (now, later) = plaintext.split_at(room.min(plaintext.len()));
            self.bytes.extend_from_slice(now);
            plaintext = later;
        }
        Ok(())
    }

    pub(super) fn seal_block(&mut self, is_last: bool) -> Result<(), ContainerError> {
        self.blocks.seal(&mut self.bytes, self.open, is_last).map_err(damaged)?;
        self.hash.update(&self.bytes[self.open..]);
        self.open = self.bytes.len();
        Ok(())
    }

    /// Finishes the file. Returns its bytes and their SHA-256.
    pub fn finish(mut self) -> Result<(Bytes, ObjectHash), ContainerError> {
        self.seal_block(true)?;
        Ok((Bytes::from(self.bytes), ObjectHash(self.hash.finalize().into())))
    }
}

opaque_debug!(Sealer: "Sealer");

/// The key that opens a container.
pub enum ContainerKey<'a> {
    /// The private half of an epoch.
    Identity(&'a DataIdentity),
    /// A derived passphrase.
    Passphrase(&'a Passphrase),
}

/// Decrypts a container of at most `limit` plaintext bytes; none is returned before all are authenticated.
pub fn open(sealed: &[u8], key: &ContainerKey<'_>, limit: u64) -> Result<Vec<u8>, ContainerError> {
    let mut plaintext = Vec::with_capacity(usize::try_from(limit.min(sealed.len() as u64)).unwrap_or(0));
    open_into(sealed, key, limit, &mut plaintext)?;
    Ok(plaintext)
}

/// Decrypts a container as [`open`] does, into `plaintext`, which is empty. After an error its content is of
/// no use.
pub fn open_into(
    sealed: &[u8],
    key: &ContainerKey<'_>,
    limit: u64,
    plaintext: &mut Vec<u8>,
) -> Result<(), ContainerError> {
    let mut rest = sealed;
    let blocks = match key {
        ContainerKey::Identity(identity) => read_header(&mut rest, sealed, &identity.0)?,
        ContainerKey::Passphrase(passphrase) => {
            read_header(&mut rest, sealed, &DerivedPassphrase(passphrase))?
        }
    };
    blocks.open_all(rest, limit, plaintext).map_err(damaged)?;
    if plaintext.len() as u64 > limit {
        return Err(ContainerError::TooLarge { limit });
    }
    Ok(())
}

/// Reads the header from the front of `rest`, which begins as `sealed`. Returns the cipher of the blocks.
fn read_header(
    rest: &mut &[u8],
    sealed: &[u8],
    identity: &dyn age::Identity,
) -> Result<BlockCipher, ContainerError> {
    let identity = KeepKey::new(identity);
    decrypt(&mut *rest, &identity)?;
    let header = &sealed[..sealed.len() - rest.len()];
    let salt = header.last_chunk::<{ payload::SALT }>().ok_or_else(|| damaged(PayloadError))?;
    identity.into_blocks(salt).ok_or(ContainerError::WrongKey)
}

fn decrypt<R: Read>(
    input: R,
    identity: &dyn age::Identity,
) -> Result<age::stream::StreamReader<R>, ContainerError> {
    let decryptor = age::Decryptor::new(input).map_err(damaged)?;
    decryptor.decrypt(std::iter::once(identity)).map_err(|error| match error {
        age::DecryptError::NoMatchingKeys
        | age::DecryptError::KeyDecryptionFailed
        | age::DecryptError::DecryptionFailed => ContainerError::WrongKey,
        other => damaged(other),
    })
}

/// The header and nonce of a container, read from its first bytes. They locate its blocks.
#[derive(Debug, Clone)]
pub struct ContainerHead {
    bytes: Bytes,
    payload: u64,
}

impl ContainerHead {
    /// Reads the head from the first bytes of an object, at most [`MAX_HEADER`] of them. Returns `None` if
    /// the header does not end there.
    #[must_use]
    pub fn parse(first: &Bytes) -> Option<Self> {
        let window = &first[..first.len().min(usize::try_from(MAX_HEADER).unwrap_or(usize::MAX))];
        // The header ends with `--- ` and a MAC in 43 base64 characters (age v1), then 16 bytes of nonce.
        let mac = memchr::memmem::find(window, b"\n--- ")? + 1;
        let end = mac + memchr::memchr(b'\n', &window[mac..])? + 1 + 16;
        (end <= window.len()).then(|| Self { bytes: first.slice(..end), payload: end as u64 })
    }

    /// Returns the range of the object that contains plaintext `start..end`, in whole blocks, at most up
    /// to `size`, the object's length.
    pub fn sealed_range(&self, start: u64, end: u64, size: u64) -> std::ops::Range<u64> {
        let first = self.payload + (start / BLOCK) * SEALED_BLOCK;
        let last = self.payload + end.div_ceil(BLOCK) * SEALED_BLOCK;
        first.min(size)..last.min(size)
    }

    /// Returns the length of the plaintext of an object of `size` bytes.
    pub fn plaintext_length(&self, size: u64) -> u64 {
        let sealed = size.saturating_sub(self.payload);
        sealed.saturating_sub(sealed.div_ceil(SEALED_BLOCK) * (SEALED_BLOCK - BLOCK))
    }

    /// Decrypts `take` bytes of plaintext at `start` from `blocks`, the bytes of the object at
    /// [`ContainerHead::sealed_range`]. Each block is authenticated; the chunk's id proves the rest.
    pub fn open_range(
        &self,
        identity: &DataIdentity,
        blocks: &ObjectRange,
        start: u64,
        take: usize,
    ) -> Result<Vec<u8>, ContainerError> {
        let view = SparseObject { head: &self.bytes, blocks, at: 0 };
        let mut reader = decrypt(view, &identity.0)?;
        if !start.is_multiple_of(BLOCK) {
            reader.seek(SeekFrom::Start(start)).map_err(damaged)?;
        } else if start > 0 {
            // Seeks one byte too far and one back. A seek to the first byte of a block makes `age` read
            // the object's last block, which is absent here.
            reader.seek(SeekFrom::Start(start + 1)).map_err(damaged)?;
            reader.seek(SeekFrom::Current(-1)).map_err(damaged)?;
        }
        let mut plaintext = vec![0; take];
        reader.read_exact(&mut plaintext).map_err(damaged)?;
        Ok(plaintext)
    }
}

/// A range of an object's bytes.
#[derive(Debug, Clone)]
pub struct ObjectRange {
    /// The offset of the first byte in the object.
    pub offset: u64,
    /// The bytes.
    pub bytes: Bytes,
    /// The length of the whole object, in bytes.
    pub size: u64,
}

/// An object of which only the head and some blocks are present.
struct SparseObject<'a> {
    head: &'a [u8],
    blocks: &'a ObjectRange,
    at: u64,
}

impl Read for SparseObject<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let here = if self.at < self.head.len() as u64 {
            usize::try_from(self.at).ok().and_then(|at| self.head.get(at..))
        } else {
            let within = self.at.checked_sub(self.blocks.offset).and_then(|at| usize::try_from(at).ok());
            within.and_then(|at| self.blocks.bytes.get(at..))
        };
        let Some(here) = here.filter(|here| !here.is_empty() || self.at >= self.blocks.size) else {
            return Err(io::Error::other("a part of the object that was not read"));
        };
        let count = here.len().min(buf.len());
        buf[..count].copy_from_slice(&here[..count]);
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for SparseObject<'_> {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        let target = match pos {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.blocks.size.checked_add_signed(by),
        };
        self.at = target.ok_or_else(|| io::Error::other("a seek out of the object"))?;
        Ok(self.at)
    }
}
