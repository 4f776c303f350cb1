//! The difference between the owners of a plan and those of an epoch.

use std::fmt;

use crate::format::epoch::Epoch;
use crate::format::ids::RecipientId;
use crate::keys::Owner;

/// The difference between the owners of a plan and those of an epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnerChange {
    /// People who can decrypt the epoch but are no longer owners of the plan: they force a new epoch.
    pub removed: Vec<RecipientId>,
    /// Owners of the plan who cannot decrypt the epoch yet. An owner runs `keys add`, or the next
    /// epoch includes them.
    pub added: Vec<Owner>,
}

impl fmt::Display for OwnerChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let added: Vec<String> = self.added.iter().map(Owner::name).collect();
        // An epoch holds the hash of a recipient, never its text.
        let removed: Vec<String> = self.removed.iter().map(RecipientId::short).collect();
        let removed = format!("the recipient whose hash is {} removed", removed.join(", "));
        match (added.is_empty(), self.removed.is_empty()) {
            (_, true) => write!(f, "{} added", added.join(", ")),
            (true, false) => f.write_str(&removed),
            (false, false) => write!(f, "{} added, {removed}", added.join(", ")),
        }
    }
}

impl OwnerChange {
    /// True if the owners are the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.added.is_empty()
    }

    /// Compares the owners. `later` are those who were added after the epoch's creation, according
    /// to receipts.
    #[must_use]
    pub fn between(epoch: &Epoch, later: &[RecipientId], owners: &[Owner]) -> Self {
        let has = |id: RecipientId| owners.iter().any(|owner| owner.recipient.id() == id);
        let inline = epoch.wraps.iter().map(|wrap| wrap.recipient);
        let mut can: Vec<_> = inline.chain(later.iter().copied()).collect();
        can.sort_unstable();
        can.dedup();
        let added = owners.iter().filter(|owner| !can.contains(&owner.recipient.id())).cloned().collect();
        Self { removed: can.into_iter().filter(|id| !has(*id)).collect(), added }
    }
}
