//! Names without end, signed by who had the writer's key for a minute: of records, of reports, and of an epoch that
//! closes the writer's own. None of them stops a reader or a backup once the key is revoked.

use bytes::Bytes;
use kbak::cli::failure::Exit;
use kbak::format::container::DataIdentity;
use kbak::format::epoch::Epoch;
use kbak::format::ids::{EpochId, ObjectHash};
use kbak::format::layout;
use kbak::format::revocation::Revocation;
use kbak::format::sign::{Namespace, SigningKey};
use kbak::format::signers::Signer;
use kbak::report::event::Reporter;
use kbak::repository::records::{MAX_RECORDS, MAX_REPORTS, RecordLimits, Records, list_within};
use kbak::repository::write::revoke::revoke;
use kbak::runtime::lock;
use kbak::store::StoreError;
use kbak::verify::Depth;
use zeroize::Zeroizing;

use crate::support::owners::collect_warnings;
use crate::support::program::at_full_size;
use crate::support::test_repo::TestRepo;

use super::forged_past::{latest, verdict};
use super::planted_index::{next_backup_is_whole, repository};

/// Puts one name more than a reader lists into a folder of records.
fn flood(repo: &TestRepo, folder: &str, most: usize) {
    for number in 0..=most as u64 {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_be_bytes());
        let name = layout::record(repo.key.writer, folder, ObjectHash(hash));
        let key = repo.key.signing.sign_key(name).expect("signed");
        repo.memory.overwrite(key, Bytes::from_static(b"junk"));
    }
}

/// Revokes the writer's key in the pin, after the newest snapshot, and gives the writer another one.
async fn cut_off(repo: &mut TestRepo) {
    let (_, newest) = repo.view().select(&latest()).await.expect("a snapshot");
    let key = repo.key.signing.public();
    let revocation = Revocation { key, last_good: vec![newest.manifest.hash()], why: "stolen".into() };
    repo.signers.revoke(revocation);
    repo.key.signing = SigningKey::from_seed(&Zeroizing::new([77; 32]));
    repo.signers.add(repo.key.signer());
}

/// Reads the records as every verb does, with limits that a test reaches in a moment unless it runs at full size.
async fn records(repo: &TestRepo, reporter: &Reporter) -> Result<Records, StoreError> {
    let (store, writer, repository) = (&repo.store, repo.key.writer, Some(repo.key.repository));
    list_within(limits(), store, writer, repository, &repo.signers, reporter).await
}

fn limits() -> RecordLimits {
    match at_full_size() {
        true => RecordLimits { records: MAX_RECORDS, reports: MAX_REPORTS },
        false => RecordLimits { records: 30, reports: 20 },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_records_that_a_revoked_key_signed_stop_nobody() {
    let (folder, mut repo) = repository().await;
    let owner = SigningKey::from_seed(&Zeroizing::new([7; 32]));
    let writer = repo.key.writer.to_string();
    repo.signers.add(Signer::new(&writer, &Namespace::OWNER, owner.public(), "ada"));
    let (_, newest) = repo.view().select(&latest()).await.expect("a snapshot");
    let most = limits().records;
    flood(&repo, "distrust", most);
    let silent = Reporter::silent();
    let refused = records(&repo, &silent).await.expect_err("too many").to_string();
    let signer = repo.key.signing.public().fingerprint();
    assert!(refused.contains(&signer) && refused.contains(&format!("more than {most} objects")), "{refused}");

    let key = repo.key.signing.public();
    let revocation = Revocation { key, last_good: vec![newest.manifest.hash()], why: "stolen".into() };
    let place = (repo.key.repository, repo.key.writer);
    revoke(&repo.store, place, &revocation, &owner).await.expect("stored");
    // Readers with the old pin learn of it by the record alone.
    let read = records(&repo, &silent).await.expect("records");
    assert_eq!((read.signed.len(), read.rejected.len()), (1, 0));
    repo.view().select(&latest()).await.expect("the newest snapshot");
    cut_off(&mut repo).await;
    records(&repo, &silent).await.expect("records");
    next_backup_is_whole(&repo, folder.path()).await;
    let found = verdict(&repo, Depth::Presence, false).await;
    assert_eq!(found.outcome(), Exit::Safe, "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_reports_without_end_stop_nobody() {
    let (folder, mut repo) = repository().await;
    let most = limits().reports;
    flood(&repo, layout::REPORTS, most);
    let (heard, reporter) = collect_warnings();
    assert_eq!(records(&repo, &reporter).await.expect("records").reports.len(), most);
    let said = lock(&heard.0).join("\n");
    assert!(said.contains(&format!("1 reports beyond the first {most} are not listed")), "{said}");
    cut_off(&mut repo).await;
    let read = records(&repo, &reporter).await.expect("records");
    assert_eq!(read.reports, [], "reports of a revoked key do not count");
    next_backup_is_whole(&repo, folder.path()).await;
}

/// Signs an epoch with the writer's present key that closes `before`, and puts both copies.
fn close_with_a_forged_epoch(repo: &TestRepo, before: &Epoch, id: u8) -> EpochId {
    let epoch = EpochId([id; 16]);
    let recipient = DataIdentity::generate().recipient().to_string();
    let forged = Epoch { epoch, recipient, previous_epochs: vec![before.epoch], ..before.clone() };
    for object in forged.seal(&repo.key.signing).expect("sealed") {
        repo.memory.overwrite(object.key().clone(), object.bytes().clone());
    }
    epoch
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn epoch_that_a_thief_signed_is_named_and_does_not_count_after_the_revocation() {
    let (folder, mut repo) = repository().await;
    let plan = repo.view().plans(&latest()).await.expect("plans").remove(0);
    let own = (*plan.epochs.all[0].epoch).clone();
    let epoch = close_with_a_forged_epoch(&repo, &own, 90);
    let refused = repo.refused_backup(folder.path()).await;
    let said = format!("{refused:?}");
    let signer = repo.key.signing.public().fingerprint();
    assert_eq!(refused.exit, Exit::Usage);
    assert!(said.contains(&epoch.to_string()) && said.contains(&signer), "{said}");
    assert!(said.contains("kbak keys cut-off --key") && said.contains("--new-epoch"), "{said}");

    let stolen = repo.key.signing.clone();
    cut_off(&mut repo).await;
    let first =
        repo.backup_with(folder.path(), &repo.keeper, false, &Reporter::silent()).await.expect("a backup");
    assert!(first.born.is_some(), "a writer with a new key opens an epoch");
    // The thief goes on: an epoch that closes the new one.
    let plan = repo.view().plans(&latest()).await.expect("plans").remove(0);
    let newest = (*plan.epochs.all.last().expect("an epoch").epoch).clone();
    assert_eq!(newest.epoch, first.committed.envelope.epoch);
    let new_key = std::mem::replace(&mut repo.key.signing, stolen);
    close_with_a_forged_epoch(&repo, &newest, 91);
    repo.key.signing = new_key;
    let next =
        repo.backup_with(folder.path(), &repo.keeper, false, &Reporter::silent()).await.expect("a backup");
    assert!(next.born.is_none() && next.committed.envelope.epoch == newest.epoch, "{:?}", next.born);
}
