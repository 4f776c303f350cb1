//! Names of objects: none leaves its place, none looks like another kind.

use kbak::format::ids::{EpochId, NameId, ObjectHash, WriterId};
use kbak::format::layout::{
    EpochPath, MAX_KEY, ObjectClass, ObjectKey, epoch_copy, is_object_name, marker, parse_snapshot_name,
    record,
};

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
        epoch_copy(path.writer, path.plan, path.epoch),
        path.epoch_json(),
        path.wrap(hash),
        path.in_domain(NameId([4; 8]), ObjectClass::Pack, hash),
        path.in_domain(NameId([4; 8]), ObjectClass::State, hash),
        path.body(hash),
        path.snapshot(42, hash),
        record(path.writer, hash),
    ] {
        assert!(is_object_name(key.name()), "{key}");
        let (folders, _) = key.as_str().rsplit_once('/').unwrap_or_default();
        assert!(!folders.split('/').any(is_object_name), "{key}");
    }
}

#[test]
fn malformed_snapshot_names_are_rejected() {
    let hash = ObjectHash([7; 32]);
    assert_eq!(parse_snapshot_name(&format!("000000000042-{hash}")), Some((42, hash)));
    assert_eq!(parse_snapshot_name(&format!("42-{hash}")), None);
    assert_eq!(parse_snapshot_name(&format!("+00000000042-{hash}")), None);
}
