//! `restore --dry-run` of folders refuses the same requests as the restore.

use super::lifecycle::{json, sample_repo};

#[test]
fn dry_run_refuses_the_same_as_the_restore() {
    let cli = sample_repo();
    let (code, _, err) = cli.backup(&[]);
    assert_eq!(code, 0, "{err}");
    let dry = |more: &[&str]| cli.run_reader(&[&["restore", "latest", "--dry-run"], more].concat());

    let (code, out, err) = dry(&["--to", &cli.text("not/yet/there")]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("5 entries") && out.contains("not/yet/there"), "{out}");
    assert!(!cli.at("not").exists(), "it was only looked at");

    let (code, out, err) = dry(&["--path", "deep/two.txt", "--to", &cli.text("back"), "-o", "json"]);
    assert_eq!(code, 0, "{err}");
    let item = &json(&out)["items"][0];
    assert_eq!(item["what"], "3 entries", "the file and the folders that lead to it");
    assert!(item["bytes"].as_u64().is_some_and(|bytes| bytes < 100_000), "{item}");

    let (code, _, err) = dry(&["--path", "deep/three.txt"]);
    assert_eq!(code, 3);
    assert!(err.contains("holds nothing at deep/three.txt"), "{err}");
    let some = ["--path", "deep/three.txt", "--path", "deep/two.txt"];
    let (code, out, err) = dry(&some);
    assert!(code == 3 && out.contains("holds nothing at deep/three.txt"), "{code} {out} {err}");
    let (code, out, err) = dry(&[&some[..], &["-o", "json"]].concat());
    assert_eq!((code, json(&out)["items"][0]["absent"][0].as_str()), (3, Some("deep/three.txt")), "{err}");
    std::fs::create_dir_all(cli.at("some/deep/three.txt")).expect("a folder");
    std::fs::write(cli.at("some/deep/three.txt/mine"), "mine").expect("a file");
    let to = cli.text("some");
    let real = ["restore", "latest", "--to", &to, "--existing-files", "delete-extra"];
    let (code, _, err) = cli.run_reader(&[&real[..], &some].concat());
    assert!(code == 3 && err.contains("deep/three.txt"), "{code} {err}");
    assert!(cli.at("some/deep/two.txt").is_file() && cli.at("some/deep/three.txt/mine").is_file());

    let (code, _, err) = dry(&["--to", &cli.text("data")]);
    assert_eq!(code, 2);
    assert!(err.contains("the target is not empty") && err.contains("--existing-files skip"), "{err}");
    let (code, _, err) = dry(&["--to", &cli.text("data"), "--existing-files", "skip"]);
    assert_eq!(code, 0, "{err}");

    // Lists are lists in every format, also without an element.
    for format in ["json", "yaml"] {
        let (code, out, err) = dry(&["-o", format]);
        assert_eq!(code, 0, "{err}");
        let document: serde_json::Value = serde_saphyr::from_str(&out).expect("a document");
        assert_eq!(document["objects"], serde_json::json!([]), "{format}: {out}");
    }

    for no_folder in ["data/one.txt", "data/one.txt/beneath"] {
        let (code, _, err) = dry(&["--to", &cli.text(no_folder)]);
        assert_eq!(code, 2, "{no_folder}: {err}");
        assert!(err.contains("cannot open the target"), "{err}");
    }
}

#[test]
fn item_that_is_named_twice_is_restored_once() {
    let cli = sample_repo();
    let (code, _, err) = cli.backup(&[]);
    assert_eq!(code, 0, "{err}");
    let (item, to) = (cli.data_item(), cli.text("back"));
    let twice = ["restore", "latest", "--item", &item, "--item", &item, "--to", &to, "-o", "json"];
    let (code, out, err) = cli.run_reader(&[&twice[..], &["--dry-run"]].concat());
    assert_eq!((code, json(&out)["items"].as_array().map(Vec::len)), (0, Some(1)), "{err}");
    let (code, out, err) = cli.run_reader(&twice);
    assert_eq!((code, json(&out)["items"].as_array().map(Vec::len)), (0, Some(1)), "{err}");
    assert!(cli.at("back/deep/two.txt").is_file());
}
