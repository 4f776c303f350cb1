//! Wraps: an epoch's keys, encrypted to one owner.
//!
//! The plaintext is an age identity file, so that stock age opens packs with it:
//!
//! ```text
//! # kbak epoch <epoch>
//! # kbak-epoch-secret: <64 hex>
//! AGE-SECRET-KEY-1…
//! ```
//!
//! `age -d -i owner.key WRAP > epoch.key; age -d -i epoch.key PACK`. A wrap is authentic if and only
//! if the key inside gives the epoch's recipient and the secret gives its commitment. Its author does
//! not matter, so owners can be added later, from outside, without the writer.

use std::io::{Read, Write};

use age::armor::{ArmoredReader, ArmoredWriter, Format};
use age::secrecy::ExposeSecret;
use zeroize::Zeroizing;

use super::derive::{EpochSecret, SecretKey};
use super::ids::{EpochId, ObjectHash, from_hex, to_hex};
use super::{container::DataIdentity, epoch::Epoch, layout::EpochPath, object::SealedObject};
use crate::report::text::opaque_debug;

/// The longest wrap, in bytes, in either form. Hardware keys and post-quantum ones need some KiB.
pub const MAX_WRAP: u64 = 16 << 10;

const SECRET_LINE: &str = "# kbak-epoch-secret: ";

/// The reason that a wrap was not made or opened.
#[derive(Debug, thiserror::Error)]
pub enum WrapError {
    /// It is encrypted to none of the identities.
    #[error("none of the identities opens it")]
    WrongIdentity,
    /// The identity fits, but could not be used: a plugin failed, a prompt was not answered.
    #[error("the identity could not be used")]
    Identity(#[source] age::DecryptError),
    /// Not an age file, or a changed one.
    #[error("it is damaged")]
    Damaged(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Armor that differs from the form that age writes.
    #[error("its armor is not in canonical form")]
    Armor,
    /// The content is not an epoch's keys. The message does not show it.
    #[error("its content is not the keys of an epoch")]
    Content,
    /// The keys inside are those of another epoch.
    #[error("the keys inside are not those of epoch {0}: it was replaced")]
    BelongsElsewhere(EpochId),
    /// The recipient refused to encrypt.
    #[error("cannot encrypt to this owner")]
    Seal(#[source] age::EncryptError),
}

/// The private half of an epoch's key pair, and its secret. A writer holds them only while it creates
/// the epoch. They are wiped when dropped.
#[derive(Clone)]
pub struct EpochKeys {
    /// The identity that opens packs and bodies.
    pub identity: DataIdentity,
    /// The root of the epoch's key derivations.
    pub secret: EpochSecret,
}

impl EpochKeys {
    /// Returns the text of the identity file.
    pub fn to_text(&self, epoch: EpochId) -> Zeroizing<String> {
        let secret = Zeroizing::new(to_hex(self.secret.0.expose()));
        let identity = self.identity.expose();
        Zeroizing::new(format!(
            "# kbak epoch {epoch}\n{SECRET_LINE}{}\n{}\n",
            secret.as_str(),
            identity.expose_secret()
        ))
    }

    /// Reads an identity file of an epoch: exactly one secret and one key. Other comments are ignored.
    pub fn parse(text: &str) -> Result<Self, WrapError> {
        let (mut secret, mut identity) = (None, None);
        for line in text.lines() {
            if let Some(hex) = line.strip_prefix(SECRET_LINE) {
                let bytes = from_hex::<32>(hex).map_err(|_| WrapError::Content)?;
                if secret.replace(EpochSecret(SecretKey::new(bytes))).is_some() {
                    return Err(WrapError::Content);
                }
            } else if !line.is_empty() && !line.starts_with('#') {
                let key = line.parse::<DataIdentity>().map_err(|_| WrapError::Content)?;
                if identity.replace(key).is_some() {
                    return Err(WrapError::Content);
                }
            }
        }
        match (identity, secret) {
            (Some(identity), Some(secret)) => Ok(Self { identity, secret }),
            _ => Err(WrapError::Content),
        }
    }

    /// Returns `true` if these are the keys of `epoch`.
    pub fn belong_to(&self, epoch: &Epoch) -> bool {
        self.identity.recipient().to_string() == epoch.recipient
            && self.secret.commitment() == epoch.commitment.0
    }

    /// Encrypts the keys to an owner, in armor, for epoch.json.
    pub fn wrap_inline(&self, epoch: EpochId, owner: &dyn age::Recipient) -> Result<String, WrapError> {
        let sealed = encrypt(self.to_text(epoch).as_bytes(), owner)?;
        armor(&sealed).ok_or(WrapError::Armor)
    }

    /// Encrypts the keys to an owner that is added later, as an object of its own.
    pub fn wrap_object(
        &self,
        path: &EpochPath,
        owner: &dyn age::Recipient,
    ) -> Result<SealedObject, WrapError> {
        let sealed = encrypt(self.to_text(path.epoch).as_bytes(), owner)?;
        let hash = ObjectHash::of(&sealed);
        Ok(SealedObject::new(path.wrap(hash), sealed.into(), hash))
    }
}

opaque_debug!(EpochKeys: "EpochKeys(…)");

/// Decrypts a wrap, armored or not, and proves that the keys are those of `epoch`.
pub fn open(wrap: &[u8], identities: &[&dyn age::Identity], epoch: &Epoch) -> Result<EpochKeys, WrapError> {
    let keys = EpochKeys::parse(&open_text(wrap, identities)?)?;
    if keys.belong_to(epoch) { Ok(keys) } else { Err(WrapError::BelongsElsewhere(epoch.epoch)) }
}

/// Decrypts a short text that is encrypted to an owner, at most [`MAX_WRAP`] bytes.
pub fn open_text(sealed: &[u8], identities: &[&dyn age::Identity]) -> Result<Zeroizing<String>, WrapError> {
    let damaged = |error: std::io::Error| WrapError::Damaged(error.into());
    if sealed.len() as u64 > MAX_WRAP {
        return Err(WrapError::Damaged("it is too long".into()));
    }
    let binary = if sealed.starts_with(b"-----") { unarmor(sealed)? } else { sealed.to_vec() };
    let decryptor = age::Decryptor::new(binary.as_slice()).map_err(|e| WrapError::Damaged(e.into()))?;
    let mut reader = decryptor.decrypt(identities.iter().copied()).map_err(|error| match error {
        age::DecryptError::NoMatchingKeys => WrapError::WrongIdentity,
        age::DecryptError::InvalidHeader
        | age::DecryptError::InvalidMac
        | age::DecryptError::UnknownFormat
        | age::DecryptError::DecryptionFailed => WrapError::Damaged(error.into()),
        other => WrapError::Identity(other),
    })?;
    let mut plaintext = Zeroizing::new(Vec::with_capacity(sealed.len()));
    reader.read_to_end(&mut plaintext).map_err(damaged)?;
    match String::from_utf8(std::mem::take(&mut *plaintext)) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(error) => {
            drop(Zeroizing::new(error.into_bytes()));
            Err(WrapError::Content)
        }
    }
}

/// Encrypts a short text to one owner.
pub fn encrypt(plaintext: &[u8], owner: &dyn age::Recipient) -> Result<Vec<u8>, WrapError> {
    let encryptor = age::Encryptor::with_recipients(std::iter::once(owner)).map_err(WrapError::Seal)?;
    let mut sealed = Vec::new();
    let write = || {
        let mut writer = encryptor.wrap_output(&mut sealed)?;
        writer.write_all(plaintext)?;
        writer.finish().map(|_| ())
    };
    write().map_err(|error: std::io::Error| WrapError::Damaged(error.into()))?;
    Ok(sealed)
}

/// Returns age's armor of `binary`: 64 columns, LF, a final newline.
pub fn armor(binary: &[u8]) -> Option<String> {
    let mut writer = ArmoredWriter::wrap_output(Vec::new(), Format::AsciiArmor).ok()?;
    writer.write_all(binary).ok()?;
    String::from_utf8(writer.finish().ok()?).ok()
}

/// Decodes age's armor. Only the spelling of [`armor`] is accepted.
pub fn unarmor(text: &[u8]) -> Result<Vec<u8>, WrapError> {
    let mut binary = Vec::new();
    ArmoredReader::new(text).read_to_end(&mut binary).map_err(|error| WrapError::Damaged(error.into()))?;
    if armor(&binary).is_some_and(|again| again.as_bytes() == text) {
        Ok(binary)
    } else {
        Err(WrapError::Armor)
    }
}
