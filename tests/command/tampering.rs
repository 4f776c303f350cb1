//! Objects removed from a store, or put in place of snapshots and what they need: the program
//! reports the snapshots and never takes an older state for the latest.

use std::path::{Path, PathBuf};
use std::process::Command;

use kbak::format::ids::ObjectHash;
use kbak::format::layout::EpochPath;
use kbak::keys::writer_key::WriterKey;

use super::lifecycle::{content, sample_repo};
use super::mistakes::objects;
use crate::support::cli_repo::CliRepo;
use crate::support::program::kbak;

/// Returns a repository with this many snapshots.
fn backed_up(times: usize) -> CliRepo {
    let cli = sample_repo();
    for time in 0..times {
        std::fs::write(cli.at("data/one.txt"), format!("{time}\n")).expect("a file");
        let (code, _, err) = cli.backup(&[]);
        assert_eq!(code, 0, "{err}");
    }
    cli
}

fn verify(cli: &CliRepo, more: &[&str]) -> (i32, String, String) {
    let (repo, pin) = (cli.url(), cli.text("keys/kbak.pub"));
    kbak(&[&["verify", "--repo", &repo, "--signer", &pin], more].concat())
}

fn restore(cli: &CliRepo, which: &[&str]) -> (i32, String, String) {
    cli.run_reader(&[&["restore"], which, &["--to", &cli.text("back")]].concat())
}

/// Removes both copies of the epochs whose path contains `plan`.
fn lose_epochs(cli: &CliRepo, plan: &str) {
    for copy in objects(cli, plan) {
        let text = copy.to_string_lossy();
        // The folder of its epochs, or the name of a copy.
        if copy.is_file() && (text.ends_with("/epoch.json") || text.contains("/epochs/")) {
            std::fs::remove_file(copy).expect("gone");
        }
    }
}

#[test]
fn damaged_item_does_not_prevent_restoring_others() {
    let cli = backed_up(1);
    let packs = objects(&cli, "/packs/");
    let other = cli.text("other");
    std::fs::create_dir(&other).expect("a folder");
    std::fs::write(cli.at("other/two.txt"), "two").expect("a file");
    let (code, _, err) = cli.backup(&["--path", &other]);
    assert_eq!(code, 0, "{err}");
    for pack in packs.iter().filter(|pack| pack.is_file()) {
        let mut bytes = content(pack);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(pack, bytes).expect("damaged");
    }
    let (code, _, err) = restore(&cli, &["latest"]);
    assert_eq!(code, 4, "{err}");
    assert!(
        err.contains(&cli.data_item()) && err.contains("not restored") && err.contains("damaged"),
        "{err}"
    );
    let back = format!("back{}", other);
    assert_eq!(content(&cli.at(&back).join("two.txt")), b"two");
    assert!(!cli.at(&format!("back{}/one.txt", cli.text("data"))).exists());

    let (code, _, err) = cli.run_reader(&["export", "latest", "--to", &cli.text("out")]);
    assert_eq!(code, 4, "{err}");
    assert!(err.contains(&format!("{}.tar", cli.data_item())) && err.contains("were not exported"), "{err}");
    assert!(cli.at(&format!("out/path{other}.tar")).is_file());
    assert!(!cli.at(&format!("out/{}.tar", cli.data_item())).exists());
}

#[test]
fn snapshots_of_lost_epochs_are_reported() {
    let cli = backed_up(2);
    lose_epochs(&cli, "/");
    assert_eq!(verify(&cli, &[]).0, 4);
    for args in [&["latest"][..], &["2"]] {
        let (code, _, err) = restore(&cli, args);
        assert_eq!(code, 4, "{args:?}: {err}");
        assert!(err.contains("2 snapshots lie there, up to 000002") && err.contains("bring back"), "{err}");
        assert!(!cli.at("back").exists(), "{args:?}");
    }
    let (code, out, err) = cli.run_reader(&["snapshots"]);
    assert_eq!(code, 4, "{err}");
    assert!(err.contains("the snapshots of 1 plan are stored, and none of them can be read"), "{err}");
    assert!(err.contains("2 snapshots lie there") && !(out + &err).contains("no snapshots yet"), "{err}");
    let (code, out, err) = cli.run_reader(&["snapshots", "-o", "json"]);
    assert_eq!((code, out.trim()), (4, "[]"), "{err}");
    let (code, _, err) = cli.run_reader(&["keys", "list"]);
    assert!(code == 4 && err.contains("2 snapshots lie there"), "{err}");
}

#[test]
fn unreadable_plan_is_not_skipped_by_latest() {
    let cli = backed_up(1);
    let before = objects(&cli, "/snapshots/");
    let (code, _, err) = cli.backup(&["--plan-name", "other"]);
    assert_eq!(code, 0, "{err}");
    let of = |path: &PathBuf| {
        let inner = path.strip_prefix(cli.at("store")).expect("beneath it");
        inner.iter().nth(1).expect("a plan").to_str().expect("UTF-8").to_owned()
    };
    let sound = of(before.last().expect("a snapshot"));
    let lost = objects(&cli, "/snapshots/").iter().map(of).find(|plan| *plan != sound).expect("another");
    lose_epochs(&cli, &lost);
    let (code, _, err) = restore(&cli, &["latest"]);
    assert_eq!(code, 4, "{err}");
    assert!(err.contains(&lost) && err.contains(&format!("--plan-id {sound}")), "{err}");
    assert!(!cli.at("back").exists());
    let (code, out, err) = cli.run_reader(&["snapshots"]);
    assert!(code == 4 && out.contains(&sound) && err.contains(&lost), "{out}{err}");
    let (code, _, err) = restore(&cli, &["latest", "--plan-id", &sound]);
    assert_eq!(code, 0, "{err}");
}

#[test]
fn missing_marker_beside_snapshots_is_damage() {
    let cli = backed_up(1);
    let marker = cli.at("store/kbak.json");
    let bytes = content(&marker);
    std::fs::remove_file(&marker).expect("gone");
    assert_eq!(verify(&cli, &[]).0, 4);
    for args in [&["restore", "--dry-run"][..], &["snapshots"]] {
        let (code, _, err) = cli.run_reader(args);
        assert_eq!(code, 4, "{args:?}: {err}");
        assert!(err.contains("kbak.json is gone from") && err.contains("put it there again"), "{err}");
    }
    std::fs::write(&marker, bytes).expect("a file");
    assert_eq!(cli.run_reader(&["snapshots"]).0, 0);
    // An empty folder without the pinned writer's objects is no damaged repository.
    std::fs::create_dir(cli.at("empty")).expect("a folder");
    let (repo, pin) = (format!("file://{}", cli.text("empty")), cli.text("keys/kbak.pub"));
    let (code, _, err) = kbak(&["snapshots", "--repo", &repo, "--signer", &pin]);
    assert_eq!(code, 2, "{err}");
}

/// Copies a snapshot to another number, with a key that the writer signed.
fn copy_as(cli: &CliRepo, snapshot: &Path, number: u64) -> PathBuf {
    let (writer, _) = WriterKey::read(&cli.at("keys/writer.key")).expect("the writer's key");
    let inner = snapshot.strip_prefix(cli.at("store")).expect("beneath it").to_str().expect("UTF-8");
    let [of, plan, epoch, ..] = inner.split('/').collect::<Vec<_>>()[..] else { panic!("{inner}") };
    let path = EpochPath {
        writer: of.parse().expect("an id"),
        plan: plan.parse().expect("an id"),
        epoch: epoch.parse().expect("an id"),
    };
    let key = path.snapshot(number, ObjectHash::of(&content(snapshot)));
    let copy = cli.at("store").join(writer.signing.sign_key(key).expect("signed").as_str());
    std::fs::copy(snapshot, &copy).expect("copied");
    copy
}

#[test]
fn backup_warns_of_an_object_that_blocks_latest() {
    let cli = backed_up(2);
    let second = objects(&cli, "/snapshots/").pop().expect("a snapshot");
    let junk = copy_as(&cli, &second, 9);
    let (code, _, err) = cli.backup(&[]);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("restores of latest are refused") && err.contains("remove it"), "{err}");
    let (code, _, err) = restore(&cli, &["latest"]);
    assert!(code == 4 && err.contains("say 3 instead of latest"), "{err}");
    std::fs::remove_file(&junk).expect("gone");
    let (code, _, err) = restore(&cli, &["latest"]);
    assert_eq!(code, 0, "{err}");

    // An object that the next snapshot supersedes blocks nothing.
    copy_as(&cli, &second, 4);
    let (code, _, err) = cli.backup(&[]);
    assert!(code == 0 && err.contains("no snapshot of this writer") && !err.contains("refused"), "{err}");
    let (code, _, err) = cli.run_reader(&["restore", "latest", "--dry-run"]);
    assert_eq!(code, 0, "{err}");
}

/// Puts something that is no file in place of an object.
fn replace(path: &Path, with: &str) {
    std::fs::remove_file(path).expect("gone");
    match with {
        "link" => std::os::unix::fs::symlink("/etc/passwd", path).expect("a link"),
        "pipe" => assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success()),
        _ => std::fs::create_dir(path).expect("a folder"),
    }
}

#[test]
fn non_file_in_place_of_a_snapshot_is_damage() {
    for with in ["link", "pipe", "folder"] {
        let cli = backed_up(3);
        let newest = objects(&cli, "/snapshots/").pop().expect("a snapshot");
        let name = newest.file_name().expect("a name").to_str().expect("UTF-8").to_owned();
        replace(&newest, with);
        for more in [&[][..], &["--read-all"], &["--identity", &cli.text("keys/owner.key")]] {
            let (code, out, err) = verify(&cli, more);
            assert_eq!(code, 4, "{with} {more:?}: {out}{err}");
            assert!(out.contains(&name) && out.contains("not a regular file"), "{with} {more:?}: {out}");
        }
        let (code, _, err) = restore(&cli, &["latest"]);
        assert_eq!(code, 4, "{with}: {err}");
        assert!(err.contains(&name) && err.contains("say 2 instead of latest"), "{with}: {err}");
        let (code, _, err) = cli.backup(&[]);
        assert!(code == 0 && err.contains(&name) && err.contains("not a regular file"), "{with}: {err}");
        let (code, _, err) = restore(&cli, &["2"]);
        assert_eq!(code, 0, "{with}: {err}");
    }
}

/// Returns the exit code for one bad object: it counts, unless it is a hint that the newest snapshot does not name.
fn expected(key: &str, out: &str) -> i32 {
    let is_hint = ["/index/", "/cache/", "/state/"].iter().any(|folder| key.contains(folder));
    if is_hint && out.contains("the newest snapshot does not name it") { 0 } else { 4 }
}

#[test]
fn non_file_in_place_of_any_object_is_reported() {
    let cli = backed_up(2);
    for object in objects(&cli, "/").into_iter().filter(|path| path.is_file()) {
        let key =
            object.strip_prefix(cli.at("store")).expect("beneath it").to_str().expect("UTF-8").to_owned();
        // Remains of a probe belong to no snapshot.
        if key.contains("/probe/") {
            continue;
        }
        let bytes = content(&object);
        for with in ["link", "pipe", "folder"] {
            replace(&object, with);
            let (code, out, err) = verify(&cli, &[]);
            assert!(
                code == expected(&key, &out) && out.contains(&key),
                "{key} as a {with}: {code} {out}{err}"
            );
            assert!(!key.contains("epoch") || out.contains("not a regular file"), "{key} as a {with}: {out}");
            if with == "folder" {
                std::fs::remove_dir(&object).expect("gone");
            } else {
                std::fs::remove_file(&object).expect("gone");
            }
            std::fs::write(&object, &bytes).expect("restored");
        }
    }
    assert_eq!(verify(&cli, &[]).0, 0);
}

#[test]
fn oversized_object_is_reported_without_being_read() {
    let cli = backed_up(1);
    for folder in ["/index/", "/cache/", "/state/", "/packs/", "/bodies/", "/needs/"] {
        let object = objects(&cli, folder).into_iter().find(|path| path.is_file()).expect("an object");
        let bytes = content(&object);
        let file = std::fs::File::options().write(true).open(&object).expect("the object");
        // Too large to be read within a test.
        file.set_len(1 << 43).expect("a long file");
        let (code, out, err) = verify(&cli, &["--read-all"]);
        let name = object.file_name().expect("a name").to_str().expect("UTF-8");
        assert!(code == expected(folder, &out) && out.contains(name), "{folder}: {code} {out}{err}");
        std::fs::remove_file(&object).expect("gone");
        std::fs::write(&object, bytes).expect("restored");
    }
}
