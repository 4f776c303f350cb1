//! Records: signed statements under `<writer>/records/`, each one object named by its SHA-256.
//!
//! The SSHSIG namespace says what a record is; its line repeats repository, writer and moment, so
//! that no record can be shown in another place.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ids::{EpochId, NameId, ObjectHash, RecipientId, RepositoryId, WriterId};
use super::layout;
use super::moment;
use super::object::Sealed;
use super::sign::{Namespace, PublicKey, SignError, SignedDocument, SigningKey};
use super::signers::Signers;

/// An owner cuts off a key, a stolen writer key above all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// The key that counts no more.
    pub key: PublicKey,
    /// The last manifests of that key that are good: they and their ancestors keep counting.
    pub last_good: Vec<ObjectHash>,
    /// Why, for people.
    pub why: String,
}

/// Packs that are bad: writers upload their chunks anew, readers look for copies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distrust {
    /// The plan.
    pub plan: NameId,
    /// The epoch.
    pub epoch: EpochId,
    /// The domain.
    pub domain: NameId,
    /// The packs, by name.
    pub packs: Vec<ObjectHash>,
    /// What is wrong with them, for people.
    pub why: String,
}

/// What an owner did with an epoch's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// Opened a wrap: the epoch is proven.
    Opened,
    /// Wrapped the keys for one more owner.
    Added,
    /// Something that a newer kbak knows.
    #[serde(other)]
    Other,
}

/// An owner's proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The plan.
    pub plan: NameId,
    /// The epoch.
    pub epoch: EpochId,
    /// What he did.
    pub act: Act,
    /// The owner who can open the wrap: who opened it, or who was added. Absent where a later wrap
    /// was opened whose owner is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<RecipientId>,
    /// The object under `keys/`, where it is not a wrap of epoch.json.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrap: Option<ObjectHash>,
}

/// What a record says. Those that have no shape of their own here are open: their readers look
/// for the fields that they know.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A key is cut off.
    Trust(Trust),
    /// Packs are bad.
    Distrust(Distrust),
    /// An owner did something.
    Receipt(Receipt),
    /// Another statement.
    Open {
        /// Which: prune, drill, restore or exception.
        namespace: Namespace,
        /// What it says.
        fields: serde_json::Map<String, serde_json::Value>,
    },
}

impl Record {
    /// What it is signed for.
    #[must_use]
    pub fn namespace(&self) -> Namespace {
        match self {
            Self::Trust(_) => Namespace::Trust,
            Self::Distrust(_) => Namespace::Distrust,
            Self::Receipt(_) => Namespace::Receipt,
            Self::Open { namespace, .. } => *namespace,
        }
    }

    /// Signs the record. `at` is the store's clock, cut to seconds.
    pub fn seal(
        &self,
        repository: RepositoryId,
        writer: WriterId,
        at: Timestamp,
        key: &SigningKey,
    ) -> Result<Sealed, SignError> {
        let namespace = self.namespace();
        let place = Place { repository, writer, at };
        let bytes = match self {
            Self::Trust(body) => key.sign_document(namespace, &Statement { place, body }),
            Self::Distrust(body) => key.sign_document(namespace, &Statement { place, body }),
            Self::Receipt(body) => key.sign_document(namespace, &Statement { place, body }),
            Self::Open { fields, .. } => key.sign_document(namespace, &Statement { place, body: fields }),
        }?;
        let hash = ObjectHash::of(&bytes);
        Ok(Sealed::new(layout::record(writer, hash), bytes, hash))
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Place {
    repository: RepositoryId,
    writer: WriterId,
    #[serde(with = "moment")]
    at: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Statement<T> {
    #[serde(flatten)]
    place: Place,
    #[serde(flatten)]
    body: T,
}

/// Why a record counts for nothing.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Its form or signature.
    #[error("it does not count")]
    Signed(#[from] SignError),
    /// Its name is not its hash.
    #[error("its name is not the hash of its content")]
    Name,
    /// It is signed for something that is no record.
    #[error("it is not signed as a record")]
    Kind,
    /// It speaks of another repository or writer than it lies under.
    #[error("its {field} is {found}, and it lies under {wanted}")]
    Misplaced {
        /// The field that differs.
        field: &'static str,
        /// What it says.
        found: String,
        /// What the path says.
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
    /// Reads and verifies a record that lies under `writer` with the name `hash`. `repository` is
    /// compared where the caller knows it.
    pub fn open(
        bytes: Bytes,
        writer: WriterId,
        hash: ObjectHash,
        repository: Option<RepositoryId>,
        signers: &Signers,
    ) -> Result<Self, RecordError> {
        if ObjectHash::of(&bytes) != hash {
            return Err(RecordError::Name);
        }
        let document = SignedDocument::parse(bytes)?;
        let namespace = match document.claimed_namespace() {
            None | Some(Namespace::Epoch | Namespace::Manifest) => return Err(RecordError::Kind),
            Some(namespace) => namespace,
        };
        let line = document.verify(signers, &writer.to_string(), namespace)?;
        let (place, record) = match namespace {
            Namespace::Trust => {
                let Statement { place, body } = line.parse()?;
                (place, Record::Trust(body))
            }
            Namespace::Distrust => {
                let Statement { place, body } = line.parse()?;
                (place, Record::Distrust(body))
            }
            Namespace::Receipt => {
                let Statement { place, body } = line.parse()?;
                (place, Record::Receipt(body))
            }
            _ => {
                let Statement { place, body: fields } = line.parse()?;
                (place, Record::Open { namespace, fields })
            }
        };
        let same = |field, found: String, wanted: String| {
            if found == wanted { Ok(()) } else { Err(RecordError::Misplaced { field, found, wanted }) }
        };
        same("writer", place.writer.to_string(), writer.to_string())?;
        if let Some(repository) = repository {
            same("repository", place.repository.to_string(), repository.to_string())?;
        }
        Ok(Self { record, key: line.key(), at: place.at, hash })
    }

    /// What it says.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Who signed it.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// When, as its signer says.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// Its name.
    #[must_use]
    pub fn hash(&self) -> ObjectHash {
        self.hash
    }
}
