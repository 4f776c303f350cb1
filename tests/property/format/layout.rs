//! Names of objects: none leaves its place, none looks like another kind.

use kbak::format::ids::{EpochId, NameId, ObjectHash, WriterId};
use kbak::format::layout::{
    EpochPath, MAX_KEY, ObjectClass, ObjectKey, UnsignedKey, epoch_copy, is_object_name, marker,
    parse_snapshot_name, record,
};
use kbak::format::sign::{Namespace, SigningKey};
use kbak::format::signers::{Signer, Signers};
use zeroize::Zeroizing;

fn signing_key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&Zeroizing::new([seed; 32]))
}

fn signed(key: UnsignedKey) -> ObjectKey {
    signing_key(1).sign_key(key).expect("a key")
}

#[test]
fn keys_outside_the_allowed_form_are_rejected() {
    for bad in ["", "/a", "a/", "a//b", "../a", "a/../b", "a/.b", "A", "a b", "a\u{1b}[2J", "ä"] {
        assert!(ObjectKey::parse(bad).is_none(), "{bad:?} must be refused");
    }
    let path = EpochPath { writer: WriterId([1; 16]), plan: NameId([2; 8]), epoch: EpochId([3; 16]) };
    let key = path.in_domain(NameId([4; 8]), ObjectClass::Pack, ObjectHash([0xab; 32]));
    assert!(key.as_str().contains("/packs/ab/abab"));
    assert_eq!(ObjectKey::parse(key.as_str()), Some(key.clone()));
    assert!(key.as_str().len() < MAX_KEY);
}

#[test]
fn folder_names_never_look_like_object_names() {
    let path = EpochPath { writer: WriterId([1; 16]), plan: NameId([2; 8]), epoch: EpochId([3; 16]) };
    let hash = ObjectHash([0xab; 32]);
    for key in [
        marker(),
        signed(epoch_copy(&path, hash)),
        path.epoch_json(),
        path.wrap(hash),
        path.in_domain(NameId([4; 8]), ObjectClass::Pack, hash),
        path.in_domain(NameId([4; 8]), ObjectClass::State, hash),
        path.body(hash),
        signed(path.snapshot(42, hash)),
        signed(record(path.writer, "trust", hash)),
    ] {
        assert!(is_object_name(key.name()), "{key}");
        let (folders, _) = key.as_str().rsplit_once('/').unwrap_or_default();
        assert!(!folders.split('/').any(is_object_name), "{key}");
    }
}

#[test]
fn malformed_snapshot_names_are_rejected() {
    let (hash, signature) = (ObjectHash([7; 32]), "5a".repeat(64));
    assert_eq!(parse_snapshot_name(&format!("000000000042-{hash}-{signature}")), Some((42, hash)));
    for bad in [
        format!("000000000042-{hash}"),
        format!("42-{hash}-{signature}"),
        format!("+00000000042-{hash}-{signature}"),
        format!("000000000042-{hash}-{}", &signature[2..]),
        format!("000000000042-{hash}-{signature}-{signature}"),
    ] {
        assert_eq!(parse_snapshot_name(&bad), None, "{bad}");
    }
}

#[test]
fn signature_of_a_key_counts_for_that_key_alone() {
    let path = EpochPath { writer: WriterId([1; 16]), plan: NameId([2; 8]), epoch: EpochId([3; 16]) };
    let hash = ObjectHash([0xab; 32]);
    let (writer, other) = (signing_key(1), signing_key(2));
    let mut pin = Signers::default();
    let principal = path.writer.to_string();
    pin.add(Signer::new(&principal, &[Namespace::Manifest], writer.public(), ""));
    pin.add(Signer::new(&principal, &[Namespace::Trust], other.public(), ""));
    let key = writer.sign_key(path.snapshot(42, hash)).expect("a key");
    assert_eq!(pin.signed_hash(&principal, Namespace::Manifest, &key), Some((hash, pin.all()[0].key)));
    assert!(key.as_str().len() < MAX_KEY && key.name().len() < 255, "every file system takes the name");
    let taken =
        |key: &str| pin.signed_hash(&principal, Namespace::Manifest, &ObjectKey::parse(key).expect("a key"));
    // No character can change, and none of it counts in another place.
    for at in 0..key.as_str().len() {
        let mut text = key.as_str().as_bytes().to_vec();
        text[at] = if text[at] == b'0' { b'1' } else { b'0' };
        assert_eq!(taken(std::str::from_utf8(&text).expect("text")), None, "character {at}");
    }
    let elsewhere = EpochPath { epoch: EpochId([4; 16]), ..path };
    assert_eq!(taken(&key.as_str().replace(&path.epoch.to_string(), &elsewhere.epoch.to_string())), None);
    // By a key for another namespace, for another writer, or by nobody.
    let foreign = other.sign_key(path.snapshot(42, hash)).expect("a key");
    assert_eq!(taken(foreign.as_str()), None);
    assert_eq!(pin.signed_hash(&WriterId([9; 16]).to_string(), Namespace::Manifest, &key), None);
    assert_eq!(taken(path.body(hash).as_str()), None);
}
