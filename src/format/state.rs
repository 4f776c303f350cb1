//! What the writer remembers of its own past, because it cannot read its own bodies: a symmetric
//! object in the domain `coordinator/state`, named by the envelope.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::container::ContainerError;
use super::derive::DomainKey;
use super::ids::{EpochId, NameId, ObjectHash};
use super::layout::{Class, EpochPath};
use super::manifest::ItemState;
use super::object::Sealed;
use super::{moment, padme, symmetric};

/// The domain that the state lies in.
pub const DOMAIN: &str = "coordinator/state";
/// The largest state, in bytes of plaintext.
pub const MAX_STATE: u64 = 16 << 20;

/// The writer's memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// What is known of each item.
    pub items: BTreeMap<NameId, ItemMemory>,
}

/// The writer's memory of one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemMemory {
    /// The last snapshot that holds it whole.
    pub last_good: Option<LastGood>,
    /// Its state in the newest snapshot.
    pub state: ItemState,
    /// The roots of its scan caches: stream name to the domain and the root object.
    #[serde(default)]
    pub caches: BTreeMap<String, CacheRoot>,
}

/// Where a scan cache begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheRoot {
    /// The epoch.
    pub epoch: EpochId,
    /// The domain.
    pub domain: NameId,
    /// The root object.
    pub object: ObjectHash,
}

/// The last good copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastGood {
    /// The snapshot's sequence.
    pub seq: u64,
    /// The snapshot's time.
    #[serde(with = "moment")]
    pub finished: Timestamp,
    /// The bytes of the item's streams.
    pub bytes: u64,
}

/// Why a state is not used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It does not open.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// Its JSON is malformed.
    #[error("the writer's state is malformed")]
    Json(#[from] serde_json::Error),
}

impl State {
    /// Seals it under the key of [`DOMAIN`].
    pub fn seal(&self, path: &EpochPath, domain: NameId, key: &DomainKey) -> Result<Sealed, StateError> {
        let mut text = serde_json::to_vec(self)?;
        text.resize(usize::try_from(padme::padded(text.len() as u64)).unwrap_or(text.len()), b' ');
        Ok(symmetric::seal(path, domain, key, Class::State, &text)?)
    }

    /// Opens it.
    pub fn open(sealed: &[u8], key: &DomainKey) -> Result<Self, StateError> {
        Ok(serde_json::from_slice(&symmetric::open(sealed, key, Class::State, MAX_STATE)?)?)
    }
}
