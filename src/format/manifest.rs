//! Manifests: the objects that commit snapshots. Each is a public envelope, one line, signed by the
//! writer; its content is in an encrypted body that the envelope names by hash.
//!
//! The name and the chain use the SHA-256 of the whole object. `previous` names every head that
//! the writer verified, so two concurrent runs create two heads and the next run merges them. The
//! sequence number is one more than the greatest of the heads.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ids::{EpochId, NameId, ObjectHash, RepositoryId, WriterId};
use super::layout::{EpochPath, parse_snapshot_name};
use super::sign::{MissingFeatures, Namespace, PublicKey, SignError, SignedDocument, SigningKey};
use super::{object::SealedObject, signers::Signers, timestamp};
use crate::report::item_state::ItemState;

/// The greatest sequence number: below 2^53, so that every JSON reader keeps it exactly, and 12 digits.
pub const MAX_SEQUENCE: u64 = 999_999_999_999;
/// The most heads that one manifest merges.
pub const MAX_PREVIOUS: usize = 256;
/// The most bad packs that a manifest names, and the most packs with copies of one.
pub const MAX_HEALS: usize = 512;
/// The most revocations that a manifest names.
pub const MAX_TRUST: usize = 256;

/// The public part of an item: an opaque id, its state, and the packs that it needs, so that anyone can tell
/// which packs a prune may remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicItem {
    /// The id of the item's name.
    pub id: NameId,
    /// The item's state.
    pub state: ItemState,
    /// The domain of its packs. Absent if the item has no streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    domain: Option<NameId>,
    /// The SHA-256 of the list of its packs. Absent if the item has no streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    needs: Option<ObjectHash>,
}

impl PublicItem {
    /// Creates the public part of an item, with the list of its packs if it has streams.
    #[must_use]
    pub fn new(id: NameId, state: ItemState, needs: Option<Needs>) -> Self {
        Self { id, state, domain: needs.map(|needs| needs.domain), needs: needs.map(|needs| needs.list) }
    }

    /// Returns the domain of the item's packs and the list of them, if it has streams.
    #[must_use]
    pub fn needs(&self) -> Option<Needs> {
        Some(Needs { domain: self.domain?, list: self.needs? })
    }
}

/// The packs of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Needs {
    /// The domain of the packs.
    pub domain: NameId,
    /// The SHA-256 of the object that lists them.
    pub list: ObjectHash,
}

/// Objects of one class in one domain of the manifest's epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainObjects {
    /// The domain of the objects.
    pub domain: NameId,
    /// The SHA-256 of each object.
    pub objects: Vec<ObjectHash>,
}

/// A bad pack, and the packs with copies of its chunks. A prune keeps those as long as a manifest that it keeps
/// needs the bad one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heal {
    /// The domain of the packs.
    pub domain: NameId,
    /// The SHA-256 of the bad pack.
    pub bad: ObjectHash,
    /// The SHA-256 of each pack that holds a copy.
    pub by: Vec<ObjectHash>,
    /// True if every chunk that the writer's index knew in the bad pack has a copy.
    pub whole: bool,
}

/// The public half of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The id of the repository.
    pub repository: RepositoryId,
    /// The writer of the snapshot.
    pub writer: WriterId,
    /// The plan whose chain it belongs to.
    pub plan: NameId,
    /// The epoch that it is committed into.
    pub epoch: EpochId,
    /// The sequence number: one more than the greatest of its parents.
    pub seq: u64,
    /// The hashes of the parents: all heads that the writer verified.
    pub previous: Vec<ObjectHash>,
    /// The time at which the run started.
    #[serde(with = "timestamp")]
    pub started: Timestamp,
    /// The time at which the run ended, which is the snapshot's time.
    #[serde(with = "timestamp")]
    pub finished: Timestamp,
    /// The time before which the plan promises the end of the next run, if it promises one.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "timestamp::optional")]
    pub next_before: Option<Timestamp>,
    /// The index objects that were complete at the commit.
    pub index: Vec<DomainObjects>,
    /// The roots of the scan caches.
    pub cache: Vec<DomainObjects>,
    /// The writer's state.
    pub state: Vec<DomainObjects>,
    /// The SHA-256 of the encrypted body.
    pub body: ObjectHash,
    /// The size of the stored body, in bytes.
    pub body_size: u64,
    /// The state of every declared item, and the packs that it needs.
    pub items: Vec<PublicItem>,
    /// The bad packs of this epoch that have copies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub heals: Vec<Heal>,
    /// The SHA-256 of every revocation that the writer knows: whoever removes one is noticed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trust: Vec<ObjectHash>,
}

/// The reason that a manifest is rejected.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Its signature or format is invalid.
    #[error(transparent)]
    Signed(#[from] SignError),
    /// It names another writer, plan, epoch or sequence number than its path.
    #[error("it names {field} {found}, but its path names {wanted}")]
    WrongPath {
        /// The field that differs.
        field: &'static str,
        /// The value in the manifest.
        found: String,
        /// The value in the path.
        wanted: String,
    },
    /// Its name does not contain its hash, or is not a manifest's name.
    #[error("its name does not match its content")]
    Name,
    /// The path is not a plain file but a link, a pipe, a folder or the like.
    #[error("not a regular file")]
    NotAFile,
    /// Its fields contradict each other.
    #[error("it contradicts itself: {0}")]
    Contradiction(&'static str),
    /// An owner has revoked the key that signed it, and lists neither it nor a descendant of it as good.
    #[error("an owner has revoked the key that signed it")]
    Revoked,
}

impl Envelope {
    /// Returns the path of the manifest's epoch.
    pub fn path(&self) -> EpochPath {
        EpochPath { writer: self.writer, plan: self.plan, epoch: self.epoch }
    }

    /// Signs the envelope. Returns the object whose put commits the snapshot, and its hash.
    pub fn seal(&self, key: &SigningKey) -> Result<(SealedObject, ObjectHash), ManifestError> {
        self.check()?;
        let bytes = key.sign_document(Namespace::Manifest, self)?;
        let hash = ObjectHash::of(&bytes);
        let object = key.sign_key(self.path().snapshot(self.seq, hash)).map_err(SignError::from)?;
        Ok((SealedObject::new(object, bytes, hash), hash))
    }

    fn check(&self) -> Result<(), ManifestError> {
        let wrong = |what| Err(ManifestError::Contradiction(what));
        if self.seq == 0 || self.seq > MAX_SEQUENCE {
            return wrong("its sequence is out of range");
        }
        if self.previous.len() > MAX_PREVIOUS || self.previous.is_empty() != (self.seq == 1) {
            return wrong("its sequence and its parents do not match");
        }
        if self.finished < self.started {
            return wrong("it ended before it began");
        }
        if self.heals.len() > MAX_HEALS || self.heals.iter().any(|heal| heal.by.len() > MAX_HEALS) {
            return wrong("it names too many bad packs");
        }
        if self.items.iter().any(|item| item.domain.is_some() != item.needs.is_some()) {
            return wrong("an item names a domain or a list of packs alone");
        }
        if self.trust.len() > MAX_TRUST {
            return wrong("it names too many revocations");
        }
        Ok(())
    }
}

/// A manifest whose signature, name and place were verified. Only [`Manifest::open`] creates one.
#[derive(Debug, Clone)]
pub struct Manifest {
    envelope: Envelope,
    missing: MissingFeatures,
    key: PublicKey,
    hash: ObjectHash,
}

impl Manifest {
    /// Reads and verifies a manifest that was listed under `path` with `name`.
    pub fn open(
        bytes: Bytes,
        path: &EpochPath,
        name: &str,
        signers: &Signers,
    ) -> Result<Self, ManifestError> {
        let (seq, hash) = parse_snapshot_name(name).ok_or(ManifestError::Name)?;
        let document = SignedDocument::parse(bytes)?;
        if document.hash() != hash {
            return Err(ManifestError::Name);
        }
        let line = document.verify(signers, &path.writer.to_string(), Namespace::Manifest)?;
        let envelope: Envelope = line.parse()?;
        let same = |field, found: String, wanted: String| {
            if found == wanted { Ok(()) } else { Err(ManifestError::WrongPath { field, found, wanted }) }
        };
        same("writer", envelope.writer.to_string(), path.writer.to_string())?;
        same("plan", envelope.plan.to_string(), path.plan.to_string())?;
        same("epoch", envelope.epoch.to_string(), path.epoch.to_string())?;
        same("sequence", envelope.seq.to_string(), seq.to_string())?;
        envelope.check()?;
        Ok(Self { envelope, missing: line.missing_features()?, key: line.key(), hash })
    }

    /// Returns the features that it requires and this program lacks.
    pub fn missing_features(&self) -> &MissingFeatures {
        &self.missing
    }

    /// Returns the verified envelope.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// Returns the key that signed.
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// Returns the SHA-256 of the whole object: the snapshot's name in the chain.
    pub fn hash(&self) -> ObjectHash {
        self.hash
    }
}
