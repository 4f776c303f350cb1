//! Damage that only an owner's key can see, at 20 seeds (200 with `KBAK_TEST_SIZE=full`): wrong indexes in a writer's
//! own past, which later backups believe, so that lists, catalogs and scan caches are wrong too. Verify names every
//! snapshot that does not restore, and one ordinary backup after it restores bit-exact.

use std::collections::BTreeSet;

use kbak::cli::failure::Exit;
use kbak::format::derive::DomainKey;
use kbak::format::ids::{NameId, ObjectHash};
use kbak::format::index::{Index, IndexEntry};
use kbak::format::layout::{EpochObject, EpochPath, ObjectClass};
use kbak::format::manifest::Envelope;
use kbak::format::sign::SigningKey;
use kbak::keys::epoch_file::{EpochSecretStore as _, LastCommit};
use kbak::report::event::Reporter;
use kbak::repository::epoch::wraps;
use kbak::repository::read::reader::SnapshotSelector;
use kbak::restore::folder::into_folder;
use kbak::target::volume::TargetOptions;
use kbak::verify::{Depth, Options, VerifyReport, distrust, verify};
use zeroize::Zeroizing;

use crate::support::compare::{Tree, differences_between, read};
use crate::support::program::at_full_size;
use crate::support::test_repo::TestRepo;
use crate::support::tree::{Numbers, write_seeded};

const ITEM: &str = "path/tree";

fn seeds() -> u64 {
    if at_full_size() { 200 } else { 20 }
}

fn latest() -> SnapshotSelector {
    SnapshotSelector { snapshot: "latest".into(), ..SnapshotSelector::default() }
}

async fn keys_of(repo: &TestRepo) -> (EpochPath, NameId, DomainKey) {
    let view = repo.view();
    let (plan, snapshot) = view.select(&latest()).await.expect("a snapshot");
    let epoch = &plan.epochs.all[0].epoch;
    let identity = std::slice::from_ref(&repo.identity);
    let opened = wraps::open(&repo.store, &repo.runtime, epoch, identity, &[], &view.reporter).await;
    let (keys, _) = opened.expect("the keys");
    let domain = snapshot.envelope().items[0].needs().expect("packs").domain;
    (epoch.path(), domain, keys.secret.domain(ITEM))
}

/// Returns an index with some of the entries of the domain's own moved, cut or exchanged.
fn wrong_index(repo: &TestRepo, keys: &(EpochPath, NameId, DomainKey), numbers: &mut Numbers) -> Index {
    let (path, domain, key) = keys;
    let mut index = Index::default();
    for (object, bytes) in repo.memory.objects() {
        if matches!(path.object_at(&object), Some(EpochObject::InDomain(of, ObjectClass::Index, _)) if of == *domain)
        {
            let own = Index::open(&bytes, key).expect("an index");
            let first = u32::try_from(index.packs.len()).expect("few packs");
            index.packs.extend(own.packs);
            index.entries.extend(
                own.entries.into_iter().map(|entry| IndexEntry { pack: entry.pack + first, ..entry }),
            );
        }
    }
    let count = index.entries.len() as u64;
    for _ in 0..=numbers.below(count) {
        let (at, other) = (numbers.below(count) as usize, numbers.below(count) as usize);
        let from = index.entries[other];
        let entry = &mut index.entries[at];
        match numbers.below(3) {
            0 => entry.offset += 1 + numbers.below(40) as u32,
            1 => entry.length = entry.length.saturating_sub(1 + numbers.below(20) as u32),
            _ => (entry.pack, entry.offset, entry.length) = (from.pack, from.offset, from.length),
        }
    }
    let mut seen = BTreeSet::new();
    index.packs.iter().for_each(|pack| assert!(seen.insert(pack.hash), "one run each"));
    index.sort();
    index
}

/// Makes the writer's own newest snapshot name a wrong index, as a fault of the program would.
async fn poison(repo: &TestRepo, numbers: &mut Numbers) {
    let keys = keys_of(repo).await;
    let run = SigningKey::from_seed(&Zeroizing::new([66; 32]));
    let planted = wrong_index(repo, &keys, numbers).seal(&keys.0, keys.1, &keys.2, &run).expect("sealed");
    repo.memory.overwrite(planted.key().clone(), planted.bytes().clone());
    let (_, newest) = repo.view().select(&latest()).await.expect("a snapshot");
    let mut forged = Envelope {
        seq: newest.envelope().seq + 1,
        previous: vec![newest.manifest.hash()],
        ..newest.envelope().clone()
    };
    // The body says which snapshot it belongs to, so only the hints of this one are used.
    forged.index.iter_mut().for_each(|one| one.objects = vec![planted.hash()]);
    let (sealed, hash) = forged.seal(&repo.key.signing).expect("sealed");
    repo.memory.overwrite(sealed.key().clone(), sealed.bytes().clone());
    let head = LastCommit { seq: forged.seq, hash };
    let note = |mut state: kbak::keys::epoch_file::EpochFileState| {
        state.heads = vec![head];
        Some(state)
    };
    repo.keeper.update(&note).await.expect("noted");
}

/// Returns true if a snapshot restores to what was backed up.
async fn restores(repo: &TestRepo, hash: ObjectHash, expected: &Tree) -> bool {
    let view = repo.view();
    let which = SnapshotSelector { snapshot: hash.to_string(), ..SnapshotSelector::default() };
    let (plan, snapshot) = view.select(&which).await.expect("a snapshot");
    let identity = std::slice::from_ref(&repo.identity);
    let Ok(open) = view.open(&plan, &snapshot, identity, 64 << 20).await else { return false };
    let Ok(reader) = open.read(&open.body().items[0].streams[0]) else { return false };
    let target = tempfile::tempdir().expect("a folder");
    let (back, meter) = (target.path().join("back"), Reporter::silent().meter("tree", "files"));
    let restored = into_folder(&reader, None, &back, TargetOptions::default(), &repo.runtime, &meter).await;
    restored.is_ok_and(|(report, _)| report.is_complete())
        && differences_between(expected, &read(&back)).is_empty()
}

async fn verdict(repo: &TestRepo) -> VerifyReport {
    let identities = vec![repo.identity.clone()];
    let depth = Depth::Presence;
    let options = Options { which: latest(), depth, expect_head: None, identities, memory: 64 << 20 };
    verify(&repo.view(), &options).await.expect("a verdict")
}

async fn try_seed(seed: u64) -> bool {
    let mut numbers = Numbers::new(seed);
    let folder = tempfile::tempdir().expect("a folder");
    for at in 0..6u64 {
        let size = 500 + numbers.below(60_000) as usize;
        write_seeded(&folder.path().join(format!("file{at}")), seed * 100 + at, size);
    }
    let repo = TestRepo::new().await;
    repo.backup(folder.path()).await;
    poison(&repo, &mut numbers).await;
    // Later backups look chunks up in the wrong index, some of them through the scan cache.
    let mut later = Vec::new();
    for round in 0..=numbers.below(2) {
        let from = format!("file{}", numbers.below(6));
        std::fs::copy(folder.path().join(from), folder.path().join(format!("copy{round}"))).expect("a copy");
        let report = repo.run_backup(folder.path()).await;
        later.push((report.committed.head, read(folder.path())));
    }
    let found = verdict(&repo).await;
    let named: BTreeSet<ObjectHash> =
        found.findings.iter().flat_map(|finding| &finding.snapshots).map(|one| one.hash).collect();
    let wrong = later.iter().any(|(hash, _)| named.contains(hash));
    for (hash, then) in &later {
        // A restore finds the chunks of a wrong list by the tables of the packs.
        let whole = restores(&repo, *hash, then).await;
        assert!(
            whole || named.contains(hash),
            "seed {seed}: verify does not name a damaged snapshot: {found:?}"
        );
    }
    assert!(!wrong || found.outcome() == Exit::Damaged, "seed {seed}");
    distrust(&repo.view(), &repo.key, &found).await.expect("records");
    let next = repo.run_backup(folder.path()).await;
    assert!(restores(&repo, next.committed.head, &read(folder.path())).await, "seed {seed}: {found:?}");
    let again = verdict(&repo).await;
    let newest = again.findings.iter().flat_map(|finding| &finding.snapshots);
    assert!(!newest.into_iter().any(|one| one.hash == next.committed.head), "seed {seed}: {again:?}");
    wrong
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_places_are_named_and_one_backup_after_verify_is_whole() {
    let mut wrong = 0;
    for seed in 1..=seeds() {
        wrong += u64::from(try_seed(seed).await);
    }
    assert!(wrong >= seeds() / 4, "{wrong} seeds gave a snapshot that verify names");
}
