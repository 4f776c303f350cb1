//! age's scrypt stanza for passphrases that are keys, with work factor 1.
//!
//! The recipient and identity of the age crate are for people's passphrases: each measures first how fast scrypt
//! is here, which takes milliseconds. An unchanged backup opens an object for each group of the scan cache, and
//! spent a fifth of its time in that measurement (docs/performance.md).

use std::collections::HashSet;

use age::{DecryptError, EncryptError};
use age_core::format::{FILE_KEY_BYTES, FileKey, Stanza};
use age_core::primitives::{aead_decrypt, aead_encrypt};
use age_core::secrecy::ExposeSecret as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use zeroize::Zeroize as _;

use super::derive::Passphrase;
use super::ids::to_hex;

const TAG: &str = "scrypt";
const SALT_LABEL: &[u8] = b"age-encryption.org/v1/scrypt";
const SALT: usize = 16;
/// The log2 of the work factor.
const WORK_FACTOR: u8 = 1;
const WORK_FACTOR_TEXT: &str = "1";

/// Encrypts to a derived passphrase, and opens with it.
pub(super) struct DerivedPassphrase<'a>(pub(super) &'a Passphrase);

impl DerivedPassphrase<'_> {
    fn key(&self, salt: &[u8; SALT]) -> Option<[u8; 32]> {
        let params = scrypt::Params::new(WORK_FACTOR, 8, 1, 32).ok()?;
        let salt = [SALT_LABEL, salt].concat();
        let mut key = [0; 32];
        scrypt::scrypt(self.0.expose().as_bytes(), &salt, &params, &mut key).ok()?;
        Some(key)
    }
}

fn random<const N: usize>() -> Result<[u8; N], EncryptError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| EncryptError::Io(std::io::Error::other(error)))?;
    Ok(bytes)
}

impl age::Recipient for DerivedPassphrase<'_> {
    fn wrap_file_key(&self, file_key: &FileKey) -> Result<(Vec<Stanza>, HashSet<String>), EncryptError> {
        let salt = random::<SALT>()?;
        let failed = || EncryptError::Io(std::io::Error::other("scrypt refused its parameters"));
        let mut key = self.key(&salt).ok_or_else(failed)?;
        let body = aead_encrypt(&key, file_key.expose_secret());
        key.zeroize();
        let args = vec![BASE64_STANDARD_NO_PAD.encode(salt), WORK_FACTOR_TEXT.to_owned()];
        // A label that no other recipient has: the file has this one alone.
        let label = to_hex(&random::<16>()?);
        Ok((vec![Stanza { tag: TAG.to_owned(), args, body }], HashSet::from([label])))
    }
}

impl age::Identity for DerivedPassphrase<'_> {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        if stanza.tag != TAG {
            return None;
        }
        let salt = match &stanza.args[..] {
            [salt, factor] if factor == WORK_FACTOR_TEXT => BASE64_STANDARD_NO_PAD.decode(salt).ok(),
            _ => None,
        };
        let salt = salt.and_then(|salt| <[u8; SALT]>::try_from(salt).ok());
        let (Some(salt), true) = (salt, stanza.body.len() == FILE_KEY_BYTES + 16) else {
            return Some(Err(DecryptError::InvalidHeader));
        };
        let Some(mut key) = self.key(&salt) else { return Some(Err(DecryptError::InvalidHeader)) };
        let opened = aead_decrypt(&key, FILE_KEY_BYTES, &stanza.body);
        key.zeroize();
        let opened = opened.map(|mut bytes| {
            FileKey::init_with_mut(|file_key| {
                file_key.copy_from_slice(&bytes);
                bytes.zeroize();
            })
        });
        Some(opened.map_err(DecryptError::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::container::{ContainerKey, Sealer, open};
    use crate::format::derive::{DomainKey, SecretKey};
    use crate::format::layout::ObjectClass;
    use age::secrecy::SecretString;
    use std::io::{Read as _, Write as _};

    fn passphrase() -> Passphrase {
        DomainKey::new(&SecretKey::new([7; 32])).passphrase(ObjectClass::Index).unwrap()
    }

    #[test]
    fn files_are_those_of_the_age_crate() {
        let passphrase = passphrase();
        let mut sealer = Sealer::with_passphrase(&passphrase, 5).unwrap();
        sealer.write(b"plain").unwrap();
        let sealed = sealer.finish().unwrap().0;
        let secret = || SecretString::from(passphrase.expose().to_owned());
        let identity = age::scrypt::Identity::new(secret());
        let mut plain = Vec::new();
        let decryptor = age::Decryptor::new(&sealed[..]).unwrap();
        let identity: &dyn age::Identity = &identity;
        decryptor.decrypt(std::iter::once(identity)).unwrap().read_to_end(&mut plain).unwrap();
        assert_eq!(plain, b"plain");
        let mut recipient = age::scrypt::Recipient::new(secret());
        for (factor, opens) in [(1, true), (2, false)] {
            recipient.set_work_factor(factor);
            let one: &dyn age::Recipient = &recipient;
            let mut sealed = Vec::new();
            let encryptor = age::Encryptor::with_recipients(std::iter::once(one)).unwrap();
            let mut writer = encryptor.wrap_output(&mut sealed).unwrap();
            writer.write_all(b"plain").unwrap();
            writer.finish().unwrap();
            let opened = open(&sealed, &ContainerKey::Passphrase(&passphrase), 5);
            assert_eq!(opened.is_ok(), opens, "work factor {factor}");
        }
    }
}
