//! Damage to whole objects: truncated, exchanged, missing, replayed, signed by another key, respelled.

use bytes::Bytes;
use futures::StreamExt as _;
use kbak::format::ids::ObjectHash;
use kbak::format::layout::ObjectKey;
use kbak::format::manifest::Envelope;
use kbak::format::sign::SignedDocument;
use kbak::keys::writer_key::WriterKey;
use kbak::pipeline::ReadError;
use kbak::repository::read::snapshot::{OpenSnapshot, SnapshotError};
use kbak::store::{StoreError, StoreErrorKind};
use kbak::verify::{Depth, Fault, MAX_FINDINGS};

use super::Victim;

/// Returns the fault that verify reports of `key`, and the other objects that it reports.
async fn fault(victim: &Victim, key: &ObjectKey, depth: Depth, open: bool) -> (Option<Fault>, Vec<String>) {
    let verdict = victim.verify(depth, open).await;
    let (this, others): (Vec<_>, Vec<_>) =
        verdict.findings.into_iter().partition(|finding| finding.object == key.as_str());
    let others = others.into_iter().map(|finding| finding.object).collect();
    (this.first().map(|finding| finding.fault), others)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncated_and_missing_objects_are_reported() {
    let victim = Victim::new().await;
    for (key, good) in &victim.objects {
        for left in [0, 1, good.len() / 2, good.len() - 1] {
            victim.set(key, good.slice(..left));
            assert_eq!(victim.named().await, [key.as_str()], "{key} cut to {left} bytes");
            victim.no_lie(&format!("{key} cut to {left} bytes"), false).await;
        }
        victim.bench.store.delete(key).await.expect("deleted");
        let (found, others) = fault(&victim, key, Depth::Presence, false).await;
        let named = key.as_str();
        if named.contains("/snapshots/") {
            // Only the head that was kept elsewhere shows that the newest existed; an older
            // snapshot is missed by its child.
            assert_eq!((found, others.len()), (None, 1), "{key} is gone: {others:?}");
        } else if named.contains("/cache/") && found.is_none() {
            // A group of a scan cache: only its root is named in the public envelope.
            let (_, others) = fault(&victim, key, Depth::Presence, true).await;
            assert_eq!(others.len(), 1, "{key} is gone: {others:?}");
        } else {
            assert_eq!((found, others), (Some(Fault::Missing), Vec::new()), "{key} is gone");
        }
        victim.mend(key);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pack_of_wrong_size_is_reported_without_reading_it() {
    let victim = Victim::new().await;
    for key in victim.keys("/packs/") {
        victim.set(&key, [victim.objects[&key].as_ref(), b"x"].concat());
        let (found, others) = fault(&victim, &key, Depth::Presence, false).await;
        assert_eq!((found, others), (Some(Fault::Size), Vec::new()));
        victim.mend(&key);
    }
}

/// Returns the size limit at which a reader stopped.
fn limit(error: &StoreError) -> Option<u64> {
    match error.kind {
        StoreErrorKind::TooLarge { limit } => Some(limit),
        _ => None,
    }
}

async fn open(victim: &Victim) -> Result<OpenSnapshot, SnapshotError> {
    let (store, runtime) = (victim.bench.store.clone(), victim.bench.runtime.clone());
    let reporter = kbak::report::event::Reporter::silent();
    OpenSnapshot::open(store, runtime, reporter, victim.snapshots[0].clone(), victim.epochs.clone(), 64 << 20)
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_stop_at_the_signed_size() {
    let victim = Victim::new().await;
    let lengthen = |key: &ObjectKey| victim.set(key, [b"x", victim.objects[key].as_ref()].concat());
    let envelope = victim.snapshots[0].envelope();
    let body = envelope.path().body(envelope.body);
    lengthen(&body);
    match open(&victim).await {
        Err(SnapshotError::Store(error)) => assert_eq!(limit(&error), Some(envelope.body_size)),
        other => panic!("{:?}", other.err()),
    }
    victim.mend(&body);

    let opened = open(&victim).await.expect("an open snapshot");
    let stream = opened.body().items[0].streams[0].clone();
    let mut limits = 0;
    for key in victim.keys("/packs/") {
        lengthen(&key);
        // Fresh readers that have read nothing yet.
        let opened = open(&victim).await.expect("an open snapshot");
        let mut pieces = opened.read(&stream).expect("a reader").range(0..stream.length);
        while let Some(piece) = pieces.next().await {
            if let Err(ReadError::Store(error)) = piece {
                assert_eq!(limit(&error), Some(victim.objects[&key].len() as u64));
                limits += 1;
            }
        }
        victim.mend(&key);
    }
    assert!(limits > 0, "no pack was read whole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreferenced_objects_displace_no_finding() {
    let victim = Victim::new().await;
    let pack = victim.keys("/packs/").pop().expect("a pack");
    // Packs are stored in folders by the beginning of their names.
    let mut steps = pack.as_str().rsplitn(3, '/').skip(1);
    let (start, packs) = (steps.next().expect("a folder"), steps.next().expect("a folder"));
    let folder = format!("{packs}/{}", "0".repeat(start.len()));
    let planted = MAX_FINDINGS as u64 + 7;
    for at in 0..planted {
        let key = ObjectKey::parse(&format!("{folder}/{at:064x}")).expect("a key");
        victim.set(&key, &b"x"[..]);
    }
    let mut bad = victim.objects[&pack].to_vec();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    victim.set(&pack, bad);
    // With an identity, the pack is opened after all others have been hashed.
    for open in [false, true] {
        let verdict = victim.verify(Depth::All, open).await;
        let found: Vec<_> = verdict.findings.iter().filter(|one| one.object == pack.as_str()).collect();
        assert!(matches!(found.as_slice(), [one] if !one.snapshots.is_empty()), "{found:?}");
        assert_eq!(verdict.findings.len(), MAX_FINDINGS);
        assert_eq!(verdict.findings_left_out, planted + 1 - MAX_FINDINGS as u64);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exchanged_objects_are_reported() {
    let victim = Victim::new().await;
    for part in ["/packs/", "/snapshots/", "/bodies/", "/needs/", "/state/"] {
        let keys = victim.keys(part);
        let [a, b, ..] = keys.as_slice() else { continue };
        victim.set(a, victim.objects[b].clone());
        victim.set(b, victim.objects[a].clone());
        assert_eq!(victim.named().await, [a.as_str(), b.as_str()], "{part}");
        victim.no_lie(&format!("{part} exchanged"), part == "/packs/").await;
        victim.mend(a);
        victim.mend(b);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_with_an_identity_names_the_damaged_items() {
    let victim = Victim::new().await;
    for key in victim.keys("/packs/") {
        let mut bad = victim.objects[&key].to_vec();
        let middle = bad.len() / 2;
        bad[middle] ^= 4;
        victim.set(&key, bad);
        let verdict = victim.verify(Depth::Presence, true).await;
        let finding = verdict.findings.iter().find(|finding| finding.object == key.as_str());
        let finding = finding.unwrap_or_else(|| panic!("{key} is not named: {verdict:?}"));
        assert_eq!(finding.fault, Fault::Unreadable);
        assert!(finding.snapshots.iter().all(|one| one.items.contains("path/tree")), "{finding:?}");
        assert!(!finding.snapshots.is_empty(), "{finding:?}");
        victim.mend(&key);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manifest_with_wrong_key_place_or_spelling_is_rejected() {
    let victim = Victim::new().await;
    let newest = victim.snapshots[1].clone();
    let (old, good) = (newest.key.clone(), victim.objects[&newest.key].clone());
    victim.bench.store.delete(&old).await.expect("deleted");

    // The same envelope, signed by another key.
    let thief = WriterKey::generate(&victim.bench.runtime);
    let (sealed, _) = newest.envelope().seal(&thief.signing).expect("sealed");
    victim.set(sealed.key(), sealed.bytes().clone());
    let (found, _) = fault(&victim, sealed.key(), Depth::Presence, false).await;
    assert_eq!(found, Some(Fault::Signature));
    victim.bench.store.delete(sealed.key()).await.expect("deleted");

    // Signed by the right writer for another plan, and put here.
    let other = Envelope { plan: victim.bench.key.plan("other"), ..newest.envelope().clone() };
    let (sealed, hash) = other.seal(&victim.bench.key.signing).expect("sealed");
    let here = newest.envelope().path().snapshot(other.seq, hash);
    victim.set(&here, sealed.bytes().clone());
    let (found, _) = fault(&victim, &here, Depth::Presence, false).await;
    assert_eq!(found, Some(Fault::Signature));
    victim.bench.store.delete(&here).await.expect("deleted");

    // The same signature with other white space: another object, which is not signed in this form.
    let text = String::from_utf8(good.to_vec()).expect("text");
    let respelled = Bytes::from(text.replacen("-----END", "\n-----END", 1));
    assert!(SignedDocument::parse(respelled.clone()).is_err());
    let here = newest.envelope().path().snapshot(newest.envelope().seq, ObjectHash::of(&respelled));
    victim.set(&here, respelled);
    let (found, _) = fault(&victim, &here, Depth::Presence, false).await;
    assert_eq!(found, Some(Fault::Signature));
    victim.bench.store.delete(&here).await.expect("deleted");

    // The store shows an older state: only a head kept elsewhere reveals it.
    let verdict = victim.verify(Depth::Presence, false).await;
    let faults: Vec<_> = verdict.findings.iter().map(|finding| finding.fault).collect();
    assert_eq!(faults, [Fault::RolledBack]);

    // A manifest replayed in place of another.
    victim.set(&old, victim.objects[&victim.snapshots[0].key].clone());
    let (found, _) = fault(&victim, &old, Depth::Presence, false).await;
    assert_eq!(found, Some(Fault::Altered));
    victim.mend(&old);
    assert!(victim.named().await.is_empty());
}
