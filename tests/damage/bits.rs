//! Flips one bit at a time.

use kbak::format::layout::ObjectKey;

use super::{Victim, full};

/// Flips bits of one object in turn: all of them, or one of each byte. Unless everything is tried,
/// about `most` flips are spread over the object.
async fn flip(victim: &Victim, key: &ObjectKey, every_bit: bool, most: usize, reads: bool) {
    let good = victim.objects[key].clone();
    let flips = good.len() * if every_bit { 8 } else { 1 };
    // An odd step reaches every position of a bit in its byte.
    let step = if full() { 1 } else { (flips / most).max(1) | 1 };
    for at in (0..flips).step_by(step) {
        let (byte, bit) = if every_bit { (at / 8, at % 8) } else { (at, at % 8) };
        let mut bad = good.to_vec();
        bad[byte] ^= 1 << bit;
        victim.set(key, bad);
        let what = format!("{key}, bit {bit} of byte {byte}");
        assert_eq!(victim.named().await, [key.as_str()], "{what}");
        if reads {
            victim.no_lie(&what, false).await;
        }
    }
    victim.mend(key);
}

async fn flip_all(parts: &[&str], every_bit: bool, most: usize, reads: bool) {
    let victim = Victim::new().await;
    for part in parts {
        let keys = victim.keys(part);
        assert!(!keys.is_empty(), "no object is like {part}");
        for key in keys {
            flip(&victim, &key, every_bit, most, reads).await;
        }
    }
    assert!(victim.named().await.is_empty(), "the repository is as it was");
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
    let victim = Victim::new().await;
    for key in victim.keys("/packs/") {
        let good = victim.objects[&key].clone();
        // The header ends with the line of its MAC.
        let mac = good.windows(5).position(|window| window == b"\n--- ").expect("an age header");
        let length = mac + 1 + good[mac + 1..].iter().position(|byte| *byte == b'\n').expect("a line") + 1;
        let step = if full() { 1 } else { (length * 8 / 100) | 1 };
        for at in (0..length * 8).step_by(step) {
            let mut bad = good.to_vec();
            bad[at / 8] ^= 1 << (at % 8);
            victim.set(&key, bad);
            let what = format!("{key}, bit {at} of its header");
            assert_eq!(victim.named().await, [key.as_str()], "{what}");
            victim.no_lie(&what, false).await;
        }
        victim.mend(&key);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bit_in_any_pack_byte_is_detected() {
    flip_all(&["/packs/"], false, 150, true).await;
}
