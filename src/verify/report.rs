//! The options and the result of a verification.

use super::finding::{Fault, Finding, PlanRef};
use crate::format::ids::{EpochId, NameId, ObjectHash};
use crate::keys::Identity;
use crate::report::outcome::Outcome;
use crate::repository::read::reader::SnapshotSelector;
use serde::Serialize;
use std::sync::Arc;

/// The amount of data that is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Depth {
    /// Only small objects: signed ones and the lists of packs. Everything else is looked up in the
    /// store's listing.
    Presence,
    /// Also a random share of the packs, at least one: above 0, at most 1.
    Sample(f64),
    /// Every byte.
    All,
}

/// The scope and depth of a verification.
#[derive(Debug, Clone)]
pub struct Options {
    /// The writers and plans to verify; the snapshot's name is ignored.
    pub which: SnapshotSelector,
    /// The amount of data that is read.
    pub depth: Depth,
    /// A manifest that must be in a chain.
    pub expect_head: Option<ObjectHash>,
    /// Owners' identities: with any, everything that snapshots need is opened.
    pub identities: Vec<Arc<Identity>>,
    /// Memory limit of readers, in bytes.
    pub memory: u64,
}

/// The numbers of checked objects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Number of plans.
    pub plans: u64,
    /// Epochs with a valid signature.
    pub epochs: u64,
    /// Snapshots with a valid signature.
    pub snapshots: u64,
    /// Packs that snapshots need.
    pub packs: u64,
    /// Objects that were read and hashed in full, packs included.
    pub hashed: u64,
    /// Packs that were read and hashed in full.
    pub packs_read: u64,
    /// Bytes that were read for that.
    pub bytes_read: u64,
    /// Chunks that were opened and proven by their ids.
    pub chunks: u64,
}

/// The newest snapshot of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Head {
    /// The plan.
    #[serde(flatten)]
    pub plan: PlanRef,
    /// The snapshot's sequence number.
    pub sequence: u64,
    /// SHA-256 of its manifest.
    pub hash: ObjectHash,
}

/// A domain of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct DomainRef {
    /// The plan.
    #[serde(flatten)]
    pub plan: PlanRef,
    /// The epoch.
    pub epoch: EpochId,
    /// The domain.
    pub domain: NameId,
}

/// The result of verify.
#[derive(Debug, Clone, Serialize)]
pub struct VerifyReport {
    /// The store, without credentials.
    pub repository: String,
    /// The numbers of checked objects.
    pub checked: Totals,
    /// The newest snapshots: to be kept elsewhere, for `--expect-head`.
    pub heads: Vec<Head>,
    /// Domains whose index, scan caches, lists or catalogs are wrong: the next backup must read and store them
    /// anew.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resets: Vec<DomainRef>,
    /// Parts that were not checked, in words.
    pub not_checked: Vec<String>,
    /// The faults that were found.
    pub findings: Vec<Finding>,
    /// Number of findings that are not listed.
    pub findings_left_out: u64,
    /// Those of them on objects that no snapshot names: nothing needs these.
    pub orphans_left_out: u64,
    /// Epochs that none of the given identities opens.
    pub closed_epochs: Vec<EpochId>,
}

impl VerifyReport {
    /// Returns the exit code.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let open = |finding: &&Finding| !finding.is_settled();
        let is_unknown = self.findings_left_out > self.orphans_left_out;
        if is_unknown || self.findings.iter().filter(open).any(|finding| finding.fault != Fault::Newer) {
            Outcome::Damaged
        } else if self.findings.iter().any(|finding| open(&finding)) {
            Outcome::Usage
        } else if self.findings.iter().any(|finding| finding.distrusted && !finding.healed)
            || !self.closed_epochs.is_empty()
            || self.checked.snapshots == 0
        {
            Outcome::Partial
        } else {
            Outcome::Safe
        }
    }
}
