//! Identities: the private keys of owners. Supported are age identity files and OpenSSH
//! private keys, each plain or protected by a passphrase, and plugin identities.

use std::fmt;
use std::io::Read;
use std::sync::Arc;

use age::secrecy::SecretString;
use bytes::Bytes;
use zeroize::Zeroizing;

use super::key_file::{COMMENT_LINE, SIGNING_LINE};
use super::prompt::{AgeCallbacks, Prompt};
use super::recipient::{Recipient, RecipientKind};
use crate::format::epoch::VerifiedEpoch;
use crate::format::ids::{ObjectHash, RecipientId};
use crate::format::sign::{KeyError, SigningKey};
use crate::format::wrap::{self, EpochKeys, WrapError};
use crate::report::text::bytes_without_bom;

/// The largest identity file, in bytes.
const MAX_FILE: usize = 1 << 20;

/// The largest scrypt work factor of a passphrase-protected file: 2^22 (about 16 s, 4 GiB).
/// The file is the owner's own, but a mistake in it must not stall their machine.
const MAX_WORK_FACTOR: u8 = 22;

/// An error while reading an identity file. It never contains the file's content.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file holds a public key.
    #[error("{0} holds a public key; the private key is needed here")]
    Public(String),
    /// The file is not an identity file.
    #[error("{label} is not an age identity and not an OpenSSH private key (line {line})")]
    Malformed {
        /// The file.
        label: String,
        /// The line number, from 1.
        line: usize,
    },
    /// The file is encrypted, but not with a passphrase.
    #[error("{0} is encrypted to a key, not with a passphrase: decrypt it first")]
    Encrypted(String),
    /// The file is protected, and no passphrase was given.
    #[error("{0} is protected by a passphrase, and none was given")]
    NoPassphrase(String),
    /// The passphrase is wrong.
    #[error("the passphrase does not open {0}")]
    Passphrase(String),
    /// A form of private keys that age cannot read: PEM with a passphrase, PKCS#8, PuTTY's.
    #[error("{label} is a private key {form}, which age cannot read")]
    Form {
        /// The file.
        label: String,
        /// The form.
        form: KeyForm,
    },
    /// A kind of key that age cannot decrypt with.
    #[error("{label}: age cannot decrypt with this key ({why})")]
    Unsupported {
        /// The file.
        label: String,
        /// The kind of key.
        why: &'static str,
    },
    /// The plugin is not installed.
    #[error("{label} needs the program age-plugin-{plugin} on PATH")]
    Plugin {
        /// The file.
        label: String,
        /// The plugin's name.
        plugin: String,
    },
    /// The signing key in the file cannot be used.
    #[error("{label}: its signing key")]
    Signing {
        /// The file.
        label: String,
        /// The cause.
        source: KeyError,
    },
}

/// A form of private keys that has to be converted first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyForm {
    /// The old form of OpenSSL, encrypted with a passphrase.
    EncryptedPem,
    /// PKCS#8.
    Pkcs8,
    /// PuTTY's.
    Putty,
}

impl fmt::Display for KeyForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EncryptedPem => "in PEM form with a passphrase",
            Self::Pkcs8 => "in PKCS#8 form",
            Self::Putty => "in PuTTY's form",
        })
    }
}

/// Returns the form of a key that has to be converted first; none for all other texts.
fn foreign_form(text: &str) -> Option<KeyForm> {
    let mut lines = text.lines();
    match lines.next()? {
        "-----BEGIN RSA PRIVATE KEY-----" => lines
            .take_while(|line| line.contains(':'))
            .any(|line| line.ends_with("ENCRYPTED"))
            .then_some(KeyForm::EncryptedPem),
        "-----BEGIN ENCRYPTED PRIVATE KEY-----" | "-----BEGIN PRIVATE KEY-----" => Some(KeyForm::Pkcs8),
        line => line.starts_with("PuTTY-User-Key-File-").then_some(KeyForm::Putty),
    }
}

/// Returns a text without blanks around its lines and without blank lines at its ends. Keys that went through
/// an editor, a clipboard or a YAML block have them.
fn tidy_lines(text: &str) -> Zeroizing<String> {
    let mut tidy = Zeroizing::new(String::with_capacity(text.len() + 1));
    for line in text.trim().lines() {
        tidy.push_str(line.trim());
        tidy.push('\n');
    }
    tidy
}

/// An identity file: keys that decrypt, and possibly a signing key. `Debug` shows no secret.
pub struct Identity {
    label: String,
    keys: Vec<Box<dyn age::Identity + Send + Sync>>,
    recipients: Vec<Recipient>,
    plugins: Vec<String>,
    signing: Option<SigningKey>,
    comment: String,
}

impl Identity {
    /// Reads an identity file, named `label` in messages; `prompt` asks for its passphrase.
    pub fn parse(label: &str, file: &[u8], prompt: &Arc<dyn Prompt>) -> Result<Self, IdentityError> {
        let malformed = || IdentityError::Malformed { label: label.to_owned(), line: 1 };
        if file.len() > MAX_FILE {
            return Err(malformed());
        }
        if file.starts_with(b"age-encryption.org/") {
            let text = Self::unlock(label, file, prompt)?;
            return Self::from_lines(label, &text, prompt);
        }
        let text = std::str::from_utf8(bytes_without_bom(file)).map_err(|_| malformed())?;
        let tidy = tidy_lines(text);
        if tidy.starts_with("-----BEGIN AGE ") {
            let text = Self::unlock(label, tidy.as_bytes(), prompt)?;
            return Self::from_lines(label, &text, prompt);
        }
        if let Some(form) = foreign_form(&tidy) {
            return Err(IdentityError::Form { label: label.to_owned(), form });
        }
        if tidy.starts_with("-----BEGIN ") {
            Self::from_ssh(label, &tidy, prompt)
        } else {
            Self::from_lines(label, text, prompt)
        }
    }

    /// True if the file is encrypted with age: useless without its passphrase.
    #[must_use]
    pub fn is_encrypted(file: &[u8]) -> bool {
        let text = bytes_without_bom(file).trim_ascii_start();
        text.starts_with(b"age-encryption.org/v1") || text.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----")
    }

    /// Decrypts an age file with a passphrase.
    fn unlock(
        label: &str,
        file: &[u8],
        prompt: &Arc<dyn Prompt>,
    ) -> Result<Zeroizing<String>, IdentityError> {
        let malformed = || IdentityError::Malformed { label: label.to_owned(), line: 1 };
        let reader = age::armor::ArmoredReader::new(file);
        let decryptor = age::Decryptor::new_buffered(reader).map_err(|_| malformed())?;
        if !decryptor.is_scrypt() {
            return Err(IdentityError::Encrypted(label.to_owned()));
        }
        let passphrase =
            prompt.passphrase(label).ok_or_else(|| IdentityError::NoPassphrase(label.to_owned()))?;
        let mut identity = age::scrypt::Identity::new(SecretString::from(passphrase.as_str().to_owned()));
        identity.set_max_work_factor(MAX_WORK_FACTOR);
        let mut stream = decryptor
            .decrypt(std::iter::once(&identity as &dyn age::Identity))
            .map_err(|_| IdentityError::Passphrase(label.to_owned()))?;
        let mut text = Zeroizing::new(String::with_capacity(file.len()));
        stream.read_to_string(&mut text).map_err(|_| malformed())?;
        Ok(text)
    }

    fn from_lines(label: &str, text: &str, prompt: &Arc<dyn Prompt>) -> Result<Self, IdentityError> {
        let mut this = Self::empty(label);
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            let malformed = || IdentityError::Malformed { label: label.to_owned(), line: number + 1 };
            if let Some(key) = line.strip_prefix(SIGNING_LINE) {
                let key = SigningKey::from_line(key)
                    .map_err(|source| IdentityError::Signing { label: label.to_owned(), source })?;
                this.signing = Some(key);
            } else if let Some(comment) = line.strip_prefix(COMMENT_LINE) {
                comment.clone_into(&mut this.comment);
            } else if line.is_empty() || line.starts_with('#') {
            } else if let Ok(key) = line.parse::<age::x25519::Identity>() {
                this.recipients.push(key.to_public().to_string().parse().map_err(|_| malformed())?);
                this.keys.push(Box::new(key));
            } else if let Ok(key) = line.parse::<age::plugin::Identity>() {
                let (name, callbacks) = (key.plugin().to_owned(), AgeCallbacks::new(prompt.clone()));
                let missing = || IdentityError::Plugin { label: label.to_owned(), plugin: name.clone() };
                let plugin = age::plugin::IdentityPluginV1::new(&name, &[key], callbacks);
                this.keys.push(Box::new(plugin.map_err(|_| missing())?));
                this.plugins.push(name);
            } else if line.parse::<Recipient>().is_ok() {
                return Err(IdentityError::Public(label.to_owned()));
            } else {
                return Err(malformed());
            }
        }
        if this.keys.is_empty() {
            return Err(IdentityError::Malformed { label: label.to_owned(), line: 1 });
        }
        Ok(this)
    }

    fn from_ssh(label: &str, text: &str, prompt: &Arc<dyn Prompt>) -> Result<Self, IdentityError> {
        let malformed = || IdentityError::Malformed { label: label.to_owned(), line: 1 };
        let unsupported = |why| IdentityError::Unsupported { label: label.to_owned(), why };
        let key = age::ssh::Identity::from_buffer(text.as_bytes(), None).map_err(|_| malformed())?;
        let public = age::ssh::Recipient::try_from(key.clone());
        let mut passphrase = None;
        let key = match key {
            age::ssh::Identity::Unencrypted(key) => key,
            age::ssh::Identity::Encrypted(locked) => {
                let given =
                    prompt.passphrase(label).ok_or_else(|| IdentityError::NoPassphrase(label.to_owned()))?;
                let opened = locked
                    .decrypt(SecretString::from(given.as_str().to_owned()))
                    .map_err(|_| IdentityError::Passphrase(label.to_owned()))?;
                passphrase = Some(given);
                opened
            }
            age::ssh::Identity::Unsupported(_) => {
                return Err(unsupported("a hardware key, an old PEM form or another algorithm"));
            }
        };
        let recipient = Recipient::of_ssh(&public.map_err(|_| unsupported("its public half"))?);
        let mut this = Self::empty(label);
        if *recipient.kind() == RecipientKind::SshEd25519 {
            let signing = SigningKey::from_openssh(text, passphrase.as_ref().map(|p| p.as_str()))
                .map_err(|source| IdentityError::Signing { label: label.to_owned(), source })?;
            this.signing = Some(signing);
        }
        this.recipients.push(recipient);
        this.keys.push(Box::new(age::ssh::Identity::from(key)));
        Ok(this)
    }

    fn empty(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            keys: Vec::new(),
            recipients: Vec::new(),
            plugins: Vec::new(),
            signing: None,
            comment: String::new(),
        }
    }

    /// Returns the label given to [`Identity::parse`].
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Returns the recipients of its keys. A plugin's recipient cannot be derived from its identity.
    pub fn recipients(&self) -> &[Recipient] {
        &self.recipients
    }

    /// Returns the names of the plugins that it needs.
    pub fn plugins(&self) -> &[String] {
        &self.plugins
    }

    /// Returns the owner's signing key, if the file holds one.
    pub fn signing(&self) -> Option<&SigningKey> {
        self.signing.as_ref()
    }

    /// Returns the owner's name, as given to `keygen`.
    pub fn comment(&self) -> &str {
        &self.comment
    }

    /// Returns the keys as age identities.
    pub fn age(&self) -> Vec<&dyn age::Identity> {
        self.keys.iter().map(|key| &**key as &dyn age::Identity).collect()
    }

    /// Decrypts a short text that was encrypted to this owner: a challenge.
    pub fn open_text(&self, sealed: &[u8]) -> Result<Zeroizing<String>, WrapError> {
        wrap::open_text(sealed, &self.age())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("label", &self.label)
            .field("recipients", &self.recipients)
            .field("plugins", &self.plugins)
            .finish_non_exhaustive()
    }
}

/// The wrap that was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenedWrap {
    /// The wrap in epoch.json for this owner.
    EpochJson(RecipientId),
    /// The wrap that is an object under `keys/`.
    KeyObject(ObjectHash),
}

/// Opens the keys of an epoch with the first identity that a wrap fits. It tries the wraps of
/// epoch.json first, then `later`: the objects under `keys/` with their names. A plugin may ask the
/// user, so for identities with known recipients only the matching wraps of epoch.json are tried.
pub fn open_wrap(
    epoch: &VerifiedEpoch,
    later: &[(ObjectHash, Bytes)],
    identities: &[Arc<Identity>],
) -> Result<(EpochKeys, OpenedWrap), WrapError> {
    let mut last = WrapError::WrongIdentity;
    for identity in identities {
        let known = |id| identity.recipients.iter().any(|recipient| recipient.id() == id);
        let inline = epoch.wraps.iter();
        let inline = inline.filter(|wrap| !identity.plugins.is_empty() || known(wrap.recipient));
        let inline = inline.map(|wrap| (OpenedWrap::EpochJson(wrap.recipient), wrap.age.as_bytes()));
        let later = later.iter().map(|(hash, bytes)| (OpenedWrap::KeyObject(*hash), &**bytes));
        for (via, wrap) in inline.chain(later) {
            match wrap::open(wrap, &identity.age(), epoch) {
                Ok(keys) => return Ok((keys, via)),
                // The first useful error is kept. A wrap for another owner is not an error.
                Err(WrapError::WrongIdentity) => {}
                Err(error) if matches!(last, WrapError::WrongIdentity) => last = error,
                Err(_) => {}
            }
        }
    }
    Err(last)
}
