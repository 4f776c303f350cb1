//! The writer's own past, which decides what it believes of the hints in the store: index objects, scan
//! caches and its state.
//!
//! A signature by the writer's key is not enough, and neither is the epoch's secret: whoever had one of them
//! for a minute could plant an index object that maps chunks to wrong places, and later backups would lie. A
//! hint counts if a snapshot names it whose hash stands in the writer's epoch file, or if a run signed it
//! whose key that file lists as open.

use std::collections::HashSet;

use crate::format::ids::{EpochId, NameId, ObjectHash};
use crate::format::layout::EpochPath;
use crate::format::manifest::DomainObjects;
use crate::format::sign::{PublicKey, SigningKey};
use crate::format::timestamp;
use crate::keys::epoch_file::{
    EpochFileState, EpochSecretStore, LastCommit, MAX_HEADS, MAX_RUNS, OpenRun,
};
use crate::keys::writer_key::WriterFileError;
use crate::report::event::{Event, Reporter};
use crate::repository::chain::{Chain, Snapshot};
use crate::repository::epoch::current::CurrentEpoch;
use crate::repository::write::commit::Committed;

/// What a run believes.
pub(super) struct Lineage {
    /// The writer's own snapshots that were committed last, as far as the store still has them.
    own: Vec<Snapshot>,
    /// The keys of runs of this epoch that ended without a commit, or go on beside this one.
    pub runs: Vec<PublicKey>,
    /// True if the epoch file noted this run.
    pub is_kept: bool,
}

/// A run before it has stored anything.
#[derive(Clone, Copy)]
pub(super) struct NewRun<'a> {
    pub keeper: &'a dyn EpochSecretStore,
    /// The epoch that it writes into.
    pub epoch: &'a CurrentEpoch,
    pub key: &'a SigningKey,
    /// The writer's signing key.
    pub writer: PublicKey,
    pub began: jiff::Timestamp,
    pub reporter: &'a Reporter,
}

impl Lineage {
    /// Reads the writer's past, and notes this run's key in the epoch file before it stores anything.
    /// Fails if the file or Secret can be changed in general, and not now.
    pub async fn begin(run: NewRun<'_>, chain: &Chain) -> Result<Self, WriterFileError> {
        let NewRun { keeper, key, reporter, .. } = run;
        let epoch = run.epoch.epoch.epoch;
        let state = keeper.load().await?.unwrap_or_default();
        let open = OpenRun { key: key.public(), epoch, started: timestamp::to_seconds(run.began) };
        let longest = run.epoch.epoch.max_run_seconds;
        let noted = keeper.update(&|state| note(state, open, longest)).await;
        let is_kept = match noted {
            Ok(()) => true,
            Err(error) if error.is_read_only() => false,
            Err(error) => return Err(error),
        };
        let mut own: Vec<Snapshot> =
            state.heads.iter().filter_map(|head| chain.get(head.hash)).cloned().collect();
        if !is_kept {
            let newest = chain.iter().rev().find(|snapshot| snapshot.manifest.key() == run.writer);
            own.extend(newest.filter(|_| own.is_empty()).cloned());
            reporter.event(Event::Warning {
                object: keeper.describe(),
                message: "it cannot be changed, so this run believes what the newest snapshot names, whoever \
                          had the writer's key, a later removal of this snapshot would not be noticed, and \
                          what a killed run has stored is stored again"
                    .into(),
                remedy: Some(
                    "kbak check names the remedy; until then, keep the head that this run prints".into(),
                ),
            });
        }
        warn_of_others(chain, &own, state.heads.is_empty(), run);
        let runs = state.runs.iter().filter(|run| run.epoch == epoch).map(|run| run.key);
        Ok(Self { runs: runs.chain([key.public()]).collect(), own, is_kept })
    }

    /// Returns the index objects of a domain that the writer's own snapshots name.
    pub fn index(&self, path: &EpochPath, domain: NameId) -> HashSet<ObjectHash> {
        let named = self.own.iter().flat_map(|snapshot| &snapshot.envelope().index);
        let here = named.filter(|one| (one.epoch, one.domain) == (path.epoch, domain));
        here.flat_map(|one| one.objects.iter().copied()).collect()
    }

    /// Returns the objects that hold the writer's state, the newest first.
    pub fn states(&self) -> impl Iterator<Item = &DomainObjects> {
        let mut own: Vec<&Snapshot> = self.own.iter().collect();
        own.sort_by_key(|snapshot| std::cmp::Reverse((snapshot.envelope().seq, snapshot.manifest.hash())));
        own.into_iter().flat_map(|snapshot| &snapshot.envelope().state)
    }

    /// Notes a committed snapshot in place of its parents, and the end of its run.
    pub async fn close(
        keeper: &dyn EpochSecretStore,
        key: &SigningKey,
        committed: &Committed,
    ) -> Result<(), WriterFileError> {
        let head = LastCommit { seq: committed.seq, hash: committed.head };
        let (parents, run) = (&committed.envelope.previous, key.public());
        keeper
            .update(&|mut state| {
                state.heads.retain(|known| known.hash != head.hash && !parents.contains(&known.hash));
                state.heads.push(head);
                let surplus = state.heads.len().saturating_sub(MAX_HEADS);
                state.heads.drain(..surplus);
                state.runs.retain(|open| open.key != run);
                state
            })
            .await
    }
}

/// Adds an open run. Those that cannot go on any more are dropped, and the oldest beyond the limit.
fn note(mut state: EpochFileState, open: OpenRun, longest: u64) -> EpochFileState {
    let held: HashSet<EpochId> = state.secrets.iter().map(|secret| secret.epoch).collect();
    let fits = |run: &OpenRun| {
        run.key != open.key
            && held.contains(&run.epoch)
            && timestamp::add_seconds(run.started, KEPT_RUNS.max(longest)) > open.started
    };
    state.runs.retain(fits);
    state.runs.push(open);
    let surplus = state.runs.len().saturating_sub(MAX_RUNS);
    state.runs.drain(..surplus);
    state
}

/// The time for which the key of a run without a commit is believed at least, in seconds: a week, so that the
/// next weekly run reuses what it stored.
const KEPT_RUNS: u64 = 8 * 86_400;

/// Warns of snapshots that the epoch file does not know. They become parents, and their hints do not count.
fn warn_of_others(chain: &Chain, own: &[Snapshot], forgotten: bool, run: NewRun<'_>) {
    let known: HashSet<ObjectHash> = own.iter().map(|snapshot| snapshot.manifest.hash()).collect();
    for head in chain.heads().into_iter().filter(|head| !known.contains(&head.manifest.hash())) {
        let what = if forgotten {
            "no snapshot stands in this writer's epoch file, so nothing that it names is believed, and all is \
             read and stored anew"
        } else {
            "this writer's epoch file does not name it: another run made it. It becomes a parent of this \
             snapshot; what it names is not believed"
        };
        let envelope = head.envelope();
        let object = format!("snapshot {:06} (sha256:{})", envelope.seq, head.manifest.hash());
        run.reporter.warn(object, what);
    }
}
