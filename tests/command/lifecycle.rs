//! The lifecycle of a repository in a folder, from the first key to the last restore, by the program alone.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::support::cli_repo::{CliRepo, as_strs};
use crate::support::program::{beneath, kbak};

/// Returns a repository with more to back up: a folder, a file with a hole.
pub(super) fn sample_repo() -> CliRepo {
    let cli = CliRepo::new();
    std::fs::create_dir(cli.at("data/deep")).expect("a folder");
    std::fs::write(cli.at("data/deep/two.txt"), "two\n").expect("a file");
    let mut holes = vec![0u8; 300_000];
    holes.extend_from_slice(b"the end");
    std::fs::write(cli.at("data/holes"), holes).expect("a file");
    cli
}

pub(super) fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

pub(super) fn content(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn folder_is_backed_up_and_restored() {
    let cli = sample_repo();
    let metrics = cli.text("kbak.prom");
    let log = cli.text("termination");
    let (code, out, err) = cli.backup(&[
        "-o",
        "json",
        "--metrics-file",
        &metrics,
        "--termination-log",
        &log,
        "--report-file",
        &cli.text("report.json"),
    ]);
    assert_eq!(code, 0, "{err}");
    let report = json(&out);
    assert_eq!((report["exit"].as_str(), report["items"][0]["state"].as_str()), (Some("safe"), Some("good")));
    let head = report["snapshot"]["hash"].as_str().expect("a hash").to_owned();
    assert_eq!(json(&String::from_utf8(content(&cli.at("report.json"))).expect("text")), report);
    let last = String::from_utf8(content(&cli.at("termination"))).expect("text");
    assert_eq!(last, format!("snapshot 000001 committed, exit 0\nhead sha256:{head}\n"));
    let prom = String::from_utf8(content(&cli.at("kbak.prom"))).expect("text");
    assert!(
        prom.contains("kbak_last_success_timestamp_seconds{verb=\"backup\",plan=\"default\"} "),
        "{prom}"
    );

    let (code, out, err) = cli.run_reader(&["snapshots", "-o", "json"]);
    assert_eq!(code, 0, "{err}");
    let list = json(&out);
    assert_eq!((list[0]["hash"].as_str(), list[0]["latest"].as_bool()), (Some(head.as_str()), Some(true)));
    let (_, named, _) = cli.run_reader(&["snapshots"]);
    assert!(named.contains("NAME") && named.contains("default"), "{named}");
    let pin = cli.text("keys/kbak.pub");
    let (code, out, _) = kbak(&["snapshots", "--repo", &cli.url(), "--signer", &pin, "-o", "json"]);
    assert!(
        code == 0 && !out.contains("data") && !out.contains("default"),
        "a listing without an identity has no names: {out}"
    );

    let item = cli.data_item();
    let (code, out, _) = cli.run_reader(&["show", "-o", "json"]);
    assert_eq!((code, json(&out)["items"][0]["name"].as_str()), (0, Some(item.as_str())));

    let (code, out, err) = cli.run_reader(&["ls", "latest", &item, "-R", "-o", "json"]);
    assert_eq!(code, 0, "{err}");
    let paths: Vec<String> =
        out.lines().map(|line| json(line)["path"].as_str().expect("a path").to_owned()).collect();
    assert!(
        paths.ends_with(&["deep".into(), "deep/two.txt".into(), "holes".into(), "one.txt".into()]),
        "{paths:?}"
    );
    let (_, out, _) = cli.run_reader(&["ls", "latest", &format!("{item}:deep")]);
    assert!(out.contains("deep/two.txt") && !out.contains("one.txt"), "{out}");

    let (code, out, _) = cli.run_reader(&["find", "latest", "two.*", "-o", "json"]);
    assert_eq!((code, json(out.trim_end())["path"].as_str()), (0, Some("deep/two.txt")));

    let (code, out, err) = cli.run_reader(&["cat", "latest", &format!("{item}:deep/two.txt")]);
    assert_eq!((code, out.as_str()), (0, "two\n"), "{err}");
    let (code, out, _) = cli.run_reader(&["cat", "latest", &format!("{item}:holes")]);
    assert_eq!((code, out.into_bytes()), (0, content(&cli.at("data/holes"))));
    let (code, _, err) = cli.run_reader(&["cat", "latest", &format!("{item}:deep/three.txt")]);
    assert_eq!(code, 2);
    assert!(err.contains("holds nothing at deep/three.txt"), "{err}");

    let (code, out, err) = cli.run_reader(&["restore", "latest", "--dry-run"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains(&item) && out.contains("(no --to)"), "{out}");
    let (code, _, err) = cli.run_reader(&["restore", "latest"]);
    assert_eq!(code, 2);
    assert!(err.contains("--to FOLDER"), "{err}");
    let (code, _, err) = cli.run_reader(&["restore", "latest", "--to", &cli.text("back")]);
    assert!(code == 0 || (code == 3 && err.contains("owner")), "{code}: {err}");
    for file in ["one.txt", "deep/two.txt", "holes"] {
        assert_eq!(content(&cli.at("back").join(file)), content(&cli.at("data").join(file)), "{file}");
    }
    let (code, _, err) = cli.run_reader(&["restore", "latest", "--to", &cli.text("back")]);
    assert_eq!(code, 2, "a target that is not empty is refused: {err}");

    let (code, _, err) = cli.run_reader(&["export", "--to", &cli.text("out")]);
    assert_eq!(code, 0, "{err}");
    assert!(cli.at("out").join(format!("{item}.tar")).is_file() && cli.at("out/snapshot.json").is_file());
}

#[test]
fn changed_files_are_listed_by_diff() {
    let cli = sample_repo();
    let (code, _, err) = cli.backup(&[]);
    assert_eq!(code, 0, "{err}");
    std::fs::write(cli.at("data/deep/two.txt"), "two and more\n").expect("a file");
    std::fs::remove_file(cli.at("data/one.txt")).expect("gone");
    std::fs::write(cli.at("data/three.txt"), "three\n").expect("a file");
    let (code, _, err) = cli.backup(&[]);
    assert_eq!(code, 0, "{err}");
    let (code, out, err) = cli.run_reader(&["diff", "1", "2", "-o", "json"]);
    assert_eq!(code, 1, "{err}");
    let mut found: Vec<(String, String)> = out
        .lines()
        .map(json)
        .map(|row| {
            (row["path"].as_str().expect("a path").into(), row["change"].as_str().expect("a change").into())
        })
        .filter(|(path, _): &(String, String)| path.contains('.') && path != ".")
        .collect();
    found.sort();
    let expected = [("deep/two.txt", "changed"), ("one.txt", "removed"), ("three.txt", "added")];
    assert_eq!(found, expected.map(|(path, change)| (path.to_owned(), change.to_owned())));
    let (code, out, err) = cli.run_reader(&["diff", "latest"]);
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert!(err.contains("with itself") && err.contains("--live"), "{err}");
    let (code, out, _) = cli.run_reader(&["diff", "2", "2"]);
    assert_eq!((code, out.as_str()), (0, ""));
}

#[test]
fn keys_and_epochs_are_listed() {
    let cli = sample_repo();
    let (code, out, err) = cli.run_reader(&["keys", "list", "-o", "json"]);
    assert_eq!(code, 0, "{err}");
    let rows = json(&out);
    assert_eq!((rows[0]["owner"].as_str(), rows[0]["proven"].as_bool()), (Some("ada@shop"), Some(true)));

    let (_, public, _) =
        kbak(&["keygen", "-o", &cli.text("keys/bob.key"), "--no-passphrase", "--comment", "bob"]);
    let (code, _, err) = cli.run_reader(&["keys", "add", "--owner", public.trim_end()]);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("bob can open epoch"), "{err}");
    let (repo, pin) = (cli.url(), cli.text("keys/kbak.pub"));
    let check =
        |key: &str| kbak(&["keys", "check", "--repo", &repo, "--signer", &pin, "--identity", &cli.text(key)]);
    assert_eq!(check("keys/bob.key").0, 0);
    let (_, _, _) = kbak(&["keygen", "-o", &cli.text("keys/eve.key"), "--no-passphrase"]);
    let (code, _, err) = check("keys/eve.key");
    assert_eq!(code, 3, "{err}");

    let writer = cli.text("keys/writer.key");
    let list = || kbak(&["epoch", "list", "--repo", &repo, "--writer-key", &writer, "-o", "json"]);
    let (code, before, err) = list();
    assert_eq!((code, json(&before).as_array().map(Vec::len)), (0, Some(1)), "{err}");
    let (code, _, err) = kbak(&[&["epoch", "new"], &as_strs(&cli.writer_args())[..]].concat());
    assert_eq!(code, 0, "{err}");
    let after = json(&list().1);
    let states: Vec<&str> =
        after.as_array().expect("rows").iter().filter_map(|row| row["state"].as_str()).collect();
    assert_eq!(states.len(), 2);
    assert_eq!(states.iter().filter(|state| **state == "current").count(), 1, "{after}");
}

#[test]
fn wrong_key_and_missing_pin_are_refused() {
    let cli = sample_repo();
    assert_eq!(cli.backup(&[]).0, 0);
    let repo = cli.url();
    let _ = kbak(&["keygen", "-o", &cli.text("keys/eve.key"), "--no-passphrase"]);
    let (code, out, err) = kbak(&[
        "show",
        "--repo",
        &repo,
        "--signer",
        &cli.text("keys/kbak.pub"),
        "--identity",
        &cli.text("keys/eve.key"),
    ]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("it is encrypted to") && err.contains("kbak keys add"), "{err}");
    let (code, _, err) = kbak(&["show", "--repo", &repo, "--identity", &cli.text("keys/owner.key")]);
    assert_eq!(code, 2);
    assert!(err.contains("no signer is pinned"), "{err}");
    let (code, _, err) = kbak(&[
        "snapshots",
        "--repo",
        &format!("file://{}", cli.text("keys")),
        "--signer",
        &cli.text("keys/kbak.pub"),
    ]);
    assert_eq!(code, 2);
    assert!(err.contains("no kbak repository"), "{err}");
}

#[test]
fn gap_exits_three_and_names_the_last_good_snapshot() {
    let cli = sample_repo();
    assert_eq!(cli.backup(&[]).0, 0);
    std::fs::rename(cli.at("data"), cli.at("moved")).expect("moved");
    let (code, _, err) = cli.backup(&[]);
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("this item is NOT safe in snapshot 000002; newest good one: 000001"), "{err}");
    assert!(err.contains("committed with 1 gap"), "{err}");
}

#[test]
fn init_refuses_choices_that_would_lose_a_backup() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let repo = format!("file://{}", at("store"));
    let (_, public, _) = kbak(&["keygen", "-o", &at("owner.key"), "--no-passphrase"]);
    let keys = at(".");
    let init = |more: &[&str]| {
        let mut args = vec!["init", "--repo", &repo, "--folder", &keys];
        args.extend(more);
        kbak(&args)
    };
    let (code, _, err) = init(&["--recipient", public.trim_end()]);
    assert_eq!(code, 2);
    assert!(err.contains("--single-owner"), "{err}");
    let (code, _, err) = init(&["--single-owner"]);
    assert_eq!(code, 2);
    assert!(err.contains("kbak keygen"), "{err}");
    let (code, _, err) = init(&["--recipient", public.trim_end(), "--single-owner", "--join"]);
    assert_eq!(code, 2, "{err}");
    std::fs::write(at("kbak.pub"), "").expect("a file");
    let (code, _, err) = init(&["--recipient", public.trim_end(), "--single-owner"]);
    assert!(code == 2 && err.contains("kbak.pub exists"), "{err}");
    std::fs::remove_file(at("kbak.pub")).expect("removed");
    assert!(!Path::new(&at("store")).exists(), "what fails leaves no folder");
    std::fs::create_dir(at("store")).expect("a folder");
    let (code, _, err) = init(&["--recipient", public.trim_end(), "--single-owner", "--join"]);
    assert!(code == 2 && err.contains("holds no repository to join") && err.contains("→"), "{err}");
    assert_eq!(beneath(Path::new(&at("store"))), Vec::<PathBuf>::new(), "the store stays empty");
    let (code, _, err) = init(&["--recipient", public.trim_end(), "--single-owner"]);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("NOT proven"), "{err}");
    let made = beneath(Path::new(&at("store")));
    let files = |folder: &PathBuf| made.iter().any(|path| path.is_file() && path.starts_with(folder));
    assert!(made.iter().all(files), "no folder is empty: {made:?}");
    let (code, _, err) = init(&["--recipient", public.trim_end(), "--single-owner"]);
    assert_eq!(code, 2, "a second repository in one place: {err}");
}

#[test]
fn init_creates_the_folder_of_its_files_and_removes_it_on_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (_, public, _) = kbak(&["keygen", "-o", &at("owner.key"), "--no-passphrase"]);
    let init = |store: &str, keys: &str, more: &[&str]| {
        let (repo, keys) = (format!("file://{}", at(store)), at(keys));
        let owner = ["--recipient", public.trim_end(), "--single-owner"];
        kbak(&[&["init", "--repo", &repo, "--folder", &keys], &owner[..], more].concat())
    };
    for (number, keys) in
        ["keys", "deep/er/keys", "trailing/", "dotted/../other", "ünï cödé", "."].iter().enumerate()
    {
        let (code, _, err) = init(&format!("store{number}"), keys, &[]);
        assert_eq!(code, 0, "{keys}: {err}");
        assert!(Path::new(&at(keys)).join("writer.key").is_file(), "{keys}");
    }
    for made in ["keys", "deep", "deep/er", "deep/er/keys", "other"] {
        let mode = std::fs::metadata(at(made)).expect("a folder").permissions().mode();
        assert_eq!(mode & 0o7777, 0o700, "{made}");
    }
    std::fs::write(at("file"), "").expect("a file");
    std::os::unix::fs::symlink("nowhere", at("dangling")).expect("a link");
    for bad in ["file", "file/keys", "dangling", "dangling/keys"] {
        let (code, _, err) = init("none", bad, &[]);
        assert!(code == 2 && err.contains("writer.key"), "{bad}: {err}");
    }
    assert!(!Path::new(&at("none")).exists(), "what fails leaves no store");
    // The store refuses after the checks, so the folder goes again.
    let (code, _, err) = init("store0", "late/keys", &[]);
    assert_eq!(code, 2, "{err}");
    let (code, _, err) = init("missing", "late/keys", &["--join"]);
    assert_eq!(code, 2, "{err}");
    assert!(!Path::new(&at("late")).exists(), "what fails leaves no folder");
}

/// Returns the folder or file of the store whose path has this ending.
pub(super) fn place(root: &Path, ending: &str) -> PathBuf {
    let found = beneath(root).into_iter().find(|path| path.ends_with(ending));
    found.unwrap_or_else(|| panic!("nothing ends with {ending}"))
}

#[test]
fn failed_run_leaves_its_report_in_the_store() {
    let cli = sample_repo();
    assert_eq!(cli.backup(&[]).0, 0);
    let (code, _, err) = cli.run_reader(&["snapshots", "--failed"]);
    assert!(code == 0 && err.contains("the store holds no report of a failed run"), "{err}");
    // A file in place of a folder: bodies cannot be stored any more.
    let bodies = place(&cli.at("store"), "bodies");
    std::fs::rename(&bodies, cli.at("aside")).expect("moved");
    std::fs::write(&bodies, "").expect("a file");
    let (code, _, err) = cli.backup(&["--plan-name", "default"]);
    assert!(code != 0 && code != 2, "{code} {err}");
    assert!(err.contains("the failure report was stored, encrypted"), "{err}");
    std::fs::remove_file(&bodies).expect("removed");
    std::fs::rename(cli.at("aside"), &bodies).expect("moved back");

    let (code, out, err) = cli.run_reader(&["snapshots", "--failed", "-o", "json"]);
    assert_eq!(code, 0, "{err}");
    let runs = json(&out);
    assert_eq!(runs.as_array().map(Vec::len), Some(1), "{runs}");
    assert_eq!((runs[0]["verb"].as_str(), runs[0]["plan"].as_str()), (Some("backup"), Some("default")));
    assert!(runs[0]["failure"]["what"].as_str().is_some_and(|what| what.contains("bodies")), "{runs}");
    let (code, _, err) =
        kbak(&["snapshots", "--failed", "--repo", &cli.url(), "--signer", &cli.text("keys/kbak.pub")]);
    assert!(code == 2 && err.contains("--identity"), "{err}");
    assert_eq!(cli.run_reader(&["verify", "--read-all"]).0, 0);
    assert_eq!(cli.backup(&[]).0, 0, "the next run goes on");
}

#[test]
fn verify_reports_damage_and_a_remedy() {
    let cli = sample_repo();
    let (_, out, _) = cli.backup(&["-o", "json"]);
    let head = json(&out)["snapshot"]["hash"].as_str().expect("a hash").to_owned();
    let (repo, pin) = (cli.url(), cli.text("keys/kbak.pub"));
    let verify = |more: &[&str]| kbak(&[&["verify", "--repo", &repo, "--signer", &pin], more].concat());
    for more in [&[][..], &["--read-all"], &["--sample", "5%"], &["--expect-head", &format!("sha256:{head}")]]
    {
        let (code, out, err) = verify(more);
        assert!(
            code == 0 && out.is_empty() && err.contains("verified: 1 snapshot of 1 plan"),
            "{more:?} {err}"
        );
    }
    let (code, out, _) = verify(&["--expect-head", &"0".repeat(64)]);
    assert!(code == 4 && out.contains("rolled back"), "{out}");
    assert_eq!(verify(&["--sample", "0"]).0, 2);
    assert_eq!(verify(&["--sample", "5%", "--read-all"]).0, 2);

    let packs = place(&cli.at("store"), "packs");
    let folder = std::fs::read_dir(packs).expect("a folder").next().expect("one").expect("an entry").path();
    let pack = std::fs::read_dir(folder).expect("a folder").next().expect("a pack").expect("an entry").path();
    let mut bytes = content(&pack);
    bytes[300] ^= 1;
    std::fs::write(&pack, bytes).expect("damaged");
    assert_eq!(verify(&[]).0, 0, "presence and size are as they were");
    let name = pack.file_name().and_then(|name| name.to_str()).expect("a name");
    let (code, out, err) = verify(&["--read-all"]);
    assert_eq!(code, 4);
    assert!(
        out.contains(name) && out.contains("altered") && out.contains("touches snapshot 000001"),
        "{out}"
    );
    assert!(err.contains("1 object is damaged, missing or tampered with"), "{err}");
    let (code, out, _) = cli.run_reader(&["verify", "-o", "json"]);
    let verdict = json(&out);
    let touched = &verdict["findings"][0]["snapshots"][0];
    assert_eq!((code, touched["items"][0].as_str()), (4, Some(cli.data_item().as_str())), "{verdict}");

    let (code, _, err) = verify(&["--read-all", "--distrust-key", &cli.text("keys/writer.key")]);
    assert!(code == 4 && err.contains("1 record of bad packs was signed"), "{err}");
    assert_eq!(cli.backup(&[]).0, 0);
    let (code, out, err) = cli.run_reader(&["verify"]);
    assert!(code == 0 && out.contains("nothing: restores use the copies"), "{code} {out} {err}");
    let back = cli.text("back");
    let (code, _, err) = cli.run_reader(&["restore", "1", "--to", &back]);
    assert!(code == 0 && err.contains("copies of its chunks in other packs are used"), "{err}");
    assert_eq!(content(&cli.at("back/holes")), content(&cli.at("data/holes")));
}
