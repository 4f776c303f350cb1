//! Listed paths can be requested: names that are not UTF-8, and hard links.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;

use super::lifecycle::{content, sample_repo};
use crate::support::cli_repo::CliRepo;
use crate::support::program::{command, read};

/// Runs a reading verb with arguments that may not be UTF-8.
fn run_raw(cli: &CliRepo, args: &[&OsStr]) -> (i32, String, String) {
    let keys = ["--signer", &cli.text("keys/kbak.pub"), "--identity", &cli.text("keys/owner.key")]
        .map(OsString::from);
    let mut all: Vec<OsString> = args.iter().map(Into::into).collect();
    all.extend(["--repo".into(), cli.url().into()]);
    all.extend(keys);
    read(command(&all).output().expect("the program runs"))
}

#[test]
fn non_utf8_names_are_accepted_escaped_and_raw() {
    let cli = sample_repo();
    let strange = OsStr::from_bytes(b"non\xffutf8\xfe");
    std::fs::write(cli.at("data").join(strange), "strange\n").expect("a file");
    std::fs::write(cli.at("data/gnp.\u{202e}exe"), "turned\n").expect("a file");
    std::fs::write(cli.at("data/a\\xffb"), "literal\n").expect("a file");
    std::fs::write(cli.at("data").join(OsStr::from_bytes(b"a\xffb")), "a byte\n").expect("a file");
    assert_eq!(cli.backup(&[]).0, 0);
    let item = cli.data_item();
    let (_, out, _) = cli.run_reader(&["ls", "latest", &item]);
    assert!(out.contains(r"non\xffutf8\xfe") && out.contains(r"gnp.\u{202e}exe"), "{out}");
    assert!(!out.contains('\u{202e}'), "{out}");

    let shown = [
        (r"non\xffutf8\xfe", "strange\n"),
        (r"gnp.\u{202e}exe", "turned\n"),
        (r"a\\xffb", "literal\n"),
        (r"a\xffb", "a byte\n"),
    ];
    for (name, text) in shown {
        let place = format!("{item}:{name}");
        assert_eq!(cli.run_reader(&["cat", "latest", &place]).1, text, "{name}");
        let (_, out, _) = cli.run_reader(&["ls", "latest", &place]);
        assert_eq!(out.lines().count(), 1, "{out}");
        let (code, _, err) = cli.run_reader(&["restore", "--path", name, "--to", &cli.text(text.trim_end())]);
        assert_eq!(code, 0, "{err}");
    }
    assert_eq!(content(&cli.at("strange").join(strange)), b"strange\n");
    assert_eq!(content(&cli.at("turned/gnp.\u{202e}exe")), b"turned\n");
    assert_eq!(content(&cli.at("literal/a\\xffb")), b"literal\n");

    let mut place = OsString::from(format!("{item}:"));
    place.push(strange);
    let (code, out, err) = run_raw(&cli, &["cat".as_ref(), "latest".as_ref(), &place]);
    assert_eq!((code, out.as_str()), (0, "strange\n"), "{err}");
    for wanted in [strange, r"non\xffutf8\xfe".as_ref()] {
        let (code, out, err) = run_raw(&cli, &["find".as_ref(), "latest".as_ref(), wanted]);
        assert!(code == 0 && out.contains(r"non\xffutf8\xfe"), "{out}{err}");
    }
    let to = cli.text("raw");
    let args = ["restore".as_ref(), "--path".as_ref(), strange, "--to".as_ref(), to.as_ref()];
    let (code, _, err) = run_raw(&cli, &args);
    assert_eq!(code, 0, "{err}");
    assert_eq!(content(&cli.at("raw").join(strange)), b"strange\n");
}

#[test]
fn hard_link_is_restored_without_its_target() {
    let cli = sample_repo();
    std::fs::create_dir(cli.at("data/links")).expect("a folder");
    for name in ["links/second", "links/third"] {
        std::fs::hard_link(cli.at("data/holes"), cli.at("data").join(name)).expect("a link");
    }
    std::fs::create_dir(cli.at("data/z")).expect("a folder");
    std::fs::hard_link(cli.at("data/one.txt"), cli.at("data/z/one")).expect("a link");
    assert_eq!(cli.backup(&[]).0, 0);
    let item = cli.data_item();
    assert_eq!(cli.run_reader(&["cat", "latest", &format!("{item}:z/one")]).1, "one\n");
    for name in ["links/second", "links/third", "holes"] {
        let to = cli.text("alone");
        let (code, _, err) = cli.run_reader(&["restore", "--path", name, "--to", &to]);
        assert_eq!(code, 0, "{name}: {err}");
        assert_eq!(content(&cli.at("alone").join(name)), content(&cli.at("data/holes")), "{name}");
        std::fs::remove_dir_all(to).expect("removed");
    }
    // Two folders of links, without their targets; and a path in between.
    let (code, _, err) = cli.run_reader(&[
        "restore",
        "--path",
        "links",
        "--path",
        "z",
        "--path",
        "deep",
        "--to",
        &cli.text("some"),
    ]);
    assert_eq!(code, 0, "{err}");
    let file = |name: &str| std::fs::metadata(cli.at("some").join(name)).expect("a file");
    assert_eq!(file("links/second").ino(), file("links/third").ino(), "still two names of one file");
    assert_eq!(content(&cli.at("some/links/third")), content(&cli.at("data/holes")));
    assert_eq!(content(&cli.at("some/z/one")), b"one\n");
    assert_eq!(content(&cli.at("some/deep/two.txt")), b"two\n");
    assert!(!cli.at("some/holes").exists() && !cli.at("some/one.txt").exists());
}

#[test]
fn restore_of_an_absent_path_creates_no_folder() {
    let cli = sample_repo();
    assert_eq!(cli.backup(&[]).0, 0);
    let (code, _, err) = cli.run_reader(&["restore", "--path", "nope", "--to", &cli.text("back")]);
    assert_eq!(code, 3, "{err}");
    assert!(!cli.at("back").exists());
}
