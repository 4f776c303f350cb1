//! Users' mistakes and attacks on a store: the program never reports a false success.

use std::path::{Path, PathBuf};

use super::lifecycle::{content, json, sample_repo};
use crate::support::cli_repo::CliRepo;
use crate::support::program::{beneath, command, kbak, read};

/// Returns objects of a store whose path contains `part`, sorted.
pub fn objects(cli: &CliRepo, part: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        beneath(&cli.at("store")).into_iter().filter(|path| path.to_string_lossy().contains(part)).collect();
    found.sort();
    found
}

fn truncate(path: &Path) {
    let bytes = content(path);
    std::fs::write(path, &bytes[..bytes.len() / 2]).expect("a file");
}

#[test]
fn verify_without_a_verified_snapshot_is_no_success() {
    let cli = sample_repo();
    let verify = |more: &[&str]| {
        let (repo, pin) = (cli.url(), cli.text("keys/kbak.pub"));
        kbak(&[&["verify", "--repo", &repo, "--signer", &pin], more].concat())
    };
    let (code, _, err) = verify(&[]);
    assert_eq!(code, 3, "no backup has been made: {err}");
    assert!(err.contains("no snapshot is stored"), "{err}");
    let (code, _, err) = cli.backup(&[]);
    assert_eq!(code, 0, "{err}");
    let (code, _, err) = verify(&[]);
    assert_eq!(code, 0, "{err}");
    for which in [["--plan-id", "ffff"], ["--writer", "ffff"]] {
        let (code, _, err) = verify(&which);
        assert_eq!(code, 2, "{which:?}: {err}");
    }
    let other = CliRepo::new();
    let (code, _, err) = kbak(&["verify", "--repo", &cli.url(), "--signer", &other.text("keys/kbak.pub")]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("no writer in") && err.contains("is pinned"), "{err}");

    for manifest in objects(&cli, "/snapshots/") {
        std::fs::remove_file(manifest).expect("gone");
    }
    assert_eq!(verify(&["--read-all"]).0, 3, "all snapshots are gone");
    for entry in std::fs::read_dir(cli.at("store")).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            std::fs::remove_dir_all(path).expect("gone");
        }
    }
    let (code, _, err) = verify(&[]);
    assert_eq!(code, 4, "all is gone but kbak.json: {err}");
}

#[test]
fn damaged_newest_snapshot_is_not_replaced_by_an_older_one() {
    let cli = sample_repo();
    for text in ["two\n", "three\n"] {
        let (code, _, err) = cli.backup(&[]);
        assert_eq!(code, 0, "{err}");
        std::fs::write(cli.at("data/one.txt"), text).expect("a file");
    }
    let marks = || {
        let (code, out, err) = cli.run_reader(&["snapshots"]);
        assert_eq!(code, 0, "{err}");
        out.lines().skip(1).map(|line| line.rsplit(' ').next() == Some("latest")).collect::<Vec<bool>>()
    };
    assert_eq!(marks(), [false, true]);
    truncate(objects(&cli, "/snapshots/").last().expect("a manifest"));
    assert_eq!(marks(), [false], "what latest refuses is not marked");
    let (code, _, err) = cli.run_reader(&["restore", "latest", "--to", &cli.text("back")]);
    assert_eq!(code, 4, "{err}");
    assert!(err.contains("something newer lies there") && err.contains("say 1 instead"), "{err}");
    assert!(!cli.at("back").exists());
    let (code, _, err) = cli.run_reader(&["cat", "1", &format!("{}:one.txt", cli.data_item())]);
    assert_eq!(code, 0, "{err}");
}

#[test]
fn damaged_epoch_hides_no_snapshot() {
    let cli = sample_repo();
    let (code, _, err) = cli.backup(&[]);
    assert_eq!(code, 0, "{err}");
    let before = objects(&cli, "epoch.json");
    let (code, _, err) = cli.backup(&["--new-epoch"]);
    assert_eq!(code, 0, "{err}");
    let new = objects(&cli, "epoch.json").into_iter().find(|path| !before.contains(path)).expect("an epoch");
    let id = new.parent().and_then(Path::file_name).expect("a name").to_string_lossy().into_owned();
    truncate(&new);
    truncate(
        &objects(&cli, "/epochs/")
            .into_iter()
            .find(|path| path.to_string_lossy().contains(&id))
            .expect("one"),
    );
    let (code, _, err) = cli.run_reader(&["restore", "latest", "--to", &cli.text("back")]);
    assert_eq!(code, 4, "{err}");
    assert!(err.contains(&id) && !cli.at("back").exists(), "{err}");
    let (code, _, err) = cli.run_reader(&["snapshots"]);
    assert!(code == 0 && err.contains(&id), "a listing says what it cannot list: {err}");
    let (code, _, err) = cli.backup(&[]);
    assert_eq!(code, 4, "{err}");
    assert!(err.contains(&id) && err.contains("--new-epoch"), "{err}");
}

#[test]
fn writer_refuses_a_repository_it_never_wrote_to() {
    let (cli, other) = (sample_repo(), sample_repo());
    let (code, _, err) = cli.backup(&[]);
    assert_eq!(code, 0, "{err}");
    let secret = content(&cli.at("keys/writer.key.epoch"));
    std::fs::create_dir(cli.at("empty")).expect("a folder");
    std::fs::write(cli.at("empty/kbak.json"), "{\"kbak\":1}").expect("a file");
    for repo in [other.url(), format!("file://{}", cli.text("empty")), format!("file://{}", cli.text("none"))]
    {
        let (code, _, err) = kbak(&[
            "backup",
            "--repo",
            &repo,
            "--writer-key",
            &cli.text("keys/writer.key"),
            "--recipient",
            &cli.recipient,
            "--path",
            &cli.text("data"),
        ]);
        assert_eq!(code, 2, "{repo}: {err}");
        assert!(err.contains("is this the right repository") || err.contains("does not exist"), "{err}");
    }
    assert_eq!(content(&cli.at("keys/writer.key.epoch")), secret);
    assert_eq!(cli.backup(&[]).0, 0);
}

#[test]
fn private_key_argument_is_refused_and_not_repeated() {
    let ssh = "-----BEGIN OPENSSH PRIVATE KEY-----\ncanary7391\n-----END OPENSSH PRIVATE KEY-----";
    let age = "AGE-SECRET-KEY-1CANARY7391";
    for args in [
        ["init", "--repo", "file:///nowhere", "--recipient", ssh],
        ["keys", "add", "--repo", "file:///nowhere", &format!("--owner={ssh}")],
        ["show", "--repo", "file:///nowhere", "--identity", age],
        ["backup", "--repo", "file:///nowhere", "--plan-name", age],
        ["restore", "--repo", "file:///nowhere", "--", &age.to_lowercase()],
    ] {
        let (code, out, err) = kbak(&args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
        assert!(!err.to_lowercase().contains("canary") && err.contains("→"), "{err}");
    }
}

#[test]
fn shrunken_and_mounted_items_are_reported() {
    let cli = sample_repo();
    let (code, _, err) = cli.backup(&[]);
    assert_eq!(code, 0, "{err}");
    std::fs::remove_file(cli.at("data/holes")).expect("gone");
    std::fs::write(cli.at("data/one.txt"), vec![b'x'; 200_000]).expect("a file");
    let (_, out, _) = cli.backup(&["-o", "json"]);
    assert_eq!(json(&out)["items"][0]["state"], "good");
    std::fs::remove_file(cli.at("data/one.txt")).expect("gone");
    let (code, out, err) = cli.backup(&["-o", "json"]);
    assert_eq!((code, json(&out)["items"][0]["state"].as_str()), (3, Some("anomalous")), "{err}");
    assert!(err.contains("is its source whole?"), "{err}");
    let (_, rows, _) = cli.run_reader(&["snapshots", "-o", "json"]);
    assert_eq!(json(&rows)[2]["safe"], 0, "{rows}");
    assert_eq!(json(&out)["last_success"], json(&rows)[1]["finished"], "{out}");
    let to = cli.text("back");
    let (code, _, err) = cli.run_reader(&["restore", "--to", &to]);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("less than half of its last good copy"), "{err}");
    std::fs::remove_dir_all(cli.at("data")).expect("gone");
    std::fs::create_dir(cli.at("data")).expect("an empty mount point");
    let (code, _, err) = cli.backup(&[]);
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("accept the gap anomalous"), "{err}");

    let socket = std::os::unix::net::UnixListener::bind(cli.at("data/socket")).expect("a socket");
    let (_, out, _) = cli.backup(&["-o", "json"]);
    drop(socket);
    let summary = json(&out)["items"][0]["summary"].as_str().expect("a summary").to_owned();
    assert!(summary.ends_with("; left out: 1 socket"), "{summary}");
}

#[test]
fn accepted_shrunken_item_becomes_the_new_baseline() {
    let cli = CliRepo::for_plan("nightly");
    let (data, item) = (cli.text("data"), cli.data_item());
    let backup = |more: &str| {
        let plan = cli.write_plan(&format!("  volumes: [{{path: \"{data}\"}}]\n{more}"));
        let (code, report, said) = crate::support::program::run_json(&["backup", "--plan", &plan]);
        (code, report["items"][0]["state"].as_str().map(str::to_owned), said)
    };
    let outcome = |code: i32, state: &str| (code, Some(state.to_owned()));
    let holds = |bytes: usize, more: &str, wanted| {
        std::fs::write(cli.at("data/one.txt"), vec![b'x'; bytes]).expect("a file");
        let (code, state, said) = backup(more);
        assert_eq!((code, state), wanted, "{said}");
    };
    holds(200_000, "", outcome(0, "good"));
    holds(10, "", outcome(3, "anomalous"));
    let until = |day: &str| {
        format!("  accept: [{{item: \"{item}\", gap: anomalous, reason: moved away, until: {day}}}]\n")
    };
    holds(10, &until("2020-01-01"), outcome(3, "anomalous"));
    holds(10, &until("2099-01-01"), outcome(0, "good"));
    holds(10, "", outcome(0, "good"));
}

#[test]
fn identity_file_readable_by_others_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let cli = sample_repo();
    let key = cli.at("keys/owner.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("a mode");
    let (code, _, err) = cli.run_reader(&["keys", "check"]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("owner.key") && err.contains("chmod"), "{err}");
}

#[test]
fn concurrent_runs_make_two_heads_that_verify_lists() {
    let cli = sample_repo();
    let backup = || {
        let (code, _, err) = cli.backup(&[]);
        assert_eq!(code, 0, "{err}");
    };
    let heads = || {
        let pin = cli.text("keys/kbak.pub");
        let (code, out, err) = kbak(&["verify", "--repo", &cli.url(), "--signer", &pin, "-o", "json"]);
        assert_eq!(code, 0, "{err}");
        json(&out)["heads"].as_array().expect("heads").len()
    };
    let before = cli.at("before");
    backup();
    copy(&cli.at("store"), &before);
    // The writer's memory, too, must not contain the other run's commit.
    let memory = content(&cli.at("keys/writer.key.epoch"));
    backup();
    // The other run saw the store as it was before the first run; in the end both snapshots are there.
    let first = cli.at("first");
    std::fs::rename(cli.at("store"), &first).expect("moved");
    std::fs::rename(&before, cli.at("store")).expect("moved");
    std::fs::write(cli.at("data/one.txt"), "another\n").expect("a file");
    std::fs::write(cli.at("keys/writer.key.epoch"), memory).expect("its memory");
    backup();
    assert_eq!(heads(), 1);
    copy(&first, &cli.at("store"));
    assert_eq!(heads(), 2);
    backup();
    assert_eq!(heads(), 1, "the next run merges them");
}

#[test]
fn plan_is_read_by_its_bare_file_name() {
    let cli = CliRepo::for_plan("nightly");
    cli.write_plan("  volumes: [{path: data}]\n".replace("data", &cli.text("data")).as_str());
    for verb in ["check", "backup"] {
        let run = command(&[verb, "--plan", "plan.yaml"]).current_dir(cli.at("")).output();
        let (code, _, err) = read(run.expect("the program runs"));
        assert_eq!(code, 0, "{verb}: {err}");
    }
}

/// Copies the files that `to` lacks.
fn copy(from: &Path, to: &Path) {
    for file in beneath(from).into_iter().filter(|path| path.is_file()) {
        let target = to.join(file.strip_prefix(from).expect("beneath it"));
        std::fs::create_dir_all(target.parent().expect("a folder")).expect("a folder");
        if !target.exists() {
            std::fs::copy(&file, &target).expect("copied");
        }
    }
}

#[test]
fn writer_reports_that_its_newest_snapshot_is_missing() {
    let cli = sample_repo();
    for _ in 0..3 {
        assert_eq!(cli.backup(&[]).0, 0);
    }
    let (_, out, _) = cli.run_reader(&["snapshots", "-o", "json"]);
    let newest = json(&out)[2]["hash"].as_str().expect("a hash").to_owned();
    let manifests = || -> Vec<_> {
        let all = beneath(&cli.at("store")).into_iter();
        all.filter(|path| path.is_file() && path.to_string_lossy().contains("/snapshots/")).collect()
    };
    let removed = manifests().into_iter().find(|path| path.to_string_lossy().contains(&newest)).expect("it");
    let bytes = content(&removed);
    std::fs::remove_file(&removed).expect("removed");
    let (code, out, err) = cli.backup(&["-o", "json"]);
    assert_eq!(code, 0, "{err}");
    for told in [err, out.clone()] {
        assert!(told.contains("the newest snapshot that this writer knows, 000003"), "{told}");
    }
    assert_eq!(json(&out)["snapshot"]["sequence"], 4, "{out}");
    let (code, _, err) = cli.run_reader(&["verify"]);
    assert_eq!(code, 4, "{err}");
    // With the snapshot brought back, the chain is whole.
    std::fs::write(&removed, bytes).expect("brought back");
    assert_eq!(cli.run_reader(&["verify"]).0, 0);
    for path in manifests() {
        std::fs::remove_file(path).expect("removed");
    }
    let (code, out, err) = cli.backup(&["-o", "json"]);
    assert!(code == 0 && err.contains("knows, 000004"), "{err}");
    assert_eq!(json(&out)["snapshot"]["sequence"], 5, "{out}");
    let (_, _, err) = cli.backup(&[]);
    assert!(!err.contains("the newest snapshot that this writer knows"), "{err}");
}
