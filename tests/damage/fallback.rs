//! Bad packs that a later run stores again, so that all data is restored; and intact snapshots that
//! are rejected because a stolen key signed them.

use std::sync::Arc;

use kbak::cli::failure::Exit;
use kbak::format::record::Record;
use kbak::format::revocation::Revocation;
use kbak::format::sign::{Namespace, SigningKey};
use kbak::format::signers::Signer;
use kbak::repository::read::reader::{SnapshotSelector, StoredPlan};
use kbak::store::fault::{FaultRule, FaultStore, StoreFault};
use kbak::store::operation::Operation;
use kbak::verify::{Depth, distrust};
use zeroize::Zeroizing;

use crate::support::test_repo::TestRepo;

use super::DamagedRepo;

/// Flips a bit of a pack.
fn flip(mut bytes: Vec<u8>) -> Vec<u8> {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bytes
}

/// Makes a pack longer than its signed size.
fn lengthen(bytes: Vec<u8>) -> Vec<u8> {
    [vec![0], bytes].concat()
}

/// Damages a pack, marks it as distrusted, and backs up again.
async fn distrust_and_back_up(damaged: &DamagedRepo, number: usize, damage: fn(Vec<u8>) -> Vec<u8>) {
    let key = damaged.keys("/packs/")[number].clone();
    damaged.set(&key, damage(damaged.objects[&key].to_vec()));
    let verdict = damaged.verify(Depth::Presence, true).await;
    assert_eq!(verdict.outcome(), Exit::Damaged);
    let view = damaged.repo.view();
    let written = distrust(&view, &damaged.repo.key, &verdict).await.expect("signed");
    assert_eq!(written, 1);
    let again = distrust(&view, &damaged.repo.key, &verdict).await.expect("no record is due");
    assert_eq!(again, 0, "one record is enough");
    damaged.repo.backup(damaged.folder.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distrusted_pack_is_stored_again_and_its_copies_are_read() {
    let packs = DamagedRepo::unchanged().await.keys("/packs/").len();
    let cases = (0..packs).flat_map(|number| [(number, flip as fn(Vec<u8>) -> Vec<u8>), (number, lengthen)]);
    for (number, damage) in cases {
        let damaged = DamagedRepo::unchanged().await;
        distrust_and_back_up(&damaged, number, damage).await;
        let now: Vec<_> = damaged.read_streams().await.into_iter().map(|read| read.expect("whole")).collect();
        assert_eq!(now, damaged.expected_streams, "pack {number}");
        let verdict = damaged.verify(Depth::Presence, true).await;
        let healed: Vec<bool> = verdict.findings.iter().map(|finding| finding.healed).collect();
        assert_eq!((healed.as_slice(), verdict.outcome()), ([true].as_slice(), Exit::Safe), "{verdict:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_that_cannot_be_stored_again_are_reported_as_lost() {
    for number in 0..DamagedRepo::new().await.keys("/packs/").len() {
        let damaged = DamagedRepo::new().await;
        distrust_and_back_up(&damaged, number, flip).await;
        damaged.assert_no_damaged_bytes(&format!("pack {number} is distrusted"), false).await;
        let verdict = damaged.verify(Depth::Presence, true).await;
        let finding = &verdict.findings[0];
        let lost = |sequence: u64| {
            finding.snapshots.iter().any(|one| one.sequence == sequence && !one.items.is_empty())
        };
        for (read, sequence) in damaged.read_streams().await.iter().zip([1, 2]) {
            assert_eq!(read.is_err(), lost(sequence), "snapshot {sequence}: {finding:?}");
        }
        // A changed file was packed together with others: those chunks cannot be made again.
        assert_eq!(finding.healed, !lost(1) && !lost(2));
        assert_eq!(verdict.outcome() == Exit::Safe, finding.healed);
    }
}

async fn plan_of(damaged: &DamagedRepo) -> StoredPlan {
    damaged.repo.view().plans(&SnapshotSelector::default()).await.expect("plans").remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_signed_with_a_stolen_key_are_rejected() {
    let mut damaged = DamagedRepo::new().await;
    let writer = damaged.repo.key.writer;
    let owner = SigningKey::from_seed(&Zeroizing::new([7; 32]));
    let trust = |signer: &SigningKey, last_good| {
        let body =
            Revocation { key: damaged.repo.key.signing.public(), last_good, why: "a node was taken".into() };
        let now = damaged.repo.runtime.clock.now();
        Record::Revocation(body).seal(damaged.repo.key.repository, writer, now, signer).expect("sealed")
    };
    let hashes: Vec<_> = damaged.snapshots.iter().map(|snapshot| snapshot.manifest.hash()).collect();
    let by_writer = trust(&damaged.repo.key.signing.clone(), Vec::new());
    let by_owner = trust(&owner, vec![hashes[0]]);
    damaged.repo.signers.add(Signer::new(&writer.to_string(), &Namespace::OWNER, owner.public(), "ada"));

    // A writer's own record revokes no key.
    damaged.repo.store.put(&by_writer).await.expect("stored");
    let view = plan_of(&damaged).await;
    assert_eq!(view.chain.len(), 2);
    damaged.repo.store.delete(by_writer.key()).await.expect("deleted");

    damaged.repo.store.put(&by_owner).await.expect("stored");
    let view = plan_of(&damaged).await;
    let left: Vec<_> = view.chain.iter().map(|snapshot| snapshot.manifest.hash()).collect();
    assert_eq!((left.as_slice(), view.epochs.all.len()), (&hashes[..1], 1), "the first one stays good");
    let verdict = damaged.verify(Depth::Presence, false).await;
    assert!(verdict.findings.is_empty(), "what an owner cut off is no damage: {verdict:?}");
    assert!(
        verdict.not_checked.iter().any(|what| what.contains("1 snapshot of a revoked key")),
        "{verdict:?}"
    );

    // With a revoked key no snapshot can be added.
    let refused = damaged.repo.refused_backup(damaged.folder.path()).await;
    assert_eq!(refused.exit, Exit::Usage);
    assert!(refused.what.contains("cut off"), "{}", refused.what);
    assert!(refused.facts.iter().any(|(_, value)| value == "a node was taken"), "{refused:?}");

    // No last good snapshot: neither the snapshots nor the epoch are accepted.
    let all = {
        let body =
            Revocation { key: damaged.repo.key.signing.public(), last_good: Vec::new(), why: String::new() };
        let now = damaged.repo.runtime.clock.now();
        Record::Revocation(body).seal(damaged.repo.key.repository, writer, now, &owner).expect("sealed")
    };
    damaged.repo.store.put(&all).await.expect("stored");
    let view = plan_of(&damaged).await;
    assert_eq!((view.chain.len(), view.epochs.all.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_that_forgets_acknowledged_objects_fails_the_commit() {
    for place in ["*/packs/*", "*/needs/*", "*/bodies/*", "*/snapshots/*"] {
        let mut repo = TestRepo::new().await;
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("a"), "a").expect("a file");
        let rule = FaultRule::once(Operation::Put, place, 1, StoreFault::Forget);
        let faulty = Arc::new(FaultStore::new(repo.store.clone(), vec![rule]));
        repo.store = faulty.clone();
        let failure = repo.refused_backup(folder.path()).await;
        assert_eq!((failure.exit, faulty.fired()), (Exit::Damaged, 1), "{place}: {failure:?}");
        repo.backup(folder.path()).await;
    }
}
