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

use super::DamagedRepo;

/// Returns the fault that verify reports of `key`, and the other objects that it reports.
async fn fault(
    damaged: &DamagedRepo,
    key: &ObjectKey,
    depth: Depth,
    open: bool,
) -> (Option<Fault>, Vec<String>) {
    let verdict = damaged.verify(depth, open).await;
    // A copy of an epoch that is gone is named without its signature, which nobody knows any more.
    let unsigned = key.as_str().rsplit_once('-').map(|(unsigned, _)| unsigned);
    let is_this = |object: &str| object == key.as_str() || Some(object) == unsigned;
    let (this, others): (Vec<_>, Vec<_>) =
        verdict.findings.into_iter().partition(|finding| is_this(&finding.object));
    let others = others.into_iter().map(|finding| finding.object).collect();
    (this.first().map(|finding| finding.fault), others)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncated_and_missing_objects_are_reported() {
    let damaged = DamagedRepo::new().await;
    for (key, good) in &damaged.objects {
        for left in [0, 1, good.len() / 2, good.len() - 1] {
            damaged.set(key, good.slice(..left));
            assert_eq!(damaged.reported_objects().await, [key.as_str()], "{key} cut to {left} bytes");
            damaged.assert_no_damaged_bytes(&format!("{key} cut to {left} bytes"), false).await;
        }
        damaged.repo.store.delete(key).await.expect("deleted");
        let (found, others) = fault(&damaged, key, Depth::Presence, false).await;
        let named = key.as_str();
        if named.contains("/snapshots/") {
            // Only the head that was kept elsewhere shows that the newest existed; an older
            // snapshot is missed by its child.
            assert_eq!((found, others.len()), (None, 1), "{key} is gone: {others:?}");
        } else if named.contains("/cache/") && found.is_none() {
            // A group of a scan cache: only its root is named in the public envelope.
            let (_, others) = fault(&damaged, key, Depth::Presence, true).await;
            assert_eq!(others.len(), 1, "{key} is gone: {others:?}");
        } else {
            assert_eq!((found, others), (Some(Fault::Missing), Vec::new()), "{key} is gone");
        }
        damaged.repair(key);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pack_of_wrong_size_is_reported_without_reading_it() {
    let damaged = DamagedRepo::new().await;
    for key in damaged.keys("/packs/") {
        damaged.set(&key, [damaged.objects[&key].as_ref(), b"x"].concat());
        let (found, others) = fault(&damaged, &key, Depth::Presence, false).await;
        assert_eq!((found, others), (Some(Fault::Size), Vec::new()));
        damaged.repair(&key);
    }
}

/// Returns the size limit at which a reader stopped.
fn limit(error: &StoreError) -> Option<u64> {
    match error.kind {
        StoreErrorKind::TooLarge { limit } => Some(limit),
        _ => None,
    }
}

async fn open(damaged: &DamagedRepo) -> Result<OpenSnapshot, SnapshotError> {
    damaged.open(&damaged.snapshots[0]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_stop_at_the_signed_size() {
    let damaged = DamagedRepo::new().await;
    let lengthen = |key: &ObjectKey| damaged.set(key, [b"x", damaged.objects[key].as_ref()].concat());
    let envelope = damaged.snapshots[0].envelope();
    let body = envelope.path().body(envelope.body);
    lengthen(&body);
    match open(&damaged).await {
        Err(SnapshotError::Store(error)) => assert_eq!(limit(&error), Some(envelope.body_size)),
        other => panic!("{:?}", other.err()),
    }
    damaged.repair(&body);

    let opened = open(&damaged).await.expect("an open snapshot");
    let stream = opened.body().items[0].streams[0].clone();
    let mut limits = 0;
    for key in damaged.keys("/packs/") {
        lengthen(&key);
        // Fresh readers that have read nothing yet.
        let opened = open(&damaged).await.expect("an open snapshot");
        let mut pieces = opened.read(&stream).expect("a reader").range(0..stream.length);
        while let Some(piece) = pieces.next().await {
            if let Err(ReadError::Store(error)) = piece {
                assert_eq!(limit(&error), Some(damaged.objects[&key].len() as u64));
                limits += 1;
            }
        }
        damaged.repair(&key);
    }
    assert!(limits > 0, "no pack was read whole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreferenced_objects_displace_no_finding() {
    let damaged = DamagedRepo::new().await;
    let pack = damaged.keys("/packs/").pop().expect("a pack");
    // Packs are stored in folders by the beginning of their names.
    let mut steps = pack.as_str().rsplitn(3, '/').skip(1);
    let (start, packs) = (steps.next().expect("a folder"), steps.next().expect("a folder"));
    let folder = format!("{packs}/{}", "0".repeat(start.len()));
    let planted = MAX_FINDINGS as u64 + 7;
    for at in 0..planted {
        let key = ObjectKey::parse(&format!("{folder}/{at:064x}")).expect("a key");
        damaged.set(&key, &b"x"[..]);
    }
    let rubbish = damaged.verify(Depth::All, false).await;
    assert_eq!((rubbish.outcome().code(), rubbish.findings.len()), (0, MAX_FINDINGS));
    assert_eq!(rubbish.orphans_left_out, 7);
    let mut bad = damaged.objects[&pack].to_vec();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    damaged.set(&pack, bad);
    // With an identity, the pack is opened after all others have been hashed.
    for open in [false, true] {
        let verdict = damaged.verify(Depth::All, open).await;
        let found: Vec<_> = verdict.findings.iter().filter(|one| one.object == pack.as_str()).collect();
        assert!(matches!(found.as_slice(), [one] if !one.snapshots.is_empty()), "{found:?}");
        assert_eq!(verdict.findings.len(), MAX_FINDINGS);
        assert_eq!(verdict.findings_left_out, planted + 1 - MAX_FINDINGS as u64);
        assert_eq!((verdict.outcome().code(), verdict.orphans_left_out), (4, verdict.findings_left_out));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exchanged_objects_are_reported() {
    let damaged = DamagedRepo::new().await;
    for part in ["/packs/", "/snapshots/", "/bodies/", "/needs/", "/state/"] {
        let keys = damaged.keys(part);
        let [a, b, ..] = keys.as_slice() else { continue };
        damaged.set(a, damaged.objects[b].clone());
        damaged.set(b, damaged.objects[a].clone());
        assert_eq!(damaged.reported_objects().await, [a.as_str(), b.as_str()], "{part}");
        // The chunks of exchanged packs are found by the packs' own tables.
        damaged.assert_no_damaged_bytes(&format!("{part} exchanged"), false).await;
        damaged.repair(a);
        damaged.repair(b);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_with_an_identity_names_the_damaged_items() {
    let damaged = DamagedRepo::new().await;
    for key in damaged.keys("/packs/") {
        let mut bad = damaged.objects[&key].to_vec();
        let middle = bad.len() / 2;
        bad[middle] ^= 4;
        damaged.set(&key, bad);
        let verdict = damaged.verify(Depth::Presence, true).await;
        let finding = verdict.findings.iter().find(|finding| finding.object == key.as_str());
        let finding = finding.unwrap_or_else(|| panic!("{key} is not named: {verdict:?}"));
        assert_eq!(finding.fault, Fault::Unreadable);
        assert!(finding.snapshots.iter().all(|one| one.items.contains("path/tree")), "{finding:?}");
        assert!(!finding.snapshots.is_empty(), "{finding:?}");
        damaged.repair(&key);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manifest_with_wrong_key_place_or_spelling_is_rejected() {
    let damaged = DamagedRepo::new().await;
    let newest = damaged.snapshots[1].clone();
    let (old, good) = (newest.key.clone(), damaged.objects[&newest.key].clone());
    damaged.repo.store.delete(&old).await.expect("deleted");

    // The same envelope, signed by another key: it is nobody's, whatever it holds.
    let thief = WriterKey::generate(&damaged.repo.runtime);
    let (foreign, _) = newest.envelope().seal(&thief.signing).expect("sealed");
    damaged.set(foreign.key(), foreign.bytes().clone());
    let verdict = damaged.verify(Depth::Presence, false).await;
    assert!(!verdict.findings.iter().any(|finding| finding.object == foreign.key().as_str()));
    let ignored = verdict.not_checked.iter().find(|what| what.contains("no pinned key signed"));
    assert!(ignored.is_some_and(|what| what.contains(foreign.key().as_str())), "{:?}", verdict.not_checked);
    damaged.repo.store.delete(foreign.key()).await.expect("deleted");

    let signing = &damaged.repo.key.signing;
    let here = |seq, hash| signing.sign_key(newest.envelope().path().snapshot(seq, hash)).expect("a key");
    // Signed by the right writer for another plan, and put here.
    let other = Envelope { plan: damaged.repo.key.plan("other"), ..newest.envelope().clone() };
    let (sealed, hash) = other.seal(signing).expect("sealed");
    // The same signature with other white space: another object, which is not signed in this form.
    let text = String::from_utf8(good.to_vec()).expect("text");
    let respelled = Bytes::from(text.replacen("-----END", "\n-----END", 1));
    assert!(SignedDocument::parse(respelled.clone()).is_err());
    let respelled_key = here(newest.envelope().seq, ObjectHash::of(&respelled));
    for (key, bytes) in [
        (here(other.seq, hash), sealed.bytes().clone()),
        (respelled_key, respelled),
        (here(newest.envelope().seq, newest.manifest.hash()), foreign.bytes().clone()),
    ] {
        damaged.set(&key, bytes);
        let (found, _) = fault(&damaged, &key, Depth::Presence, false).await;
        assert!(matches!(found, Some(Fault::Signature | Fault::Altered)), "{found:?}");
        damaged.repo.store.delete(&key).await.expect("deleted");
    }

    // The store shows an older state: only a head kept elsewhere reveals it.
    let verdict = damaged.verify(Depth::Presence, false).await;
    let faults: Vec<_> = verdict.findings.iter().map(|finding| finding.fault).collect();
    assert_eq!(faults, [Fault::RolledBack]);

    // A manifest replayed in place of another.
    damaged.set(&old, damaged.objects[&damaged.snapshots[0].key].clone());
    let (found, _) = fault(&damaged, &old, Depth::Presence, false).await;
    assert_eq!(found, Some(Fault::Altered));
    damaged.repair(&old);
    assert!(damaged.reported_objects().await.is_empty());
}
