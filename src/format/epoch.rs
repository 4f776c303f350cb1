//! epoch.json: the signed document that creates an epoch, with the recipient of its packs and the wraps
//! of its keys. Stored twice, byte for byte the same (docs/format.md).

use std::fmt;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::container::{ContainerError, DataRecipient};
use super::ids::{Commitment, EpochId, NameId, ObjectHash, RecipientId, RepositoryId, WriterId};
use super::layout::{self, EpochPath};
use super::pack::{MAX_CHUNK, MAX_PACK};
use super::sign::{MissingFeatures, Namespace, PublicKey, SignError, SignedDocument, SigningKey};
use super::{object::SealedObject, signers::Signers, timestamp};

/// The version of the repository format that this kbak reads and writes.
pub const FORMAT: u64 = 1;

/// The most owners that an epoch can have.
pub const MAX_WRAPS: usize = 64;

/// The time from an epoch's last possible commit until it counts as closed, in seconds: 24 h.
pub const CLOSING_GRACE: u64 = 86_400;

/// The reason that an epoch is rejected.
#[derive(Debug, thiserror::Error)]
pub enum EpochError {
    /// The document or its signature is invalid.
    #[error("{object} is not a valid epoch")]
    Document {
        /// The object's key.
        object: String,
        /// The cause.
        source: SignError,
    },
    /// The path is not a plain file but a link, a pipe, a folder or the like.
    #[error("{object} is not a regular file")]
    NotAFile {
        /// The object's key.
        object: String,
    },
    /// It names another writer, plan, epoch or repository than its path.
    #[error("{object} names {field} {found}, but its path names {wanted}: it was moved or replaced")]
    WrongPath {
        /// The object's key.
        object: String,
        /// The field that differs.
        field: &'static str,
        /// The value in the document.
        found: String,
        /// The value in the path.
        wanted: String,
    },
    /// It has a newer repository format.
    #[error("{object} is of repository format {format}; this version of kbak reads format {FORMAT}")]
    Newer {
        /// The object's key.
        object: String,
        /// The version of its format.
        format: u64,
    },
    /// A field has a value that no writer produces.
    #[error("{object}: {what}")]
    Field {
        /// The object's key.
        object: String,
        /// The violated rule.
        what: &'static str,
    },
    /// An owner has revoked the key that signed it, and the epoch holds no good snapshot.
    #[error("{object} is signed by a key that an owner has revoked")]
    Revoked {
        /// The object's key.
        object: String,
    },
    /// The recipient of its packs is not a key.
    #[error("{object} names no recipient for its packs")]
    Recipient {
        /// The object's key.
        object: String,
        /// The cause.
        source: ContainerError,
    },
}

impl EpochError {
    /// Returns `true` if a newer kbak may read it; all other errors mean damage, forgery or a wrong pin.
    pub fn is_newer(&self) -> bool {
        matches!(self, Self::Newer { .. })
            || matches!(self, Self::Document { source, .. } if source.is_newer())
    }
}

/// The minimum, average and maximum size, in bytes of plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// The minimum size; there is no cut before it.
    pub min: u64,
    /// The average size that the cut conditions aim at.
    pub average: u64,
    /// The maximum size; there is always a cut at it.
    pub max: u64,
}

impl Sizes {
    fn is_valid(self) -> bool {
        (4096..=self.average).contains(&self.min) && self.average <= self.max && self.max <= MAX_CHUNK as u64
    }
}

/// The parameters that an epoch is written with. Readers need none of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameters {
    /// The size at which packs are closed, in bytes.
    pub pack_bytes: u64,
    /// The sizes of segments: neighbouring small files that are read and skipped as one.
    pub segment: Sizes,
    /// The sizes of chunks of large files and dumps.
    pub chunk: Sizes,
    /// The compression level of zstd.
    pub level: i32,
}

impl Default for Parameters {
    fn default() -> Self {
        let (kib, mib) = (1 << 10, 1 << 20);
        Self {
            pack_bytes: 16 * mib,
            segment: Sizes { min: mib, average: 1536 * kib, max: 4 * mib },
            chunk: Sizes { min: 512 * kib, average: 1536 * kib, max: 4 * mib },
            level: 2,
        }
    }
}

impl Parameters {
    fn is_valid(&self) -> bool {
        (1 << 20..=MAX_PACK as u64).contains(&self.pack_bytes)
            && self.segment.is_valid()
            && self.chunk.is_valid()
            && (-7..=22).contains(&self.level)
    }
}

/// The origin of the epoch's secret. No reader depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretOrigin {
    /// Random, made by the writer.
    Random,
    /// Random, made by an owner and given to the writer (`kbak epoch new --outside`).
    Outside,
    /// Derived from a secret that does not change, for a writer that cannot keep state.
    Static,
    /// An origin that a newer writer knows.
    #[serde(other)]
    Other,
}

/// The epoch's keys, encrypted to one owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InlineWrap {
    /// The owner that it is encrypted to.
    pub recipient: RecipientId,
    /// The age file in armor ([`super::wrap`]).
    pub age: String,
}

/// The content of epoch.json. Times are whole seconds of the store's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// The version of the format, a property of the epoch.
    pub format: u64,
    /// The id of the repository.
    pub repository: RepositoryId,
    /// The writer of the epoch.
    pub writer: WriterId,
    /// The plan whose chain it belongs to.
    pub plan: NameId,
    /// The id of the epoch.
    pub epoch: EpochId,
    /// The time at which the epoch was created.
    #[serde(with = "timestamp")]
    pub created: Timestamp,
    /// The time from which on no run starts in the epoch.
    #[serde(with = "timestamp")]
    pub not_after: Timestamp,
    /// The longest time that a run may take, in seconds.
    pub max_run_seconds: u64,
    /// The time until which its objects are locked, if they are.
    #[serde(with = "timestamp::optional")]
    pub retain_until: Option<Timestamp>,
    /// The epochs that this one closes.
    pub previous_epochs: Vec<EpochId>,
    /// The age X25519 recipient that packs and bodies are encrypted to.
    pub recipient: String,
    /// The commitment that binds wraps to the epoch's secret.
    pub commitment: Commitment,
    /// The origin of the secret.
    pub secret: SecretOrigin,
    /// The sizes and compression level.
    pub parameters: Parameters,
    /// The keys, encrypted once per owner.
    pub wraps: Vec<InlineWrap>,
}

impl Epoch {
    /// Returns the path of the epoch's objects.
    pub fn path(&self) -> EpochPath {
        EpochPath { writer: self.writer, plan: self.plan, epoch: self.epoch }
    }

    /// Signs the epoch. Returns the copy with a signed key, and epoch.json, in the order in which they are
    /// stored: whatever holds one of them is found by its key.
    pub fn seal(&self, key: &SigningKey) -> Result<[SealedObject; 2], EpochError> {
        let path = self.path();
        let object = path.epoch_json();
        self.check(object.as_str())?;
        let bytes = key
            .sign_document(Namespace::Epoch, self)
            .map_err(|source| EpochError::Document { object: object.as_str().to_owned(), source })?;
        let hash = ObjectHash::of(&bytes);
        copies(key, &path, &bytes, hash)
    }

    fn check(&self, object: &str) -> Result<DataRecipient, EpochError> {
        let field = |what| EpochError::Field { object: object.to_owned(), what };
        if self.format != FORMAT {
            return Err(EpochError::Newer { object: object.to_owned(), format: self.format });
        }
        if self.wraps.is_empty() || self.wraps.len() > MAX_WRAPS {
            return Err(field("it has no wraps, or too many"));
        }
        let mut owners: Vec<_> = self.wraps.iter().map(|wrap| wrap.recipient).collect();
        owners.sort_unstable();
        owners.dedup();
        if owners.len() != self.wraps.len() {
            return Err(field("it has two wraps for one owner"));
        }
        if self.not_after <= self.created || self.max_run_seconds == 0 {
            return Err(field("it ends before it begins"));
        }
        if self
            .retain_until
            .is_some_and(|until| until < timestamp::add_seconds(self.not_after, self.max_run_seconds))
        {
            return Err(field("its lock ends before its last possible commit"));
        }
        if self.previous_epochs.contains(&self.epoch) {
            return Err(field("it names itself as its own predecessor"));
        }
        if !self.parameters.is_valid() {
            return Err(field("its parameters are out of bounds"));
        }
        self.recipient.parse().map_err(|source| EpochError::Recipient { object: object.to_owned(), source })
    }

    /// Reads and verifies an epoch from `path` or its copy: the signature under `signers`, and every
    /// field against the path. `repository` is compared if the caller knows it.
    pub fn open(
        bytes: Bytes,
        path: &EpochPath,
        repository: Option<RepositoryId>,
        signers: &Signers,
    ) -> Result<VerifiedEpoch, EpochError> {
        let object = path.epoch_json().as_str().to_owned();
        let (epoch, missing, key, hash) = (|| {
            let line = SignedDocument::parse(bytes.clone())?.verify(
                signers,
                &path.writer.to_string(),
                Namespace::Epoch,
            )?;
            // The format is checked before the rest: a newer one may have other fields.
            let FormatField { format } = line.parse()?;
            let epoch = if format > FORMAT { Err(format) } else { Ok(line.parse::<Self>()?) };
            Ok((epoch, line.missing_features()?, line.key(), line.hash()))
        })()
        .map_err(|source: SignError| EpochError::Document { object: object.clone(), source })?;
        let epoch = epoch.map_err(|format| EpochError::Newer { object: object.clone(), format })?;
        let same = |field, found: &dyn fmt::Display, wanted: &dyn fmt::Display| {
            let (found, wanted) = (found.to_string(), wanted.to_string());
            if found == wanted {
                return Ok(());
            }
            Err(EpochError::WrongPath { object: object.clone(), field, found, wanted })
        };
        same("writer", &epoch.writer, &path.writer)?;
        same("plan", &epoch.plan, &path.plan)?;
        same("epoch", &epoch.epoch, &path.epoch)?;
        if let Some(repository) = repository {
            same("repository", &epoch.repository, &repository)?;
        }
        let recipient = epoch.check(&object)?;
        Ok(VerifiedEpoch { epoch, missing, recipient, key, hash, bytes })
    }
}

/// Returns the copy of an epoch with a signed key, and its epoch.json.
fn copies(
    key: &SigningKey,
    path: &EpochPath,
    bytes: &Bytes,
    hash: ObjectHash,
) -> Result<[SealedObject; 2], EpochError> {
    let first = path.epoch_json();
    let copy = key
        .sign_key(layout::epoch_copy(path, hash))
        .map_err(|source| EpochError::Document { object: first.to_string(), source: source.into() })?;
    Ok([copy, first].map(|key| SealedObject::new(key, bytes.clone(), hash)))
}

/// The field of epoch.json that is the same in all formats.
#[derive(Deserialize)]
struct FormatField {
    format: u64,
}

/// An epoch whose signature and place were verified. Only [`Epoch::open`] creates one.
#[derive(Debug, Clone)]
pub struct VerifiedEpoch {
    epoch: Epoch,
    missing: MissingFeatures,
    recipient: DataRecipient,
    key: PublicKey,
    hash: ObjectHash,
    bytes: Bytes,
}

impl VerifiedEpoch {
    /// Returns the key that signed. A writer encrypts to an epoch only if this is its own key.
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// Returns the SHA-256 of epoch.json.
    pub fn hash(&self) -> ObjectHash {
        self.hash
    }

    /// Returns the features that it requires and this program lacks.
    pub fn missing_features(&self) -> &MissingFeatures {
        &self.missing
    }

    /// Returns the recipient that packs and bodies are encrypted to.
    pub fn recipient(&self) -> &DataRecipient {
        &self.recipient
    }

    /// Returns both copies as [`Epoch::seal`] does, to be stored again if one is missing.
    pub fn copies(&self, key: &SigningKey) -> Result<[SealedObject; 2], EpochError> {
        copies(key, &self.epoch.path(), &self.bytes, self.hash)
    }

    /// Returns the wrap of an owner, if they were one when the epoch was created.
    pub fn wrap(&self, recipient: RecipientId) -> Option<&InlineWrap> {
        self.epoch.wraps.iter().find(|wrap| wrap.recipient == recipient)
    }
}

impl std::ops::Deref for VerifiedEpoch {
    type Target = Epoch;
    fn deref(&self) -> &Epoch {
        &self.epoch
    }
}
