//! Flips one bit at a time.

use kbak::format::layout::ObjectKey;

use super::DamagedRepo;
use crate::support::program::at_full_size;

/// Flips bits of one object in turn: all of them, or one of each byte. Unless everything is tried,
/// about `most` flips are spread over the object.
async fn flip(damaged: &DamagedRepo, key: &ObjectKey, every_bit: bool, most: usize, reads: bool) {
    let good = damaged.objects[key].clone();
    let flips = good.len() * if every_bit { 8 } else { 1 };
    // An odd step reaches every position of a bit in its byte.
    let step = if at_full_size() { 1 } else { (flips / most).max(1) | 1 };
    for at in (0..flips).step_by(step) {
        let (byte, bit) = if every_bit { (at / 8, at % 8) } else { (at, at % 8) };
        let mut bad = good.to_vec();
        bad[byte] ^= 1 << bit;
        damaged.set(key, bad);
        let what = format!("{key}, bit {bit} of byte {byte}");
        assert_eq!(damaged.reported_objects().await, [key.as_str()], "{what}");
        if reads {
            damaged.assert_no_damaged_bytes(&what, false).await;
        }
    }
    damaged.repair(key);
}

async fn flip_all(parts: &[&str], every_bit: bool, most: usize, reads: bool) {
    let damaged = DamagedRepo::new().await;
    for part in parts {
        let keys = damaged.keys(part);
        assert!(!keys.is_empty(), "no object is like {part}");
        for key in keys {
            flip(&damaged, &key, every_bit, most, reads).await;
        }
    }
    assert!(damaged.reported_objects().await.is_empty(), "the repository is as it was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bit_in_any_signed_object_is_detected() {
    flip_all(&["kbak.json", "epoch.json", "/epochs/", "/snapshots/"], true, 200, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bit_in_needs_or_index_is_detected() {
    flip_all(&["/needs/", "/index/"], true, 200, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bit_in_cache_state_or_body_is_detected() {
    flip_all(&["/cache/", "/state/", "/bodies/"], true, 100, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bit_in_a_pack_header_is_detected() {
    let damaged = DamagedRepo::new().await;
    for key in damaged.keys("/packs/") {
        let good = damaged.objects[&key].clone();
        // The header ends with the line of its MAC.
        let mac = good.windows(5).position(|window| window == b"\n--- ").expect("an age header");
        let length = mac + 1 + good[mac + 1..].iter().position(|byte| *byte == b'\n').expect("a line") + 1;
        let step = if at_full_size() { 1 } else { (length * 8 / 100) | 1 };
        for at in (0..length * 8).step_by(step) {
            let mut bad = good.to_vec();
            bad[at / 8] ^= 1 << (at % 8);
            damaged.set(&key, bad);
            let what = format!("{key}, bit {at} of its header");
            assert_eq!(damaged.reported_objects().await, [key.as_str()], "{what}");
            damaged.assert_no_damaged_bytes(&what, false).await;
        }
        damaged.repair(&key);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bit_in_any_pack_byte_is_detected() {
    flip_all(&["/packs/"], false, 150, true).await;
}
