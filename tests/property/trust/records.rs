//! Records: sealed, listed, verified; their effects; and refused ones.

use std::sync::Arc;

use bytes::Bytes;
use kbak::format::ids::{EpochId, NameId, ObjectHash, RepositoryId, WriterId};
use kbak::format::layout::{self, ObjectKey};
use kbak::format::record::{Distrust, Receipt, ReceiptAction, Record, RecordError, SignedRecord};
use kbak::format::revocation::Revocation;
use kbak::format::sign::{Namespace, SigningKey};
use kbak::format::signers::{Signer, Signers};
use kbak::report::event::Reporter;
use kbak::repository::records;
use kbak::store::Store;
use kbak::store::operation::Operation;
use kbak::store::recording::RecordingStore;
use zeroize::Zeroizing;

use crate::support::owners::at;
use crate::support::test_repo::TestRepo;

const REPOSITORY: RepositoryId = RepositoryId([1; 16]);
const WRITER: WriterId = WriterId([2; 16]);
const PLAN: NameId = NameId([3; 8]);
const EPOCH: EpochId = EpochId([4; 16]);
const DOMAIN: NameId = NameId([5; 8]);

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&Zeroizing::new([seed; 32]))
}

fn pin() -> Signers {
    let mut signers = Signers::default();
    signers.add(Signer::new(&WRITER.to_string(), &Namespace::WRITER, key(1).public(), "writer"));
    signers.add(Signer::new(&WRITER.to_string(), &Namespace::OWNER, key(2).public(), "owner"));
    signers.add(Signer::new(&WRITER.to_string(), &[Namespace::Prune], key(3).public(), "prune"));
    signers
}

fn distrust(packs: &[u8]) -> Record {
    let packs = packs.iter().map(|byte| ObjectHash([*byte; 32])).collect();
    Record::Distrust(Distrust {
        hints_before: Vec::new(),
        plan: PLAN,
        epoch: EPOCH,
        domain: DOMAIN,
        packs,
        why: "sha256 differs".into(),
    })
}

fn trust() -> Record {
    revocation_of(4)
}

fn revocation_of(who: u8) -> Record {
    Record::Revocation(Revocation {
        key: key(who).public(),
        last_good: vec![ObjectHash([9; 32])],
        why: "the node was taken".into(),
    })
}

fn prune() -> Record {
    let fields =
        serde_json::json!({"removed": ["a"], "why": "retention"}).as_object().cloned().expect("a map");
    Record::Untyped { namespace: Namespace::Prune, fields }
}

#[tokio::test]
async fn records_are_listed_and_only_valid_ones_have_effect() {
    let repo = TestRepo::seeded(1);
    let now = at("2026-11-23T02:00:00Z");
    let receipt = Record::Receipt(Receipt {
        plan: PLAN,
        epoch: EPOCH,
        act: ReceiptAction::Opened,
        recipient: None,
        wrap: None,
    });
    let good = [(distrust(&[7]), 1), (distrust(&[8]), 1), (trust(), 2), (receipt, 2), (prune(), 3)];
    for (record, who) in &good {
        let sealed = record.seal(REPOSITORY, WRITER, now, &key(*who)).expect("sealed");
        repo.store.put(&sealed).await.expect("stored");
    }
    // A writer cannot revoke keys, an owner cannot prune, other keys have no effect.
    for (record, who) in [(trust(), 1), (prune(), 2), (distrust(&[6]), 9)] {
        let sealed = record.seal(REPOSITORY, WRITER, now, &key(who)).expect("sealed");
        repo.store.put(&sealed).await.expect("stored");
    }
    // A record of another repository; one under a name that is not its hash; invalid bytes.
    let foreign = distrust(&[5]).seal(RepositoryId([0; 16]), WRITER, now, &key(1)).expect("sealed");
    repo.store.put(&foreign).await.expect("stored");
    let sealed = distrust(&[4]).seal(REPOSITORY, WRITER, now, &key(1)).expect("sealed");
    let record = |folder, hash, who| key(who).sign_key(layout::record(WRITER, folder, hash)).expect("a key");
    repo.memory.overwrite(record("distrust", ObjectHash([0; 32]), 1), sealed.bytes().clone());
    // In the folder of another type; and a report by nobody.
    repo.memory.overwrite(record("exception", sealed.hash(), 1), sealed.bytes().clone());
    let report = Bytes::from_static(b"age-encryption.org/v1\n");
    repo.memory.overwrite(record("report", ObjectHash([1; 32]), 2), report.clone());
    repo.memory.overwrite(record("report", ObjectHash::of(&report), 1), report);

    let silent = Reporter::silent();
    let records =
        records::list(&repo.store, WRITER, Some(REPOSITORY), &pin(), &silent).await.expect("listed");
    assert_eq!((records.signed.len(), records.rejected.len(), records.reports.len()), (5, 3, 1));
    assert_eq!(records.unsigned.count, 4, "three by keys that may not, and a report by an owner");
    let (packs, _) = records.distrusted(PLAN, EPOCH, DOMAIN);
    assert_eq!(packs.into_iter().collect::<Vec<_>>(), [ObjectHash([7; 32]), ObjectHash([8; 32])]);
    assert!(records.distrusted(PLAN, EPOCH, NameId([0; 8])).0.is_empty());
    assert_eq!(records.cut_offs(key(4).public()).count(), 1);
    assert_eq!(records.cut_offs(key(2).public()).count(), 0);
    assert_eq!(records.opened(PLAN, EPOCH).len(), 1);

    // The distrust of a key that an owner revoked does not count either.
    let sealed = revocation_of(1).seal(REPOSITORY, WRITER, now, &key(2)).expect("sealed");
    repo.store.put(&sealed).await.expect("stored");
    let records =
        records::list(&repo.store, WRITER, Some(REPOSITORY), &pin(), &silent).await.expect("listed");
    assert!(records.distrusted(PLAN, EPOCH, DOMAIN).0.is_empty());
}

#[tokio::test]
async fn record_is_not_hidden_by_junk_objects() {
    let repo = TestRepo::seeded(1);
    let sealed = trust().seal(REPOSITORY, WRITER, at("2026-11-23T02:00:00Z"), &key(2)).expect("sealed");
    repo.store.put(&sealed).await.expect("stored");
    for number in 0..60_000u32 {
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&number.to_be_bytes());
        let junk = layout::record(WRITER, "trust", ObjectHash(hash));
        // Another's signature, or hex that is none.
        let key = match number {
            0..100 => key(9).sign_key(junk).expect("a key"),
            _ => ObjectKey::parse(&format!("{}-{}", junk.as_str(), "ab".repeat(64))).expect("a key"),
        };
        repo.memory.overwrite(key, Bytes::from_static(b"x"));
    }
    let recording = Arc::new(RecordingStore::new(repo.store.clone()));
    let store: Arc<dyn Store> = recording.clone();
    let silent = Reporter::silent();
    let records = records::list(&store, WRITER, Some(REPOSITORY), &pin(), &silent).await.expect("listed");
    assert_eq!((records.cut_offs(key(4).public()).count(), records.unsigned.count), (1, 60_000));
    assert_eq!((recording.count(Operation::Get).0, recording.count(Operation::List).0), (1, 61));
}

#[test]
fn record_with_a_flipped_bit_or_another_place_is_rejected() {
    let now = at("2026-11-23T02:00:00Z");
    let sealed = trust().seal(REPOSITORY, WRITER, now, &key(2)).expect("sealed");
    let open = |bytes: &[u8], writer, hash| {
        let bytes = Bytes::copy_from_slice(bytes);
        SignedRecord::open(bytes, writer, hash, Namespace::Trust, Some(REPOSITORY), &pin())
    };
    let read = open(sealed.bytes(), WRITER, sealed.hash()).expect("a record");
    assert_eq!((read.record(), read.at(), read.key()), (&trust(), now, key(2).public()));
    for bit in 0..sealed.bytes().len() * 8 {
        let mut bad = sealed.bytes().to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&bad, WRITER, sealed.hash()).is_err());
        // Even under the hash of the changed bytes.
        assert!(open(&bad, WRITER, ObjectHash::of(&bad)).is_err(), "bit {bit}");
    }
    let mut both = pin();
    both.add(Signer::new(&WriterId([7; 16]).to_string(), &Namespace::OWNER, key(2).public(), ""));
    let open = |writer, namespace| {
        SignedRecord::open(sealed.bytes().clone(), writer, sealed.hash(), namespace, None, &both)
    };
    let moved = open(WriterId([7; 16]), Namespace::Trust);
    assert!(matches!(moved, Err(RecordError::WrongPath { field: "writer", .. })));
    assert!(open(WRITER, Namespace::Distrust).is_err(), "a record of one type is none of another");
}
