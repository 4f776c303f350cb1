//! Reports of failed runs name items and hosts. A thief of the writer's key can sign an epoch, and reads none of them.

use kbak::format::container::DataIdentity;
use kbak::format::epoch::Epoch;
use kbak::format::ids::EpochId;
use kbak::format::{report, timestamp};
use kbak::report::event::Reporter;
use kbak::report::run::RunReport;
use kbak::repository::epoch::wraps;
use kbak::repository::reports::{self, ReportError};

use crate::support::owners::MemoryKeeper;

use super::forged_past::latest;
use super::planted_index::repository;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failure_report_is_encrypted_to_an_epoch_whose_secret_the_writer_holds() {
    let (_folder, repo) = repository().await;
    let plan = repo.view().plans(&latest()).await.expect("plans").remove(0);
    let own = plan.epochs.all[0].epoch.clone();
    let thief = DataIdentity::generate();
    let forged = Epoch {
        epoch: EpochId([9; 16]),
        created: timestamp::add_seconds(own.created, 60),
        recipient: thief.recipient().to_string(),
        previous_epochs: Vec::new(),
        ..(*own).clone()
    };
    for sealed in forged.seal(&repo.key.signing).expect("sealed") {
        repo.memory.overwrite(sealed.key().clone(), sealed.bytes().clone());
    }
    let plan = repo.view().plans(&latest()).await.expect("plans").remove(0);
    let newest = plan.epochs.all.last().expect("an epoch");
    assert_eq!(newest.epoch.epoch, EpochId([9; 16]), "readers believe it until an owner revokes the key");

    let failed = failed_run();
    let key = reports::store(&repo.store, &repo.key, &repo.keeper, "default", &failed).await.expect("stored");
    let sealed = repo.memory.objects().remove(&key).expect("a report");
    assert!(report::open(&sealed, &thief).is_err(), "it is encrypted to the thief");
    let owner = [repo.identity.clone()];
    let opened = wraps::open(&repo.store, &repo.runtime, &own, &owner, &[], &Reporter::silent()).await;
    let identity = opened.expect("keys").0.identity;
    let read = reports::read(&repo.store, std::slice::from_ref(&key), &[identity]).await.expect("read");
    assert_eq!(read, [(key, Some(failed.clone()))]);

    // Without the secret there is no epoch that is the writer's own for sure.
    let lost = MemoryKeeper::default();
    let refused =
        reports::store(&repo.store, &repo.key, &lost, "default", &failed).await.expect_err("no epoch");
    assert!(matches!(refused, ReportError::NoEpoch(_)), "{refused}");
}

/// Returns the report of docs/format.md.
fn failed_run() -> RunReport {
    serde_json::from_value(serde_json::json!({
        "verb": "backup", "version": "0.1.0", "repository": "s3://backups/prod", "plan": "default",
        "started": "2026-11-30T21:23:01Z", "finished": "2026-11-30T21:23:02Z", "exit": "unreachable",
        "verdict": "the store cannot be reached", "items": [],
        "stored": { "bytes": 0, "packs": 0, "requests": { "retried": 0 } },
    }))
    .expect("a report")
}
