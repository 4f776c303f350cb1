//! A writer, an owner and a store in memory: backup and restore of a folder in one process.

use std::path::Path;
use std::sync::Arc;

use kbak::backup::coordinator::backup;
use kbak::backup::item::{ItemJob, ItemSource};
use kbak::backup::job::{BackupContext, BackupJob, BackupReport};
use kbak::cli::failure::{Exit, Failure};
use kbak::format::signers::Signers;
use kbak::format::timestamp;
use kbak::keys::epoch_file::EpochSecretStore;
use kbak::keys::writer_key::WriterKey;
use kbak::keys::{Identity, Owner};
use kbak::report::event::Reporter;
use kbak::repository::epoch::create::{EpochContext, EpochSettings};
use kbak::repository::read::reader::{RepositoryReader, SnapshotSelector};
use kbak::repository::read::snapshot::OpenSnapshot;
use kbak::restore::folder::{Paths, into_folder};
use kbak::runtime::{Clock as _, FixedClock, Runtime, SeededRandom, Workers};
use kbak::source::volume::VolumeOptions;
use kbak::store::Store;
use kbak::store::memory::MemoryStore;
use kbak::target::volume::TargetOptions;

use super::owners::{DAY, MemoryKeeper, at, owner, wanted};

/// A repository in memory with the keys of its writer and its owner.
pub struct TestRepo {
    pub clock: Arc<FixedClock>,
    pub runtime: Runtime,
    pub memory: Arc<MemoryStore>,
    pub store: Arc<dyn Store>,
    pub key: WriterKey,
    pub keeper: MemoryKeeper,
    pub owner: Owner,
    pub identity: Arc<Identity>,
    pub signers: Signers,
    pub limit: u64,
    /// The zstd level of new chunks, if it is not the epoch's.
    pub level: Option<i32>,
}

impl TestRepo {
    /// Creates one that is initialised. Its clock is ten minutes ahead: files of this minute count as old.
    pub async fn new() -> Self {
        let later = jiff::Timestamp::now().checked_add(jiff::SignedDuration::from_mins(10)).expect("a time");
        let repo = Self::empty(later, 1, Workers::Threads { count: 2 });
        repo.store.put(&kbak::format::marker::marker()).await.expect("a marker");
        repo
    }

    /// Creates an empty store, whose clock the test sets, for work on one thread.
    pub fn seeded(seed: u64) -> Self {
        Self::empty(at("2026-11-23T02:00:00Z"), seed, Workers::Inline)
    }

    fn empty(now: jiff::Timestamp, seed: u64, workers: Workers) -> Self {
        let clock = Arc::new(FixedClock::new(now));
        let random = Arc::new(SeededRandom::new(seed));
        let runtime = Runtime { clock: clock.clone(), random, workers, stop: Default::default() };
        let memory = Arc::new(MemoryStore::new(clock.clone()));
        let key = WriterKey::generate(&runtime);
        let (owner, identity) = owner(&runtime, "owner");
        Self {
            clock,
            runtime,
            store: memory.clone(),
            memory,
            signers: key.own_signers(),
            key,
            keeper: MemoryKeeper::default(),
            owner,
            identity,
            limit: 128 << 20,
            level: None,
        }
    }

    pub fn days_later(&self, days: u64) {
        self.clock.set(timestamp::add_seconds(self.clock.now(), days * DAY));
    }

    /// Returns the context in which epochs of the plan `default` are created.
    pub fn epoch_context<'a>(&'a self, keeper: &'a MemoryKeeper) -> EpochContext<'a> {
        let plan = self.key.plan("default");
        EpochContext { store: &self.store, runtime: &self.runtime, key: &self.key, plan, keeper }
    }

    pub async fn backup(&self, folder: &Path) -> BackupReport {
        let report = self.run_backup(folder).await;
        let item = &report.items[0].0;
        assert_eq!((report.outcome(), &item.gaps), (Exit::Safe, &Vec::new()));
        report
    }

    pub async fn run_backup(&self, folder: &Path) -> BackupReport {
        self.try_backup(folder).await.expect("a backup")
    }

    /// Returns the failure of a backup that is refused before it begins.
    pub async fn refused_backup(&self, folder: &Path) -> Failure {
        self.try_backup(folder).await.expect_err("a refusal")
    }

    async fn try_backup(&self, folder: &Path) -> Result<BackupReport, Failure> {
        // The first epoch is created as by kbak init.
        self.backup_with(folder, &self.keeper, self.is_empty(), &Reporter::silent()).await
    }

    pub async fn backup_with(
        &self,
        folder: &Path,
        keeper: &dyn EpochSecretStore,
        new_epoch: bool,
        reporter: &Reporter,
    ) -> Result<BackupReport, Failure> {
        let options = VolumeOptions::default();
        let work = ItemSource::Folder { path: folder.to_owned(), options };
        let job = BackupJob {
            plan: "default".into(),
            host: "test".into(),
            items: vec![ItemJob { name: "path/tree".into(), work }],
            epoch: EpochSettings { new_epoch, ..wanted(&[&self.owner]) },
            memory: self.limit,
            level: self.level,
            prove: true,
            use_cache: true,
            next: None,
            coverage: None,
            accept: Vec::new(),
        };
        let context = BackupContext {
            store: &self.store,
            key: &self.key,
            keeper,
            signers: &self.signers,
            runtime: &self.runtime,
            reporter,
        };
        backup(job, context).await.map_err(Failure::from)
    }

    fn is_empty(&self) -> bool {
        let folder = format!("{}/", self.key.writer);
        self.memory.objects().keys().all(|key| !key.as_str().starts_with(&folder))
    }

    /// Returns the repository as a reader sees it.
    pub fn view(&self) -> RepositoryReader {
        RepositoryReader {
            store: self.store.clone(),
            signers: Arc::new(self.signers.clone()),
            runtime: self.runtime.clone(),
            reporter: Reporter::silent(),
        }
    }

    pub async fn open(&self, which: &str) -> OpenSnapshot {
        let view = self.view();
        let which = SnapshotSelector { snapshot: which.into(), ..SnapshotSelector::default() };
        let (plan, snapshot) = view.select(&which).await.expect("a snapshot");
        assert_eq!(plan.breaks(), []);
        view.open(&plan, &snapshot, std::slice::from_ref(&self.identity), 64 << 20)
            .await
            .expect("an open snapshot")
    }

    pub async fn restore(&self, which: &str, paths: Option<&[&str]>, target: &Path) {
        let open = self.open(which).await;
        let reader = open.read(&open.body().items[0].streams[0]).expect("a reader");
        let paths = paths.map(|paths| Paths(paths.iter().map(|path| (*path).into()).collect()));
        let meter = Reporter::silent().meter("tree", "files");
        let options = TargetOptions::default();
        let report = into_folder(&reader, paths.as_ref(), target, options, &self.runtime, &meter).await;
        let (report, absent) = report.expect("a restore");
        assert!(report.is_complete() && absent.is_empty(), "{report:?} {absent:?}");
    }

    pub fn packs(&self) -> usize {
        self.memory.objects().keys().filter(|key| key.as_str().contains("/packs/")).count()
    }
}
