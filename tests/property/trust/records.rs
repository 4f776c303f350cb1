//! Records: sealed, listed, verified; their effects; and refused ones.

use bytes::Bytes;
use kbak::format::ids::{EpochId, NameId, ObjectHash, RepositoryId, WriterId};
use kbak::format::layout;
use kbak::format::record::{Distrust, Receipt, ReceiptAction, Record, RecordError, Revocation, SignedRecord};
use kbak::format::sign::{Namespace, SigningKey};
use kbak::format::signers::{Signer, Signers};
use kbak::report::event::Reporter;
use kbak::repository::records;
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
        plan: PLAN,
        epoch: EPOCH,
        domain: DOMAIN,
        packs,
        why: "sha256 differs".into(),
    })
}

fn trust() -> Record {
    Record::Revocation(Revocation {
        key: key(1).public(),
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
    repo.memory.overwrite(layout::record(WRITER, ObjectHash([0; 32])), sealed.bytes().clone());
    let report = Bytes::from_static(b"age-encryption.org/v1\n");
    repo.memory.overwrite(layout::record(WRITER, ObjectHash([1; 32])), report.clone());
    repo.memory.overwrite(layout::record(WRITER, ObjectHash::of(&report)), report);

    let silent = Reporter::silent();
    let records =
        records::list(&repo.store, WRITER, Some(REPOSITORY), &pin(), &silent).await.expect("listed");
    assert_eq!((records.signed.len(), records.rejected.len(), records.reports.len()), (5, 6, 1));
    let (packs, _) = records.distrusted(PLAN, EPOCH, DOMAIN);
    assert_eq!(packs.into_iter().collect::<Vec<_>>(), [ObjectHash([7; 32]), ObjectHash([8; 32])]);
    assert!(records.distrusted(PLAN, EPOCH, NameId([0; 8])).0.is_empty());
    assert_eq!(records.cut_offs(key(1).public()).count(), 1);
    assert_eq!(records.cut_offs(key(2).public()).count(), 0);
    assert_eq!(records.opened(PLAN, EPOCH).len(), 1);
}

#[tokio::test]
async fn record_is_not_hidden_by_junk_objects() {
    let repo = TestRepo::seeded(1);
    let sealed = trust().seal(REPOSITORY, WRITER, at("2026-11-23T02:00:00Z"), &key(2)).expect("sealed");
    repo.store.put(&sealed).await.expect("stored");
    let list = async || {
        let silent = Reporter::silent();
        records::list(&repo.store, WRITER, Some(REPOSITORY), &pin(), &silent).await
    };
    for number in 0..50_000u32 {
        if number == 49_999 {
            let records = list().await.expect("as many as are read");
            assert_eq!(records.cut_offs(key(1).public()).count(), 1);
        }
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&number.to_be_bytes());
        repo.memory.overwrite(layout::record(WRITER, ObjectHash(hash)), Bytes::from_static(b"x"));
    }
    let error = list().await.expect_err("one more");
    assert!(matches!(error.kind, kbak::store::StoreErrorKind::Protocol(_)), "{error}");
}

#[test]
fn record_with_a_flipped_bit_or_another_place_is_rejected() {
    let now = at("2026-11-23T02:00:00Z");
    let sealed = trust().seal(REPOSITORY, WRITER, now, &key(2)).expect("sealed");
    let open = |bytes: &[u8], writer, hash| {
        SignedRecord::open(Bytes::copy_from_slice(bytes), writer, hash, Some(REPOSITORY), &pin())
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
    let moved = SignedRecord::open(sealed.bytes().clone(), WriterId([7; 16]), sealed.hash(), None, &both);
    assert!(matches!(moved, Err(RecordError::WrongPath { field: "writer", .. })));
}
