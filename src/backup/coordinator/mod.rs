//! The coordinator of a backup: opens the epoch and the chain, has the items carried domain by domain,
//! and commits the snapshot.

mod close;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;

use crate::format::body::Item;
use crate::format::ids::{NameId, ObjectHash};
use crate::format::manifest::Heal;
use crate::format::state::{CacheRoot, ItemHistory, LastGood, WriterState};
use crate::format::timestamp;
use crate::inventory::coverage::CoverageCheck;
use crate::pipeline::context::{EpochTarget, PipelineContext};
use crate::pipeline::domain::DomainWriter;
use crate::pipeline::limits::MemoryLimits;
use crate::report::coverage::{Coverage, CoverageFinding};
use crate::report::error::causes;
use crate::report::event::{Event, Reporter};
use crate::report::item_state::ItemState;
use crate::repository::chain::{SAME_NUMBER, SnapshotName};
use crate::repository::epoch::current;
use crate::repository::epoch::current::CurrentEpoch;
use crate::repository::index_loader::{DomainIndexLoader, TrustedIndexes};
use crate::repository::write::commit::{Committed, Committer, NewDomain, NewItem, NewSnapshot};
use crate::runtime::{kill_point, lock};

use super::carrier::Carrier;
use super::error::BackupError;
use super::history::History;
use super::item::{ItemJob, ItemResult};
use super::job::{BackupContext, BackupJob, BackupReport};
use super::lineage::{Lineage, OtherRuns};
use super::start::{Start, begin};

/// Most time that a run that fails or is interrupted spends on its last index object and its epoch file.
const END_TIMEOUT: Duration = Duration::from_millis(700);

/// Backs up the items of a job and commits a snapshot.
pub async fn backup(job: BackupJob, context: BackupContext<'_>) -> Result<BackupReport, BackupError> {
    if job.items.is_empty() {
        return Err(BackupError::NoItems);
    }
    let start = begin(&job, context).await?;
    let epoch = &start.ready.epoch;
    let limits = MemoryLimits::divide(job.memory, epoch.parameters.pack_bytes);
    let engine = PipelineContext::new(
        context.runtime.clone(),
        context.store.clone(),
        context.reporter.clone(),
        limits,
        job.level.unwrap_or(epoch.parameters.level),
        job.prove,
    );
    let open = Mutex::default();
    let coverage = match &job.coverage {
        Some(watch) => Some(check_coverage(watch, context.reporter).await),
        None => None,
    };
    let (job, start, engine) = (&job, &start, &engine);
    let mut run =
        Run { job, context, start, engine, coverage, written: Vec::new(), heals: Vec::new(), open: &open };
    let run = async {
        for (domain, items) in by_domain(&job.items) {
            run.domain(&domain, &items).await?;
        }
        run.commit().await
    };
    let result = tokio::select! {
        biased;
        () = context.runtime.stop.cancelled() => Err(BackupError::Interrupted),
        result = run => result,
    };
    if let Err(error) = &result {
        end_early(start, context, &open, !error.is_unreachable()).await;
    }
    result
}

/// The domain whose packs are being written.
type OpenDomain = Mutex<Option<Arc<DomainWriter>>>;

/// Ends a run without a commit, within the time limit [`END_TIMEOUT`]: writes an index object that names the
/// acknowledged packs, so that the next run can reuse them, one small PUT; and notes the end in the epoch file, so
/// that the next run does not take this one for one that still runs.
async fn end_early(start: &Start, context: BackupContext<'_>, open: &OpenDomain, is_reachable: bool) {
    let domain = lock(open).take().filter(|_| is_reachable);
    let index = async {
        if let Some(domain) = domain {
            // If this fails, the next run stores these packs again; nothing else depends on it.
            let _ = domain.abort().await;
        }
    };
    let note = async {
        // If this fails, the next run names this one among those that may still run.
        let _ = Lineage::end(context.keeper, &start.run).await;
    };
    let _ = tokio::time::timeout(END_TIMEOUT, futures::future::join(index, note)).await;
}

/// Checks the coverage of the cluster, and warns at once of everything that the plan does not declare.
async fn check_coverage(watch: &CoverageCheck, reporter: &Reporter) -> Coverage {
    reporter.event(Event::Phase { name: "coverage" });
    let coverage = watch.run(reporter).await;
    for CoverageFinding { text, remedy, .. } in coverage.findings() {
        reporter.event(Event::Warning { object: "coverage".into(), message: text, remedy: Some(remedy) });
    }
    coverage
}

/// Returns the items of each domain, in the order in which domains first appear.
fn by_domain(items: &[ItemJob]) -> Vec<(String, Vec<&ItemJob>)> {
    let mut domains: Vec<(String, Vec<&ItemJob>)> = Vec::new();
    for item in items {
        let name = item.work.domain(&item.name);
        match domains.iter_mut().find(|(domain, _)| *domain == name) {
            Some((_, items)) => items.push(item),
            None => domains.push((name, vec![item])),
        }
    }
    domains
}

/// The state of a run.
struct Run<'a> {
    job: &'a BackupJob,
    context: BackupContext<'a>,
    start: &'a Start,
    engine: &'a PipelineContext,
    coverage: Option<Coverage>,
    written: Vec<DomainResult>,
    /// The bad packs whose chunks this run found or stored elsewhere.
    heals: Vec<Heal>,
    open: &'a OpenDomain,
}

/// The index objects of a domain from earlier runs.
struct EarlierIndex {
    objects: Vec<ObjectHash>,
    /// True if they name packs that are gone, altered or distrusted.
    has_lost: bool,
}

/// The result of one domain.
struct DomainResult {
    draft: NewDomain,
    items: Vec<WrittenItem>,
}

/// The result of one item: its summary, and the roots of its scan caches by stream.
struct WrittenItem {
    new: NewItem,
    summary: String,
    caches: BTreeMap<String, CacheRoot>,
}

impl Run<'_> {
    async fn domain(&mut self, name: &str, jobs: &[&ItemJob]) -> Result<(), BackupError> {
        let CurrentEpoch { epoch, secret, .. } = &self.start.ready;
        let id = self.context.key.names.id("domain", name);
        let path = epoch.path();
        let (distrusted, _) = self.start.records.distrusted(path.plan, path.epoch, id);
        let key = Arc::new(secret.domain(name));
        let (store, reporter) = (self.context.store, self.context.reporter);
        let Start { lineage, records, chain, .. } = self.start;
        let (hints, share) = (lineage.hints(&path, id, records, chain), self.engine.limits.index);
        let etags = lineage.etags(store, &path, id).await?;
        let trusted = TrustedIndexes { named: &hints.named, runs: &hints.runs };
        let loaded = DomainIndexLoader { store, path, domain: id, reporter }
            .load(&key, &distrusted, trusted, &etags, share)
            .await?;
        kill_point("backup.index.loaded");
        if !loaded.lost.is_empty() {
            let object = path.in_domain(id, crate::format::layout::ObjectClass::Pack, loaded.lost[0].hash);
            reporter.warn(
                object.to_string(),
                format!(
                    "{} packs that were stored are gone, altered or distrusted: what passes by again is \
                     stored anew; earlier snapshots may be damaged",
                    loaded.lost.len()
                ),
            );
        }
        let (recipient, run) = (epoch.recipient().clone(), self.start.run.clone());
        let target = EpochTarget { path, recipient, run };
        let key = DomainWriter::new(self.engine.clone(), target, id, (*key).clone(), loaded.known);
        *lock(self.open) = Some(key.clone());
        let mut finished = Vec::with_capacity(jobs.len());
        for job in jobs {
            reporter.event(Event::ItemStarted { item: job.name.clone() });
            let began = self.context.runtime.clock.now();
            kill_point("backup.item.started");
            let result = self.item(job, &key, hints.cache).await?;
            let millis = self.context.runtime.clock.now().as_millisecond() - began.as_millisecond();
            finished.push((*job, result, u64::try_from(millis).unwrap_or(0)));
            kill_point("backup.item.read");
        }
        let earlier = EarlierIndex { objects: loaded.objects, has_lost: !loaded.lost.is_empty() };
        self.close(name, id, &key, finished, earlier).await
    }

    async fn item(
        &self,
        job: &ItemJob,
        domain: &Arc<DomainWriter>,
        cache_counts: bool,
    ) -> Result<ItemResult, BackupError> {
        let parameters = &self.start.ready.epoch.parameters;
        let coverage = self.coverage.as_ref();
        let carrier = Carrier { domain, parameters, reporter: self.context.reporter, coverage };
        let cache = self.scan_cache(&job.name, domain.id()).filter(|_| cache_counts);
        carrier.carry(job, cache).await
    }

    /// Returns the scan cache of the last run, if it may be used and is in this epoch and domain.
    fn scan_cache(&self, item: &str, domain: NameId) -> Option<ObjectHash> {
        let id = self.context.key.names.id("item", item);
        let root = self.start.state.items.get(&id)?.caches.get("tar")?;
        (self.job.use_cache && root.domain == domain && root.epoch == self.start.ready.epoch.epoch)
            .then_some(root.object)
    }

    async fn commit(mut self) -> Result<BackupReport, BackupError> {
        self.context.reporter.event(Event::Phase { name: "commit" });
        let (draft, items) = self.draft();
        let Self { context, start, engine, coverage, .. } = self;
        let ready = &start.ready;
        let own = context.key.own_signers();
        let Some(stored) = start.epochs.get(ready.epoch.epoch) else {
            return Err(BackupError::EpochGone);
        };
        let committer = Committer {
            engine,
            repository: context.key.repository,
            names: &context.key.names,
            signing: &context.key.signing,
            signers: &own,
            epoch: &ready.epoch,
            secret: &ready.secret,
            chain: &start.chain,
            commits_until: start.epochs.commits_until(stored),
        };
        kill_point("backup.commit.begun");
        let committed = committer.commit(draft).await?;
        kill_point("backup.committed");
        let others = note_head(&committed, start, context).await;
        warn_of_concurrent(&committed, &others, context.reporter);
        // The snapshot counts already: the next run tries again.
        let deleted = current::delete_closed_secrets(context.keeper, ready.epoch.epoch, &start.epochs).await;
        if let Err(error) = deleted {
            let message = format!("the secrets of closed epochs stay in it: {}", causes(&error));
            context.reporter.warn(context.keeper.describe(), message);
        }
        Ok(BackupReport {
            history: History::of(&start.chain, &committed.envelope, &items),
            committed,
            items,
            born: ready.born.clone(),
            changed_owners: (!ready.change.is_empty()).then(|| ready.change.to_string()),
            waiting: ready.waiting.iter().map(|owner| owner.name()).collect(),
            coverage,
        })
    }
}

impl Run<'_> {
    /// Returns the snapshot to commit, and the items with their summaries.
    fn draft(&mut self) -> (NewSnapshot, Vec<(Item, String)>) {
        let heals = self.named_heals();
        let (job, start) = (self.job, self.start);
        let seq = start.chain.next_seq();
        let now = self.context.runtime.clock.now();
        let mut state = start.state.clone();
        let (mut items, mut new_items, mut domains) = (Vec::new(), Vec::new(), Vec::new());
        for DomainResult { draft, items: results } in std::mem::take(&mut self.written) {
            domains.push(draft);
            for WrittenItem { new, summary, caches } in results {
                remember(&mut state, &new.item, caches, seq, now);
                items.push((new.item.clone(), summary));
                new_items.push(new);
            }
        }
        let snapshot = NewSnapshot {
            plan: job.plan.clone(),
            host: job.host.clone(),
            started: start.began,
            next_before: job.next.map(|seconds| timestamp::add_seconds(start.began, seconds)),
            items: new_items,
            domains,
            heals,
            trust: start.lineage.trust.clone(),
            state,
        };
        (snapshot, items)
    }
}

/// Notes the snapshot in the epoch file, and the end of its run. Returns the other runs that the file names. The
/// snapshot counts already: a failure is a warning. A file that could not be changed at the start was warned of
/// then.
async fn note_head(committed: &Committed, start: &Start, context: BackupContext<'_>) -> OtherRuns {
    let error = match start.lineage.close(context.keeper, &start.run, committed).await {
        Ok(others) => return others,
        Err(error) => error,
    };
    if start.lineage.is_kept {
        context.reporter.event(Event::Warning {
            object: context.keeper.describe(),
            message: format!(
                "the snapshot is not noted in it, so its removal would not be noticed: {}",
                causes(&error)
            ),
            remedy: Some(
                "kbak check names the remedy; until then, keep the head that this run prints".into(),
            ),
        });
    }
    OtherRuns::default()
}

/// Warns of snapshots that other runs committed meanwhile, and of runs that may still commit one.
fn warn_of_concurrent(committed: &Committed, others: &OtherRuns, reporter: &Reporter) {
    let own = SnapshotName(committed.seq, committed.head);
    let warn = |message: String| {
        let remedy = Some(SAME_NUMBER.into());
        reporter.event(Event::Warning { object: "chain".into(), message, remedy });
    };
    let listed = committed.concurrent.iter().copied();
    let noted = others.committed.iter().map(|head| (head.seq, head.hash));
    let all: BTreeSet<(u64, ObjectHash)> = listed.chain(noted).collect();
    for (seq, hash) in all {
        let other = SnapshotName(seq, hash);
        warn(format!(
            "{other} was stored while this run made {own}: by another run of this plan, or by somebody who has its key"
        ));
    }
    if let Some(began) = others.open.last() {
        let runs = match others.open.len() {
            1 => format!("another run of this plan began at {began} and has"),
            more => format!("{more} other runs of this plan, the last of which began at {began}, have"),
        };
        let next = format!("makes another snapshot {:06} beside {own}", committed.seq);
        warn(format!("{runs} not ended: one that was not killed {next}"));
    }
}

fn remember(
    state: &mut WriterState,
    item: &Item,
    caches: BTreeMap<String, CacheRoot>,
    seq: u64,
    finished: Timestamp,
) {
    let bytes = item.streams.iter().map(|stream| stream.length).sum();
    let earlier = state.items.get(&item.id).and_then(|memory| memory.last_good);
    let last_good =
        if item.state == ItemState::Good { Some(LastGood { seq, finished, bytes }) } else { earlier };
    state.items.insert(item.id, ItemHistory { last_good, state: item.state, caches });
}
