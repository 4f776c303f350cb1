//! Signed documents: one line of JSON, then an SSH signature over that line.
//!
//! ```text
//! {"type":"epoch",…}\n
//! -----BEGIN SSH SIGNATURE-----\n
//! base64, 70 columns\n
//! -----END SSH SIGNATURE-----\n
//! ```
//!
//! The signature is an SSHSIG (OpenSSH's PROTOCOL.sshsig) by an Ed25519 key with SHA-512 over the
//! line and its newline, so `head -n1 FILE | ssh-keygen -Y verify …` checks it. Raw bytes are
//! signed, never serialised again. Armor has many spellings that ssh-keygen accepts (other line
//! widths, text after the end), so it is decoded, encoded again and compared: every document has
//! exactly one form, and no bit of it can change unseen.

use std::fmt;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use ssh_key::{Algorithm, HashAlg, LineEnding, SshSig};

use super::ids::ObjectHash;
use super::json::{self, JsonError};
use super::signers::Signers;
pub use super::signing_key::{KeyError, PublicKey, SigningKey};

/// The longest line, its newline included.
pub const MAX_LINE: usize = 1 << 20;

/// The longest signed document: what a reader asks a store for.
pub const MAX_DOCUMENT: u64 = (MAX_LINE + MAX_ARMOR) as u64;

/// An Ed25519 signature takes 300 bytes in armor; the namespace makes it a little longer.
const MAX_ARMOR: usize = 1024;

/// The features that this reader knows: what a signed document may list in `requires`.
pub const FEATURES: &[&str] = &[];

/// What a signature is for. A document of one kind can never be shown as one of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Namespace {
    /// Births of epochs. The writer's.
    Epoch,
    /// Snapshots. The writer's.
    Manifest,
    /// What was pruned, and why. The prune key's.
    Prune,
    /// Reports of drills. The drill key's or an owner's.
    Drill,
    /// Reports of restores. The drill key's or an owner's.
    Restore,
    /// Packs that are bad. The drill key's or the writer's.
    Distrust,
    /// Keys that are cut off. An owner's.
    Trust,
    /// What an owner has opened or added. An owner's.
    Receipt,
    /// Gaps that were accepted, and by whom. The writer's or an owner's.
    Exception,
}

impl Namespace {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Epoch,
        Self::Manifest,
        Self::Prune,
        Self::Drill,
        Self::Restore,
        Self::Distrust,
        Self::Trust,
        Self::Receipt,
        Self::Exception,
    ];

    /// What the writer's key is pinned for.
    pub const WRITER: [Self; 4] = [Self::Epoch, Self::Manifest, Self::Distrust, Self::Exception];

    /// What an owner's key is pinned for.
    pub const OWNER: [Self; 5] = [Self::Trust, Self::Receipt, Self::Drill, Self::Restore, Self::Exception];

    /// The text that is signed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Epoch => "kbak-epoch-v1",
            Self::Manifest => "kbak-manifest-v1",
            Self::Prune => "kbak-prune-v1",
            Self::Drill => "kbak-drill-v1",
            Self::Restore => "kbak-restore-v1",
            Self::Distrust => "kbak-distrust-v1",
            Self::Trust => "kbak-trust-v1",
            Self::Receipt => "kbak-receipt-v1",
            Self::Exception => "kbak-exception-v1",
        }
    }

    /// The value that the document's `type` must have.
    #[must_use]
    pub fn document_type(self) -> &'static str {
        let text = self.as_str();
        &text["kbak-".len()..text.len() - "-v1".len()]
    }

    /// The namespace that a text names.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|namespace| namespace.as_str() == text)
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a signed document is not taken.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// Longer than a line or an armor may be, or not one line and one armor.
    #[error("it is not one line of JSON and one signature: {0}")]
    Shape(&'static str),
    /// The armor is not the one form that kbak writes.
    #[error("its signature is not in canonical form: {0}")]
    Armor(&'static str),
    /// The signature is for something else.
    #[error("it is signed for {found:?}, not for {wanted}")]
    Namespace {
        /// What the reader needs.
        wanted: Namespace,
        /// What stands in the signature, shortened.
        found: String,
    },
    /// No pinned key of this writer for this use is the key that signed.
    #[error("it is signed by {key}, which is not pinned for writer {principal} and {namespace}")]
    Unpinned {
        /// The key that signed.
        key: String,
        /// Whose key was wanted.
        principal: String,
        /// For what.
        namespace: Namespace,
    },
    /// The signature does not fit the line.
    #[error("its signature does not fit its content")]
    Signature,
    /// The line is not strict JSON of its type.
    #[error("its content is malformed")]
    Json(#[from] JsonError),
    /// The line is of another type than its signature says.
    #[error("it says it is of type {found:?}, and is signed as {wanted:?}")]
    Type {
        /// The type that belongs to the namespace.
        wanted: &'static str,
        /// The type in the line, shortened.
        found: String,
    },
    /// The document needs a newer reader.
    #[error("it needs features that this version of kbak does not have: {}", .0.join(", "))]
    Requires(Vec<String>),
    /// A line longer than 1 MiB cannot be signed.
    #[error("a signed line would have {0} bytes, at most {MAX_LINE} are possible")]
    TooLong(usize),
    /// The key cannot sign.
    #[error("cannot sign")]
    Key(#[from] KeyError),
}

impl SignError {
    /// Whether a newer kbak may read the document. Everything else is damage, forgery or a wrong
    /// pin.
    #[must_use]
    pub fn is_newer(&self) -> bool {
        matches!(self, Self::Requires(_))
    }
}

/// The one armor of a signature: LF, 70 columns, a final newline, as ssh-keygen writes it.
pub(super) fn armor(signature: &SshSig) -> Result<String, ssh_key::Error> {
    let mut text = signature.to_pem(LineEnding::LF)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

impl SigningKey {
    /// Writes `document`, a struct or map, as one line and signs it. `type` (from the namespace)
    /// and `requires` (nothing, so far) are put in front here; the document must not hold them.
    pub fn sign_document(&self, namespace: Namespace, document: &impl Serialize) -> Result<Bytes, SignError> {
        let typed = Typed { r#type: namespace.document_type(), requires: &[], document };
        let mut bytes = serde_json::to_vec(&typed).map_err(JsonError::from)?;
        bytes.push(b'\n');
        if bytes.len() > MAX_LINE {
            return Err(SignError::TooLong(bytes.len()));
        }
        // What is signed must be readable: no floats, great integers or double keys.
        head(namespace, &bytes)?;
        let signature = self.sign(namespace, &bytes)?;
        bytes.extend_from_slice(signature.as_bytes());
        Ok(bytes.into())
    }
}

/// A document as it is written.
#[derive(Serialize)]
struct Typed<'a, T: Serialize> {
    r#type: &'static str,
    requires: &'a [&'a str],
    #[serde(flatten)]
    document: &'a T,
}

/// A document that is well-formed and not verified. Its line cannot be parsed from here but
/// through [`SignedDocument::verify`].
#[derive(Clone)]
pub struct SignedDocument {
    bytes: Bytes,
    line: usize,
    key: PublicKey,
    signature: SshSig,
}

impl SignedDocument {
    /// Takes a whole stored object apart.
    pub fn parse(bytes: Bytes) -> Result<Self, SignError> {
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(SignError::Shape("it is too long"));
        }
        let line = memchr::memchr(b'\n', &bytes).ok_or(SignError::Shape("its first line has no end"))? + 1;
        if line > MAX_LINE || bytes.len() - line > MAX_ARMOR {
            return Err(SignError::Shape("it is too long"));
        }
        std::str::from_utf8(&bytes[..line]).map_err(|_| SignError::Shape("its line is not UTF-8"))?;
        let text = &bytes[line..];
        let signature = SshSig::from_pem(text).map_err(|_| SignError::Armor("it is not an SSH signature"))?;
        if armor(&signature).map_or(true, |again| again.as_bytes() != text) {
            return Err(SignError::Armor("it is spelled in another way than kbak and ssh-keygen do"));
        }
        if !signature.reserved().is_empty() || signature.version() != SshSig::VERSION {
            return Err(SignError::Armor("it has fields that kbak does not know"));
        }
        if signature.hash_alg() != HashAlg::Sha512 || signature.algorithm() != Algorithm::Ed25519 {
            return Err(SignError::Armor("it is not made with Ed25519 and SHA-512"));
        }
        let key = PublicKey::from_data(signature.public_key())
            .map_err(|_| SignError::Armor("it is not made with Ed25519 and SHA-512"))?;
        Ok(Self { bytes, line, key, signature })
    }

    /// Verifies that one of the keys that `signers` pins for `principal` and `namespace` signed
    /// the line; the only way to its content.
    pub fn verify(
        &self,
        signers: &Signers,
        principal: &str,
        namespace: Namespace,
    ) -> Result<VerifiedLine, SignError> {
        let found = self.signature.namespace();
        if found != namespace.as_str() {
            return Err(SignError::Namespace { wanted: namespace, found: shorten(found) });
        }
        if !signers.lookup(principal, namespace).any(|key| key == self.key) {
            return Err(SignError::Unpinned {
                key: self.key.fingerprint(),
                principal: principal.to_owned(),
                namespace,
            });
        }
        ssh_key::PublicKey::from(self.key.data())
            .verify(namespace.as_str(), &self.bytes[..self.line], &self.signature)
            .map_err(|_| SignError::Signature)?;
        Ok(VerifiedLine { line: self.bytes.slice(..self.line), key: self.key, namespace, hash: self.hash() })
    }

    /// The key that the signature names; nothing is proven by it.
    #[must_use]
    pub fn claimed_key(&self) -> PublicKey {
        self.key
    }

    /// What the signature says it is for; nothing is proven by it.
    #[must_use]
    pub fn claimed_namespace(&self) -> Option<Namespace> {
        Namespace::from_text(self.signature.namespace())
    }

    /// The line, unverified: to be shown to a person as what it is, never to be acted upon.
    #[must_use]
    pub fn unverified_line(&self) -> &[u8] {
        &self.bytes[..self.line]
    }

    /// SHA-256 of the whole document.
    #[must_use]
    pub fn hash(&self) -> ObjectHash {
        ObjectHash::of(&self.bytes)
    }
}

impl fmt::Debug for SignedDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignedDocument({}, by {:?}, unverified)", self.signature.namespace(), self.key)
    }
}

/// A line that a pinned key signed for a use. Only [`SignedDocument::verify`] makes one.
#[derive(Debug, Clone)]
pub struct VerifiedLine {
    line: Bytes,
    key: PublicKey,
    namespace: Namespace,
    hash: ObjectHash,
}

impl VerifiedLine {
    /// Reads the line as `T`. Its `type` must be the namespace's, and everything it lists in
    /// `requires` must be known; other unknown fields are ignored.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, SignError> {
        head(self.namespace, &self.line)?;
        Ok(json::parse(&self.line)?)
    }

    /// The key that signed.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// What it is signed for.
    #[must_use]
    pub fn namespace(&self) -> Namespace {
        self.namespace
    }

    /// SHA-256 of the whole document, signature included.
    #[must_use]
    pub fn hash(&self) -> ObjectHash {
        self.hash
    }

    /// The line itself, its newline included.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.line
    }
}

/// What every signed line begins with, before anything else in it is believed.
#[derive(Deserialize)]
struct Head {
    r#type: String,
    #[serde(default)]
    requires: Vec<String>,
}

fn head(namespace: Namespace, line: &[u8]) -> Result<(), SignError> {
    // serde takes an array for a struct; a document is an object in every reader.
    if !line.starts_with(b"{") {
        return Err(SignError::Shape("its line is no JSON object"));
    }
    let Head { r#type: found, requires } = json::parse(line)?;
    let wanted = namespace.document_type();
    if found != wanted {
        return Err(SignError::Type { wanted, found: shorten(&found) });
    }
    let unknown: Vec<String> =
        requires.iter().filter(|feature| !FEATURES.contains(&feature.as_str())).map(|f| shorten(f)).collect();
    if unknown.is_empty() { Ok(()) } else { Err(SignError::Requires(unknown)) }
}

/// At most 64 printable characters of what a stranger wrote.
fn shorten(text: &str) -> String {
    text.chars().take(64).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
