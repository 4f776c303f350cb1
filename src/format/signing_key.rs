//! Signing keys: Ed25519, in OpenSSH's formats, so that ssh-keygen reads and makes them.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use signature::{Signer as _, Verifier as _};
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::public::{Ed25519PublicKey, KeyData};
use ssh_key::{Algorithm, HashAlg, LineEnding, Signature, SshSig};
use zeroize::Zeroizing;

use super::namespace::Namespace;

/// The reason that a text is not a usable key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not in OpenSSH's format.
    #[error("it is not a key in OpenSSH's format")]
    Malformed,
    /// Another algorithm than Ed25519.
    #[error("it is a key of type {0}; kbak signs with ssh-ed25519 only")]
    Algorithm(String),
    /// The key file has a passphrase, and none was given.
    #[error("it is protected by a passphrase")]
    Protected,
    /// The passphrase is not the right one.
    #[error("the passphrase does not open it")]
    Passphrase,
    /// The library returned an error; its text holds no secret.
    #[error("the signature cannot be made ({0})")]
    Other(String),
}

/// An Ed25519 public key that verifies signatures.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    pub(super) fn data(self) -> KeyData {
        KeyData::Ed25519(Ed25519PublicKey(self.0))
    }

    pub(super) fn from_data(data: &KeyData) -> Result<Self, KeyError> {
        match data {
            KeyData::Ed25519(key) => Ok(Self(key.0)),
            other => Err(KeyError::Algorithm(other.algorithm().to_string())),
        }
    }

    /// True if this key made the raw Ed25519 `signature` of `message`.
    #[must_use]
    pub(super) fn verifies(self, message: &[u8], signature: &[u8; 64]) -> bool {
        Signature::new(Algorithm::Ed25519, signature.as_slice())
            .is_ok_and(|signature| self.data().verify(message, &signature).is_ok())
    }

    /// Returns the fingerprint `SHA256:…`, as `ssh-keygen -l` shows it.
    #[must_use]
    pub fn fingerprint(self) -> String {
        ssh_key::PublicKey::from(self.data()).fingerprint(HashAlg::Sha256).to_string()
    }

    /// Returns `ssh-ed25519 AAAA…`, without a comment.
    #[must_use]
    #[expect(clippy::expect_used, reason = "32 bytes always encode, and the text is base64")]
    pub fn to_openssh(self) -> String {
        ssh_key::PublicKey::from(self.data()).to_openssh().expect("an encodable key")
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_openssh())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.fingerprint())
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    /// Reads `ssh-ed25519 AAAA… [comment]`; base64 that is not canonical is rejected.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        let parsed = ssh_key::PublicKey::from_openssh(text).map_err(|_| KeyError::Malformed)?;
        let key = Self::from_data(parsed.key_data())?;
        let body = text.split_ascii_whitespace().nth(1);
        if body != key.to_openssh().split(' ').nth(1) {
            return Err(KeyError::Malformed);
        }
        Ok(key)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let key: Self = text.parse().map_err(serde::de::Error::custom)?;
        if key.to_openssh() == text { Ok(key) } else { Err(serde::de::Error::custom("a comment in a key")) }
    }
}

/// An Ed25519 private key that signs. It never appears in debug output and is wiped when dropped.
#[derive(Clone)]
pub struct SigningKey(ssh_key::PrivateKey);

impl SigningKey {
    /// Creates the key of 32 random bytes.
    #[must_use]
    pub fn from_seed(seed: &Zeroizing<[u8; 32]>) -> Self {
        Self::from_keypair(Ed25519Keypair::from_seed(seed))
    }

    #[expect(clippy::expect_used, reason = "fails only for encrypted keypairs, and this one is not")]
    fn from_keypair(keypair: Ed25519Keypair) -> Self {
        Self(ssh_key::PrivateKey::new(KeypairData::Ed25519(keypair), "").expect("a plain keypair"))
    }

    /// Reads an OpenSSH private key. `passphrase` opens a protected one.
    pub fn from_openssh(pem: &str, passphrase: Option<&str>) -> Result<Self, KeyError> {
        let mut key = ssh_key::PrivateKey::from_openssh(pem.trim_start()).map_err(|_| KeyError::Malformed)?;
        if key.algorithm() != Algorithm::Ed25519 {
            return Err(KeyError::Algorithm(key.algorithm().to_string()));
        }
        if key.is_encrypted() {
            let passphrase = passphrase.ok_or(KeyError::Protected)?;
            key = key.decrypt(passphrase).map_err(|_| KeyError::Passphrase)?;
        }
        Self::from_private(&key)
    }

    fn from_private(key: &ssh_key::PrivateKey) -> Result<Self, KeyError> {
        match key.key_data() {
            KeypairData::Ed25519(keypair) => Ok(Self::from_keypair(keypair.clone())),
            _ => Err(KeyError::Algorithm(key.algorithm().to_string())),
        }
    }

    /// Returns the key as an OpenSSH private key without a passphrase. For a 0600 file only.
    #[expect(clippy::expect_used, reason = "a plain Ed25519 key always encodes")]
    pub fn to_openssh(&self) -> Zeroizing<String> {
        self.0.to_openssh(LineEnding::LF).expect("an encodable key")
    }

    /// Returns the key as one line of base64, which `keygen` writes into a comment of an identity file.
    #[expect(clippy::expect_used, reason = "a plain Ed25519 key always encodes")]
    pub fn to_line(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0.to_bytes().expect("an encodable key")))
    }

    /// Reads a line from [`SigningKey::to_line`].
    pub fn from_line(line: &str) -> Result<Self, KeyError> {
        let bytes = Zeroizing::new(STANDARD.decode(line.trim()).map_err(|_| KeyError::Malformed)?);
        Self::from_private(&ssh_key::PrivateKey::from_bytes(&bytes).map_err(|_| KeyError::Malformed)?)
    }

    /// Returns the public half.
    #[expect(clippy::expect_used, reason = "every constructor makes an Ed25519 key")]
    pub fn public(&self) -> PublicKey {
        PublicKey::from_data(self.0.public_key().key_data()).expect("an Ed25519 key")
    }

    /// Returns the raw Ed25519 signature of `message`.
    pub(super) fn sign_bytes(&self, message: &[u8]) -> Result<[u8; 64], KeyError> {
        let signature = self.0.try_sign(message).map_err(|error| KeyError::Other(error.to_string()))?;
        signature.as_bytes().try_into().map_err(|_| KeyError::Other("not 64 bytes".into()))
    }

    /// Signs `line`, including its newline. Returns the armored SSHSIG.
    pub fn sign(&self, namespace: Namespace, line: &[u8]) -> Result<String, KeyError> {
        let other = |error: ssh_key::Error| KeyError::Other(error.to_string());
        let signature = self.0.sign(namespace.as_str(), HashAlg::Sha512, line).map_err(other)?;
        armor(&signature).map_err(other)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}…)", self.public().fingerprint())
    }
}

/// Returns the armor of a signature: LF, 70 columns, a final newline, as ssh-keygen writes it.
pub(super) fn armor(signature: &SshSig) -> Result<String, ssh_key::Error> {
    let mut text = signature.to_pem(LineEnding::LF)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}
