//! Every object of a small repository, damaged in every way: verify reports it, and no reader
//! returns a damaged byte.
//!
//! `KBAK_TEST_SIZE=full` flips every bit of what is small and one bit of every byte of the packs
//! (scripts/soak); otherwise some of them, spread evenly.

mod bits;
mod fallback;
mod objects;
mod wrong_places;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use kbak::format::body::Stream;
use kbak::format::layout::ObjectKey;
use kbak::format::wrap::EpochKeys;
use kbak::keys::Identity;
use kbak::pipeline::reader::StreamReader;
use kbak::repository::chain::Snapshot;
use kbak::repository::epoch::wraps;
use kbak::repository::read::copies::EpochCopies;
use kbak::repository::read::reader::SnapshotSelector;
use kbak::repository::read::snapshot::{OpenSnapshot, SnapshotError};
use kbak::verify::{Depth, Options, VerifyReport, verify};

use crate::support::test_repo::TestRepo;
use crate::support::tree::write_seeded;

/// A repository whose objects a test damages: two snapshots of a small folder, and their streams.
struct DamagedRepo {
    repo: TestRepo,
    objects: BTreeMap<ObjectKey, Bytes>,
    /// Every stream of both snapshots, whole.
    expected_streams: Vec<Bytes>,
    snapshots: Vec<Snapshot>,
    keys: EpochKeys,
    folder: tempfile::TempDir,
}

impl DamagedRepo {
    async fn new() -> Self {
        Self::create(true).await
    }

    /// Creates a repository with two snapshots of an unchanged folder.
    async fn unchanged() -> Self {
        Self::create(false).await
    }

    async fn create(changes: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for at in 0..12u64 {
            write_seeded(&folder.path().join(format!("f{at:02}")), at, 200 + 150 * at as usize);
        }
        let repo = TestRepo::new().await;
        repo.backup(folder.path()).await;
        if changes {
            write_seeded(&folder.path().join("f03"), 77, 900);
        }
        repo.backup(folder.path()).await;
        let view = repo.view();
        let plan = view.plans(&SnapshotSelector::default()).await.expect("plans").remove(0);
        let identity = std::slice::from_ref(&repo.identity);
        let epoch = &plan.epochs.all[0].epoch;
        let opened = wraps::open(&repo.store, &repo.runtime, epoch, identity, &[], &view.reporter).await;
        let (keys, _) = opened.expect("the keys");
        let objects = repo.memory.objects();
        let snapshots: Vec<Snapshot> = plan.chain.iter().cloned().collect();
        let mut this = Self { repo, objects, expected_streams: Vec::new(), snapshots, keys, folder };
        this.expected_streams =
            this.read_streams().await.into_iter().map(|read| read.expect("a stream")).collect();
        assert_eq!(this.expected_streams.len(), 2);
        assert!(this.verify(Depth::All, false).await.findings.is_empty());
        assert!(this.verify(Depth::Presence, true).await.findings.is_empty());
        this
    }

    /// Returns objects whose key contains `part`.
    fn keys(&self, part: &str) -> Vec<ObjectKey> {
        self.objects.keys().filter(|key| key.as_str().contains(part)).cloned().collect()
    }

    fn set(&self, key: &ObjectKey, bytes: impl Into<Bytes>) {
        self.repo.memory.overwrite(key.clone(), bytes.into());
    }

    fn repair(&self, key: &ObjectKey) {
        self.set(key, self.objects[key].clone());
    }

    async fn verify(&self, depth: Depth, open: bool) -> VerifyReport {
        let identities: Vec<Arc<Identity>> = if open { vec![self.repo.identity.clone()] } else { Vec::new() };
        let options = Options {
            which: SnapshotSelector::default(),
            depth,
            expect_head: Some(self.snapshots[1].manifest.hash()),
            identities,
            memory: 64 << 20,
        };
        verify(&self.repo.view(), &options).await.expect("a verdict")
    }

    /// Returns the objects that verify reports when it has no identity.
    async fn reported_objects(&self) -> Vec<String> {
        let verdict = self.verify(Depth::All, false).await;
        let damaged = verdict.outcome().code() == 4;
        assert_eq!(damaged, verdict.findings.iter().any(|finding| !finding.is_settled()), "{verdict:?}");
        verdict.findings.into_iter().map(|finding| finding.object).collect()
    }

    /// Opens a snapshot, as a restore of it does.
    async fn open(&self, snapshot: &Snapshot) -> Result<OpenSnapshot, SnapshotError> {
        let copies = EpochCopies::new(self.snapshots.iter(), snapshot.envelope().epoch);
        OpenSnapshot::open(&self.repo.view(), snapshot.clone(), self.keys.clone(), &copies, 64 << 20).await
    }

    /// Reads every stream with fresh readers: all bytes, or those before an error.
    /// [`DamagedRepo::assert_no_damaged_bytes`] compares them with the expected ones.
    async fn read_streams(&self) -> Vec<Result<Bytes, Bytes>> {
        let mut read = Vec::new();
        for snapshot in &self.snapshots {
            let Ok(open) = self.open(snapshot).await else {
                read.push(Err(Bytes::new()));
                continue;
            };
            let streams: Vec<Stream> = open.streams().map(|(_, stream)| stream.clone()).collect();
            for stream in &streams {
                read.push(drain(&open.read(stream).expect("a reader"), 0..stream.length).await);
            }
        }
        read
    }

    /// Checks that readers return a prefix of the expected streams, and that some of them fail if `must_fail`.
    async fn assert_no_damaged_bytes(&self, what: &str, must_fail: bool) {
        let read = self.read_streams().await;
        for (read, expected) in read.iter().zip(&self.expected_streams) {
            match read {
                Ok(all) => assert_eq!(all, expected, "{what}: damaged bytes were returned"),
                Err(some) => {
                    assert!(expected.starts_with(some), "{what}: damaged bytes were returned")
                }
            }
        }
        assert!(!must_fail || read.iter().any(Result::is_err), "{what}: no reader failed");
        self.assert_ranges_intact(what).await;
    }

    /// Checks some bytes from the middle, which are read by ranges.
    async fn assert_ranges_intact(&self, what: &str) {
        let Ok(open) = self.open(&self.snapshots[1]).await else { return };
        let stream = open.body().items[0].streams[0].clone();
        let middle = stream.length / 2..stream.length / 2 + 700;
        let expected = self.expected_streams[1].slice(middle.start as usize..middle.end as usize);
        match drain(&open.read(&stream).expect("a reader"), middle).await {
            Ok(some) => assert_eq!(some, expected, "{what}: damaged bytes were returned"),
            Err(some) => assert!(expected.starts_with(&some), "{what}: damaged bytes were returned"),
        }
    }
}

async fn drain(reader: &StreamReader, range: std::ops::Range<u64>) -> Result<Bytes, Bytes> {
    let mut bytes = Vec::new();
    let mut pieces = reader.range(range);
    while let Some(piece) = pieces.next().await {
        match piece {
            Ok(piece) => bytes.extend_from_slice(&piece),
            Err(_) => return Err(bytes.into()),
        }
    }
    Ok(bytes.into())
}
