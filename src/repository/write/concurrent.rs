//! Finds the snapshots that other runs of the plan committed while one ran.

use std::sync::Arc;

use futures::TryStreamExt as _;

use crate::format::ids::ObjectHash;
use crate::format::layout::{self, EpochPath, ObjectKey};
use crate::format::manifest::Manifest;
use crate::format::sign::{MAX_DOCUMENT, Namespace};
use crate::format::signers::Signers;
use crate::report::event::Reporter;
use crate::report::text::count;
use crate::repository::chain::Chain;
use crate::store::listing::list_all_after;
use crate::store::{MAX_PAGE, Store, StoreError};

/// The most snapshots of other runs that are looked at.
const MAX_CONCURRENT: usize = 8;

/// The most names that are listed: a few pages. Anyone can put names there, and the next run lists them all.
const MAX_NAMES: usize = 4 * MAX_PAGE;

/// The place of the snapshots, and those that were there when the run began.
#[derive(Debug)]
pub(super) struct ConcurrentSearch<'a> {
    pub store: &'a Arc<dyn Store>,
    pub path: EpochPath,
    pub chain: &'a Chain,
    /// The writer's own signers.
    pub signers: &'a Signers,
    pub reporter: &'a Reporter,
}

impl ConcurrentSearch<'_> {
    /// Returns the valid snapshots with the number of the `own` one or a later one, except it. Others have warnings
    /// of the next run.
    pub(super) async fn run(&self, own: &ObjectKey) -> Result<Vec<(u64, ObjectHash)>, StoreError> {
        let (prefix, first) = (self.path.snapshots_prefix(), self.chain.next_seq());
        let after = format!("{prefix}{first:012}");
        let mut listing = list_all_after(self.store.clone(), prefix.clone(), &after, self.reporter.clone());
        let principal = self.path.writer.to_string();
        let is_other = |key: &ObjectKey| {
            let name = layout::parse_snapshot_name(key.name());
            name.is_some_and(|(_, hash)| self.chain.get(hash).is_none())
                && key != own
                && self.signers.signed_hash(&principal, Namespace::Manifest, key).is_some()
        };
        let (mut others, mut listed) = (Vec::new(), 0);
        while let Some(entry) = listing.try_next().await? {
            listed += 1;
            if listed > MAX_NAMES {
                let names = count(MAX_NAMES as u64);
                let what = format!(
                    "there are more than {names} objects with the number of this run's snapshot or a later one: \
                     snapshots of other runs were looked for among the first {names} only"
                );
                self.reporter.warn(prefix, what);
                break;
            }
            if others.len() < MAX_CONCURRENT && is_other(&entry.key) {
                others.push(entry.key);
            }
        }
        let mut valid = Vec::new();
        for key in others {
            let Ok(bytes) = self.store.get(&key, MAX_DOCUMENT).await else { continue };
            let opened = Manifest::open(bytes, &self.path, key.name(), self.signers);
            valid.extend(opened.ok().map(|manifest| (manifest.envelope().seq, manifest.hash())));
        }
        Ok(valid)
    }
}
