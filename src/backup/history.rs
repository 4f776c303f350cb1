//! The good copies of a plan's items in its snapshots: what a run with gaps tells its user.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::format::body::Item;
use crate::format::manifest::Envelope;
use crate::repository::chain::{Chain, Snapshot};

/// The newest good copies of items that have gaps now, and the last snapshot without a gap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The time of the newest snapshot in which every item is safe or has an accepted gap.
    pub last_success: Option<Timestamp>,
    /// The number and the time of the newest snapshot in which an item is safe, by the item's name.
    pub newest_good: BTreeMap<String, (u64, Timestamp)>,
}

impl History {
    /// Returns the history of the items that are not safe in `newest`, the snapshot that follows `chain`.
    pub(super) fn of(chain: &Chain, newest: &Envelope, items: &[(Item, String)]) -> Self {
        let all = || std::iter::once(newest).chain(chain.iter().rev().map(Snapshot::envelope));
        let is_success = |one: &&Envelope| one.items.iter().all(|item| item.state.is_safe_or_accepted());
        let newest_good = items.iter().filter(|(item, _)| !item.state.is_safe()).filter_map(|(item, _)| {
            let is_good = |one: &&Envelope| {
                one.items.iter().any(|public| public.id == item.id && public.state.is_safe())
            };
            all().find(is_good).map(|one| (item.name.clone(), (one.seq, one.finished)))
        });
        Self {
            last_success: all().find(is_success).map(|one| one.finished),
            newest_good: newest_good.collect(),
        }
    }
}
