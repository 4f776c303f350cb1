//! Manifests: the one object that commits a snapshot. A public envelope, one line, signed by the
//! writer; what it covers stands in an encrypted body that the envelope names by hash.
//!
//! The name and the chain use the SHA-256 of the whole object. `previous` names every head that
//! the writer verified, so two runs at once make two heads and the next run merges them; the
//! sequence is one more than the greatest sequence of the heads.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ids::{EpochId, NameId, ObjectHash, RepositoryId, WriterId};
use super::layout::{EpochPath, parse_snapshot_name};
use super::moment;
use super::object::Sealed;
use super::sign::{Namespace, PublicKey, SignError, SignedDocument, SigningKey};
use super::signers::Signers;

/// Sequences stay below 2^53, so that every JSON reader keeps them exactly, and fit 12 digits.
pub const MAX_SEQUENCE: u64 = 999_999_999_999;
/// The most heads that one manifest merges.
pub const MAX_PREVIOUS: usize = 256;

/// How an item fares in a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ItemState {
    /// Complete.
    Good,
    /// Complete, but so much less than the last good copy that it counts as none: not safe.
    Anomalous,
    /// Not safe, and the plan accepts it.
    Accepted,
    /// Not safe.
    Gap,
    /// Not finished: the manifest is a checkpoint.
    Pending,
    /// Not tried.
    Skipped,
}

impl ItemState {
    /// Whether the item is as it should be. One that shrank by half may be what is left of it.
    #[must_use]
    pub fn is_safe(self) -> bool {
        self == Self::Good
    }

    /// Whether all that its source gave can be restored from this snapshot.
    #[must_use]
    pub fn is_whole(self) -> bool {
        matches!(self, Self::Good | Self::Anomalous)
    }
}

/// An item as the world sees it: an opaque id and its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicItem {
    /// The id of the item's name.
    pub id: NameId,
    /// Its state.
    pub state: ItemState,
}

/// Objects of one class in one domain of one epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainObjects {
    /// The epoch.
    pub epoch: EpochId,
    /// The domain.
    pub domain: NameId,
    /// The objects, by hash.
    pub objects: Vec<ObjectHash>,
}

/// The public half of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The repository.
    pub repository: RepositoryId,
    /// Who writes.
    pub writer: WriterId,
    /// Whose chain.
    pub plan: NameId,
    /// The epoch that it is committed into.
    pub epoch: EpochId,
    /// One more than the greatest of its parents.
    pub seq: u64,
    /// The hashes of the manifests that came before: all heads.
    pub previous: Vec<ObjectHash>,
    /// When the run began.
    #[serde(with = "moment")]
    pub started: Timestamp,
    /// When it ended: the snapshot's time.
    #[serde(with = "moment")]
    pub finished: Timestamp,
    /// When the next run is promised to have ended, if the plan promises one.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "moment::optional")]
    pub next_before: Option<Timestamp>,
    /// All epochs that its streams lie in.
    pub epochs: Vec<EpochId>,
    /// What it needs: one needs object a domain.
    pub needs: Vec<DomainObjects>,
    /// The index objects that were complete at the commit.
    pub index: Vec<DomainObjects>,
    /// The roots of the scan caches.
    pub cache: Vec<DomainObjects>,
    /// What the writer remembers.
    pub state: Vec<DomainObjects>,
    /// The encrypted half.
    pub body: ObjectHash,
    /// Its size in the store.
    pub body_size: u64,
    /// Every declared item.
    pub items: Vec<PublicItem>,
}

/// Why a manifest is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Its signature or form.
    #[error(transparent)]
    Signed(#[from] SignError),
    /// It says something else than the place it was read from.
    #[error("its {field} is {found}, and it was read as {wanted}")]
    Misplaced {
        /// Which.
        field: &'static str,
        /// What it says.
        found: String,
        /// What the path says.
        wanted: String,
    },
    /// Its name is not its hash, or no name of a manifest.
    #[error("its name does not fit its content")]
    Name,
    /// A link, a pipe, a folder or the like stands in its place.
    #[error("something that is no plain file stands in its place")]
    NotAFile,
    /// Its fields contradict each other.
    #[error("it contradicts itself: {0}")]
    Contradiction(&'static str),
    /// An owner has cut off the key that signed it, and names neither it nor a descendant of it as
    /// good.
    #[error("an owner has cut off the key that signed it")]
    CutOff,
}

impl Envelope {
    /// Where the manifest's epoch lies.
    #[must_use]
    pub fn path(&self) -> EpochPath {
        EpochPath { writer: self.writer, plan: self.plan, epoch: self.epoch }
    }

    /// Signs: the object whose put commits the snapshot, and its hash.
    pub fn seal(&self, key: &SigningKey) -> Result<(Sealed, ObjectHash), ManifestError> {
        self.check()?;
        let bytes = key.sign_document(Namespace::Manifest, self)?;
        let hash = ObjectHash::of(&bytes);
        Ok((Sealed::new(self.path().snapshot(self.seq, hash), bytes, hash), hash))
    }

    fn check(&self) -> Result<(), ManifestError> {
        let wrong = |what| Err(ManifestError::Contradiction(what));
        if self.seq == 0 || self.seq > MAX_SEQUENCE {
            return wrong("its sequence is out of range");
        }
        if self.previous.len() > MAX_PREVIOUS || self.previous.is_empty() != (self.seq == 1) {
            return wrong("its sequence and its parents do not fit");
        }
        if self.finished < self.started {
            return wrong("it ended before it began");
        }
        if !self.epochs.contains(&self.epoch) {
            return wrong("its own epoch is not among its epochs");
        }
        let lists = [&self.needs, &self.index, &self.cache, &self.state];
        if lists.iter().any(|list| list.iter().any(|entry| !self.epochs.contains(&entry.epoch))) {
            return wrong("it names an object of an epoch that is not its own");
        }
        Ok(())
    }
}

/// A manifest whose signature, name and place were verified. Only [`Manifest::open`] makes one.
#[derive(Debug, Clone)]
pub struct Manifest {
    envelope: Envelope,
    key: PublicKey,
    hash: ObjectHash,
}

impl Manifest {
    /// Reads a manifest that was listed under `path` with `name`.
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
            if found == wanted { Ok(()) } else { Err(ManifestError::Misplaced { field, found, wanted }) }
        };
        same("writer", envelope.writer.to_string(), path.writer.to_string())?;
        same("plan", envelope.plan.to_string(), path.plan.to_string())?;
        same("epoch", envelope.epoch.to_string(), path.epoch.to_string())?;
        same("sequence", envelope.seq.to_string(), seq.to_string())?;
        envelope.check()?;
        Ok(Self { envelope, key: line.key(), hash })
    }

    /// What it says.
    #[must_use]
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The key that signed.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// SHA-256 of the whole object: the snapshot's name in the chain.
    #[must_use]
    pub fn hash(&self) -> ObjectHash {
        self.hash
    }
}
