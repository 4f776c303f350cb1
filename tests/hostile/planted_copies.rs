//! Copies of chunks in a bad pack: wrong places that somebody plants hide none of them, and the packs' own tables
//! name those that no index names.

use kbak::cli::failure::Exit;
use kbak::format::ids::ObjectHash;
use kbak::format::index::{Index, IndexEntry, IndexedPack};
use kbak::format::layout::{ObjectClass, ObjectKey};
use kbak::format::pack::PackClass;
use kbak::format::sign::SigningKey;
use kbak::repository::read::reader::{RepositoryReader, SnapshotSelector};
use kbak::runtime::lock;
use kbak::verify::{Depth, Options, VerifyReport, distrust, verify};
use zeroize::Zeroizing;

use crate::support::compare::differences;
use crate::support::owners::collect_warnings;
use crate::support::test_repo::TestRepo;

use super::planted_index::{Thief, repository};

async fn verdict(view: &RepositoryReader, repo: &TestRepo, depth: Depth, open: bool) -> VerifyReport {
    let identities = if open { vec![repo.identity.clone()] } else { Vec::new() };
    let which = SnapshotSelector { snapshot: "latest".into(), ..SnapshotSelector::default() };
    let options = Options { which, depth, expect_head: None, identities, memory: 64 << 20 };
    verify(view, &options).await.expect("a verdict")
}

/// Makes every pack with data of the first snapshot bad, and has the next run store their chunks anew.
async fn bad_packs_with_copies() -> (tempfile::TempDir, TestRepo, Vec<ObjectHash>) {
    let (folder, repo) = repository().await;
    let thief = Thief::new(&repo).await;
    let packs = thief.index(&repo).packs.into_iter().filter(|pack| pack.class == PackClass::Data);
    let bad: Vec<ObjectHash> = packs.map(|pack| pack.hash).collect();
    for pack in &bad {
        let key = thief.path.in_domain(thief.domain, ObjectClass::Pack, *pack);
        repo.memory.overwrite(key, b"not a pack".as_slice().into());
    }
    let found = verdict(&repo.view(), &repo, Depth::Presence, false).await;
    assert_eq!(distrust(&repo.view(), &repo.key, &found).await.expect("signed"), 1);
    repo.backup(folder.path()).await;
    (folder, repo, bad)
}

async fn restores_whole(repo: &TestRepo, folder: &std::path::Path, number: &str) {
    let target = tempfile::tempdir().expect("a folder");
    repo.restore(number, None, &target.path().join("back")).await;
    assert_eq!(differences(folder, &target.path().join("back")), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_places_do_not_hide_copies_of_chunks() {
    let (folder, repo, bad) = bad_packs_with_copies().await;
    let thief = Thief::new(&repo).await;
    // Everything that the true indexes name, at wrong offsets: in good packs, so that their entries count.
    let mut planted = Index::default();
    for (key, bytes) in repo.memory.objects() {
        if !key.as_str().contains("/index/") || !key.as_str().contains(&thief.domain.to_string()) {
            continue;
        }
        let index = Index::open(&bytes, &thief.key).expect("an index");
        let is_good = |pack: &IndexedPack| !bad.contains(&pack.hash);
        if index.packs.iter().all(is_good) {
            planted = index;
        }
    }
    assert!(!planted.entries.is_empty());
    for shift in 1..40u8 {
        let moved = |entry: &IndexEntry| IndexEntry { offset: entry.offset + u32::from(shift), ..*entry };
        let wrong = Index { entries: planted.entries.iter().map(moved).collect(), ..planted.clone() };
        let run = SigningKey::from_seed(&Zeroizing::new([shift; 32]));
        let object = wrong.seal(&thief.path, thief.domain, &thief.key, &run).expect("sealed");
        repo.memory.overwrite(object.key().clone(), object.bytes().clone());
    }
    restores_whole(&repo, folder.path(), "1").await;
    let found = verdict(&repo.view(), &repo, Depth::Presence, true).await;
    assert_eq!(found.outcome(), Exit::Safe, "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_that_no_index_names_are_found_by_the_tables_of_the_packs() {
    let (folder, repo, _) = bad_packs_with_copies().await;
    for key in repo.memory.objects().into_keys().filter(|key| key.as_str().contains("/index/")) {
        repo.store.delete(&key).await.expect("removed");
    }
    restores_whole(&repo, folder.path(), "1").await;
    let found = verdict(&repo.view(), &repo, Depth::Presence, true).await;
    let packs: Vec<_> = found.findings.iter().filter(|one| one.object.contains("/packs/")).collect();
    assert!(!packs.is_empty() && packs.iter().all(|one| one.healed), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_in_packs_that_no_snapshot_needs_make_restores_whole() {
    let (folder, repo, _) = bad_packs_with_copies().await;
    let path = Thief::new(&repo).await.path;
    // The second snapshot is gone, and with it every signed name of the copies; so are the indexes.
    let gone = |key: &ObjectKey| {
        key.as_str().contains("/index/")
            || key.as_str().starts_with(&format!("{}000000000002", path.snapshots_prefix()))
    };
    for key in repo.memory.objects().into_keys().filter(gone) {
        repo.store.delete(&key).await.expect("removed");
    }
    restores_whole(&repo, folder.path(), "1").await;
    let (heard, reporter) = collect_warnings();
    let view = RepositoryReader { reporter, ..repo.view() };
    let found = verdict(&view, &repo, Depth::Presence, true).await;
    let packs: Vec<_> = found.findings.iter().filter(|one| one.object.contains("/packs/")).collect();
    assert!(!packs.is_empty() && packs.iter().all(|one| one.healed), "{found:?}");
    let said = lock(&heard.0).join("\n");
    assert_eq!(said.matches("are read to find one").count(), 1, "{said}");
}
