//! The context for reading a repository, and what a reader finds in it.

use crate::format::ids::{EpochId, NameId, ObjectHash, WriterId};
use crate::format::signers::Signers;
use crate::report::event::Reporter;
use crate::repository::{chain::Chain, epoch::stored::EpochNames, epoch::stored::Epochs};
use crate::runtime::Runtime;
use crate::store::Store;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The context for reading a repository. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RepositoryReader {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The pinned keys.
    pub signers: Arc<Signers>,
    /// The clock, randomness and workers.
    pub runtime: Runtime,
    /// The reporter of warnings.
    pub reporter: Reporter,
}

/// The plans of one writer.
#[derive(Debug)]
pub struct WriterPlans {
    /// The writer.
    pub writer: WriterId,
    /// The second copies of its epochs.
    pub names: EpochNames,
    /// The ids of its plans.
    pub plans: BTreeSet<NameId>,
}

/// One plan of one writer.
#[derive(Debug)]
pub struct StoredPlan {
    /// The writer.
    pub writer: WriterId,
    /// The plan's id. Only bodies contain its name.
    pub plan: NameId,
    /// Its epochs.
    pub epochs: Epochs,
    /// Its snapshots.
    pub chain: Chain,
    /// Snapshots under epochs without a valid epoch.json.
    pub hidden: Vec<UnreadableSnapshots>,
    /// The wraps of each epoch that signed receipts name.
    pub attested: BTreeMap<EpochId, Vec<ObjectHash>>,
}

impl StoredPlan {
    /// Returns the wraps of an epoch that signed receipts name.
    #[must_use]
    pub fn attested_wraps(&self, epoch: EpochId) -> &[ObjectHash] {
        self.attested.get(&epoch).map_or(&[], Vec::as_slice)
    }
}

/// The selection of a snapshot.
#[derive(Debug, Clone, Default)]
pub struct SnapshotSelector {
    /// `latest`, a sequence, or the first six digits of a hash or more.
    pub snapshot: String,
    /// The first digits of a writer's id, if several are pinned.
    pub writer: Option<String>,
    /// The first digits of a plan's id, if there are several.
    pub plan: Option<String>,
}

/// Snapshots that cannot be read, because no valid copy of their epoch.json exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableSnapshots {
    /// The epoch.
    pub epoch: EpochId,
    /// The prefix of their keys.
    pub place: String,
    /// The number of snapshots.
    pub count: u64,
    /// The greatest of their sequences.
    pub newest: u64,
}
