//! Recipients: the public keys of owners, and the format of owner lines.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::prompt::{AgeCallbacks, Prompt};
use crate::format::ids::{EpochId, ObjectHash, RecipientId};
use crate::format::wrap::{self, EpochKeys, WrapError};
use crate::format::{epoch::InlineWrap, layout::EpochPath, object::SealedObject, sign::PublicKey};
use crate::report::text::without_bom;

/// The kinds of keys that age encrypts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipientKind {
    /// `age1…`
    X25519,
    /// `age1tag1…`: a hardware key that needs no plugin to encrypt to.
    Tag,
    /// `age1tagpq1…`: a post-quantum hardware key.
    TagPq,
    /// `ssh-ed25519 …`
    SshEd25519,
    /// `ssh-rsa …`, 2048 bits or more.
    SshRsa,
    /// `age1<name>1…`: the program `age-plugin-<name>` encrypts and decrypts.
    Plugin(String),
}

/// An error while parsing a recipient. It never contains the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecipientError {
    /// A private key was given in place of a public one.
    #[error(
        "it is a PRIVATE key (not shown here). If it was in a plan or on a command line, consider it compromised: create a new one"
    )]
    Private,
    /// A key that age cannot encrypt to.
    #[error("age cannot encrypt to keys of type {0}; use age1…, ssh-ed25519 or ssh-rsa, or a plugin")]
    Unsupported(String),
    /// An RSA key that is too short or too long.
    #[error("its RSA modulus is too short or too long (2048 to 4096 bits)")]
    Modulus,
    /// The text is not a key.
    #[error("it is not an age recipient (age1…) and not an SSH public key (ssh-ed25519 …, ssh-rsa …)")]
    Malformed,
    /// The signing key after an age recipient is malformed.
    #[error("the signing key after the recipient is not an ssh-ed25519 public key")]
    Signing,
    /// The text is empty.
    #[error("it is empty")]
    Empty,
    /// More than one key or line in the text of one owner.
    #[error("it holds more than one key or line: give the key of each owner separately")]
    MultipleKeys,
    /// The same key is given for two owners.
    #[error("it is listed twice")]
    Duplicate,
}

/// An owner's public key.
#[derive(Clone, PartialEq, Eq)]
pub struct Recipient {
    text: String,
    kind: RecipientKind,
}

impl FromStr for Recipient {
    type Err = RecipientError;

    /// Parses one recipient; a comment after an SSH key is dropped.
    fn from_str(text: &str) -> Result<Self, RecipientError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(RecipientError::Empty);
        }
        if holds_private_key(text) {
            return Err(RecipientError::Private);
        }
        if text.starts_with("ssh-") || text.starts_with("ecdsa-") || text.starts_with("sk-") {
            return Self::from_ssh(text);
        }
        if let Ok(native) = text.parse::<age::x25519::Recipient>() {
            return Ok(Self::of_x25519(&native));
        }
        if text.parse::<age::tag::Recipient>().is_ok() {
            return Ok(Self { text: text.to_owned(), kind: RecipientKind::Tag });
        }
        if text.parse::<age::tagpq::Recipient>().is_ok() {
            return Ok(Self { text: text.to_owned(), kind: RecipientKind::TagPq });
        }
        match text.parse::<age::plugin::Recipient>() {
            Ok(plugin) => {
                Ok(Self { text: plugin.to_string(), kind: RecipientKind::Plugin(plugin.plugin().to_owned()) })
            }
            Err(_) => Err(RecipientError::Malformed),
        }
    }
}

/// True if a text contains a private key or a plugin identity.
fn holds_private_key(text: &str) -> bool {
    let upper = text.to_ascii_uppercase();
    ["AGE-SECRET-KEY-", "AGE-PLUGIN-", "PRIVATE KEY"].iter().any(|mark| upper.contains(mark))
}

impl Recipient {
    fn from_ssh(text: &str) -> Result<Self, RecipientError> {
        use age::ssh::ParseRecipientKeyError as ParseError;
        let mut words = text.split_ascii_whitespace();
        let (kind, key) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let parsed: age::ssh::Recipient = format!("{kind} {key}").parse().map_err(|error| match error {
            ParseError::RsaModulusTooLarge | ParseError::RsaModulusTooSmall => RecipientError::Modulus,
            ParseError::Unsupported(_) | ParseError::Ignore => RecipientError::Unsupported(shorten(kind)),
            _ if !matches!(kind, "ssh-ed25519" | "ssh-rsa") => RecipientError::Unsupported(shorten(kind)),
            _ => RecipientError::Malformed,
        })?;
        Ok(Self::of_ssh(&parsed))
    }

    pub(crate) fn of_x25519(native: &age::x25519::Recipient) -> Self {
        Self { text: native.to_string(), kind: RecipientKind::X25519 }
    }

    pub(crate) fn of_ssh(parsed: &age::ssh::Recipient) -> Self {
        let kind = match parsed {
            age::ssh::Recipient::SshRsa(..) => RecipientKind::SshRsa,
            age::ssh::Recipient::SshEd25519(..) => RecipientKind::SshEd25519,
        };
        Self { text: parsed.to_string(), kind }
    }

    /// Returns the canonical text, without a comment.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the kind of key.
    pub fn kind(&self) -> &RecipientKind {
        &self.kind
    }

    /// Returns the id by which epochs name the recipient: the SHA-256 of its text.
    pub fn id(&self) -> RecipientId {
        RecipientId(ObjectHash::of(self.text.as_bytes()).0)
    }

    /// Returns the owner's signing key if the recipient is one: an ssh-ed25519 key is both.
    pub fn signing_key(&self) -> Option<PublicKey> {
        (self.kind == RecipientKind::SshEd25519).then(|| self.text.parse().ok()).flatten()
    }

    fn age(&self, prompt: &Arc<dyn Prompt>) -> Result<Box<dyn age::Recipient>, WrapError> {
        fn parse<T: FromStr>(text: &str) -> Result<T, WrapError> {
            text.parse().map_err(|_| WrapError::Content)
        }
        let text = self.text.as_str();
        Ok(match &self.kind {
            RecipientKind::X25519 => Box::new(parse::<age::x25519::Recipient>(text)?) as Box<_>,
            RecipientKind::Tag => Box::new(parse::<age::tag::Recipient>(text)?),
            RecipientKind::TagPq => Box::new(parse::<age::tagpq::Recipient>(text)?),
            RecipientKind::SshEd25519 | RecipientKind::SshRsa => {
                Box::new(parse::<age::ssh::Recipient>(text)?)
            }
            RecipientKind::Plugin(name) => {
                let (recipient, callbacks) = (parse(text)?, AgeCallbacks::new(prompt.clone()));
                let plugin = age::plugin::RecipientPluginV1::new(name, &[recipient], &[], callbacks);
                Box::new(plugin.map_err(|error| WrapError::Seal(age::EncryptError::PluginResolve(error)))?)
            }
        })
    }

    /// Encrypts an epoch's keys to this owner for epoch.json. May run a plugin.
    pub fn wrap(
        &self,
        keys: &EpochKeys,
        epoch: EpochId,
        prompt: &Arc<dyn Prompt>,
    ) -> Result<InlineWrap, WrapError> {
        let age = keys.wrap_inline(epoch, &*self.age(prompt)?)?;
        Ok(InlineWrap { recipient: self.id(), age })
    }

    /// Encrypts an epoch's keys to this owner, as an object under `keys/`.
    pub fn wrap_object(
        &self,
        keys: &EpochKeys,
        path: &EpochPath,
        prompt: &Arc<dyn Prompt>,
    ) -> Result<SealedObject, WrapError> {
        keys.wrap_object(path, &*self.age(prompt)?)
    }

    /// Encrypts a short text to this owner: a challenge.
    pub fn encrypt(&self, text: &[u8], prompt: &Arc<dyn Prompt>) -> Result<Vec<u8>, WrapError> {
        wrap::encrypt(text, &*self.age(prompt)?)
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipient({})", self.text)
    }
}

/// True if a word of a comment looks like a key, or like the beginning of one.
fn is_like_a_key(word: &str) -> bool {
    let lower = word.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_ascii_lowercase();
    let kinds = ["ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-"];
    lower.starts_with("age1") || kinds.iter().any(|kind| lower.starts_with(kind)) || lower.starts_with("aaaa")
}

/// Shortens an unsupported key type to at most 40 printable characters.
fn shorten(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic()).take(40).collect()
}

/// An owner as written in a plan: `RECIPIENT [ssh-ed25519 SIGNING-KEY] [comment]`.
///
/// `keygen` writes both keys as one public line. An ssh-ed25519 recipient is its own signing
/// key. An owner without a signing key can decrypt everything but sign nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The key that epochs are encrypted to.
    pub recipient: Recipient,
    /// The key that signs the owner's receipts and trust statements.
    pub signing: Option<PublicKey>,
    /// The owner's name for display; it appears in kbak.pub and in no stored object.
    pub comment: String,
}

impl FromStr for Owner {
    type Err = RecipientError;

    fn from_str(line: &str) -> Result<Self, RecipientError> {
        if holds_private_key(line) {
            return Err(RecipientError::Private);
        }
        // A second key would be taken for a comment, and its owner could decrypt nothing.
        if line.trim().contains(['\n', '\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}']) {
            return Err(RecipientError::MultipleKeys);
        }
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let (recipient, rest) = match words.as_slice() {
            [] => return Err(RecipientError::Empty),
            [first, rest @ ..] if first.starts_with("age1") => (first.parse::<Recipient>()?, rest),
            [first, key, rest @ ..] => (format!("{first} {key}").parse::<Recipient>()?, rest),
            [first] => (first.parse::<Recipient>()?, [].as_slice()),
        };
        let (signing, rest) = match rest {
            [kind, key, rest @ ..] if kind.starts_with("ssh-") && key.starts_with("AAAA") => {
                let key = format!("{kind} {key}").parse().map_err(|_| RecipientError::Signing)?;
                (Some(key), rest)
            }
            rest => (recipient.signing_key(), rest),
        };
        let other = recipient.signing_key().is_some_and(|own| signing != Some(own));
        if other || rest.iter().any(|word| is_like_a_key(word)) {
            return Err(RecipientError::MultipleKeys);
        }
        let comment = rest.join(" ").chars().filter(|c| !c.is_control()).collect();
        Ok(Self { recipient, signing, comment })
    }
}

impl Owner {
    /// Reads one owner per line, without empty lines and `#` comments. An error has the line number.
    pub fn parse_lines(text: &str) -> Result<Vec<Self>, (usize, RecipientError)> {
        let mut owners: Vec<Self> = Vec::new();
        for (number, line) in without_bom(text).lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let owner: Self = line.parse().map_err(|error| (number + 1, error))?;
            if owners.iter().any(|other| other.recipient == owner.recipient) {
                return Err((number + 1, RecipientError::Duplicate));
            }
            owners.push(owner);
        }
        Ok(owners)
    }

    /// Returns the line, as `keygen` writes it and `init` reads it.
    pub fn to_line(&self) -> String {
        let own = self.recipient.signing_key();
        let signing = self.signing.filter(|key| Some(*key) != own).map(|key| format!(" {key}"));
        let line = format!("{}{} {}", self.recipient, signing.unwrap_or_default(), self.comment);
        line.trim_end().to_owned()
    }

    /// Returns a name for display: the comment, or an abbreviation of the recipient.
    pub fn name(&self) -> String {
        if !self.comment.is_empty() {
            return self.comment.clone();
        }
        let text = self.recipient.as_str();
        let tail = text.char_indices().rev().nth(5).map_or(0, |(at, _)| at);
        match self.recipient.kind() {
            RecipientKind::SshEd25519 | RecipientKind::SshRsa => {
                format!("{} …{}", text.split(' ').next().unwrap_or(""), &text[tail..])
            }
            _ => format!("{}…{}", text.get(..8).unwrap_or(text), &text[tail..]),
        }
    }
}
