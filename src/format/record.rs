//! Records: signed statements under `<writer>/records/<type>/`, each one object.
//!
//! The SSHSIG namespace gives the kind of record. Its line repeats repository, writer and time, so
//! that no record can be presented in another place.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ids::{EpochId, NameId, ObjectHash, RecipientId, RepositoryId, WriterId};
use super::revocation::Revocation;
use super::sign::{Namespace, PublicKey, SignError, SignedDocument, SigningKey};
use super::{layout, object::SealedObject, signers::Signers, timestamp};

/// The longest record in bytes. A longer list of packs takes several.
pub const MAX_RECORD: u64 = 64 << 10;

/// The most packs that one record of bad packs names, so that it stays below [`MAX_RECORD`].
pub const MAX_DISTRUSTED: usize = 800;

/// Bad packs and hints of a domain: writers upload the chunks of such packs again, readers look for other copies;
/// of hints, writers believe none that these manifests, their ancestors or runs before this record left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distrust {
    /// The plan of the packs.
    pub plan: NameId,
    /// The epoch of the packs.
    pub epoch: EpochId,
    /// The domain of the packs.
    pub domain: NameId,
    /// The SHA-256 of each bad pack.
    pub packs: Vec<ObjectHash>,
    /// The heads whose index and scan cache do not count any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hints_before: Vec<ObjectHash>,
    /// The reason, for people.
    pub why: String,
}

/// The action of an owner on an epoch's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReceiptAction {
    /// Opened a wrap, which proves the epoch.
    Opened,
    /// Wrapped the keys for one more owner.
    Added,
    /// An action of a newer kbak.
    #[serde(other)]
    Other,
}

/// An owner's record that they opened an epoch or added an owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The plan of the epoch.
    pub plan: NameId,
    /// The id of the epoch.
    pub epoch: EpochId,
    /// The action.
    pub act: ReceiptAction,
    /// The owner who opened the wrap or was added. Absent if that owner is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<RecipientId>,
    /// The object under `keys/`; absent if the wrap is in epoch.json.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrap: Option<ObjectHash>,
}

/// The content of a record. Other kinds are open: their readers look for the fields that they know.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A key is revoked.
    Revocation(Revocation),
    /// Packs are bad.
    Distrust(Distrust),
    /// An owner opened an epoch or added an owner.
    Receipt(Receipt),
    /// Another kind of record.
    Untyped {
        /// The kind: prune, drill, restore, exception, hold or retire.
        namespace: Namespace,
        /// The fields of the record.
        fields: serde_json::Map<String, serde_json::Value>,
    },
}

impl Record {
    /// Returns the namespace that the record is signed for.
    pub fn namespace(&self) -> Namespace {
        match self {
            Self::Revocation(_) => Namespace::Trust,
            Self::Distrust(_) => Namespace::Distrust,
            Self::Receipt(_) => Namespace::Receipt,
            Self::Untyped { namespace, .. } => *namespace,
        }
    }

    /// Signs the record. `at` is the time of the store's clock; it is cut to seconds.
    pub fn seal(
        &self,
        repository: RepositoryId,
        writer: WriterId,
        at: Timestamp,
        key: &SigningKey,
    ) -> Result<SealedObject, SignError> {
        let namespace = self.namespace();
        let origin = RecordOrigin { repository, writer, at };
        let bytes = match self {
            Self::Revocation(body) => key.sign_document(namespace, &Statement { origin, body }),
            Self::Distrust(body) => key.sign_document(namespace, &Statement { origin, body }),
            Self::Receipt(body) => key.sign_document(namespace, &Statement { origin, body }),
            Self::Untyped { fields, .. } => key.sign_document(namespace, &Statement { origin, body: fields }),
        }?;
        if bytes.len() as u64 > MAX_RECORD {
            return Err(SignError::TooLong(bytes.len()));
        }
        let hash = ObjectHash::of(&bytes);
        let object = key.sign_key(layout::record(writer, namespace.document_type(), hash))?;
        Ok(SealedObject::new(object, bytes, hash))
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct RecordOrigin {
    repository: RepositoryId,
    writer: WriterId,
    #[serde(with = "timestamp")]
    at: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Statement<T> {
    #[serde(flatten)]
    origin: RecordOrigin,
    #[serde(flatten)]
    body: T,
}

/// The reason that a record is rejected.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Its format or signature is invalid.
    #[error("invalid signature or format")]
    Signed(#[from] SignError),
    /// Its name is not its hash.
    #[error("its name is not the hash of its content")]
    Name,
    /// It names another repository or writer than its path.
    #[error("it names {field} {found}, but its path names {wanted}")]
    WrongPath {
        /// The field that differs.
        field: &'static str,
        /// The value in the record.
        found: String,
        /// The value in the path.
        wanted: String,
    },
}

/// A record whose signature and place were verified. Only [`SignedRecord::open`] makes one.
#[derive(Debug, Clone, PartialEq)]
pub struct SignedRecord {
    record: Record,
    key: PublicKey,
    at: Timestamp,
    hash: ObjectHash,
}

impl SignedRecord {
    /// Reads and verifies a record stored under `writer` as `hash` in the folder of `namespace`. A known
    /// `repository` is compared.
    pub fn open(
        bytes: Bytes,
        writer: WriterId,
        hash: ObjectHash,
        namespace: Namespace,
        repository: Option<RepositoryId>,
        signers: &Signers,
    ) -> Result<Self, RecordError> {
        if ObjectHash::of(&bytes) != hash {
            return Err(RecordError::Name);
        }
        let document = SignedDocument::parse(bytes)?;
        let line = document.verify(signers, &writer.to_string(), namespace)?;
        let (origin, record) = match namespace {
            Namespace::Trust => {
                let Statement { origin, body } = line.parse()?;
                (origin, Record::Revocation(body))
            }
            Namespace::Distrust => {
                let Statement { origin, body } = line.parse()?;
                (origin, Record::Distrust(body))
            }
            Namespace::Receipt => {
                let Statement { origin, body } = line.parse()?;
                (origin, Record::Receipt(body))
            }
            _ => {
                let Statement { origin, body: fields } = line.parse()?;
                (origin, Record::Untyped { namespace, fields })
            }
        };
        let same = |field, found: String, wanted: String| {
            if found == wanted { Ok(()) } else { Err(RecordError::WrongPath { field, found, wanted }) }
        };
        same("writer", origin.writer.to_string(), writer.to_string())?;
        if let Some(repository) = repository {
            same("repository", origin.repository.to_string(), repository.to_string())?;
        }
        Ok(Self { record, key: line.key(), at: origin.at, hash })
    }

    /// Returns the content of the record.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Returns the key that signed the record.
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// Returns the time at which it was signed, as its signer states.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// Returns the record's SHA-256, which is its name.
    pub fn hash(&self) -> ObjectHash {
        self.hash
    }
}
