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
//! signed, never serialised again. ssh-keygen accepts many spellings of armor (other line widths, text
//! after the end). So kbak decodes it, encodes it again and compares: every document has exactly one
//! form, and no bit of it can change unnoticed.

use std::fmt;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use ssh_key::{Algorithm, HashAlg, SshSig};

use super::json::{self, JsonError};
pub use super::namespace::Namespace;
pub use super::signing_key::{KeyError, PublicKey, SigningKey};
use super::{ids::ObjectHash, signers::Signers, signing_key::armor};

/// The longest line in bytes, including its newline.
pub const MAX_LINE: usize = 1 << 20;

/// The longest signed document in bytes: the limit that readers give to a store.
pub const MAX_DOCUMENT: u64 = (MAX_LINE + MAX_ARMOR) as u64;

/// The longest armor in bytes. An Ed25519 signature takes 300; the namespace makes it a little longer.
const MAX_ARMOR: usize = 1024;

/// The features that this program knows and a signed document may list in `requires`, as `operation:feature`.
pub const FEATURES: &[&str] = &[];

/// An operation that a document may require a feature for. A program without a feature of reading does nothing
/// with the document; without one of another operation, it does not do that operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Judge whether the repository is whole.
    Verify,
    /// Back up into the plan.
    Write,
    /// Remove snapshots of the plan.
    Prune,
}

impl Operation {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Verify, "verify:"), (Self::Write, "write:"), (Self::Prune, "prune:")];

    /// Returns the operation that needs a feature; none if all need it.
    fn of(feature: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, name)| feature.starts_with(name)).map(|(operation, _)| operation)
    }
}

/// The features that a document requires for operations other than reading and that this program lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MissingFeatures(Vec<String>);

impl MissingFeatures {
    /// Returns those that `operation` needs.
    pub fn of(&self, operation: Operation) -> impl Iterator<Item = &str> {
        let needed = move |feature: &&String| Operation::of(feature) == Some(operation);
        self.0.iter().filter(needed).map(String::as_str)
    }
}

/// The reason that a document was not signed or is rejected.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// It is too long, or not one line and one armor.
    #[error("it is not one line of JSON and one signature: {0}")]
    Malformed(&'static str),
    /// The armor is not the one form that kbak writes.
    #[error("its signature is not in canonical form: {0}")]
    Armor(&'static str),
    /// The signature is for another namespace.
    #[error("it is signed for {found:?}, not for {wanted}")]
    Namespace {
        /// The expected namespace.
        wanted: Namespace,
        /// The namespace in the signature, shortened.
        found: String,
    },
    /// The key that signed is not pinned for this writer and namespace.
    #[error("it is signed by {key}, which is not pinned for writer {principal} and {namespace}")]
    Unpinned {
        /// The key that signed.
        key: String,
        /// The writer for which a pinned key is expected.
        principal: String,
        /// The expected namespace.
        namespace: Namespace,
    },
    /// The signature does not match the line.
    #[error("its signature does not match its content")]
    Signature,
    /// The line is not strict JSON of its type.
    #[error("its content is malformed")]
    Json(#[from] JsonError),
    /// The line's `type` does not match the namespace of its signature.
    #[error("its type is {found:?}, but it is signed as {wanted:?}")]
    Type {
        /// The type that belongs to the namespace.
        wanted: &'static str,
        /// The type in the line, shortened.
        found: String,
    },
    /// The document needs a newer reader.
    #[error("it needs features that this version of kbak does not have: {}", .0.join(", "))]
    Requires(Vec<String>),
    /// The document would be longer than readers accept.
    #[error("a signed document would have {0} bytes, which is more than readers accept")]
    TooLong(usize),
    /// The key cannot sign.
    #[error("cannot sign")]
    Key(#[from] KeyError),
}

impl SignError {
    /// True if a newer kbak may read the document. All other errors mean damage, forgery or a wrong pin.
    pub fn is_newer(&self) -> bool {
        matches!(self, Self::Requires(_))
    }
}

impl SigningKey {
    /// Writes `document`, a struct or map, as one line and signs it. This function puts `type` (from the
    /// namespace) and `requires` (empty so far) in front; the document must not hold them.
    pub fn sign_document(&self, namespace: Namespace, document: &impl Serialize) -> Result<Bytes, SignError> {
        let typed = Typed { r#type: namespace.document_type(), requires: &[], document };
        let mut bytes = serde_json::to_vec(&typed).map_err(JsonError::from)?;
        bytes.push(b'\n');
        if bytes.len() > MAX_LINE {
            return Err(SignError::TooLong(bytes.len()));
        }
        // A signed line must be readable: no floats, large integers or duplicate keys.
        check_head(namespace, &bytes)?;
        let signature = self.sign(namespace, &bytes)?;
        bytes.extend_from_slice(signature.as_bytes());
        Ok(bytes.into())
    }
}

/// A document with the fields that are written in front of it.
#[derive(Serialize)]
struct Typed<'a, T: Serialize> {
    r#type: &'static str,
    requires: &'a [&'a str],
    #[serde(flatten)]
    document: &'a T,
}

/// A well-formed document that is not verified. [`SignedDocument::verify`] is the only way to parse its line.
#[derive(Clone)]
pub struct SignedDocument {
    bytes: Bytes,
    line: usize,
    key: PublicKey,
    signature: SshSig,
}

impl SignedDocument {
    /// Splits a stored object into its line and signature, and checks their format.
    pub fn parse(bytes: Bytes) -> Result<Self, SignError> {
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(SignError::Malformed("it is too long"));
        }
        let line =
            memchr::memchr(b'\n', &bytes).ok_or(SignError::Malformed("its first line has no end"))? + 1;
        if line > MAX_LINE || bytes.len() - line > MAX_ARMOR {
            return Err(SignError::Malformed("it is too long"));
        }
        std::str::from_utf8(&bytes[..line]).map_err(|_| SignError::Malformed("its line is not UTF-8"))?;
        let text = &bytes[line..];
        let signature = SshSig::from_pem(text).map_err(|_| SignError::Armor("it is not an SSH signature"))?;
        if armor(&signature).map_or(true, |again| again.as_bytes() != text) {
            return Err(SignError::Armor("it is not in the form that kbak and ssh-keygen write"));
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

    /// Verifies that one of the keys that `signers` pins for `principal` and `namespace` signed the line.
    /// No other function gives access to its content.
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
        let line = self.bytes.slice(..self.line);
        Ok(VerifiedLine { line, key: self.key, namespace, hash: self.hash() })
    }

    /// Returns the key that the signature names, unverified.
    pub fn claimed_key(&self) -> PublicKey {
        self.key
    }

    /// Returns the namespace that the signature names, unverified.
    pub fn claimed_namespace(&self) -> Option<Namespace> {
        Namespace::from_text(self.signature.namespace())
    }

    /// Returns the SHA-256 of the whole document.
    pub fn hash(&self) -> ObjectHash {
        ObjectHash::of(&self.bytes)
    }
}

impl fmt::Debug for SignedDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignedDocument({}, by {:?}, unverified)", self.signature.namespace(), self.key)
    }
}

/// A line that a pinned key signed for a namespace. Only [`SignedDocument::verify`] creates one.
#[derive(Debug, Clone)]
pub struct VerifiedLine {
    line: Bytes,
    key: PublicKey,
    namespace: Namespace,
    hash: ObjectHash,
}

impl VerifiedLine {
    /// Reads the line as `T`. Its `type` must be the namespace's, and all features that reading requires must
    /// be known; other unknown fields are ignored.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, SignError> {
        check_head(self.namespace, &self.line)?;
        Ok(json::parse(&self.line)?)
    }

    /// Returns the unknown features that operations other than reading require.
    pub fn missing_features(&self) -> Result<MissingFeatures, SignError> {
        check_head(self.namespace, &self.line)
    }

    /// Returns the key that signed.
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// Returns the namespace that the line is signed for.
    pub fn namespace(&self) -> Namespace {
        self.namespace
    }

    /// Returns the SHA-256 of the whole document, signature included.
    pub fn hash(&self) -> ObjectHash {
        self.hash
    }

    /// Returns the line, including its newline.
    pub fn bytes(&self) -> &Bytes {
        &self.line
    }
}

/// The fields at the start of every signed line, checked before all others.
#[derive(Deserialize)]
struct DocumentHead {
    r#type: String,
    #[serde(default)]
    requires: Vec<String>,
}

fn check_head(namespace: Namespace, line: &[u8]) -> Result<MissingFeatures, SignError> {
    // serde reads an array as a struct; all readers must see an object.
    if !line.starts_with(b"{") {
        return Err(SignError::Malformed("its line is no JSON object"));
    }
    let DocumentHead { r#type: found, requires } = json::parse(line)?;
    let wanted = namespace.document_type();
    if found != wanted {
        return Err(SignError::Type { wanted, found: shorten(&found) });
    }
    let unknown = requires.iter().filter(|feature| !FEATURES.contains(&feature.as_str()));
    let (others, reading): (Vec<String>, _) =
        unknown.map(|feature| shorten(feature)).partition(|feature| Operation::of(feature).is_some());
    if reading.is_empty() { Ok(MissingFeatures(others)) } else { Err(SignError::Requires(reading)) }
}

/// Returns at most 64 characters of untrusted text, without control characters.
fn shorten(text: &str) -> String {
    text.chars().take(64).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
