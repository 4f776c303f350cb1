//! A repository as a reader sees it: the marker, the pinned writers, their plans, and the
//! epochs, records and chain of each. Only data signed by a pinned key is trusted.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::cli::failure::{Exit, Failure};
use crate::format::ids::{EpochId, NameId, ObjectHash, WriterId};
use crate::format::layout::{self, EpochPath};
use crate::format::marker::{MARKER, NotTheMarker};
use crate::format::sign::Namespace;
use crate::format::signers::Signers;
use crate::keys::Identity;
use crate::report::event::Reporter;
use crate::runtime::Runtime;
use crate::store::listing::folders;
use crate::store::{Store, StoreError};

use crate::repository::chain;
use crate::repository::chain::{Break, Chain, Snapshot};
use crate::repository::epoch::stored;
use crate::repository::epoch::stored::Epochs;
use crate::repository::epoch::wraps;
use crate::repository::fetched;
use crate::repository::fetched::Named;
use crate::repository::read::damage;
use crate::repository::read::damage::Hidden;
use crate::repository::read::snapshot::{OpenSnapshot, SnapshotError};
use crate::repository::records;
use crate::repository::records::Records;

/// The most plans of one writer that are listed.
const MAX_PLANS: usize = 10_000;

/// The context for reading a repository. Cheap to clone.
#[derive(Debug, Clone)]
pub struct View {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The pinned keys.
    pub signers: Arc<Signers>,
    /// The clock, randomness and workers.
    pub runtime: Runtime,
    /// The reporter of warnings.
    pub reporter: Reporter,
}

/// One plan of one writer.
#[derive(Debug)]
pub struct PlanView {
    /// The writer.
    pub writer: WriterId,
    /// The plan's id. Only bodies contain its name.
    pub plan: NameId,
    /// Its epochs.
    pub epochs: Epochs,
    /// Its snapshots.
    pub chain: Chain,
    /// Snapshots under epochs without a valid epoch.json.
    pub hidden: Vec<Hidden>,
}

/// The selection of a snapshot.
#[derive(Debug, Clone, Default)]
pub struct Which {
    /// `latest`, a sequence, or the first digits of a hash.
    pub snapshot: String,
    /// The first digits of a writer's id, if several are pinned.
    pub writer: Option<String>,
    /// The first digits of a plan's id, if there are several.
    pub plan: Option<String>,
}

/// Reads the marker of a repository.
///
/// # Errors
/// If the store cannot be read.
pub async fn look_at_marker(store: &Arc<dyn Store>) -> Result<Named<Bytes>, StoreError> {
    fetched::get(store, &layout::marker(), ObjectHash::of(MARKER), 4096).await
}

/// Checks that the store holds a repository.
///
/// # Errors
/// A message for the user if it does not.
pub async fn check_marker(store: &Arc<dyn Store>) -> Result<(), Failure> {
    judge_marker(store, &look_at_marker(store).await?)
}

/// Checks a marker that was read with [`look_at_marker`].
///
/// # Errors
/// As [`check_marker`].
pub fn judge_marker(store: &Arc<dyn Store>, marker: &Named<Bytes>) -> Result<(), Failure> {
    match marker {
        Named::Is(_) => Ok(()),
        Named::Altered => {
            let what = format!("{} in {} is damaged", layout::marker(), store.describe());
            Err(Failure::new(Exit::Damaged, what).because(NotTheMarker).remedy(
                "check --repo; if it is right, put the marker back, which holds {\"kbak\":1} and no more",
            ))
        }
        Named::Missing => {
            Err(Failure::new(Exit::Usage, format!("there is no kbak repository in {}", store.describe()))
                .remedy("check --repo, and that it is mounted; a new repository is made by kbak init"))
        }
    }
}

impl View {
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
    pub async fn is_written(&self) -> Result<bool, StoreError> {
        for writer in self.writers() {
            if !folders(&self.store, &format!("{writer}/"), MAX_PLANS).await?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// As [`check_marker`]. If a pinned writer's folder exists, a missing marker was deleted or lost.
    async fn check_marker(&self) -> Result<(), Failure> {
        let found = look_at_marker(&self.store).await?;
        if found != Named::Missing || !self.is_written().await? {
            return judge_marker(&self.store, &found);
        }
        let what = format!("{} is gone from {}", layout::marker(), self.store.describe());
        Err(Failure::new(Exit::Damaged, what).fact("there", "a pinned writer's folder").remedy(
            "put it there again: it holds {\"kbak\":1}, without a newline, in every repository; the next \
             backup does that too",
        ))
    }

    /// Reads all plans of the writers that `which` selects.
    pub async fn plans(&self, which: &Which) -> Result<Vec<PlanView>, Failure> {
        self.check_marker().await?;
        let mut plans = Vec::new();
        let mut records: Option<(WriterId, Records)> = None;
        for (writer, plan) in self.plan_ids(which).await? {
            // The plans are sorted by writer, so each writer's records are read once.
            let known = match records.take() {
                Some((of, known)) if of == writer => known,
                _ => self.records(writer).await?,
            };
            let plan = self.plan(writer, plan, &known).await?;
            self.warn_of_lost(&plan);
            plans.push(plan);
            records = Some((writer, known));
        }
        Ok(plans)
    }

    /// Fails if the store holds folders of writers but none of a pinned one: it is not an empty store.
    async fn refuse_others(&self) -> Result<(), Failure> {
        let folders = folders(&self.store, "", MAX_PLANS).await?;
        let writers: Vec<WriterId> = folders.iter().filter_map(|folder| folder.parse().ok()).collect();
        let pinned = self.writers();
        if writers.is_empty() || writers.iter().any(|writer| pinned.contains(writer)) {
            return Ok(());
        }
        let what = format!("no writer in {} is pinned with --signer", self.store.describe());
        let names = |writers: &[WriterId]| {
            writers.iter().take(5).map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        Err(Failure::new(Exit::Usage, what)
            .fact("writers there", names(&writers))
            .fact("pinned", names(&pinned))
            .remedy("is this the right kbak.pub, and the right repository?"))
    }

    /// Returns the ids of the plans that `which` selects; none if pinned writers have stored nothing.
    ///
    /// # Errors
    /// If no writer is pinned, only other writers have stored data, or no plan matches `which`.
    pub async fn plan_ids(&self, which: &Which) -> Result<Vec<(WriterId, NameId)>, Failure> {
        let writers = self.writers();
        if writers.is_empty() {
            return Err(Failure::new(Exit::Usage, "no writer is pinned").remedy(
                "give the writer's kbak.pub with --signer; without it anyone could have written this bucket",
            ));
        }
        let wanted =
            |id: String, digits: &Option<String>| digits.as_ref().is_none_or(|d| id.starts_with(d.as_str()));
        let mut plans = Vec::new();
        for writer in writers {
            if !wanted(writer.to_string(), &which.writer) {
                continue;
            }
            let ids = folders(&self.store, &format!("{writer}/"), MAX_PLANS).await?;
            for plan in ids.iter().filter_map(|id| id.parse::<NameId>().ok()) {
                if wanted(plan.to_string(), &which.plan) {
                    plans.push((writer, plan));
                }
            }
        }
        if plans.is_empty() {
            self.refuse_others().await?;
            if which.writer.is_some() || which.plan.is_some() {
                let what = format!("no plan of a pinned writer in {} is meant", self.store.describe());
                let given = |digits: &Option<String>| digits.clone().unwrap_or_else(|| "any".to_owned());
                return Err(Failure::new(Exit::Usage, what)
                    .fact("writer", given(&which.writer))
                    .fact("plan", given(&which.plan))
                    .remedy("kbak snapshots lists the plans that there are"));
            }
        }
        Ok(plans)
    }

    /// Reads one plan. Rejects data by keys that the writer's `records` cut off.
    pub async fn plan(&self, writer: WriterId, plan: NameId, records: &Records) -> Result<PlanView, Failure> {
        let mut epochs = stored::list(&self.store, writer, plan, None, &self.signers, &self.reporter).await?;
        let ids = epochs.all.iter().map(|stored| stored.epoch.epoch);
        let mut chain = chain::read(&self.store, writer, plan, ids, &self.signers, &self.reporter).await?;
        chain.cut_off(records);
        epochs.cut_off(records, &chain);
        let mut view = PlanView { writer, plan, epochs, chain, hidden: Vec::new() };
        view.hidden = self.hidden(&view).await?;
        Ok(view)
    }

    /// Reads the signed records of a writer.
    pub async fn records(&self, writer: WriterId) -> Result<Records, Failure> {
        Ok(records::list(&self.store, writer, None, &self.signers, &self.reporter).await?)
    }

    /// Returns the one selected snapshot and its plan. Fails with a list if several match: a
    /// restore never guesses.
    pub async fn select(&self, which: &Which) -> Result<(PlanView, Snapshot), Failure> {
        let plans = self.plans(which).await?;
        let mut found: Vec<(usize, Snapshot)> = Vec::new();
        for (at, plan) in plans.iter().enumerate() {
            found.extend(
                plan.chain.select(&which.snapshot).into_iter().map(|snapshot| (at, snapshot.clone())),
            );
        }
        match found.len() {
            1 => {}
            0 => return Err(self.none(&plans, which)),
            _ => return Err(ambiguous(&found, which)),
        }
        let Some((at, snapshot)) = found.pop() else { return Err(self.none(&plans, which)) };
        if which.snapshot == "latest" {
            damage::refuse_latest(&plans, &plans[at], &snapshot)?;
        }
        let plan =
            plans.into_iter().nth(at).ok_or_else(|| Failure::new(Exit::Bug, "a plan that vanished"))?;
        self.warn_of_breaks(&plan);
        Ok((plan, snapshot))
    }

    fn warn_of_breaks(&self, plan: &PlanView) {
        for broken in plan.breaks() {
            self.reporter.warn(format!("chain of plan {}", plan.plan), broken.to_string());
        }
        for (object, error) in &plan.chain.rejected {
            self.reporter
                .warn(object.to_string(), format!("this is no snapshot of a pinned writer: {error}"));
        }
    }

    /// Opens a snapshot with the owners' identities. `memory` is the readers' limit in bytes.
    pub async fn open(
        &self,
        plan: &PlanView,
        snapshot: &Snapshot,
        identities: &[Arc<Identity>],
        memory: u64,
    ) -> Result<OpenSnapshot, Failure> {
        let mut opened = Vec::new();
        for id in &snapshot.envelope().epochs {
            let Some(stored) = plan.epochs.get(*id) else {
                let key = EpochPath { writer: plan.writer, plan: plan.plan, epoch: *id }.epoch_json();
                return Err(Failure::new(
                    Exit::Damaged,
                    format!("{key}, the epoch of this snapshot, is gone or damaged"),
                )
                .remedy("older versions of the object may be there: kbak verify says what is missing"));
            };
            let (keys, _) =
                wraps::open(&self.store, &self.runtime, &stored.epoch, identities, &self.reporter).await?;
            opened.push((stored.epoch.clone(), keys));
        }
        let (store, runtime) = (self.store.clone(), self.runtime.clone());
        let reporter = self.reporter.clone();
        Ok(OpenSnapshot::open(store, runtime, reporter, snapshot.clone(), opened, memory).await?)
    }
}

impl PlanView {
    /// Returns the epochs that have objects in the store but no valid epoch.json.
    pub fn lost_epochs(&self) -> impl Iterator<Item = EpochId> + '_ {
        let rejected = self.epochs.rejected.iter().filter_map(|(key, _)| layout::parse_epoch(key));
        let lost: BTreeSet<EpochId> = rejected.chain(self.epochs.gone.iter().copied()).collect();
        lost.into_iter().filter(|epoch| self.epochs.get(*epoch).is_none())
    }

    /// Returns the inconsistencies of its chain.
    #[must_use]
    pub fn breaks(&self) -> Vec<Break> {
        self.chain.breaks(&HashSet::new())
    }
}

fn ambiguous(found: &[(usize, Snapshot)], which: &Which) -> Failure {
    let what = format!("{} snapshots could be meant by {}", found.len(), which.snapshot);
    let mut failure = Failure::new(Exit::Usage, what);
    for (_, snapshot) in found.iter().take(20) {
        let envelope = snapshot.envelope();
        failure = failure.fact(
            format!("{:06} of {}", envelope.seq, envelope.finished),
            format!(
                "plan {}, writer {}, sha256:{}",
                envelope.plan,
                envelope.writer,
                snapshot.manifest.hash()
            ),
        );
    }
    failure.remedy("say which: --plan-id with the first digits of the plan, --writer, or the hash")
}

impl From<SnapshotError> for Failure {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Store(error) => error.into(),
            other => Self::new(Exit::Damaged, "the snapshot cannot be read").because(other),
        }
    }
}
