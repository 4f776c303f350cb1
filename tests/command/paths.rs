//! Listed paths can be requested: names that are not UTF-8, and hard links.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;

use super::lifecycle::{content, desk};
use crate::support::desk::Desk;
use crate::support::program::{command, read};

/// Runs a reading verb with arguments that may not be UTF-8.
fn raw(desk: &Desk, args: &[&OsStr]) -> (i32, String, String) {
    let keys = ["--signer", &desk.text("keys/kbak.pub"), "--identity", &desk.text("keys/owner.key")]
        .map(OsString::from);
    let mut all: Vec<OsString> = args.iter().map(Into::into).collect();
    all.extend(["--repo".into(), desk.repo().into()]);
    all.extend(keys);
    read(command(&all).output().expect("the program runs"))
}

#[test]
fn non_utf8_names_are_accepted_escaped_and_raw() {
    let desk = desk();
    let strange = OsStr::from_bytes(b"non\xffutf8\xfe");
    std::fs::write(desk.at("data").join(strange), "strange\n").expect("a file");
    std::fs::write(desk.at("data/gnp.\u{202e}exe"), "turned\n").expect("a file");
    std::fs::write(desk.at("data/a\\xffb"), "literal\n").expect("a file");
    std::fs::write(desk.at("data").join(OsStr::from_bytes(b"a\xffb")), "a byte\n").expect("a file");
    assert_eq!(desk.backup(&[]).0, 0);
    let item = desk.item();
    let (_, out, _) = desk.reads(&["ls", "latest", &item]);
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
        assert_eq!(desk.reads(&["cat", "latest", &place]).1, text, "{name}");
        let (_, out, _) = desk.reads(&["ls", "latest", &place]);
        assert_eq!(out.lines().count(), 1, "{out}");
        let (code, _, err) = desk.reads(&["restore", "--path", name, "--to", &desk.text(text.trim_end())]);
        assert_eq!(code, 0, "{err}");
    }
    assert_eq!(content(&desk.at("strange").join(strange)), b"strange\n");
    assert_eq!(content(&desk.at("turned/gnp.\u{202e}exe")), b"turned\n");
    assert_eq!(content(&desk.at("literal/a\\xffb")), b"literal\n");

    let mut place = OsString::from(format!("{item}:"));
    place.push(strange);
    let (code, out, err) = raw(&desk, &["cat".as_ref(), "latest".as_ref(), &place]);
    assert_eq!((code, out.as_str()), (0, "strange\n"), "{err}");
    for wanted in [strange, r"non\xffutf8\xfe".as_ref()] {
        let (code, out, err) = raw(&desk, &["find".as_ref(), "latest".as_ref(), wanted]);
        assert!(code == 0 && out.contains(r"non\xffutf8\xfe"), "{out}{err}");
    }
    let to = desk.text("raw");
    let args = ["restore".as_ref(), "--path".as_ref(), strange, "--to".as_ref(), to.as_ref()];
    let (code, _, err) = raw(&desk, &args);
    assert_eq!(code, 0, "{err}");
    assert_eq!(content(&desk.at("raw").join(strange)), b"strange\n");
}

#[test]
fn hard_link_is_restored_without_its_target() {
    let desk = desk();
    std::fs::create_dir(desk.at("data/links")).expect("a folder");
    for name in ["links/second", "links/third"] {
        std::fs::hard_link(desk.at("data/holes"), desk.at("data").join(name)).expect("a link");
    }
    std::fs::create_dir(desk.at("data/z")).expect("a folder");
    std::fs::hard_link(desk.at("data/one.txt"), desk.at("data/z/one")).expect("a link");
    assert_eq!(desk.backup(&[]).0, 0);
    let item = desk.item();
    assert_eq!(desk.reads(&["cat", "latest", &format!("{item}:z/one")]).1, "one\n");
    for name in ["links/second", "links/third", "holes"] {
        let to = desk.text("alone");
        let (code, _, err) = desk.reads(&["restore", "--path", name, "--to", &to]);
        assert_eq!(code, 0, "{name}: {err}");
        assert_eq!(content(&desk.at("alone").join(name)), content(&desk.at("data/holes")), "{name}");
        std::fs::remove_dir_all(to).expect("removed");
    }
    // Two folders of links, without their targets; and a path in between.
    let (code, _, err) = desk.reads(&[
        "restore",
        "--path",
        "links",
        "--path",
        "z",
        "--path",
        "deep",
        "--to",
        &desk.text("some"),
    ]);
    assert_eq!(code, 0, "{err}");
    let file = |name: &str| std::fs::metadata(desk.at("some").join(name)).expect("a file");
    assert_eq!(file("links/second").ino(), file("links/third").ino(), "still two names of one file");
    assert_eq!(content(&desk.at("some/links/third")), content(&desk.at("data/holes")));
    assert_eq!(content(&desk.at("some/z/one")), b"one\n");
    assert_eq!(content(&desk.at("some/deep/two.txt")), b"two\n");
    assert!(!desk.at("some/holes").exists() && !desk.at("some/one.txt").exists());
}

#[test]
fn restore_of_an_absent_path_creates_no_folder() {
    let desk = desk();
    assert_eq!(desk.backup(&[]).0, 0);
    let (code, _, err) = desk.reads(&["restore", "--path", "nope", "--to", &desk.text("back")]);
    assert_eq!(code, 3, "{err}");
    assert!(!desk.at("back").exists());
}
