//! The kill points, and a test of each.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Fingerprint, Scene, fingerprint, killed};
use crate::support::desk::texts;
use crate::support::program::{beneath, good};

/// In the creation of an epoch: `kbak epoch close` makes a successor.
const BIRTH: &[&str] = &["epoch.secret.kept", "epoch.copy.stored", "epoch.copy.stored:2", "epoch.born"];

/// After the first commit in a new epoch.
const SETTLING: &[&str] = &["epoch.secret.settling", "epoch.secret.settled"];

/// In a backup, in the order of their first pass.
const BACKUP: &[&str] = &[
    "backup.started",
    "backup.epoch.ready",
    "backup.chain.read",
    "backup.state.read",
    "backup.index.loaded",
    "backup.item.started",
    "backup.piece.prepared",
    "backup.pack.sealed",
    "store.file.written",
    "store.file.placed",
    "backup.pack.stored",
    "backup.list.written",
    "backup.catalog.written",
    "backup.cache.group.stored",
    "backup.item.read",
    "backup.lists.settled",
    "backup.index.sealed",
    "backup.index.stored",
    "backup.domain.stored",
    "backup.cache.sealed",
    "backup.cache.stored",
    "backup.domain.closed",
    "backup.commit.begun",
    "backup.state.stored",
    "backup.needs.stored",
    "backup.body.sealed",
    "backup.body.stored",
    "backup.packs.present",
    "backup.manifest.sealed",
    "backup.manifest.stored",
    "backup.committed",
];

/// In a restore of a folder.
const RESTORE: &[&str] = &[
    "restore.target.opened",
    "restore.directory.made",
    "restore.directory.made:3",
    "restore.file.created",
    "restore.file.part.written",
    "restore.file.complete",
    "restore.file.complete:20",
    "restore.file.placed",
    "restore.file.placed:30",
    "restore.files.placed",
    "restore.link.made",
    "restore.links.made",
    "restore.directory.finished",
    "restore.synced",
];

/// Later passes of points that are passed often.
const AGAIN: &[&str] = &[
    "backup.piece.prepared:3",
    "backup.piece.prepared:7",
    "backup.pack.sealed:2",
    "backup.pack.stored:2",
    "backup.pack.stored:4",
    "store.file.written:3",
    "store.file.placed:5",
    "store.file.written:8",
];

fn full() -> bool {
    std::env::var("KBAK_TEST_SIZE").is_ok_and(|size| size == "full")
}

#[test]
fn every_kill_point_in_the_source_is_in_a_table() {
    let mut named = BTreeSet::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for path in beneath(&source).into_iter().filter(|path| path.is_file()) {
        let text = std::fs::read_to_string(path).expect("text");
        let calls = text.split("kill_point(\"").skip(1);
        named.extend(calls.filter_map(|rest| rest.split_once('"').map(|(name, _)| name.to_owned())));
    }
    let tables = [BIRTH, SETTLING, BACKUP, RESTORE, AGAIN].concat();
    let tried: BTreeSet<String> =
        tables.iter().map(|point| point.split(':').next().unwrap_or(point).to_owned()).collect();
    assert_eq!(named, tried);
    assert!(named.len() >= 40, "{} points", named.len());
}

/// Kills a backup at each of `points`, and runs the next one to its end.
fn deaths(points: &[&str]) {
    let scene = Scene::new();
    scene.backup(None);
    let first = fingerprint(&scene.desk.at("data"));
    let mut taken: Vec<Fingerprint> = Vec::new();
    for (at, point) in points.iter().enumerate() {
        scene.change(at as u64);
        scene.backup(Some(point));
        scene.holds("1", &first, &format!("after a death at {point}"));
        scene.backup(None);
        let now = fingerprint(&scene.desk.at("data"));
        scene.holds("latest", &now, &format!("of the run after a death at {point}"));
        taken.push(now);
    }
    scene.sound();
    scene.holds("1", &first, "after all deaths");
    // A kill after the manifest was stored leaves a snapshot.
    let held = scene.objects("snapshots");
    assert!(held > points.len(), "{held} snapshots");
}

#[test]
fn backup_recovers_when_killed_at_points_up_to_its_packs() {
    deaths(&BACKUP[..11]);
}

#[test]
fn backup_recovers_when_killed_at_points_up_to_its_cache() {
    deaths(&BACKUP[11..21]);
}

#[test]
fn backup_recovers_when_killed_at_points_of_its_commit() {
    deaths(&BACKUP[21..]);
}

#[test]
fn backup_recovers_when_killed_at_a_repeated_point() {
    deaths(if full() { AGAIN } else { &AGAIN[..2] });
}

#[test]
fn packs_in_a_stored_index_are_reused_after_a_kill() {
    let scene = Scene::new();
    for at in 0..10 {
        scene.write(&format!("big{at}"), 500 + at, 9 << 20);
    }
    // Packs of some 2 MiB at the least budget; an index object follows each sixteenth.
    scene.backup(Some("backup.pack.stored:30"));
    let before = scene.objects("packs");
    assert!(before >= 29, "{before} packs");
    assert!(scene.objects("index") >= 1, "no index object before the death");
    scene.backup(None);
    let (after, needed) = (scene.objects("packs"), scene.needed());
    // Packs that the snapshot does not need were uploaded in vain.
    assert!(after - needed <= 16, "{after} packs after a death at {before}, {needed} are needed");
    scene.sound();
}

#[test]
fn epoch_creation_recovers_when_killed_at_any_point() {
    let scene = Scene::new();
    scene.backup(None);
    let first = fingerprint(&scene.desk.at("data"));
    let writer = scene.desk.writer();
    let close = [&["epoch", "close"], &texts(&writer)[..]].concat();
    for (at, point) in BIRTH.iter().enumerate() {
        killed(&close, point);
        scene.change(at as u64);
        scene.backup(None);
        scene.holds("1", &first, &format!("after a birth died at {point}"));
        scene.holds(
            "latest",
            &fingerprint(&scene.desk.at("data")),
            &format!("after a birth died at {point}"),
        );
    }
    for (at, point) in SETTLING.iter().enumerate() {
        good(&close);
        scene.change(100 + at as u64);
        scene.backup(Some(point));
        scene.backup(None);
        scene.holds("latest", &fingerprint(&scene.desk.at("data")), &format!("after a death at {point}"));
    }
    scene.sound();
}

#[test]
fn restore_resumes_when_killed_at_any_point() {
    let scene = Scene::new();
    scene.backup(None);
    let truth = fingerprint(&scene.desk.at("data"));
    for point in RESTORE {
        scene.restore("latest", "target", Some(point));
        scene.restore("latest", "target", None);
        assert_eq!(fingerprint(&scene.desk.at("target")), truth, "after a death at {point}");
        std::fs::remove_dir_all(scene.desk.at("target")).expect("removed");
    }
}
