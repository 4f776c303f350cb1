//! The input and the result of a backup.

use std::sync::Arc;

use crate::format::body::Item;
use crate::format::signers::Signers;
use crate::inventory::coverage::CoverageCheck;
use crate::keys::epoch_file::EpochSecretStore;
use crate::keys::writer_key::WriterKey;
use crate::report::coverage::Coverage;
use crate::report::event::Reporter;
use crate::report::outcome::Outcome;
use crate::repository::epoch::create::EpochSettings;
use crate::repository::epoch::current;
use crate::repository::write::commit::Committed;
use crate::runtime::Runtime;
use crate::store::Store;

use super::history::History;
use super::item::ItemJob;
use super::resources;

/// The input of a run.
#[derive(Debug)]
pub struct BackupJob {
    /// The plan's name.
    pub plan: String,
    /// This machine's name, for the snapshot body.
    pub host: String,
    /// The items to back up.
    pub items: Vec<ItemJob>,
    /// The plan's requirements for its epochs.
    pub epoch: EpochSettings,
    /// Memory limit, in bytes.
    pub memory: u64,
    /// The zstd level of new chunks; the epoch's if there is none.
    pub level: Option<i32>,
    /// True if each compressed chunk is decompressed and compared before it is stored.
    pub prove: bool,
    /// True if the scan cache may be used.
    pub use_cache: bool,
    /// Seconds from the start of this run to the expected end of the next one.
    pub next: Option<u64>,
    /// Gaps that the plan accepts: item name and gap code.
    pub accept: Vec<(String, String)>,
    /// The coverage check of the cluster, if the plan asks for it.
    pub coverage: Option<CoverageCheck>,
}

/// The store that a run writes to, and the identity that it writes as.
#[derive(Debug, Clone, Copy)]
pub struct BackupContext<'a> {
    /// The store.
    pub store: &'a Arc<dyn Store>,
    /// The writer's key.
    pub key: &'a WriterKey,
    /// Keeps the epoch's secret and the newest head.
    pub keeper: &'a dyn EpochSecretStore,
    /// The writer's own key and the plan's signers.
    pub signers: &'a Signers,
    /// Clock, randomness, workers.
    pub runtime: &'a Runtime,
    /// Receives events and warnings.
    pub reporter: &'a Reporter,
}

/// The result of a run.
#[derive(Debug)]
pub struct BackupReport {
    /// The committed snapshot.
    pub committed: Committed,
    /// The items as in the snapshot body, each with a one-line summary.
    pub items: Vec<(Item, String)>,
    /// The reason why a new epoch was created, if one was.
    pub born: Option<current::Reason>,
    /// The owners of a new epoch who are not those of the last, in words.
    pub changed_owners: Option<String>,
    /// Names of the owners who cannot open the epoch yet.
    pub waiting: Vec<String>,
    /// The coverage of the cluster, if it was checked.
    pub coverage: Option<Coverage>,
    /// The good copies in the snapshots so far.
    pub history: History,
}

impl BackupReport {
    /// Returns 0 if all declared items are safe or accepted and, where the plan is strict, coverage
    /// is full; 5 if nothing is safe because the cluster could not be reached; else 3.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let covered = self.coverage.as_ref().is_none_or(Coverage::is_fine);
        let all = |test: &dyn Fn(&Item) -> bool| self.items.iter().all(|(item, _)| test(item));
        if covered && all(&|item| item.state.is_safe_or_accepted()) {
            Outcome::Safe
        } else if all(&|item| item.gaps.iter().any(|gap| gap.code == resources::UNREACHABLE)) {
            Outcome::Unreachable
        } else {
            Outcome::Partial
        }
    }
}
