//! The owner's key file that `keygen` makes: one age identity file that also holds the owner's
//! signing key, in comments that stock age skips.
//!
//! ```text
//! # created: 2026-11-23T02:00:25Z
//! # comment: ada
//! # public key: age1…
//! # signing key public: ssh-ed25519 AAAA…
//! # kbak-signing-key: <OpenSSH private key, its base64 in one line>
//! AGE-SECRET-KEY-1…
//! ```
//!
//! By default the file is encrypted with a passphrase (age's scrypt, in armor): `age -d` asks
//! for it, and `age -d -i` accepts the file as an identity.

use std::fmt;

use age::secrecy::{ExposeSecret, SecretString};
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::recipient::{Owner, Recipient};
use crate::format::wrap::{self, WrapError};
use crate::format::{sign::SigningKey, timestamp};
use crate::runtime::Runtime;

/// The prefix of the comment that holds the signing key.
pub(crate) const SIGNING_LINE: &str = "# kbak-signing-key: ";

/// The prefix of the comment that names the owner.
pub(crate) const COMMENT_LINE: &str = "# comment: ";

/// The scrypt work factor of a passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkFactor {
    /// About a second on this machine: age's default.
    Second,
    /// 2^n, for tests.
    Log2(u8),
}

/// The keys of a new owner: an identity and a signing key. `Debug` shows neither.
pub struct OwnerKey {
    identity: age::x25519::Identity,
    signing: SigningKey,
    created: Timestamp,
    comment: String,
}

impl OwnerKey {
    /// Generates the keys. The signing key uses the randomness of `runtime`. The identity uses the
    /// operating system's, because the age crate accepts no other.
    #[must_use]
    pub fn generate(runtime: &Runtime, comment: &str) -> Self {
        let seed = Zeroizing::new(runtime.random::<32>());
        Self {
            identity: age::x25519::Identity::generate(),
            signing: SigningKey::from_seed(&seed),
            created: timestamp::to_seconds(runtime.clock.now()),
            comment: comment.chars().filter(|c| !c.is_control()).collect(),
        }
    }

    /// Returns the public keys, as a plan and `init` take them.
    pub fn public(&self) -> Owner {
        Owner {
            recipient: Recipient::of_x25519(&self.identity.to_public()),
            signing: Some(self.signing.public()),
            comment: self.comment.clone(),
        }
    }

    /// Returns the unencrypted file. For a 0600 file or paper only.
    pub fn to_text(&self) -> Zeroizing<String> {
        let (signing, identity) = (self.signing.to_line(), self.identity.to_string());
        let comment = match self.comment.as_str() {
            "" => String::new(),
            comment => format!("{COMMENT_LINE}{comment}\n"),
        };
        Zeroizing::new(format!(
            "# created: {}\n{comment}# public key: {}\n# signing key public: {}\n{SIGNING_LINE}{}\n{}\n",
            self.created,
            self.identity.to_public(),
            self.signing.public(),
            signing.as_str(),
            identity.expose_secret(),
        ))
    }

    /// Returns the file encrypted with a passphrase, in armor.
    pub fn encrypt(&self, passphrase: &str, work: WorkFactor) -> Result<String, WrapError> {
        let mut recipient = age::scrypt::Recipient::new(SecretString::from(passphrase.to_owned()));
        if let WorkFactor::Log2(n) = work {
            recipient.set_work_factor(n);
        }
        let sealed = wrap::encrypt(self.to_text().as_bytes(), &recipient)?;
        wrap::armor(&sealed).ok_or(WrapError::Armor)
    }
}

impl fmt::Debug for OwnerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnerKey({}…)", self.identity.to_public())
    }
}
