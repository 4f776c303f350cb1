//! Stored keys, an epoch, a signature and a receipt of format v1, which every later version must
//! read; and derivations with fixed results.
//!
//! The private keys under v1/keys are test keys. `key_vectors_are_regenerated` makes them anew, until the
//! format is frozen.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use kbak::format::derive::{EpochSecret, NamesKey, SecretKey};
use kbak::format::epoch::{Epoch, VerifiedEpoch};
use kbak::format::ids::{ObjectHash, to_hex};
use kbak::format::layout::EpochPath;
use kbak::format::record::{Receipt, ReceiptAction, Record, SignedRecord};
use kbak::format::sign::{Namespace, SignedDocument, SigningKey};
use kbak::format::signers::Signers;
use kbak::keys::epoch_file::EpochFile;
use kbak::keys::recovery_sheet;
use kbak::keys::writer_key::WriterKey;
use kbak::keys::{Identity, OwnerKey, open_wrap};
use kbak::repository::epoch::current;
use kbak::runtime::lock;
use zeroize::Zeroizing;

use crate::support::owners::{MemoryKeeper, no_prompt, wanted};
use crate::support::test_repo::TestRepo;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1/keys")
}

fn stored(name: &str) -> Bytes {
    std::fs::read(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}")).into()
}

fn text(name: &str) -> String {
    String::from_utf8(stored(name).to_vec()).expect("text")
}

struct Golden {
    key: WriterKey,
    signers: Signers,
    owner: Arc<Identity>,
    epoch: VerifiedEpoch,
}

fn golden() -> Golden {
    let key = WriterKey::parse("writer.key", &stored("writer.key")).expect("writer.key");
    let signers = Signers::parse(&text("kbak.pub")).expect("kbak.pub");
    let owner = Identity::parse("owner.key", &stored("owner.key"), &no_prompt()).expect("owner.key");
    let held = EpochFile::parse("writer.key.epoch", &stored("writer.key.epoch")).expect("an epoch file");
    let path =
        EpochPath { writer: key.writer, plan: key.plan("default"), epoch: held.state.secrets[0].epoch };
    let epoch = Epoch::open(stored("epoch.json"), &path, Some(key.repository), &signers).expect("epoch.json");
    Golden { key, signers, owner: Arc::new(owner), epoch }
}

#[test]
fn derivations_match_stored_vectors() {
    let secret = EpochSecret(SecretKey::new([7; 32]));
    let names = NamesKey(SecretKey::new([8; 32]));
    let lines = [
        format!("commitment {}", to_hex(&secret.commitment())),
        format!("plan default {}", names.id("plan", "default")),
        format!("domain coordinator/resources {}", names.id("domain", "coordinator/resources")),
        format!("key {}", SigningKey::from_seed(&Zeroizing::new([9; 32])).public()),
    ];
    assert_eq!(lines.join("\n") + "\n", text("derivations.txt"));
}

#[test]
fn fixed_key_signs_fixed_line_to_stored_signature() {
    let key = SigningKey::from_seed(&Zeroizing::new([9; 32]));
    let line = "{\"type\":\"manifest\",\"requires\":[],\"seq\":42}\n";
    let signature = key.sign(Namespace::Manifest, line.as_bytes()).expect("a signature");
    assert_eq!(format!("{line}{signature}"), text("signed.txt"));
    let document = SignedDocument::parse(stored("signed.txt")).expect("a document");
    assert_eq!(document.claimed_key(), key.public());
}

#[test]
fn stored_epoch_is_read_opened_and_rewritten_byte_for_byte() {
    let Golden { key, owner, epoch, .. } = golden();
    let [first, copy] = epoch.seal(&key.signing).expect("sealed");
    assert_eq!((first.bytes(), copy.bytes()), (&stored("epoch.json"), &stored("epoch.json")));
    let (keys, _) = open_wrap(&epoch, &[], &[owner]).expect("the owner opens it");
    let held = EpochFile::parse("writer.key.epoch", &stored("writer.key.epoch")).expect("an epoch file");
    assert!(held.state.secrets[0].matches(&epoch) && held.state.secrets[0].secret == keys.secret);
    assert_eq!(*keys.to_text(epoch.epoch), text("epoch.key"), "what age -d gives");
    assert_eq!(key.to_text().as_bytes(), stored("writer.key"), "writer.key is written alike");
    assert_eq!(held.to_text().as_bytes(), stored("writer.key.epoch"));
}

#[test]
fn stored_receipt_is_accepted() {
    let Golden { key, signers, owner, epoch } = golden();
    let bytes = stored("receipt");
    let hash = ObjectHash::of(&bytes);
    let record =
        SignedRecord::open(bytes, key.writer, hash, Namespace::Receipt, Some(key.repository), &signers)
            .expect("a receipt");
    let Record::Receipt(receipt) = record.record() else { panic!("another record") };
    assert_eq!((receipt.epoch, receipt.act), (epoch.epoch, ReceiptAction::Opened));
    assert_eq!(receipt.recipient, Some(owner.recipients()[0].id()));
}

#[tokio::test]
#[ignore = "makes the vectors anew: only while format v1 is not frozen"]
async fn key_vectors_are_regenerated() {
    let repo = TestRepo::seeded(2026);
    let write = |name: &str, content: &[u8]| std::fs::write(folder().join(name), content).expect("written");
    std::fs::create_dir_all(folder()).expect("a folder");
    let key = &repo.key;
    let owner = OwnerKey::generate(&repo.runtime, "golden owner");
    let public = owner.public();
    let keeper = MemoryKeeper::default();
    let context = repo.epoch_context(&keeper);
    let wanted = wanted(&[&public]);
    let ready = current::find_or_create(context, &wanted, &Default::default(), &Default::default())
        .await
        .expect("an epoch");
    let identity =
        Arc::new(Identity::parse("owner", owner.to_text().as_bytes(), &no_prompt()).expect("an identity"));
    let (keys, _) = open_wrap(&ready.epoch, &[], std::slice::from_ref(&identity)).expect("opened");
    let (repository, writer, plan) = (key.repository, key.writer, key.plan("default"));
    let held = lock(&keeper.0).clone().expect("held");
    let receipt = Record::Receipt(Receipt {
        plan,
        epoch: ready.epoch.epoch,
        act: ReceiptAction::Opened,
        recipient: Some(public.recipient.id()),
        wrap: None,
    });
    let signing = identity.signing().expect("a signing key");
    let receipt = receipt.seal(repository, writer, ready.epoch.created, signing).expect("sealed");
    let signers = recovery_sheet::signers_of(key, std::slice::from_ref(&public));
    write("writer.key", key.to_text().as_bytes());
    write("writer.key.epoch", EpochFile { repository, writer, plan, state: held }.to_text().as_bytes());
    write("owner.key", owner.to_text().as_bytes());
    write("kbak.pub", recovery_sheet::pin_text(key, &signers, &[public]).as_bytes());
    write("epoch.json", &repo.memory.objects()[&ready.epoch.path().epoch_json()]);
    write("epoch.key", keys.to_text(ready.epoch.epoch).as_bytes());
    write("receipt", receipt.bytes());
    let fixed = SigningKey::from_seed(&Zeroizing::new([9; 32]));
    let line = "{\"type\":\"manifest\",\"requires\":[],\"seq\":42}\n";
    write(
        "signed.txt",
        format!("{line}{}", fixed.sign(Namespace::Manifest, line.as_bytes()).expect("signed")).as_bytes(),
    );
    let (secret, names) = (EpochSecret(SecretKey::new([7; 32])), NamesKey(SecretKey::new([8; 32])));
    let derivations = format!(
        "commitment {}\nplan default {}\ndomain coordinator/resources {}\nkey {}\n",
        to_hex(&secret.commitment()),
        names.id("plan", "default"),
        names.id("domain", "coordinator/resources"),
        fixed.public()
    );
    write("derivations.txt", derivations.as_bytes());
}
