//! A repository as a reader sees it: the marker, the pinned writers, their plans, and the
//! epochs, records and chain of each. Only data signed by a pinned key is trusted.

use super::reader::{RepositoryReader, SnapshotSelector, StoredPlan, WriterPlans};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::format::ids::{EpochId, NameId, ObjectHash, WriterId};
use crate::format::layout::{self, ObjectKey};
use crate::format::marker::{MARKER, WrongMarker};
use crate::format::sign::Namespace;
use crate::keys::Identity;
use crate::repository::chain::{self, ChainFault, Snapshot};
use crate::repository::epoch::stored::{self, EpochReader, MAX_UNSIGNED_FOLDERS};
use crate::repository::fetched::{self, Fetched};
use crate::repository::read::{copies::EpochCopies, snapshot::OpenSnapshot};
use crate::repository::records::{self, Records};
use crate::repository::signed_listing::Unsigned;
use crate::repository::{epoch::wraps, error::RepositoryError, read::damage};
use crate::store::listing::{folders, folders_beside};
use crate::store::{Store, StoreError};

type Result<T, E = RepositoryError> = std::result::Result<T, E>;

/// The most folders of writers that an error names.
const MAX_WRITERS: usize = 100;

/// Reads the marker of a repository. Fails if the store cannot be read.
pub async fn read_marker(store: &Arc<dyn Store>) -> Result<Fetched<Bytes>, StoreError> {
    fetched::get(store, &layout::marker(), ObjectHash::of(MARKER), 4096).await
}

/// Checks that the store holds a repository.
pub async fn check_marker(store: &Arc<dyn Store>) -> Result<()> {
    validate_marker(store, &read_marker(store).await?)
}

/// Checks a marker that was read with [`read_marker`]. Fails as [`check_marker`] does.
pub fn validate_marker(store: &Arc<dyn Store>, marker: &Fetched<Bytes>) -> Result<()> {
    match marker {
        Fetched::Valid(_) => Ok(()),
        Fetched::Corrupt => {
            Err(RepositoryError::MarkerDamaged { store: store.describe(), source: WrongMarker })
        }
        Fetched::Missing => Err(RepositoryError::NoRepository(store.describe())),
    }
}

impl RepositoryReader {
    /// Returns the writers for which a key is pinned that may sign manifests.
    #[must_use]
    pub fn writers(&self) -> Vec<WriterId> {
        let mut writers: Vec<WriterId> = self
            .signers
            .principals()
            .into_iter()
            .filter(|principal| self.signers.lookup(principal, Namespace::Manifest).next().is_some())
            .filter_map(|principal| principal.parse().ok())
            .collect();
        writers.sort_unstable();
        writers.dedup();
        writers
    }

    /// True if the store has a folder of a pinned writer.
    pub async fn has_pinned_writer(&self) -> Result<bool, StoreError> {
        for writer in self.writers() {
            if !folders(&self.store, &format!("{writer}/"), 1).await?.names.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// As [`check_marker`]. If a pinned writer's folder exists, a missing marker was deleted or lost.
    async fn check_marker(&self) -> Result<()> {
        let found = read_marker(&self.store).await?;
        if found != Fetched::Missing || !self.has_pinned_writer().await? {
            return validate_marker(&self.store, &found);
        }
        Err(RepositoryError::MarkerGone(self.store.describe()))
    }

    /// Reads all plans of the writers that `which` selects.
    pub async fn plans(&self, which: &SnapshotSelector) -> Result<Vec<StoredPlan>> {
        Ok(self.plans_and_reports(which).await?.0)
    }

    /// As [`Self::plans`], with the keys of the reports of the writers' failed runs.
    pub async fn plans_and_reports(
        &self,
        which: &SnapshotSelector,
    ) -> Result<(Vec<StoredPlan>, Vec<ObjectKey>)> {
        self.check_marker().await?;
        let (mut plans, mut reports) = (Vec::new(), Vec::new());
        for found in self.find_plans(which).await? {
            let records = self.records(found.writer).await?;
            self.warn_of_unsigned(&found.names.unsigned);
            self.warn_of_unsigned(&records.unsigned);
            for plan in &found.plans {
                let plan = self.plan(&found, *plan, &records).await?;
                self.warn_of_lost(&plan);
                self.warn_of_unsigned(&plan.epochs.unsigned);
                self.warn_of_unsigned(&plan.chain.unsigned);
                plans.push(plan);
            }
            reports.extend(records.reports);
        }
        Ok((plans, reports))
    }

    fn warn_of_unsigned(&self, unsigned: &Unsigned) {
        if let Some(what) = unsigned.describe() {
            self.reporter.warn(self.store.describe(), format!("{what}: ignored"));
        }
    }

    /// Fails if the store holds folders of writers but none of a pinned one: it is not an empty store.
    async fn check_not_foreign(&self) -> Result<()> {
        let folders = folders(&self.store, "", MAX_WRITERS).await?.names;
        let writers: Vec<WriterId> = folders.iter().filter_map(|folder| folder.parse().ok()).collect();
        let pinned = self.writers();
        if writers.is_empty() || writers.iter().any(|writer| pinned.contains(writer)) {
            return Ok(());
        }
        Err(RepositoryError::OtherWriters { store: self.store.describe(), found: writers, pinned })
    }

    /// Returns the plans that `which` selects, by writer; none if pinned writers have stored nothing. Fails
    /// if no writer is pinned, only other writers have stored data, or no plan matches `which`.
    pub async fn find_plans(&self, which: &SnapshotSelector) -> Result<Vec<WriterPlans>> {
        let writers = self.writers();
        if writers.is_empty() {
            return Err(RepositoryError::NoSigner);
        }
        let wanted =
            |id: String, digits: &Option<String>| digits.as_ref().is_none_or(|d| id.starts_with(d.as_str()));
        let mut all = Vec::new();
        for writer in writers.into_iter().filter(|writer| wanted(writer.to_string(), &which.writer)) {
            let mut names = stored::names(&self.store, writer, &self.signers, &self.reporter).await?;
            let mut plans: BTreeSet<NameId> = names.plans().collect();
            // Every copy of a plan's epochs may be lost.
            let is_known = |name: &str| {
                layout::BESIDE_PLANS.contains(&name) || name.parse().is_ok_and(|id| plans.contains(&id))
            };
            let prefix = format!("{writer}/");
            let folders = folders_beside(&self.store, &prefix, MAX_UNSIGNED_FOLDERS, is_known).await?;
            plans.extend(folders.names.iter().filter_map(|id| id.parse::<NameId>().ok()));
            names.unsigned.more_folders |= !folders.complete;
            plans.retain(|plan| wanted(plan.to_string(), &which.plan));
            all.push(WriterPlans { writer, names, plans });
        }
        if all.iter().all(|found| found.plans.is_empty()) {
            self.check_not_foreign().await?;
            if which.writer.is_some() || which.plan.is_some() {
                let (writer, plan) = (which.writer.clone(), which.plan.clone());
                return Err(RepositoryError::NoPlan { store: self.store.describe(), writer, plan });
            }
        }
        Ok(all)
    }

    /// Reads one plan. Rejects data by keys that the writer's `records` cut off.
    pub async fn plan(&self, of: &WriterPlans, plan: NameId, records: &Records) -> Result<StoredPlan> {
        let writer = of.writer;
        let (store, signers, reporter) = (&self.store, &self.signers, &self.reporter);
        let reader = EpochReader { store, writer, plan, repository: None, signers, reporter };
        let mut epochs = reader.read(&of.names).await?;
        let ids = epochs.all.iter().map(|stored| stored.epoch.epoch);
        let mut chain = chain::read(&self.store, writer, plan, ids, &self.signers, &self.reporter).await?;
        chain.cut_off(records);
        epochs.cut_off(records, &chain);
        chain.set_aside_late(store, |epoch| epochs.deadline(epoch), &[]).await?;
        let ids = epochs.all.iter().map(|stored| stored.epoch.epoch);
        let attested = ids.map(|id| (id, records.attested_wraps(plan, id))).collect();
        let mut view = StoredPlan { writer, plan, epochs, chain, hidden: Vec::new(), attested };
        view.hidden = self.hidden(&view).await?;
        Ok(view)
    }

    /// Reads the signed records of a writer.
    pub async fn records(&self, writer: WriterId) -> Result<Records> {
        Ok(records::list(&self.store, writer, None, &self.signers, &self.reporter).await?)
    }

    /// Returns the one selected snapshot and its plan. Fails with a list if several match: a
    /// restore never guesses.
    pub async fn select(&self, which: &SnapshotSelector) -> Result<(StoredPlan, Snapshot)> {
        let mut plans = self.plans(which).await?;
        let mut found: Vec<(usize, Snapshot)> = Vec::new();
        for (at, plan) in plans.iter().enumerate() {
            found.extend(
                plan.chain.select(&which.snapshot).into_iter().map(|snapshot| (at, snapshot.clone())),
            );
        }
        if found.len() > 1 {
            return Err(ambiguous(&found, which));
        }
        let Some((at, snapshot)) = found.pop() else { return Err(self.not_found(&plans, which)) };
        if which.snapshot == "latest" {
            damage::check_latest(&plans, &plans[at], &snapshot)?;
        }
        let plan = plans.swap_remove(at);
        self.warn_of_breaks(&plan);
        tracing::debug!(snapshot = %snapshot.manifest.hash(), plan = %plan.plan, "snapshot selected");
        Ok((plan, snapshot))
    }

    fn warn_of_breaks(&self, plan: &StoredPlan) {
        for broken in plan.breaks() {
            self.reporter.warn(format!("chain of plan {}", plan.plan), broken.to_string());
        }
        for (object, error) in &plan.chain.rejected {
            self.reporter
                .warn(object.to_string(), format!("this is no snapshot of a pinned writer: {error}"));
        }
        for late in &plan.chain.late {
            let what = format!("this snapshot was stored at {}, after the end of its epoch", late.stored);
            self.reporter.warn(late.key.to_string(), what);
        }
    }

    /// Opens a snapshot with the owners' identities. `memory` is the readers' limit in bytes.
    pub async fn open(
        &self,
        plan: &StoredPlan,
        snapshot: &Snapshot,
        identities: &[Arc<Identity>],
        memory: u64,
    ) -> Result<OpenSnapshot> {
        let Some(stored) = plan.epochs.get(snapshot.envelope().epoch) else {
            return Err(RepositoryError::EpochGone(snapshot.envelope().path().epoch_json().to_string()));
        };
        let attested = plan.attested_wraps(stored.epoch.epoch);
        let (keys, _) =
            wraps::open(&self.store, &self.runtime, &stored.epoch, identities, attested, &self.reporter)
                .await?;
        let copies = EpochCopies::new(plan.chain.iter(), stored.epoch.epoch);
        Ok(OpenSnapshot::open(self, snapshot.clone(), keys, &copies, memory).await?)
    }
}

impl StoredPlan {
    /// Returns the epochs that have objects in the store but no valid epoch.json.
    pub fn lost_epochs(&self) -> impl Iterator<Item = EpochId> + '_ {
        let rejected = self.epochs.rejected.iter().filter_map(|(key, _)| layout::parse_epoch(key));
        let rejected = rejected.map(|(_, epoch)| epoch);
        let lost: BTreeSet<EpochId> = rejected.chain(self.epochs.gone.iter().copied()).collect();
        lost.into_iter().filter(|epoch| self.epochs.get(*epoch).is_none())
    }

    /// Returns the inconsistencies of its chain.
    #[must_use]
    pub fn breaks(&self) -> Vec<ChainFault> {
        self.chain.breaks(&HashSet::new())
    }
}

fn ambiguous(found: &[(usize, Snapshot)], which: &SnapshotSelector) -> RepositoryError {
    let candidate = |(_, snapshot): &(usize, Snapshot)| {
        let envelope = snapshot.envelope();
        let ids = (envelope.plan, envelope.writer, snapshot.manifest.hash());
        (
            format!("{:06} of {}", envelope.seq, envelope.finished),
            format!("plan {}, writer {}, sha256:{}", ids.0, ids.1, ids.2),
        )
    };
    let origin = |(_, snapshot): &(usize, Snapshot)| (snapshot.envelope().writer, snapshot.envelope().plan);
    let one_plan = found.windows(2).all(|pair| origin(&pair[0]) == origin(&pair[1]));
    let first = found.first().filter(|_| one_plan);
    let by_hash = first.map(|(_, snapshot)| distinct_start(snapshot, found));
    let found = found.iter().map(candidate).collect();
    RepositoryError::Ambiguous { snapshot: which.snapshot.clone(), found, by_hash }
}

/// Returns the first digits of a snapshot's hash, at least eight, that no other of `found` has.
fn distinct_start(snapshot: &Snapshot, found: &[(usize, Snapshot)]) -> String {
    let hash = snapshot.manifest.hash().to_string();
    let others: Vec<String> = found
        .iter()
        .map(|(_, other)| other.manifest.hash().to_string())
        .filter(|other| *other != hash)
        .collect();
    let is_distinct = |length: &usize| !others.iter().any(|other| other.starts_with(&hash[..*length]));
    hash[..(8..hash.len()).find(is_distinct).unwrap_or(hash.len())].to_owned()
}
