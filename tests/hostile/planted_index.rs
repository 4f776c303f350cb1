//! Index objects that somebody plants who has the epoch's secret, or had the writer's key for a moment: no
//! backup may believe them.

use kbak::cli::failure::Exit;
use kbak::format::derive::DomainKey;
use kbak::format::ids::{NameId, ObjectHash};
use kbak::format::index::{Index, IndexEntry};
use kbak::format::layout::{EpochObject, EpochPath, ObjectClass};
use kbak::format::manifest::{DomainObjects, Envelope};
use kbak::format::sign::SigningKey;
use kbak::keys::epoch_file::{EpochFileState, EpochSecretStore as _, OpenRun};
use kbak::repository::epoch::wraps;
use kbak::repository::read::reader::SnapshotSelector;
use kbak::runtime::Clock as _;
use zeroize::Zeroizing;

use crate::support::compare::differences;
use crate::support::test_repo::TestRepo;
use crate::support::tree::write_seeded;

/// A thief who has read the epoch's secret: the place and key of a snapshot's domain.
pub(super) struct Thief {
    pub(super) path: EpochPath,
    pub(super) domain: kbak::format::ids::NameId,
    pub(super) key: DomainKey,
}

impl Thief {
    pub(super) async fn new(repo: &TestRepo) -> Self {
        let view = repo.view();
        let selector = SnapshotSelector { snapshot: "latest".into(), ..SnapshotSelector::default() };
        let (plan, snapshot) = view.select(&selector).await.expect("a snapshot");
        let identity = std::slice::from_ref(&repo.identity);
        let epoch = &plan.epochs.all[0].epoch;
        let (keys, _) = wraps::open(&repo.store, &repo.runtime, epoch, identity, &[], &view.reporter)
            .await
            .expect("the keys");
        let (path, domain) = (epoch.path(), snapshot.envelope().items[0].needs().expect("packs").domain);
        Self { path, domain, key: keys.secret.domain("path/tree") }
    }

    /// Returns the true index of the domain.
    pub(super) fn index(&self, repo: &TestRepo) -> Index {
        let objects = repo.memory.objects();
        let of_domain = |key| {
            matches!(self.path.object_at(key), Some(EpochObject::InDomain(domain, ObjectClass::Index, _))
                if domain == self.domain)
        };
        let (_, bytes) = objects.iter().find(|(key, _)| of_domain(key)).expect("an index");
        Index::open(bytes, &self.key).expect("the index opens with the domain's key")
    }

    /// Returns an index that maps every chunk of `index` to the place of another one of the same length, or
    /// to a wrong offset.
    pub(super) fn wrong(index: &Index) -> Index {
        let moved = |entry: &IndexEntry| IndexEntry { offset: entry.offset + 1, ..*entry };
        Index { entries: index.entries.iter().map(moved).collect(), ..index.clone() }
    }
}

pub(super) async fn repository() -> (tempfile::TempDir, TestRepo) {
    let folder = tempfile::tempdir().expect("a folder");
    for at in 0..4u64 {
        write_seeded(&folder.path().join(format!("file{at}")), at, 40_000);
    }
    let repo = TestRepo::new().await;
    repo.backup(folder.path()).await;
    (folder, repo)
}

/// Changes a file and adds the old content under another name, so that a run looks its chunks up; then
/// requires that the new snapshot is good and restores bit-exact.
pub(super) async fn next_backup_is_whole(repo: &TestRepo, folder: &std::path::Path) {
    std::fs::copy(folder.join("file1"), folder.join("renamed")).expect("a copy");
    std::fs::remove_file(folder.join("file1")).expect("removed");
    write_seeded(&folder.join("file2"), 99, 50_000);
    let report = repo.run_backup(folder).await;
    assert_eq!(report.outcome(), Exit::Safe);
    let target = tempfile::tempdir().expect("a folder");
    repo.restore("latest", None, &target.path().join("back")).await;
    let changed = differences(folder, &target.path().join("back"));
    assert!(changed.is_empty(), "{changed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn index_of_a_run_that_is_not_listed_is_not_believed() {
    let (folder, repo) = repository().await;
    let thief = Thief::new(&repo).await;
    let own_run = SigningKey::from_seed(&Zeroizing::new([66; 32]));
    // Signed by the thief's own key, by the writer's, and with a signature of another domain.
    for signer in [&own_run, &repo.key.signing] {
        let planted = Thief::wrong(&thief.index(&repo));
        let planted = planted.seal(&thief.path, thief.domain, &thief.key, signer).expect("sealed");
        repo.memory.overwrite(planted.key().clone(), planted.bytes().clone());
    }
    next_backup_is_whole(&repo, folder.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn index_that_a_foreign_manifest_names_is_not_believed() {
    let (folder, repo) = repository().await;
    let thief = Thief::new(&repo).await;
    let run = SigningKey::from_seed(&Zeroizing::new([66; 32]));
    let planted = Thief::wrong(&thief.index(&repo));
    let planted = planted.seal(&thief.path, thief.domain, &thief.key, &run).expect("sealed");
    repo.memory.overwrite(planted.key().clone(), planted.bytes().clone());
    // Whoever had the writer's key for a minute signs a manifest that names it, and puts it later.
    let selector = SnapshotSelector { snapshot: "latest".into(), ..SnapshotSelector::default() };
    let (_, latest) = repo.view().select(&selector).await.expect("a snapshot");
    let name = |one: &DomainObjects| DomainObjects { objects: vec![planted.hash()], ..one.clone() };
    let before = latest.envelope();
    let forged = Envelope {
        seq: before.seq + 1,
        previous: vec![latest.manifest.hash()],
        index: before.index.iter().map(name).collect(),
        ..before.clone()
    };
    let (sealed, hash) = forged.seal(&repo.key.signing).expect("sealed");
    repo.memory.overwrite(sealed.key().clone(), sealed.bytes().clone());
    next_backup_is_whole(&repo, folder.path()).await;
    let (_, next) = repo.view().select(&selector).await.expect("a snapshot");
    assert!(next.envelope().previous.contains(&hash), "it is merged as a parent, so that it stays visible");
    let believed: Vec<ObjectHash> =
        next.envelope().index.iter().flat_map(|one| one.objects.clone()).collect();
    assert!(!believed.contains(&planted.hash()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn index_of_an_expired_run_or_of_another_domain_is_not_believed() {
    let (folder, repo) = repository().await;
    let thief = Thief::new(&repo).await;
    let planted = Thief::wrong(&thief.index(&repo));
    let run = |seed: u8| SigningKey::from_seed(&Zeroizing::new([seed; 32]));
    let (expired, open) = (run(66), run(67));
    let now = repo.clock.now();
    let weeks_ago = now.checked_sub(jiff::SignedDuration::from_hours(24 * 20)).expect("a time");
    let listed = |key: &SigningKey, started| OpenRun {
        key: key.public(),
        epoch: thief.path.epoch,
        started,
        seq: 0,
        ended: false,
    };
    let runs = vec![listed(&expired, weeks_ago), listed(&open, now)];
    let note = |mut state: EpochFileState| {
        state.runs.clone_from(&runs);
        Some(state)
    };
    repo.keeper.update(&note).await.expect("noted");
    let object = planted.seal(&thief.path, thief.domain, &thief.key, &expired).expect("sealed");
    repo.memory.overwrite(object.key().clone(), object.bytes().clone());
    // Signed by an open run for another domain, and put into this one.
    let elsewhere = NameId([9; 8]);
    let object = planted.seal(&thief.path, elsewhere, &thief.key, &open).expect("sealed");
    let place = thief.path.index(thief.domain, object.hash(), thief.key.index_tag(object.hash()));
    repo.memory.overwrite(place, object.bytes().clone());
    next_backup_is_whole(&repo, folder.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_that_cannot_note_itself_believes_its_last_snapshot_and_says_so() {
    let (folder, repo) = repository().await;
    let (heard, reporter) = crate::support::owners::collect_warnings();
    let keeper = crate::support::owners::ReadOnlyKeeper(&repo.keeper);
    let report = repo.backup_with(folder.path(), &keeper, false, &reporter).await.expect("a backup");
    assert_eq!(report.outcome(), Exit::Safe);
    let said = kbak::runtime::lock(&heard.0).join("\n");
    assert_eq!(said.matches("it cannot be changed").count(), 1, "{said}");
}
