//! Forgers of a repository's past: with put rights, with delete rights, with the writer's key for a minute. None
//! makes a good item that does not restore, and none makes a revoked key count again.

use bytes::Bytes;
use kbak::cli::failure::Exit;
use kbak::format::container::DataIdentity;
use kbak::format::epoch::Epoch;
use kbak::format::ids::ObjectHash;
use kbak::format::layout::ObjectKey;
use kbak::format::manifest::{Envelope, MAX_SEQUENCE};
use kbak::format::record::Record;
use kbak::format::revocation::Revocation;
use kbak::format::sign::{Namespace, SigningKey};
use kbak::format::signers::Signer;
use kbak::keys::epoch_file::{EpochSecretStore as _, LastCommit};
use kbak::report::event::Reporter;
use kbak::repository::read::reader::SnapshotSelector;
use kbak::repository::write::revoke::revoke;
use kbak::runtime::{Clock as _, lock};
use kbak::verify::{Depth, Fault, Options, VerifyReport, distrust, verify};
use zeroize::Zeroizing;

use crate::support::compare::differences;
use crate::support::owners::collect_warnings;
use crate::support::test_repo::TestRepo;

use super::planted_index::{Thief, next_backup_is_whole, repository};

pub(super) fn latest() -> SnapshotSelector {
    SnapshotSelector { snapshot: "latest".into(), ..SnapshotSelector::default() }
}

pub(super) async fn verdict(repo: &TestRepo, depth: Depth, open: bool) -> VerifyReport {
    let identities = if open { vec![repo.identity.clone()] } else { Vec::new() };
    let options = Options { which: latest(), depth, expect_head: None, identities, memory: 64 << 20 };
    verify(&repo.view(), &options).await.expect("a verdict")
}

/// Signs a manifest after the newest one with the writer's key, as a thief would have done in time.
async fn forge(repo: &TestRepo, change: impl FnOnce(&mut Envelope)) -> (ObjectKey, Bytes, ObjectHash) {
    let (_, newest) = repo.view().select(&latest()).await.expect("a snapshot");
    let before = newest.envelope();
    let mut forged =
        Envelope { seq: before.seq + 1, previous: vec![newest.manifest.hash()], ..before.clone() };
    change(&mut forged);
    let (sealed, hash) = forged.seal(&repo.key.signing).expect("sealed");
    (sealed.key().clone(), sealed.bytes().clone(), hash)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pack_that_was_overwritten_with_as_many_bytes_is_seen_by_its_etag() {
    let (folder, repo) = repository().await;
    let objects = repo.memory.objects();
    let (key, bytes) = objects.iter().find(|(key, _)| key.as_str().contains("/packs/")).expect("a pack");
    repo.memory.overwrite(key.clone(), vec![7; bytes.len()].into());
    let verdict = verdict(&repo, Depth::Presence, false).await;
    assert_eq!(verdict.outcome(), Exit::Damaged, "{verdict:?}");
    assert_eq!(
        (verdict.findings[0].object.as_str(), verdict.findings[0].fault),
        (key.as_str(), Fault::Altered)
    );
    next_backup_is_whole(&repo, folder.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn domain_with_a_wrong_index_is_read_and_stored_anew() {
    let (folder, repo) = repository().await;
    // A wrong index in the writer's own past, as a fault of the program would leave it.
    let thief = Thief::new(&repo).await;
    let planted = Thief::wrong(&thief.index(&repo));
    let run = SigningKey::from_seed(&Zeroizing::new([66; 32]));
    let planted = planted.seal(&thief.path, thief.domain, &thief.key, &run).expect("sealed");
    repo.memory.overwrite(planted.key().clone(), planted.bytes().clone());
    let (key, bytes, hash) = forge(&repo, |envelope| {
        envelope.index.iter_mut().for_each(|one| one.objects = vec![planted.hash()]);
    })
    .await;
    let seq = 2;
    repo.memory.overwrite(key, bytes);
    let head = LastCommit { seq, hash };
    repo.keeper
        .update(&|mut state| {
            state.heads = vec![head];
            Some(state)
        })
        .await
        .expect("noted");

    let found = verdict(&repo, Depth::Presence, true).await;
    assert_eq!(found.resets.len(), 1, "{found:?}");
    assert_eq!(distrust(&repo.view(), &repo.key, &found).await.expect("signed"), 1);
    assert_eq!(distrust(&repo.view(), &repo.key, &found).await.expect("no record is due"), 0);
    next_backup_is_whole(&repo, folder.path()).await;
    let (_, next) = repo.view().select(&latest()).await.expect("a snapshot");
    let named: Vec<ObjectHash> = next.envelope().index.iter().flat_map(|one| one.objects.clone()).collect();
    assert!(!named.contains(&planted.hash()));
    let again = verdict(&repo, Depth::Presence, true).await;
    let newest = next.manifest.hash();
    let affected = again.findings.iter().flat_map(|finding| &finding.snapshots).any(|one| one.hash == newest);
    assert!(!affected, "{again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_stored_after_its_epoch_counts_only_for_who_names_it() {
    let (folder, repo) = repository().await;
    let (key, bytes, hash) = forge(&repo, |_| {}).await;
    repo.days_later(40);
    repo.memory.overwrite(key.clone(), bytes);
    let late = verdict(&repo, Depth::Presence, false).await;
    let finding = late.findings.iter().find(|finding| finding.object == key.as_str()).expect("a finding");
    assert_eq!((finding.fault, late.outcome()), (Fault::Late, Exit::Damaged));
    let refused = repo.view().select(&latest()).await.expect_err("something newer is late");
    assert!(refused.to_string().contains("something newer lies there"), "{refused}");
    let named = SnapshotSelector { snapshot: hash.to_string(), ..SnapshotSelector::default() };
    repo.view().select(&named).await.expect("whoever names it gets it");

    let (heard, reporter) = collect_warnings();
    let report = repo.backup_with(folder.path(), &repo.keeper, false, &reporter).await.expect("a backup");
    assert!(!report.committed.envelope.previous.contains(&hash), "it is not followed");
    let said = lock(&heard.0).join("\n");
    assert!(said.contains("when no run of its epoch could go on"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_encrypted_to_a_recipient_that_another_signed_into_the_epoch() {
    let (folder, repo) = repository().await;
    let plan = repo.view().plans(&latest()).await.expect("plans").remove(0);
    let own = &plan.epochs.all[0].epoch;
    let thief = DataIdentity::generate().recipient().to_string();
    let forged = Epoch { recipient: thief, ..(**own).clone() };
    let [copy, first] = forged.seal(&repo.key.signing).expect("sealed");
    // In place of epoch.json, beside the honest copy; then in place of both.
    repo.memory.overwrite(first.key().clone(), first.bytes().clone());
    let both = verdict(&repo, Depth::Presence, false).await;
    assert_eq!(both.outcome(), Exit::Damaged, "{both:?}");
    assert_eq!(repo.refused_backup(folder.path()).await.exit, Exit::Usage);
    let honest: Vec<ObjectKey> =
        repo.memory.objects().into_keys().filter(|key| key.as_str().contains("/epochs/")).collect();
    for key in honest {
        repo.store.delete(&key).await.expect("removed");
    }
    repo.memory.overwrite(copy.key().clone(), copy.bytes().clone());
    assert_eq!(repo.refused_backup(folder.path()).await.exit, Exit::Usage);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn greatest_number_that_a_thief_used_is_named() {
    let (folder, repo) = repository().await;
    let (key, bytes, _) = forge(&repo, |envelope| envelope.seq = MAX_SEQUENCE).await;
    repo.memory.overwrite(key, bytes);
    let refused = repo.refused_backup(folder.path()).await;
    assert_eq!(refused.exit, Exit::Damaged);
    assert!(refused.what.contains("greatest number"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_heads_than_a_manifest_names_stop_no_backup() {
    let (folder, repo) = repository().await;
    let mut forged = Vec::new();
    for number in 0..300 {
        forged.push(forge(&repo, |envelope| envelope.body_size = 1_000_000 + number).await);
    }
    for (key, bytes, _) in forged {
        repo.memory.overwrite(key, bytes);
    }
    let report = repo.backup(folder.path()).await;
    assert_eq!(report.committed.envelope.previous.len(), 256);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copied_store_has_no_late_snapshots() {
    let (_folder, repo) = repository().await;
    repo.days_later(40);
    for (key, bytes) in repo.memory.objects() {
        repo.memory.overwrite(key, bytes);
    }
    let verdict = verdict(&repo, Depth::Presence, false).await;
    assert_eq!(verdict.outcome(), Exit::Safe, "{verdict:?}");
    repo.view().select(&latest()).await.expect("the newest snapshot");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn object_that_is_stored_again_has_the_time_of_its_first_version() {
    let (_folder, repo) = repository().await;
    repo.memory.keep_versions();
    let (late, forged, _) = forge(&repo, |_| {}).await;
    repo.days_later(40);
    // Who may put objects makes the newest snapshot look late, or the store like a copy, where nothing is late.
    let store_again = |part: &str| {
        for (key, bytes) in repo.memory.objects().into_iter().filter(|(key, _)| key.as_str().contains(part)) {
            repo.memory.overwrite(key, bytes);
        }
    };
    store_again("/snapshots/");
    let verdict_of_all = verdict(&repo, Depth::Presence, false).await;
    assert_eq!(verdict_of_all.outcome(), Exit::Safe, "{verdict_of_all:?}");
    repo.view().select(&latest()).await.expect("the newest snapshot");

    store_again("epoch");
    repo.memory.overwrite(late, forged);
    let refused = repo.view().select(&latest()).await.expect_err("a snapshot that came late");
    assert!(refused.to_string().contains("something newer lies there"), "{refused}");
}

/// Pins an owner's key, and returns it with a revocation of some key that nobody uses.
fn owner_and_revocation(repo: &mut TestRepo) -> (SigningKey, Revocation) {
    let owner = SigningKey::from_seed(&Zeroizing::new([7; 32]));
    let writer = repo.key.writer.to_string();
    repo.signers.add(Signer::new(&writer, &Namespace::OWNER, owner.public(), "ada"));
    let stolen = SigningKey::from_seed(&Zeroizing::new([8; 32])).public();
    (owner, Revocation { key: stolen, last_good: Vec::new(), why: "a node was taken".into() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocation_that_was_removed_from_the_store_is_missed() {
    let (folder, mut repo) = repository().await;
    let (owner, revocation) = owner_and_revocation(&mut repo);
    let place = (repo.key.repository, repo.key.writer);
    let name = revoke(&repo.store, place, &revocation, &owner).await.expect("stored");
    let report = repo.backup(folder.path()).await;
    assert_eq!(report.committed.envelope.trust, [name]);
    let sealed = Record::Revocation(revocation)
        .seal(repo.key.repository, repo.key.writer, repo.clock.now(), &owner)
        .expect("sealed");
    assert_eq!(sealed.hash(), name);
    repo.store.delete(sealed.key()).await.expect("removed");

    let verdict = verdict(&repo, Depth::Presence, false).await;
    assert_eq!(verdict.outcome(), Exit::Damaged);
    assert!(verdict.findings[0].object.contains(&name.to_string()), "{verdict:?}");
    let (heard, reporter) = collect_warnings();
    let report = repo.backup_with(folder.path(), &repo.keeper, false, &reporter).await.expect("a backup");
    assert_eq!(report.committed.envelope.trust, [name], "it stays named");
    let said = lock(&heard.0).join("\n");
    assert!(said.contains("revocation of a key was removed"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocation_in_the_pin_needs_nothing_in_the_store() {
    let (_folder, mut repo) = repository().await;
    let (_, newest) = repo.view().select(&latest()).await.expect("a snapshot");
    let (_, bytes, hash) = forge(&repo, |_| {}).await;
    let key = repo.key.signing.sign_key(newest.envelope().path().snapshot(2, hash)).expect("signed");
    repo.memory.overwrite(key, bytes);
    repo.signers.revoke(Revocation {
        key: repo.key.signing.public(),
        last_good: vec![newest.manifest.hash()],
        why: "stolen".into(),
    });
    let plan = repo.view().plans(&latest()).await.expect("plans").remove(0);
    let left: Vec<_> = plan.chain.iter().map(|snapshot| snapshot.manifest.hash()).collect();
    assert_eq!(left, [newest.manifest.hash()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_of_a_newer_writer_is_read_and_not_written_after() {
    let (folder, repo) = repository().await;
    let (_, newest) = repo.view().select(&latest()).await.expect("a snapshot");
    let line = serde_json::to_value(newest.envelope()).expect("JSON");
    let mut line = line.as_object().expect("an object").clone();
    line.insert("seq".into(), 2.into());
    line.insert("previous".into(), serde_json::json!([newest.manifest.hash()]));
    let plain = repo.key.signing.sign_document(Namespace::Manifest, &line).expect("signed");
    let text = std::str::from_utf8(&plain).expect("text").lines().next().expect("a line").to_owned();
    let newer =
        text.replacen("\"requires\":[]", "\"requires\":[\"write:colours\",\"prune:colours\"]", 1) + "\n";
    let signature = repo.key.signing.sign(Namespace::Manifest, newer.as_bytes()).expect("signed");
    let bytes = Bytes::from(newer + &signature);
    let hash = ObjectHash::of(&bytes);
    let key = repo.key.signing.sign_key(newest.envelope().path().snapshot(2, hash)).expect("signed");
    repo.memory.overwrite(key, bytes);

    let (_, read) = repo.view().select(&latest()).await.expect("it is read");
    assert_eq!(read.manifest.hash(), hash);
    let refused = repo.refused_backup(folder.path()).await;
    assert_eq!(refused.exit, Exit::Usage);
    assert!(refused.what.contains("write:colours"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_of_a_bad_pack_are_named_and_make_verify_whole_without_a_key() {
    let (folder, repo) = repository().await;
    repo.backup(folder.path()).await;
    let objects = repo.memory.objects();
    let (key, bytes) = objects.iter().find(|(key, _)| key.as_str().contains("/packs/")).expect("a pack");
    let mut flipped = bytes.to_vec();
    flipped[bytes.len() / 2] ^= 1;
    repo.memory.overwrite(key.clone(), flipped.into());
    let found = verdict(&repo, Depth::All, false).await;
    assert_eq!(found.outcome(), Exit::Damaged);
    assert_eq!(distrust(&repo.view(), &repo.key, &found).await.expect("signed"), 1);
    let report = repo.backup(folder.path()).await;
    let heals = &report.committed.envelope.heals;
    assert!(heals.len() == 1 && heals[0].whole && !heals[0].by.is_empty(), "{heals:?}");
    let healed = verdict(&repo, Depth::All, false).await;
    assert_eq!(healed.outcome(), Exit::Safe, "{healed:?}");
    // The next snapshots go on naming them.
    let next =
        repo.backup_with(folder.path(), &repo.keeper, false, &Reporter::silent()).await.expect("a backup");
    assert_eq!(&next.committed.envelope.heals, heals);
    for number in ["1", "2"] {
        let target = tempfile::tempdir().expect("a folder");
        repo.restore(number, None, &target.path().join("back")).await;
        assert!(differences(folder.path(), &target.path().join("back")).is_empty());
    }
}
