//! One run: opens the epoch and the chain, writes the items domain by domain, commits.

mod source;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;

use crate::cli::failure::{Exit, Failure};
use crate::format::body::{Item, Stream};
use crate::format::cache::seal_root;
use crate::format::ids::{NameId, ObjectHash};
use crate::format::moment;
use crate::format::signers::Signers;
use crate::format::state::{CacheRoot, ItemMemory, LastGood, State};
use crate::inventory::coverage::Watch;
use crate::keys::writer_key::{EpochKeeper, KnownHead, WriterKey};
use crate::pipeline::PipelineError;
use crate::pipeline::codec::Codec;
use crate::pipeline::domain::{DomainWriter, WrittenDomain};
use crate::pipeline::engine::{Engine, EpochTarget};
use crate::pipeline::limits::Limits;
use crate::pipeline::stream::WrittenStream;
use crate::report::coverage::{Coverage, Line};
use crate::report::event::{Event, Reporter};
use crate::report::item_state::ItemState;
use crate::report::text::{count, plural, size};
use crate::repository::epoch::create;
use crate::repository::epoch::create::{Ready, Wanted};
use crate::repository::index_loader::{DomainIndexLoader, MERGE_ABOVE};
use crate::repository::write::commit::{Committed, Committer, DomainDraft, Draft};
use crate::runtime::lock;
use crate::runtime::{Runtime, kill_point};
use crate::store::Store;

use super::item::{Finished, ItemJob, Work};
use super::resources;
use super::start::{Start, begin};

/// Most time that a run that fails or is interrupted spends on its last index object.
const LEAVING: Duration = Duration::from_millis(700);
/// Code of the gap that a plan accepts if an item may shrink.
const ANOMALOUS: &str = "anomalous";
/// Most mount points that warnings name per item.
const MOUNTS_TOLD: usize = 5;

/// The input of a run.
#[derive(Debug)]
pub struct BackupJob {
    /// The plan's name.
    pub plan: String,
    /// This machine's name, for the snapshot body.
    pub host: String,
    /// The items to back up.
    pub items: Vec<ItemJob>,
    /// The plan's requirements for its epochs.
    pub wanted: Wanted,
    /// Memory limit, in bytes.
    pub memory: u64,
    /// True if each compressed chunk is decompressed and compared before it is stored.
    pub prove: bool,
    /// True if the scan cache may be used.
    pub use_cache: bool,
    /// Seconds from the start of this run to the expected end of the next one.
    pub next: Option<u64>,
    /// Gaps that the plan accepts: item name and gap code.
    pub accept: Vec<(String, String)>,
    /// The coverage check of the cluster, if the plan asks for it.
    pub coverage: Option<Watch>,
}

/// The store that a run writes to, and the identity that it writes as.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The store.
    pub store: &'a Arc<dyn Store>,
    /// The writer's key.
    pub key: &'a WriterKey,
    /// Keeps the epoch's secret and the newest head.
    pub keeper: &'a dyn EpochKeeper,
    /// The writer's own key and the plan's signers.
    pub signers: &'a Signers,
    /// Clock, randomness, workers.
    pub runtime: &'a Runtime,
    /// Receives events and warnings.
    pub reporter: &'a Reporter,
}

/// The result of a run.
#[derive(Debug)]
pub struct BackupReport {
    /// The committed snapshot.
    pub committed: Committed,
    /// The items as in the snapshot body, each with a one-line summary.
    pub items: Vec<(Item, String)>,
    /// The reason why a new epoch was created, if one was.
    pub born: Option<create::Reason>,
    /// Names of the owners who cannot open the epoch yet.
    pub waiting: Vec<String>,
    /// The coverage of the cluster, if it was checked.
    pub coverage: Option<Coverage>,
}

impl BackupReport {
    /// Returns 0 if all declared items are safe or accepted and, where the plan is strict, coverage
    /// is full; 5 if nothing is safe because the cluster could not be reached; else 3.
    #[must_use]
    pub fn exit(&self) -> Exit {
        let safe = |state: ItemState| state.is_safe() || state == ItemState::Accepted;
        let covered = self.coverage.as_ref().is_none_or(Coverage::is_fine);
        let all = |test: &dyn Fn(&Item) -> bool| self.items.iter().all(|(item, _)| test(item));
        if covered && all(&|item| safe(item.state)) {
            Exit::Safe
        } else if all(&|item| item.gaps.iter().any(|gap| gap.code == resources::UNREACHABLE)) {
            Exit::Unreachable
        } else {
            Exit::Partial
        }
    }
}

/// Backs up the items of a job and commits a snapshot.
pub async fn backup(job: BackupJob, place: Place<'_>) -> Result<BackupReport, Failure> {
    if job.items.is_empty() {
        return Err(Failure::new(Exit::Usage, "the plan selects nothing")
            .remedy("name resources, a database or a volume in it, or use --path, --database, --resources"));
    }
    let start = begin(&job, place).await?;
    let epoch = &start.ready.epoch;
    let limits = Limits::divide(job.memory, epoch.parameters.pack_bytes);
    let codec = Codec::new(epoch.parameters.level, job.prove);
    let engine =
        Engine::new(place.runtime.clone(), place.store.clone(), place.reporter.clone(), limits, codec);
    let open = Mutex::default();
    let coverage = match &job.coverage {
        Some(watch) => Some(look(watch, place.reporter).await),
        None => None,
    };
    let (job, start, engine) = (&job, &start, &engine);
    let mut run = Run { job, place, start, engine, coverage, written: Vec::new(), open: &open };
    let run = async {
        for (domain, items) in by_domain(&job.items) {
            run.domain(&domain, &items).await?;
        }
        run.commit().await
    };
    let result = tokio::select! {
        biased;
        () = place.runtime.stop.cancelled() => Err(stopped()),
        result = run => result,
    };
    if matches!(&result, Err(failure) if failure.exit != Exit::Unreachable) {
        leave(&open).await;
    }
    result
}

/// The domain whose packs are being written.
type OpenDomain = Mutex<Option<Arc<DomainWriter>>>;

fn stopped() -> Failure {
    Failure::new(Exit::Interrupted, "interrupted").remedy("run it again: what was stored is reused")
}

/// Writes an index object that names the acknowledged packs, so that the next run can reuse them: one
/// small PUT, within the time limit [`LEAVING`].
async fn leave(open: &OpenDomain) {
    let domain = lock(open).take();
    if let Some(domain) = domain {
        // If this fails, the next run stores these packs again; nothing else depends on it.
        let _ = tokio::time::timeout(LEAVING, domain.leave()).await;
    }
}

/// Checks the coverage of the cluster, and warns at once of everything that the plan does not declare.
async fn look(watch: &Watch, reporter: &Reporter) -> Coverage {
    reporter.event(Event::Phase { name: "coverage" });
    let coverage = watch.look(reporter).await;
    for Line { text, remedy, .. } in coverage.lines() {
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
    place: Place<'a>,
    start: &'a Start,
    engine: &'a Engine,
    coverage: Option<Coverage>,
    written: Vec<DomainResult>,
    open: &'a OpenDomain,
}

/// The result of one domain.
struct DomainResult {
    draft: DomainDraft,
    items: Vec<(Item, String, BTreeMap<String, CacheRoot>)>,
}

impl Run<'_> {
    async fn domain(&mut self, name: &str, jobs: &[&ItemJob]) -> Result<(), Failure> {
        let Ready { epoch, secret, .. } = &self.start.ready;
        let id = self.place.key.names.id("domain", name);
        let path = epoch.path();
        let (distrusted, _) = self.start.records.distrusted(path.plan, path.epoch, id);
        let key = Arc::new(secret.domain(name));
        let (store, reporter) = (self.place.store, self.place.reporter);
        let (newest, share) = (self.newest_index(id), self.engine.limits().index);
        let loaded = DomainIndexLoader { store, path, domain: id, reporter }
            .load(&key, &distrusted, &newest, share)
            .await?;
        kill_point("backup.index.loaded");
        if !loaded.lost.is_empty() {
            let object = path.in_domain(id, crate::format::layout::Class::Pack, loaded.lost[0].hash);
            reporter.warn(
                object.to_string(),
                format!(
                    "{} packs that were stored are gone, altered or distrusted: what passes by again is \
                     stored anew; earlier snapshots may be damaged",
                    loaded.lost.len()
                ),
            );
        }
        let target = EpochTarget { path, recipient: epoch.recipient().clone() };
        let key = DomainWriter::new(self.engine.clone(), target, id, (*key).clone(), loaded.known);
        *lock(self.open) = Some(key.clone());
        let mut finished = Vec::with_capacity(jobs.len());
        for job in jobs {
            reporter.event(Event::ItemStarted { item: job.name.clone() });
            let began = self.place.runtime.clock.now();
            kill_point("backup.item.started");
            let result = self.item(job, &key).await?;
            let millis = self.place.runtime.clock.now().as_millisecond() - began.as_millisecond();
            finished.push((*job, result, u64::try_from(millis).unwrap_or(0)));
            kill_point("backup.item.read");
        }
        self.close(name, id, &key, finished, loaded.objects).await
    }

    async fn close(
        &mut self,
        name: &str,
        id: NameId,
        domain: &Arc<DomainWriter>,
        finished: Vec<(&ItemJob, Finished, u64)>,
        index: Vec<ObjectHash>,
    ) -> Result<(), Failure> {
        let (mut pending, mut items) = (Vec::new(), Vec::new());
        for (job, mut result, millis) in finished {
            let mut shapes = Vec::new();
            for stream in std::mem::take(&mut result.streams) {
                shapes.push((stream.name, stream.format, stream.sha256));
                pending.push(stream.pending);
            }
            items.push((job, result, shapes, millis));
        }
        let written = domain.finish(pending).await?;
        kill_point("backup.domain.stored");
        let WrittenDomain { streams, needs, index: new_index, .. } = written;
        let mut streams = streams.into_iter();
        let mut cache = Vec::new();
        let mut results = Vec::new();
        for (job, result, shapes, millis) in items {
            let mut caches = BTreeMap::new();
            let mut bodies = Vec::new();
            for (name, format, sha256) in shapes {
                let Some(stream) = streams.next() else {
                    return Err(PipelineError::Bug("a stream that was not written").into());
                };
                if let Some(root) = self.store_cache(domain, &stream).await? {
                    cache.push(root.object);
                    caches.insert(name.clone(), root);
                }
                bodies.push(self.stream(stream, id, name, format, sha256));
            }
            let (item, summary) = self.body_item(job, result, bodies, millis);
            let state = format!("{:?}", item.state).to_lowercase();
            self.place.reporter.event(Event::ItemFinished {
                item: item.name.clone(),
                state,
                summary: summary.clone(),
            });
            results.push((item, summary, caches));
        }
        let index = self.merged(domain, [index, new_index].concat()).await?;
        kill_point("backup.domain.closed");
        let draft = DomainDraft { domain: id, name: name.to_owned(), needs, index, cache };
        self.written.push(DomainResult { draft, items: results });
        Ok(())
    }

    /// Returns the index objects of a domain in this epoch that the newest snapshot names.
    fn newest_index(&self, domain: NameId) -> Vec<ObjectHash> {
        let epoch = self.start.ready.epoch.epoch;
        let named = self.start.chain.latest().map(|latest| &latest.envelope().index);
        let own = named.into_iter().flatten().filter(|one| (one.epoch, one.domain) == (epoch, domain));
        own.flat_map(|one| one.objects.iter().copied()).collect()
    }

    /// Merges the index objects of a finished domain into few if there are more than [`MERGE_ABOVE`].
    async fn merged(
        &self,
        domain: &Arc<DomainWriter>,
        index: Vec<ObjectHash>,
    ) -> Result<Vec<ObjectHash>, Failure> {
        if index.len() <= MERGE_ABOVE {
            return Ok(index);
        }
        let known = domain.take_known();
        let path = domain.target().path;
        let mut objects = Vec::new();
        for index in known.merged(&index).map_err(PipelineError::from)? {
            let sealed = index
                .map_err(PipelineError::from)?
                .seal(&path, domain.id(), domain.key())
                .map_err(PipelineError::from)?;
            self.engine.put(&sealed).await?;
            self.place.reporter.stored(sealed.bytes().len() as u64, false);
            objects.push(sealed.hash());
        }
        Ok(objects)
    }

    async fn store_cache(
        &self,
        domain: &Arc<DomainWriter>,
        stream: &WrittenStream,
    ) -> Result<Option<CacheRoot>, Failure> {
        let Some(groups) = &stream.cache else { return Ok(None) };
        let path = domain.target().path;
        let sealed = seal_root(groups, &path, domain.id(), domain.key()).map_err(PipelineError::from)?;
        kill_point("backup.cache.sealed");
        self.engine.put(&sealed).await?;
        self.place.reporter.stored(sealed.bytes().len() as u64, false);
        kill_point("backup.cache.stored");
        Ok(Some(CacheRoot { epoch: path.epoch, domain: domain.id(), object: sealed.hash() }))
    }

    fn stream(
        &self,
        stream: WrittenStream,
        domain: NameId,
        name: String,
        format: String,
        sha256: Option<ObjectHash>,
    ) -> Stream {
        let epoch = self.start.ready.epoch.epoch;
        let WrittenStream { length, members, hash, parts, catalog, .. } = stream;
        Stream { name, format, epoch, domain, length, members, hash, sha256, parts, catalog }
    }

    fn body_item(
        &self,
        job: &ItemJob,
        result: Finished,
        streams: Vec<Stream>,
        millis: u64,
    ) -> (Item, String) {
        let Finished { gaps, notes, left_out, facts, mut summary, .. } = result;
        let accepted =
            |code: &str| self.job.accept.iter().any(|(item, gap)| *item == job.name && gap == code);
        let id = self.place.key.names.id("item", &job.name);
        let bytes: u64 = streams.iter().map(|stream| stream.length).sum();
        let before = self.start.state.items.get(&id).and_then(|memory| memory.last_good);
        let mut shrank = String::new();
        let state = if gaps.is_empty() {
            // An item that shrank by half is kept but does not count as safe: a mount point may be
            // empty, a database dropped. Once the plan accepts it, its new size is the reference.
            let before = before.map_or(0, |before| before.bytes);
            let emptied = bytes < before && is_empty_folder(job, &streams);
            if (bytes * 2 >= before && !emptied) || accepted(ANOMALOUS) {
                ItemState::Good
            } else {
                let (now, before) = (size(bytes), size(before));
                shrank = format!("it holds {now}, and {before} in its last good copy: is its source whole?");
                self.place.reporter.warn(job.name.clone(), shrank.clone());
                ItemState::Anomalous
            }
        } else if gaps.iter().all(|gap| accepted(&gap.code)) {
            ItemState::Accepted
        } else {
            ItemState::Gap
        };
        if summary.is_empty() {
            let members: u64 = streams.iter().map(|stream| stream.members).sum();
            summary = plural(members, "entry", "entries");
        }
        if !shrank.is_empty() {
            summary = format!("{summary}; {shrank}");
        }
        for (at, (code, number)) in left_out.iter().enumerate() {
            let start = if at == 0 { "; left out: " } else { ", " };
            summary.push_str(&format!("{start}{} {code}", count(*number)));
        }
        for mount in notes.iter().filter(|note| note.code == "mount-point").take(MOUNTS_TOLD) {
            let what = "what is mounted here is not in this backup: name it with a path of its own";
            self.place.reporter.warn(mount.object.display(), what);
        }
        let (name, kind) = (job.name.clone(), job.work.kind().to_owned());
        (Item { name, id, kind, state, gaps, notes, facts, millis, streams }, summary)
    }

    async fn commit(self) -> Result<BackupReport, Failure> {
        let Self { job, place, start, engine, coverage, written, .. } = self;
        place.reporter.event(Event::Phase { name: "commit" });
        let ready = &start.ready;
        let seq = start.chain.next_seq();
        let now = place.runtime.clock.now();
        let mut state = start.state.clone();
        let mut items = Vec::new();
        let mut domains = Vec::new();
        for DomainResult { draft, items: results } in written {
            domains.push(draft);
            for (item, summary, caches) in results {
                remember(&mut state, &item, caches, seq, now);
                items.push((item, summary));
            }
        }
        let own = place.key.own_signers();
        let Some(stored) = start.epochs.get(ready.epoch.epoch) else {
            return Err(Failure::new(Exit::Unreachable, "the epoch of this run is gone from the store"));
        };
        let committer = Committer {
            engine,
            repository: place.key.repository,
            names: &place.key.names,
            signing: &place.key.signing,
            signers: &own,
            epoch: &ready.epoch,
            secret: &ready.secret,
            chain: &start.chain,
            commits_until: start.epochs.commits_until(stored),
        };
        let draft = Draft {
            plan: job.plan.clone(),
            host: job.host.clone(),
            started: start.began,
            next_before: job.next.map(|seconds| moment::after(start.began, seconds)),
            items: items.iter().map(|(item, _)| item.clone()).collect(),
            domains,
            state,
        };
        kill_point("backup.commit.begun");
        let committed = committer.commit(draft).await?;
        kill_point("backup.committed");
        // If the keeper cannot write (a mounted Secret), the head is kept elsewhere: --expect-head.
        let _ = place.keeper.keep_head(KnownHead { seq, hash: committed.head }).await;
        create::settle(place.keeper, ready.epoch.epoch, &start.epochs).await?;
        Ok(BackupReport {
            committed,
            items,
            born: ready.born.clone(),
            waiting: ready.waiting.iter().map(|owner| owner.name()).collect(),
            coverage,
        })
    }
}

/// True if a folder's stream holds only the folder itself.
fn is_empty_folder(job: &ItemJob, streams: &[Stream]) -> bool {
    matches!(job.work, Work::Folder { .. }) && streams.iter().map(|stream| stream.members).sum::<u64>() <= 1
}

fn remember(
    state: &mut State,
    item: &Item,
    caches: BTreeMap<String, CacheRoot>,
    seq: u64,
    finished: Timestamp,
) {
    let bytes = item.streams.iter().map(|stream| stream.length).sum();
    let earlier = state.items.get(&item.id).and_then(|memory| memory.last_good);
    let last_good =
        if item.state == ItemState::Good { Some(LastGood { seq, finished, bytes }) } else { earlier };
    state.items.insert(item.id, ItemMemory { last_good, state: item.state, caches });
}
