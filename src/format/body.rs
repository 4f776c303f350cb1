//! The encrypted half of a manifest: the snapshot's items and the lists for reading their streams.
//!
//! JSON in an age file to the epoch's recipient, padded with spaces to a Padmé length.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::container::{ContainerError, ContainerKey, DataIdentity, DataRecipient, Sealer, open};
use super::ids::{EpochId, NameId, ObjectHash, RepositoryId, WriterId, to_hex};
use super::{layout::EpochPath, list::Part, manifest::Envelope, object::SealedObject, padme};
use crate::report::item_state::ItemState;

/// The largest body, in bytes of plaintext.
pub const MAX_BODY: u64 = 256 << 20;

/// The content of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// Always `body`, so that no other JSON document is read as one.
    #[serde(rename = "type")]
    pub kind: String,
    /// The repository, as in the envelope.
    pub repository: RepositoryId,
    /// The writer, as in the envelope.
    pub writer: WriterId,
    /// The id of the plan, as in the envelope.
    pub plan: NameId,
    /// The epoch, as in the envelope.
    pub epoch: EpochId,
    /// The sequence number, as in the envelope.
    pub seq: u64,
    /// The name of the plan.
    pub plan_name: String,
    /// The names key in hex, from which the ids of names are derived.
    pub names_key: String,
    /// The program that wrote the snapshot, with its version.
    pub tool: String,
    /// The machine that the program ran on.
    pub host: String,
    /// The domains of all streams, from id to name.
    pub domains: BTreeMap<NameId, String>,
    /// The items that the plan declares.
    pub items: Vec<Item>,
}

/// One item of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The item's name in the plan: `resources`, `shop`, `volume/shop/uploads`, `path/srv/uploads`.
    pub name: String,
    /// The id of that name.
    pub id: NameId,
    /// The kind of item: `resources`, `database`, `volume`.
    pub kind: String,
    /// The item's state in this snapshot.
    pub state: ItemState,
    /// The missing parts, with reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
    /// The parts that were skipped, capped or approximated without making the item unsafe.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Gap>,
    /// Facts about the source: revision and proofs, server versions, volume identity.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, serde_json::Value>,
    /// The time that the item took, in milliseconds.
    pub millis: u64,
    /// The item's streams.
    pub streams: Vec<Stream>,
}

/// A part of an item that is not safe, or that differs from its source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// A stable code: `changed-while-read`, `permission`, `socket`, `dump-failed`, …
    pub code: String,
    /// The affected object: a path, a kind, a database.
    pub object: super::name::Name,
    /// The reason, in one line.
    pub reason: String,
}

/// A stream of bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// The stream's name within the item: `apps/v1/deployments`, `globals.sql`, `orders.dump`, `tar`.
    pub name: String,
    /// The format of the bytes: `jsonl`, `pgdump`, `sql`, `tar`.
    pub format: String,
    /// The domain of its chunks, which lie in the snapshot's epoch.
    pub domain: NameId,
    /// The stream's length in bytes.
    pub length: u64,
    /// The number of members: files, objects.
    pub members: u64,
    /// BLAKE3 over the slices ([`super::list::StreamHasher`]).
    pub hash: ObjectHash,
    /// SHA-256 of the bytes, if they were read as one sequence: dumps and resources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<ObjectHash>,
    /// The parts of the slice list.
    pub parts: Vec<Part>,
    /// The chunks of the catalog, if the stream has one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub catalog: Vec<Part>,
}

/// The reason that a body is rejected.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It cannot be encrypted or decrypted.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// Its hash or size is not the one in the envelope.
    #[error("its hash is not the one that the signed envelope names")]
    Hash,
    /// Its JSON is malformed.
    #[error("its content is malformed")]
    Json(#[from] serde_json::Error),
    /// It belongs to another manifest.
    #[error("it belongs to another snapshot ({0} differs)")]
    BelongsElsewhere(&'static str),
    /// Its items or streams contradict each other or the envelope.
    #[error("it contradicts itself: {0}")]
    Contradiction(&'static str),
}

impl Body {
    /// Encrypts the body to the epoch. Returns the object and its hash.
    pub fn seal(
        &self,
        path: &EpochPath,
        recipient: &DataRecipient,
    ) -> Result<(SealedObject, ObjectHash), BodyError> {
        let mut text = serde_json::to_vec(self)?;
        padme::pad(&mut text, b' ');
        let mut sealer = Sealer::to_recipient(recipient, text.len())?;
        sealer.write(&text)?;
        let (bytes, hash) = sealer.finish()?;
        Ok((SealedObject::new(path.body(hash), bytes, hash), hash))
    }

    /// Decrypts the body that a verified envelope names, and compares the fields that both have.
    pub fn open(sealed: &Bytes, envelope: &Envelope, identity: &DataIdentity) -> Result<Self, BodyError> {
        if ObjectHash::of(sealed) != envelope.body || sealed.len() as u64 != envelope.body_size {
            return Err(BodyError::Hash);
        }
        let text = open(sealed, &ContainerKey::Identity(identity), MAX_BODY)?;
        let body: Self = serde_json::from_slice(&text)?;
        for (same, field) in [
            (body.kind == "body", "type"),
            (body.repository == envelope.repository, "repository"),
            (body.writer == envelope.writer, "writer"),
            (body.plan == envelope.plan, "plan"),
            (body.epoch == envelope.epoch, "epoch"),
            (body.seq == envelope.seq, "sequence"),
        ] {
            if !same {
                return Err(BodyError::BelongsElsewhere(field));
            }
        }
        body.check(envelope)?;
        Ok(body)
    }

    fn check(&self, envelope: &Envelope) -> Result<(), BodyError> {
        let wrong = |what| Err(BodyError::Contradiction(what));
        // Looked up by id: there may be thousands of items.
        let public: BTreeMap<_, _> = envelope.items.iter().map(|public| (public.id, public)).collect();
        let same = |item: &Item| {
            let public = public.get(&item.id).filter(|public| public.state == item.state);
            let Some(public) = public else { return false };
            let mut domains = item.streams.iter().map(|stream| Some(stream.domain));
            domains.all(|domain| domain == public.needs().map(|needs| needs.domain))
        };
        if self.items.len() != envelope.items.len() || !self.items.iter().all(same) {
            return wrong("its items are not those of the envelope");
        }
        for stream in self.items.iter().flat_map(|item| &item.streams) {
            let ascending = |parts: &[Part]| parts.windows(2).all(|w| w[0].start <= w[1].start);
            let from_zero = stream.parts.first().is_none_or(|part| part.start == 0);
            if !ascending(&stream.parts) || !ascending(&stream.catalog) || !from_zero {
                return wrong("the parts of a stream are out of order");
            }
            if stream.parts.is_empty() != (stream.length == 0) {
                return wrong("a stream's length and its parts do not match");
            }
        }
        Ok(())
    }

    /// Returns the item with this name.
    pub fn item(&self, name: &str) -> Option<&Item> {
        self.items.iter().find(|item| item.name == name)
    }
}

/// Returns a names key in hex, as bodies hold it.
#[must_use]
pub fn names_key_text(key: &super::derive::NamesKey) -> String {
    to_hex(key.0.expose())
}
