//! The writer's own past, which decides what it believes of the hints in the store: index objects, scan
//! caches and its state.
//!
//! A signature by the writer's key is not enough, and neither is the epoch's secret: whoever had one of them
//! for a minute could plant an index object that maps chunks to wrong places, and later backups would lie. A
//! hint counts if a snapshot names it whose hash stands in the writer's epoch file, or if a run signed it
//! whose key that file lists as open.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;

use crate::format::ids::{EpochId, NameId, ObjectHash};
use crate::format::layout::{EpochPath, ObjectClass};
use crate::format::manifest::{DomainObjects, Heal, MAX_TRUST, PublicItem};
use crate::format::pack_refs::{EtagPrint, MAX_PACK_REFS, PackRefs, StoreTag};
use crate::format::sign::{PublicKey, SigningKey};
use crate::format::timestamp;
use crate::keys::epoch_file::{EpochFileState, EpochSecretStore, LastCommit, MAX_HEADS, MAX_RUNS, OpenRun};
use crate::keys::writer_key::WriterFileError;
use crate::report::event::{Event, Reporter};
use crate::repository::chain::{Chain, Snapshot};
use crate::repository::epoch::current::CurrentEpoch;
use crate::repository::fetched::{self, Fetched};
use crate::repository::records::Records;
use crate::repository::write::commit::Committed;
use crate::runtime::lock;

use super::error::CLOCK_REFUSE;
use crate::store::{Store, StoreError};

/// The snapshots, runs and revocations that a run believes.
pub(super) struct Lineage {
    /// The writer's own snapshots that were committed last, as far as the store still has them.
    own: Vec<Snapshot>,
    /// The runs of this epoch that ended without a commit, or go on beside this one, and this one.
    runs: Vec<OpenRun>,
    /// The snapshots that the epoch file named when this run began.
    known: HashSet<ObjectHash>,
    /// True if the epoch file noted this run.
    pub is_kept: bool,
    /// The revocations that this writer knows.
    pub trust: Vec<ObjectHash>,
}

/// The hints of one domain that a run believes.
pub(super) struct DomainHints {
    /// The index objects that own snapshots name.
    pub named: HashSet<ObjectHash>,
    /// The keys of the runs whose other index objects count.
    pub runs: Vec<PublicKey>,
    /// True if the scan cache of the last snapshot counts.
    pub cache: bool,
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
    pub began: Timestamp,
    pub records: &'a Records,
    pub reporter: &'a Reporter,
}

impl Lineage {
    /// Reads the writer's past, and notes this run's key in the epoch file before it stores anything.
    /// Fails if the file or Secret can be changed in general, and not now.
    pub async fn begin(run: NewRun<'_>, chain: &Chain) -> Result<Self, WriterFileError> {
        let NewRun { keeper, key, reporter, records, .. } = run;
        let epoch = run.epoch.epoch.epoch;
        let state = keeper.load().await?.unwrap_or_default();
        let (started, seq) = (timestamp::to_seconds(run.began), chain.next_seq());
        let open = OpenRun { key: key.public(), epoch, started, seq, ended: false };
        let longest = run.epoch.epoch.max_run_seconds;
        let seen = records.revocations();
        warn_of_removed(&state.trust, &seen, run);
        let noted = keeper.update(&|state| Some(note(state, open, longest, &seen))).await;
        let is_kept = match noted {
            Ok(()) => true,
            Err(error) if error.is_read_only() => false,
            Err(error) => return Err(error),
        };
        let mut own: Vec<Snapshot> =
            state.heads.iter().filter_map(|head| chain.get(head.hash)).cloned().collect();
        if !is_kept {
            let newest = chain.iter().rev().find(|snapshot| snapshot.manifest.key() == run.writer);
            let believes = match own.is_empty() {
                true => "this run believes what the newest snapshot names, whoever had the writer's key",
                false => "this run believes only what the snapshots name that it lists",
            };
            own.extend(newest.filter(|_| own.is_empty()).cloned());
            reporter.event(Event::Warning {
                object: keeper.describe(),
                message: format!(
                    "it cannot be changed: {believes}, a later removal of this snapshot would not be noticed, and \
                     what a killed run has stored is stored again"
                ),
                remedy: Some(
                    "kbak check names the remedy; until then, keep the head that this run prints".into(),
                ),
            });
        }
        warn_of_others(chain, &own, state.heads.is_empty(), run);
        let known = state.heads.iter().map(|head| head.hash).collect();
        // As noted: without runs that cannot go on any more.
        let EpochFileState { runs, trust, .. } = note(state, open, longest, &seen);
        let runs = runs.into_iter().filter(|run| run.epoch == epoch).collect();
        Ok(Self { runs, own, known, is_kept, trust })
    }

    /// Returns the hints of a domain that count: not those that a record resets.
    pub fn hints(&self, path: &EpochPath, domain: NameId, records: &Records, chain: &Chain) -> DomainHints {
        let mut reset = HashSet::new();
        let mut since = None;
        for (heads, at) in records.resets(path.plan, path.epoch, domain) {
            reset.extend(chain.ancestors(heads));
            since = since.max(Some(at));
        }
        let own = || self.own.iter().filter(|snapshot| snapshot.envelope().epoch == path.epoch);
        let believed = own().filter(|snapshot| !reset.contains(&snapshot.manifest.hash()));
        let named = believed.flat_map(|snapshot| &snapshot.envelope().index);
        let named = named.filter(|one| one.domain == domain);
        // The run took its time from its own clock.
        let began_later = |run: &&OpenRun| {
            since.is_none_or(|since| run.started > timestamp::add_seconds(since, CLOCK_REFUSE.unsigned_abs()))
        };
        let this = self.runs.last();
        let earlier =
            self.runs.iter().filter(|run| began_later(run) || this.is_some_and(|this| this.key == run.key));
        DomainHints {
            named: named.flat_map(|one| one.objects.iter().copied()).collect(),
            runs: earlier.map(|run| run.key).collect(),
            cache: !own().any(|snapshot| reset.contains(&snapshot.manifest.hash())),
        }
    }

    /// Returns the ETags of a domain's packs that the writer's own snapshots noted, sorted by pack. A list that
    /// is damaged or gone notes none.
    pub async fn etags(
        &self,
        store: &Arc<dyn Store>,
        path: &EpochPath,
        domain: NameId,
    ) -> Result<Vec<(ObjectHash, EtagPrint)>, StoreError> {
        let own = self.own.iter().map(Snapshot::envelope).filter(|envelope| envelope.epoch == path.epoch);
        let needs = own.flat_map(|envelope| &envelope.items).filter_map(PublicItem::needs);
        let lists: BTreeSet<ObjectHash> =
            needs.filter(|needs| needs.domain == domain).map(|needs| needs.list).collect();
        let here = StoreTag::of(&store.describe());
        let mut etags = Vec::new();
        for list in lists {
            let key = path.in_domain(domain, ObjectClass::PackRefs, list);
            let Fetched::Valid(bytes) = fetched::get(store, &key, list, MAX_PACK_REFS).await? else {
                continue;
            };
            let Some(packs) = PackRefs::parse(&bytes) else { continue };
            etags.extend(packs.with_prints(here).map(|(pack, etag)| (pack.hash, etag)));
        }
        etags.retain(|(_, etag)| *etag != EtagPrint::default());
        etags.sort_unstable();
        etags.dedup();
        Ok(etags)
    }

    /// Returns what this writer's own snapshots in an epoch say of bad packs, each pack once.
    pub fn heals(&self, epoch: EpochId) -> Vec<Heal> {
        let own = self.own.iter().map(Snapshot::envelope).filter(|envelope| envelope.epoch == epoch);
        let mut seen = HashSet::new();
        own.flat_map(|envelope| &envelope.heals)
            .filter(|heal| seen.insert((heal.domain, heal.bad)))
            .cloned()
            .collect()
    }

    /// Returns the objects that hold the writer's state, each with its epoch, the newest first.
    pub fn states(&self) -> impl Iterator<Item = (EpochId, &DomainObjects)> {
        let mut own: Vec<&Snapshot> = self.own.iter().collect();
        own.sort_by_key(|snapshot| std::cmp::Reverse((snapshot.envelope().seq, snapshot.manifest.hash())));
        own.into_iter()
            .map(Snapshot::envelope)
            .flat_map(|envelope| envelope.state.iter().map(|objects| (envelope.epoch, objects)))
    }

    /// Notes a committed snapshot in place of its parents, and the end of its run. Returns the other runs with the
    /// same number.
    pub async fn close(
        &self,
        keeper: &dyn EpochSecretStore,
        key: &SigningKey,
        committed: &Committed,
    ) -> Result<OtherRuns, WriterFileError> {
        let head = LastCommit { seq: committed.seq, hash: committed.head };
        let (parents, run) = (&committed.envelope.previous, key.public());
        let others = Mutex::new(OtherRuns::default());
        let close = |mut state: EpochFileState| {
            state.heads.retain(|known| known.hash != head.hash && !parents.contains(&known.hash));
            state.runs.retain(|open| open.key != run);
            *lock(&others) = self.others(&state, head.seq);
            state.heads.push(head);
            let surplus = state.heads.len().saturating_sub(MAX_HEADS);
            state.heads.drain(..surplus);
            Some(state)
        };
        keeper.update(&close).await?;
        Ok(std::mem::take(&mut *lock(&others)))
    }

    /// Returns the runs that may still commit a snapshot of this sequence, and those that did meanwhile.
    fn others(&self, state: &EpochFileState, seq: u64) -> OtherRuns {
        let open = state.runs.iter().filter(|run| run.seq == seq && !run.ended).map(|run| run.started);
        let is_new = |head: &&LastCommit| head.seq == seq && !self.known.contains(&head.hash);
        OtherRuns { open: open.collect(), committed: state.heads.iter().filter(is_new).copied().collect() }
    }

    /// Notes that a run has ended without a commit. What it stored still counts.
    pub async fn end(keeper: &dyn EpochSecretStore, key: &SigningKey) -> Result<(), WriterFileError> {
        let run = key.public();
        let end = |mut state: EpochFileState| {
            state.runs.iter_mut().filter(|open| open.key == run).for_each(|open| open.ended = true);
            Some(state)
        };
        keeper.update(&end).await
    }
}

/// The other runs of a plan that have the number of a snapshot, as the epoch file tells it.
#[derive(Debug, Default)]
pub(super) struct OtherRuns {
    /// The runs that have not ended, by the time at which they began.
    pub open: Vec<Timestamp>,
    /// The snapshots that were committed.
    pub committed: Vec<LastCommit>,
}

/// Adds an open run, and the revocations that were seen. Runs that cannot go on any more are dropped, and the
/// oldest beyond the limit.
fn note(mut state: EpochFileState, open: OpenRun, longest: u64, seen: &[ObjectHash]) -> EpochFileState {
    state.trust = known(&state.trust, seen);
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

/// Returns the revocations that were known or seen, sorted: at most [`MAX_TRUST`].
fn known(before: &[ObjectHash], seen: &[ObjectHash]) -> Vec<ObjectHash> {
    let all: BTreeSet<ObjectHash> = before.iter().chain(seen).copied().collect();
    all.into_iter().take(MAX_TRUST).collect()
}

/// Warns of revocations that were in the store and are gone: whoever removed them may hold a revoked key.
fn warn_of_removed(before: &[ObjectHash], seen: &[ObjectHash], run: NewRun<'_>) {
    for gone in before.iter().filter(|known| !seen.contains(known)) {
        run.reporter.event(Event::Warning {
            object: format!("record sha256:{gone}"),
            message:
                "an owner's revocation of a key was removed from the store: where it is not in the pinned \
                      signers, the revoked key counts again"
                    .into(),
            remedy: Some("an owner: kbak keys cut-off, once more; and find out who removed it".into()),
        });
    }
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
            "this writer's epoch file does not name it. A run with another epoch file may have made it, the file may \
             be an older copy, newer snapshots may be missing, or somebody has the writer's key. It becomes a parent \
             of this snapshot; what it names is not believed"
        };
        let envelope = head.envelope();
        let object = format!("snapshot {:06} (sha256:{})", envelope.seq, head.manifest.hash());
        run.reporter.warn(object, what);
    }
}
