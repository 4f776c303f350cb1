//! Wording of messages: singular and plural, names without repetition, remedies.

use super::lifecycle::{content, json, place, sample_repo};
use crate::support::program::kbak;

#[test]
fn name_appears_once_in_a_message() {
    let (code, _, err) = kbak(&["init", "--repo", "file:///nowhere/store", "--recipient", "owner.pub"]);
    assert_eq!((code, err.matches("--recipient:").count()), (2, 1), "{err}");
    let cli = sample_repo();
    std::fs::remove_dir_all(cli.at("data")).expect("removed");
    let (code, _, err) = cli.backup(&[]);
    let line = err.lines().find(|line| line.contains("cannot open the folder")).expect("a gap");
    assert_eq!((code, line.matches(&cli.text("data")).count()), (3, 1), "{line}");
}

#[test]
fn count_of_one_uses_the_singular() {
    let cli = sample_repo();
    for name in ["data/deep", "data/holes"] {
        let path = cli.at(name);
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
            .expect("removed");
    }
    assert_eq!(cli.backup(&[]).0, 0);
    let (_, _, err) = cli.run_reader(&["restore", "--to", &cli.text("back")]);
    assert!(err.contains("1 file,"), "{err}");
}

#[test]
fn folder_store_is_not_called_a_bucket() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (_, public, _) =
        kbak(&["keygen", "-o", &at("owner.key"), "--no-passphrase", "--comment", "ada lovelace"]);
    let repo = format!("file://{}", at("store"));
    let (code, _, err) = kbak(&[
        "init",
        "--repo",
        &repo,
        "--folder",
        &at("."),
        "--single-owner",
        "--recipient",
        public.trim_end(),
    ]);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("anyone who may write in this folder can delete backups"), "{err}");
    assert!(!err.contains("credentials") && !err.contains("tags"), "{err}");
    let sheet = std::fs::read_to_string(at("recovery.txt")).expect("a sheet");
    assert!(sheet.ends_with('\n') && !sheet.ends_with("\n\n"), "a text file ends with a line end");
    assert_eq!(kbak(&["keygen", "--public", &at("owner.key")]).1, public, "with its comment");
}

#[test]
fn failure_messages_contain_a_remedy() {
    let cli = sample_repo();
    assert_eq!(cli.backup(&[]).0, 0);
    let next = |(code, out, err): (i32, String, String), exit: i32| {
        assert!(code == exit && err.contains("→"), "{code} {out} {err}");
    };
    next(kbak(&["man", "--folder", &cli.text("nowhere")]), 2);
    std::fs::write(cli.at("pass"), "right\n").expect("a file");
    std::fs::write(cli.at("wrong"), "wrong\n").expect("a file");
    let (key, pass, wrong) = (cli.text("locked.key"), cli.text("pass"), cli.text("wrong"));
    assert_eq!(kbak(&["keygen", "-o", &key, "--passphrase-file", &pass]).0, 0);
    next(kbak(&["keygen", "--public", &key, "--passphrase-file", &wrong]), 2);

    let back = cli.text("back");
    let packs = place(&cli.at("store"), "packs");
    std::fs::rename(&packs, cli.at("aside")).expect("moved");
    next(cli.run_reader(&["restore", "--to", &back]), 4);
    std::fs::rename(cli.at("aside"), &packs).expect("moved back");
    let marker = cli.at("store/kbak.json");
    let bytes = content(&marker);
    std::fs::write(&marker, "{}").expect("a file");
    next(cli.backup(&[]), 4);
    std::fs::write(&marker, bytes).expect("a file");
}

#[test]
fn key_and_epoch_lists_claim_only_known_facts() {
    let cli = sample_repo();
    let (_, public, _) = kbak(&["keygen", "-o", &cli.text("keys/bob.key"), "--no-passphrase"]);
    let (code, _, err) = cli.run_reader(&["keys", "add", "--owner", public.trim_end()]);
    assert_eq!(code, 0, "{err}");
    let (_, out, _) = cli.run_reader(&["keys", "list", "-o", "json"]);
    for row in json(&out).as_array().expect("rows") {
        assert_eq!(row["proven"].as_bool(), Some(row["opened"].is_string()), "{row}");
        assert_eq!(row["epoch_proven"], true, "{row}");
    }
    let (repo, writer) = (cli.url(), cli.text("keys/writer.key"));
    let list = |more: &[&str]| {
        kbak(&[&["epoch", "list", "--repo", &repo, "--writer-key", &writer], more].concat()).1
    };
    assert!(list(&[]).contains("at least 1"), "{}", list(&[]));
    let pinned = list(&["--signer", &cli.text("keys/kbak.pub")]);
    assert!(!pinned.contains("at least") && pinned.contains('2'), "{pinned}");
}
