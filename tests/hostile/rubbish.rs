//! Objects that anyone may put who has the right to: they cost pages of listings and nothing else.

use std::sync::Arc;

use bytes::Bytes;
use kbak::cli::failure::Exit;
use kbak::format::epoch::Epoch;
use kbak::format::ids::{EpochId, NameId, ObjectHash};
use kbak::format::layout::{self, EpochPath, ObjectClass, ObjectKey};
use kbak::repository::read::reader::{RepositoryReader, SnapshotSelector};
use kbak::store::operation::Operation;
use kbak::store::recording::RecordingStore;
use kbak::verify::{Depth, Options, verify};

use crate::support::test_repo::TestRepo;
use crate::support::tree::write_seeded;

use super::forged_past::{latest, verdict};

/// Objects in each place: several pages of a listing.
const JUNK: u32 = 3_000;

/// Returns keys of the right form in every place that readers list, with signatures that nobody made.
fn junk(path: EpochPath, domain: kbak::format::ids::NameId) -> Vec<ObjectKey> {
    let mut keys = Vec::new();
    let signature = "ab".repeat(64);
    for number in 0..JUNK {
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&number.to_be_bytes());
        let hash = ObjectHash(hash);
        let (writer, plan, random) = (path.writer, path.plan, format!("{number:032x}"));
        for text in [
            format!("{}-{signature}", path.snapshot(u64::from(number) + 1, hash).as_str()),
            format!("{}{plan}-{random}-{hash}-{signature}", layout::epochs_prefix(writer)),
            format!("{}-{signature}", layout::record(writer, "trust", hash).as_str()),
            format!("{}-{signature}", layout::record(writer, layout::REPORTS, hash).as_str()),
            format!("{}{hash}", layout::records_prefix(writer)),
            path.body(hash).to_string(),
            path.in_domain(domain, ObjectClass::Pack, hash).to_string(),
            format!("{writer}/{plan}/{random}/epoch.json"),
            format!("{writer}/{number:016x}/{random}/epoch.json"),
        ] {
            keys.push(ObjectKey::parse(&text).unwrap_or_else(|| panic!("{text} is no key")));
        }
    }
    keys
}

/// Returns the requests of a verification, without those for packs' folders of other epochs.
async fn requests_of_verify(repo: &TestRepo) -> (u64, u64) {
    let recording = Arc::new(RecordingStore::new(repo.store.clone()));
    let view = RepositoryReader { store: recording.clone(), ..repo.view() };
    let options = Options {
        which: SnapshotSelector::default(),
        depth: Depth::Presence,
        expect_head: None,
        identities: Vec::new(),
        memory: 64 << 20,
    };
    let report = verify(&view, &options).await.expect("a verification");
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    (recording.count(Operation::Get).0, recording.count(Operation::List).0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn junk_in_every_listed_place_costs_pages_of_listings_only() {
    let folder = tempfile::tempdir().expect("a folder");
    write_seeded(&folder.path().join("file"), 1, 5_000);
    let mut repo = TestRepo::new().await;
    repo.backup(folder.path()).await;
    let (plan, snapshot) = repo.view().select(&latest()).await.expect("a snapshot");
    let path = snapshot.envelope().path();
    let domain = snapshot.envelope().items[0].needs().expect("packs").domain;
    let (gets, lists) = requests_of_verify(&repo).await;

    let keys = junk(path, domain);
    for key in &keys {
        repo.memory.overwrite(key.clone(), Bytes::from_static(b"junk"));
    }
    let (gets_now, lists_now) = requests_of_verify(&repo).await;
    // One for each folder of an epoch that is looked into: 40 of this plan, and one in each of 40 others.
    assert!(gets_now <= gets + 80, "{gets_now} requests for objects instead of {gets}");
    let pages = u64::from(JUNK).div_ceil(1_000) + 1;
    assert!(lists_now <= lists + 9 * pages + 4 * 40, "{lists_now} pages instead of {lists}");

    // The snapshot is found and restored, and the next run goes on, at the same price.
    let recording = Arc::new(RecordingStore::new(repo.store.clone()));
    repo.store = recording.clone();
    let count = || (recording.count(Operation::Get).0, recording.count(Operation::List).0);
    let target = tempfile::tempdir().expect("a folder");
    repo.restore("latest", None, &target.path().join("back")).await;
    let (gets_of_restore, lists_of_restore) = count();
    assert!(
        gets_of_restore <= 96 && lists_of_restore <= 9 * pages + 160,
        "{gets_of_restore} {lists_of_restore}"
    );
    repo.backup(folder.path()).await;
    let (gets_of_backup, lists_of_backup) = count();
    assert!(gets_of_backup <= gets_of_restore + 96, "{gets_of_backup}");
    assert!(lists_of_backup <= lists_of_restore + 10 * pages + 160, "{lists_of_backup}");
    let (_, found) = repo.view().select(&latest()).await.expect("a snapshot");
    assert_eq!((found.envelope().seq, plan.epochs.all.len()), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn altered_object_that_no_snapshot_names_is_named_and_costs_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    write_seeded(&folder.path().join("file"), 1, 5_000);
    let repo = TestRepo::new().await;
    repo.backup(folder.path()).await;
    let (_, snapshot) = repo.view().select(&latest()).await.expect("a snapshot");
    let path = snapshot.envelope().path();
    let needs = snapshot.envelope().items[0].needs().expect("packs");
    let orphan = ObjectHash([0x5a; 32]);
    let pack = path.in_domain(needs.domain, ObjectClass::Pack, orphan);
    let others = [path.in_domain(needs.domain, ObjectClass::PackRefs, orphan), path.body(orphan)];
    for key in others.iter().chain([&pack]) {
        repo.memory.overwrite(key.clone(), Bytes::from_static(b"junk"));
    }
    let found = verdict(&repo, Depth::All, false).await;
    let named: Vec<&str> = found.findings.iter().map(|one| one.object.as_str()).collect();
    let mut expected: Vec<&str> = others.iter().chain([&pack]).map(ObjectKey::as_str).collect();
    expected.sort_unstable();
    assert_eq!((named, found.outcome()), (expected, Exit::Safe));

    // Without the list, nobody can tell which packs the snapshot needs.
    let list = path.in_domain(needs.domain, ObjectClass::PackRefs, needs.list);
    repo.memory.overwrite(list, Bytes::from_static(b"junk"));
    let found = verdict(&repo, Depth::All, false).await;
    let of_pack = found.findings.iter().find(|one| one.object == pack.as_str()).expect("a finding");
    assert!(!of_pack.is_settled(), "{of_pack:?}");
    assert_eq!(found.outcome(), Exit::Damaged);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plans_and_epochs_with_signed_names_leave_room_for_those_that_lost_theirs() {
    let folder = tempfile::tempdir().expect("a folder");
    write_seeded(&folder.path().join("file"), 1, 5_000);
    let repo = TestRepo::new().await;
    repo.backup(folder.path()).await;
    let plan = repo.view().plans(&latest()).await.expect("plans").remove(0);
    let own = &plan.epochs.all[0].epoch;
    let places = |number: u8| {
        [(NameId([number; 8]), own.epoch), (plan.plan, EpochId([number; 16]))].map(|(plan, epoch)| {
            Epoch { plan, epoch, ..(**own).clone() }.seal(&repo.key.signing).expect("sealed")
        })
    };
    for [copy, first] in (0..100).flat_map(places) {
        repo.memory.overwrite(copy.key().clone(), copy.bytes().clone());
        repo.memory.overwrite(first.key().clone(), first.bytes().clone());
    }
    for [_, first] in places(0xff) {
        repo.memory.overwrite(first.key().clone(), first.bytes().clone());
    }
    let plans = repo.view().plans(&latest()).await.expect("plans");
    let lost = plans.iter().find(|one| one.plan == NameId([0xff; 8])).expect("the plan");
    assert_eq!((plans.len(), lost.epochs.all.len(), lost.epochs.missing.len()), (102, 1, 1));
    let of_plan = plans.iter().find(|one| one.plan == plan.plan).expect("the plan");
    assert_eq!((of_plan.epochs.all.len(), of_plan.epochs.missing.len()), (102, 1));
    assert!(plans.iter().all(|one| !one.epochs.unsigned.more_folders));
}
