//! The state of an item, in manifests and in reports.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The state of an item in a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ItemState {
    /// Complete.
    Good,
    /// Complete, but so much smaller than the last good copy that it does not count as safe.
    Anomalous,
    /// Not safe, but accepted by the plan.
    Accepted,
    /// Not safe.
    Gap,
    /// Not finished: the manifest is a checkpoint.
    Pending,
    /// Not attempted.
    Skipped,
}

impl ItemState {
    /// All states.
    pub const ALL: [Self; 6] =
        [Self::Good, Self::Anomalous, Self::Accepted, Self::Gap, Self::Pending, Self::Skipped];

    /// Returns `true` if the item is safe. An item that shrank by half may be the rest after a loss.
    #[must_use]
    pub fn is_safe(self) -> bool {
        self == Self::Good
    }

    /// Returns `true` for an item without a gap, and for one whose gap the plan accepts.
    #[must_use]
    pub fn is_safe_or_accepted(self) -> bool {
        self.is_safe() || self == Self::Accepted
    }

    /// Returns `true` if all data that the source gave can be restored from this snapshot.
    #[must_use]
    pub fn is_complete(self) -> bool {
        matches!(self, Self::Good | Self::Anomalous)
    }
}

impl fmt::Display for ItemState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Good => "good",
            Self::Anomalous => "anomalous",
            Self::Accepted => "accepted",
            Self::Gap => "gap",
            Self::Pending => "pending",
            Self::Skipped => "skipped",
        })
    }
}
