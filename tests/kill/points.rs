//! The kill points, and a test of each.

use std::collections::BTreeSet;
use std::path::Path;

use super::databases::{REPLACE_DATABASES, RESTORE_SERVER};
use super::{Fingerprint, KillFixture, fingerprint, run_until_killed};
use crate::support::cli_repo::as_strs;
use crate::support::program::{at_full_size, beneath, good};

/// In the creation of an epoch: `kbak epoch close` makes a successor.
pub const EPOCH_CREATE: &[&str] =
    &["epoch.secret.kept", "epoch.copy.stored", "epoch.copy.stored:2", "epoch.born"];

/// After the first commit in a new epoch.
pub const EPOCH_FIRST_COMMIT: &[&str] = &["epoch.secret.settling", "epoch.secret.settled"];

/// In a backup, in the order of their first pass.
pub const BACKUP: &[&str] = &[
    "backup.started",
    "backup.epoch.ready",
    "backup.chain.read",
    "backup.run.noted",
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
    "backup.packs.present",
    "backup.needs.stored",
    "backup.body.sealed",
    "backup.body.stored",
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
const REPEATED: &[&str] = &[
    "backup.piece.prepared:3",
    "backup.piece.prepared:7",
    "backup.pack.sealed:2",
    "backup.pack.stored:2",
    "backup.pack.stored:4",
    "store.file.written:3",
    "store.file.placed:5",
    "store.file.written:8",
];

#[test]
fn every_kill_point_in_the_source_is_in_a_table() {
    let mut named = BTreeSet::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for path in beneath(&source).into_iter().filter(|path| path.is_file()) {
        let text = std::fs::read_to_string(path).expect("text");
        let calls = text.split("kill_point(\"").skip(1);
        named.extend(calls.filter_map(|rest| rest.split_once('"').map(|(name, _)| name.to_owned())));
    }
    let of_servers = [RESTORE_SERVER, REPLACE_DATABASES].concat();
    let tables = [EPOCH_CREATE, EPOCH_FIRST_COMMIT, BACKUP, RESTORE, REPEATED, &of_servers].concat();
    let tried: BTreeSet<String> =
        tables.iter().map(|point| point.split(':').next().unwrap_or(point).to_owned()).collect();
    assert_eq!(named, tried);
    assert!(named.len() >= 40, "{} points", named.len());
}

/// Kills a backup at each of `points`, and runs the next one to its end.
fn kill_at_each(points: &[&str]) {
    let fixture = KillFixture::new();
    fixture.backup(None);
    let first = fingerprint(&fixture.cli.at("data"));
    let mut taken: Vec<Fingerprint> = Vec::new();
    for (at, point) in points.iter().enumerate() {
        fixture.change(at as u64);
        fixture.backup(Some(point));
        fixture.assert_snapshot("1", &first, &format!("after a kill at {point}"));
        fixture.backup(None);
        let now = fingerprint(&fixture.cli.at("data"));
        fixture.assert_snapshot("latest", &now, &format!("of the run after a kill at {point}"));
        taken.push(now);
    }
    fixture.verify_all();
    fixture.assert_snapshot("1", &first, "after all kills");
    // A kill after the manifest was stored leaves a snapshot.
    let held = fixture.objects("snapshots");
    assert!(held > points.len(), "{held} snapshots");
}

#[test]
fn backup_recovers_when_killed_at_points_up_to_its_packs() {
    kill_at_each(&BACKUP[..11]);
}

#[test]
fn backup_recovers_when_killed_at_points_up_to_its_cache() {
    kill_at_each(&BACKUP[11..21]);
}

#[test]
fn backup_recovers_when_killed_at_points_of_its_commit() {
    kill_at_each(&BACKUP[21..]);
}

#[test]
fn backup_recovers_when_killed_at_a_repeated_point() {
    kill_at_each(if at_full_size() { REPEATED } else { &REPEATED[..2] });
}

#[test]
fn packs_in_a_stored_index_are_reused_after_a_kill() {
    let fixture = KillFixture::new();
    for at in 0..10 {
        fixture.write(&format!("big{at}"), 500 + at, 9 << 20);
    }
    // Packs of some 2 MiB at the least budget; an index object follows each sixteenth.
    fixture.backup(Some("backup.pack.stored:30"));
    let before = fixture.objects("packs");
    assert!(before >= 29, "{before} packs");
    assert!(fixture.objects("index") >= 1, "no index object before the kill");
    fixture.backup(None);
    let (after, needed) = (fixture.objects("packs"), fixture.needed());
    // Packs that the snapshot does not need were uploaded in vain.
    assert!(after - needed <= 16, "{after} packs after a kill at {before}, {needed} are needed");
    fixture.verify_all();
}

#[test]
fn epoch_creation_recovers_when_killed_at_any_point() {
    let fixture = KillFixture::new();
    fixture.backup(None);
    let first = fingerprint(&fixture.cli.at("data"));
    let writer = fixture.cli.writer_args();
    let close = [&["epoch", "close"], &as_strs(&writer)[..]].concat();
    for (at, point) in EPOCH_CREATE.iter().enumerate() {
        run_until_killed(&close, point);
        fixture.change(at as u64);
        fixture.backup(None);
        fixture.assert_snapshot("1", &first, &format!("after epoch creation was killed at {point}"));
        fixture.assert_snapshot(
            "latest",
            &fingerprint(&fixture.cli.at("data")),
            &format!("after epoch creation was killed at {point}"),
        );
    }
    for (at, point) in EPOCH_FIRST_COMMIT.iter().enumerate() {
        good(&close);
        fixture.change(100 + at as u64);
        fixture.backup(Some(point));
        fixture.backup(None);
        fixture.assert_snapshot(
            "latest",
            &fingerprint(&fixture.cli.at("data")),
            &format!("after a kill at {point}"),
        );
    }
    fixture.verify_all();
}

#[test]
fn restore_resumes_when_killed_at_any_point() {
    let fixture = KillFixture::new();
    fixture.backup(None);
    let truth = fingerprint(&fixture.cli.at("data"));
    for point in RESTORE {
        fixture.restore("latest", "target", Some(point));
        fixture.restore("latest", "target", None);
        assert_eq!(fingerprint(&fixture.cli.at("target")), truth, "after a kill at {point}");
        std::fs::remove_dir_all(fixture.cli.at("target")).expect("removed");
    }
}
