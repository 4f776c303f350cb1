//! epoch.json: the signed birth of an epoch, with the recipient of its packs and the wraps of its
//! keys. Stored twice, byte for byte the same (docs/format.md).

use std::fmt;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::container::{ContainerError, DataRecipient};
use super::ids::{Commitment, EpochId, NameId, ObjectHash, RecipientId, RepositoryId, WriterId};
use super::layout::{self, EpochPath};
use super::moment;
use super::object::Sealed;
use super::sign::{Namespace, PublicKey, SignError, SignedDocument, SigningKey};
use super::signers::Signers;

/// The version of the repository format that this kbak reads and writes.
pub const FORMAT: u64 = 1;

/// The most owners an epoch can have.
pub const MAX_WRAPS: usize = 64;

/// How long after its last possible commit an epoch counts as closed, in seconds: 24 h.
pub const CLOSING_GRACE: u64 = 86_400;

/// Why an epoch is not taken.
#[derive(Debug, thiserror::Error)]
pub enum EpochError {
    /// The document or its signature.
    #[error("{object} does not count as an epoch")]
    Document {
        /// The object's key.
        object: String,
        /// Why.
        source: SignError,
    },
    /// A link, a pipe, a folder or the like stands in its place.
    #[error("{object}: something that is no plain file stands in its place")]
    NotAFile {
        /// The object's key.
        object: String,
    },
    /// It says it is another than the path it lies at.
    #[error("{object} says its {field} is {found}, and lies under {wanted}: it was moved or replaced")]
    Misplaced {
        /// The object's key.
        object: String,
        /// The field that differs.
        field: &'static str,
        /// What it says.
        found: String,
        /// What the path says.
        wanted: String,
    },
    /// It is of a newer format.
    #[error("{object} is of repository format {format}; this version of kbak reads format {FORMAT}")]
    Newer {
        /// The object's key.
        object: String,
        /// Its format.
        format: u64,
    },
    /// A field has a value that no writer writes.
    #[error("{object}: {what}")]
    Field {
        /// The object's key.
        object: String,
        /// What is wrong.
        what: &'static str,
    },
    /// An owner has cut off the key that signed it, and no good snapshot lies in it.
    #[error("{object} is signed by a key that an owner has cut off")]
    CutOff {
        /// The object's key.
        object: String,
    },
    /// The data recipient is not a key.
    #[error("{object} names no recipient for its packs")]
    Recipient {
        /// The object's key.
        object: String,
        /// Why.
        source: ContainerError,
    },
}

impl EpochError {
    /// Whether a newer kbak may read it; everything else is damage, forgery or a wrong pin.
    #[must_use]
    pub fn is_newer(&self) -> bool {
        matches!(self, Self::Newer { .. })
            || matches!(self, Self::Document { source, .. } if source.is_newer())
    }
}

/// Least, average and greatest size, in bytes of plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// No cut before.
    pub min: u64,
    /// What cut conditions aim at.
    pub average: u64,
    /// A cut at the latest.
    pub max: u64,
}

impl Sizes {
    fn sound(self) -> bool {
        (4096..=self.average).contains(&self.min) && self.average <= self.max && self.max <= MAX_CHUNK
    }
}

/// The longest chunk, in bytes of plaintext: zstd's window without `--long` (2^23).
pub const MAX_CHUNK: u64 = 8 << 20;
/// The largest pack aimed at, in bytes.
pub const MAX_PACK: u64 = 64 << 20;

/// The sizes that an epoch is written with. Readers need none of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameters {
    /// The size that packs are closed at.
    pub pack_bytes: u64,
    /// Neighbouring small files, read and skipped as one.
    pub segment: Sizes,
    /// Pieces of large files and dumps.
    pub chunk: Sizes,
    /// zstd's level.
    pub level: i32,
}

impl Default for Parameters {
    fn default() -> Self {
        let (kib, mib) = (1 << 10, 1 << 20);
        Self {
            pack_bytes: 16 * mib,
            segment: Sizes { min: mib, average: 1536 * kib, max: 4 * mib },
            chunk: Sizes { min: 512 * kib, average: 1536 * kib, max: 4 * mib },
            level: 3,
        }
    }
}

impl Parameters {
    fn sound(&self) -> bool {
        (1 << 20..=MAX_PACK).contains(&self.pack_bytes)
            && self.segment.sound()
            && self.chunk.sound()
            && (-7..=22).contains(&self.level)
    }
}

/// How the writer came by the epoch's secret. No reader acts upon it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretOrigin {
    /// Random, made by the writer.
    Random,
    /// Random, made by an owner and handed over (`kbak epoch new --outside`).
    Outside,
    /// Derived from a secret that does not change, where a writer cannot keep state.
    Static,
    /// Something that a newer writer knows.
    #[serde(other)]
    Other,
}

/// The epoch's keys, encrypted to one owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InlineWrap {
    /// Whom it is for.
    pub recipient: RecipientId,
    /// The age file in armor ([`super::wrap`]).
    pub age: String,
}

/// What epoch.json says. Moments are whole seconds of the store's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// The version of the format, a property of the epoch.
    pub format: u64,
    /// The repository.
    pub repository: RepositoryId,
    /// Who writes it.
    pub writer: WriterId,
    /// Whose chain it belongs to.
    pub plan: NameId,
    /// Which epoch it is.
    pub epoch: EpochId,
    /// When it was born.
    #[serde(with = "moment")]
    pub created: Timestamp,
    /// No run starts in it from this moment on.
    #[serde(with = "moment")]
    pub not_after: Timestamp,
    /// How long a run may take, in seconds.
    pub max_run_seconds: u64,
    /// Until when its objects are locked, if they are.
    #[serde(with = "moment::optional")]
    pub retain_until: Option<Timestamp>,
    /// The epochs that its birth closes.
    pub previous_epochs: Vec<EpochId>,
    /// Packs and bodies are encrypted to it (age X25519).
    pub recipient: String,
    /// Binds wraps to the epoch's secret.
    pub commitment: Commitment,
    /// Where the secret came from.
    pub secret: SecretOrigin,
    /// Sizes.
    pub parameters: Parameters,
    /// The keys, once per owner.
    pub wraps: Vec<InlineWrap>,
}

impl Epoch {
    /// Its folder.
    #[must_use]
    pub fn path(&self) -> EpochPath {
        EpochPath { writer: self.writer, plan: self.plan, epoch: self.epoch }
    }

    /// Signs the epoch: the object whose put is its birth, and the identical copy.
    pub fn seal(&self, key: &SigningKey) -> Result<[Sealed; 2], EpochError> {
        let path = self.path();
        let object = path.epoch_json();
        self.check(object.as_str())?;
        let bytes = key
            .sign_document(Namespace::Epoch, self)
            .map_err(|source| EpochError::Document { object: object.as_str().to_owned(), source })?;
        let hash = ObjectHash::of(&bytes);
        let copy = layout::epoch_copy(self.writer, self.plan, self.epoch);
        Ok([Sealed::new(object, bytes.clone(), hash), Sealed::new(copy, bytes, hash)])
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
        if self.retain_until.is_some_and(|until| until < moment::after(self.not_after, self.max_run_seconds))
        {
            return Err(field("its lock ends before its last possible commit"));
        }
        if self.previous_epochs.contains(&self.epoch) {
            return Err(field("it names itself as its own predecessor"));
        }
        if !self.parameters.sound() {
            return Err(field("its parameters are out of bounds"));
        }
        self.recipient.parse().map_err(|source| EpochError::Recipient { object: object.to_owned(), source })
    }

    /// Reads and verifies an epoch that lies at `path` (or at its copy): the signature under
    /// `signers`, and every field against the path. `repository` is compared where the caller
    /// knows it.
    pub fn open(
        bytes: Bytes,
        path: &EpochPath,
        repository: Option<RepositoryId>,
        signers: &Signers,
    ) -> Result<VerifiedEpoch, EpochError> {
        let object = path.epoch_json().as_str().to_owned();
        let (epoch, key, hash) = (|| {
            let line = SignedDocument::parse(bytes.clone())?.verify(
                signers,
                &path.writer.to_string(),
                Namespace::Epoch,
            )?;
            // The format is looked at before the rest: a newer one may have other fields.
            let Format { format } = line.parse()?;
            let epoch = if format > FORMAT { Err(format) } else { Ok(line.parse::<Self>()?) };
            Ok((epoch, line.key(), line.hash()))
        })()
        .map_err(|source: SignError| EpochError::Document { object: object.clone(), source })?;
        let epoch = epoch.map_err(|format| EpochError::Newer { object: object.clone(), format })?;
        let same = |field, found: &dyn fmt::Display, wanted: &dyn fmt::Display| {
            let (found, wanted) = (found.to_string(), wanted.to_string());
            if found == wanted {
                return Ok(());
            }
            Err(EpochError::Misplaced { object: object.clone(), field, found, wanted })
        };
        same("writer", &epoch.writer, &path.writer)?;
        same("plan", &epoch.plan, &path.plan)?;
        same("epoch", &epoch.epoch, &path.epoch)?;
        if let Some(repository) = repository {
            same("repository", &epoch.repository, &repository)?;
        }
        let recipient = epoch.check(&object)?;
        Ok(VerifiedEpoch { epoch, recipient, key, hash, bytes })
    }
}

/// The part of every epoch.json that no format changes.
#[derive(Deserialize)]
struct Format {
    format: u64,
}

/// An epoch whose signature and place were verified. Only [`Epoch::open`] makes one.
#[derive(Debug, Clone)]
pub struct VerifiedEpoch {
    epoch: Epoch,
    recipient: DataRecipient,
    key: PublicKey,
    hash: ObjectHash,
    bytes: Bytes,
}

impl VerifiedEpoch {
    /// The key that signed. A writer encrypts to an epoch only if this is its own.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// SHA-256 of epoch.json.
    #[must_use]
    pub fn hash(&self) -> ObjectHash {
        self.hash
    }

    /// What packs and bodies are encrypted to.
    #[must_use]
    pub fn recipient(&self) -> &DataRecipient {
        &self.recipient
    }

    /// The object and its identical second copy, to be stored again where one is missing.
    #[must_use]
    pub fn copies(&self) -> [Sealed; 2] {
        let copy = layout::epoch_copy(self.epoch.writer, self.epoch.plan, self.epoch.epoch);
        [self.epoch.path().epoch_json(), copy].map(|key| Sealed::new(key, self.bytes.clone(), self.hash))
    }

    /// The wrap of one owner, if he was one when the epoch was born.
    #[must_use]
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
