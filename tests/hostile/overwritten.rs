//! Objects that somebody overwrites who may put: lists of packs, hints, packs of a closed epoch.

use bytes::Bytes;
use kbak::cli::failure::Exit;
use kbak::format::ids::ObjectHash;
use kbak::format::layout::ObjectKey;
use kbak::format::manifest::PublicItem;
use kbak::report::event::Reporter;
use kbak::runtime::lock;
use kbak::verify::{Depth, ObjectKind};

use crate::support::compare::differences;
use crate::support::owners::collect_warnings;
use crate::support::test_repo::TestRepo;

use super::forged_past::{latest, verdict};
use super::planted_index::repository;

/// Returns the objects whose key holds `class`.
fn objects(repo: &TestRepo, class: &str) -> Vec<(ObjectKey, Bytes)> {
    repo.memory.objects().into_iter().filter(|(key, _)| key.as_str().contains(class)).collect()
}

async fn list_of_latest(repo: &TestRepo) -> ObjectHash {
    let (_, newest) = repo.view().select(&latest()).await.expect("a snapshot");
    newest.envelope().items.iter().find_map(PublicItem::needs).expect("packs").list
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn list_of_packs_that_was_overwritten_stops_no_backup() {
    for longer in [0, 1] {
        let (folder, repo) = repository().await;
        let (key, bytes) = objects(&repo, "/needs/").remove(0);
        repo.memory.overwrite(key.clone(), vec![b'x'; bytes.len() + longer].into());
        let (heard, reporter) = collect_warnings();
        let report = repo.backup_with(folder.path(), &repo.keeper, false, &reporter).await.expect("a backup");
        assert_eq!(report.outcome(), Exit::Safe);
        let said = lock(&heard.0).join("\n");
        assert!(said.contains(key.as_str()) && said.contains("under another name"), "{said}");
        let list = list_of_latest(&repo).await;
        assert_ne!(key.name(), list.to_string());
        // The next run needs no third name, and its snapshot is whole.
        repo.backup(folder.path()).await;
        assert_eq!((list_of_latest(&repo).await, objects(&repo, "/needs/").len()), (list, 2));
        let found = verdict(&repo, Depth::All, false).await;
        let faults: Vec<_> =
            found.findings.iter().map(|one| (one.object.as_str(), one.snapshots.len())).collect();
        assert_eq!(faults, [(key.as_str(), 1)], "only the first snapshot named it");
        for number in ["1", "2", "3"] {
            let target = tempfile::tempdir().expect("a folder");
            repo.restore(number, None, &target.path().join("back")).await;
            assert_eq!(differences(folder.path(), &target.path().join("back")), []);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_hints_count_only_while_the_newest_snapshot_names_them() {
    let (folder, repo) = repository().await;
    let first: Vec<ObjectKey> =
        ["/cache/", "/state/"].iter().flat_map(|class| objects(&repo, class)).map(|(key, _)| key).collect();
    for key in &first {
        repo.memory.overwrite(key.clone(), b"x".as_slice().into());
    }
    let found = verdict(&repo, Depth::All, false).await;
    assert_eq!(found.outcome(), Exit::Damaged, "the next backup would use them: {found:?}");
    repo.backup(folder.path()).await;
    for open in [false, true] {
        let found = verdict(&repo, Depth::All, open).await;
        let hints: Vec<_> = found.findings.iter().filter(|one| one.obsolete).collect();
        assert!(!hints.is_empty() && hints.iter().all(|one| one.role == ObjectKind::Hint), "{found:?}");
        assert_eq!(found.outcome(), Exit::Safe, "{found:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_pack_of_a_closed_epoch_promises_no_new_copy() {
    let (folder, repo) = repository().await;
    let (key, bytes) = objects(&repo, "/packs/").remove(0);
    repo.backup_with(folder.path(), &repo.keeper, true, &Reporter::silent()).await.expect("a new epoch");
    repo.memory.overwrite(key.clone(), vec![b'x'; bytes.len()].into());
    let found = verdict(&repo, Depth::All, false).await;
    let finding = found.findings.iter().find(|one| one.object == key.as_str()).expect("a finding");
    assert!(
        finding.remedy.contains("Its epoch is closed") && !finding.remedy.contains("anew"),
        "{finding:?}"
    );
}
