//! The writer's state: facts about its own snapshots, kept because it cannot read their bodies. It is a
//! symmetric object in the domain `coordinator/state`, named by the envelope.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ids::{EpochId, NameId, ObjectHash};
use super::layout::{EpochPath, ObjectClass};
use super::{
    container::ContainerError, derive::DomainKey, object::SealedObject, padme, symmetric, timestamp,
};
use crate::report::item_state::ItemState;

/// The domain of the state object.
pub const DOMAIN: &str = "coordinator/state";
/// The largest state, in bytes of plaintext.
pub const MAX_STATE: u64 = 16 << 20;

/// The writer's state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriterState {
    /// The state of each item.
    pub items: BTreeMap<NameId, ItemHistory>,
}

/// The writer's state for one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemHistory {
    /// The last snapshot in which the item is complete.
    pub last_good: Option<LastGood>,
    /// The item's state in the newest snapshot.
    pub state: ItemState,
    /// The roots of the item's scan caches, by stream name.
    #[serde(default)]
    pub caches: BTreeMap<String, CacheRoot>,
}

/// A reference to the root object of a scan cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheRoot {
    /// The epoch of the object.
    pub epoch: EpochId,
    /// The domain of the object.
    pub domain: NameId,
    /// The object's SHA-256.
    pub object: ObjectHash,
}

/// The last snapshot in which an item is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastGood {
    /// The snapshot's sequence.
    pub seq: u64,
    /// The snapshot's time.
    #[serde(with = "timestamp")]
    pub finished: Timestamp,
    /// The total length of the item's streams, in bytes.
    pub bytes: u64,
}

/// The reason that a state is rejected.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be encrypted or decrypted.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// Its JSON is malformed.
    #[error("the writer's state is malformed")]
    Json(#[from] serde_json::Error),
}

impl WriterState {
    /// Encrypts the state under the key of [`DOMAIN`].
    pub fn seal(
        &self,
        path: &EpochPath,
        domain: NameId,
        key: &DomainKey,
    ) -> Result<SealedObject, StateError> {
        let mut text = serde_json::to_vec(self)?;
        padme::pad(&mut text, b' ');
        Ok(symmetric::seal(path, domain, key, ObjectClass::State, &text)?)
    }

    /// Decrypts a state object.
    pub fn open(sealed: &[u8], key: &DomainKey) -> Result<Self, StateError> {
        Ok(serde_json::from_slice(&symmetric::open(sealed, key, ObjectClass::State, MAX_STATE)?)?)
    }
}
