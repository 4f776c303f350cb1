//! Streams that are refused, each for its own reason, without touching anything outside the target.

use kbak::format::tar::order::PathError;
use kbak::format::tar::parse::{HeaderError, ParseErrorKind};
use kbak::target::volume::TargetOptions;

use super::GuardedTarget;
use super::raw_member::{RawMember, octal, record, sparse, stream};
use crate::support::volume::{VolumeRestoreError, restore};

pub(super) type Case = (&'static str, Vec<u8>, fn(&ParseErrorKind) -> bool);

/// Feeds each stream and checks the reason of its refusal.
pub(super) fn refused(cases: Vec<Case>) {
    for (name, stream, expected) in cases {
        let guarded = GuardedTarget::new();
        match restore(&stream, &guarded.target(), TargetOptions::default(), 4096) {
            Err(VolumeRestoreError::Stream(error)) => {
                assert!(expected(&error.kind), "{name}: refused for {error:?}")
            }
            other => panic!("{name}: {other:?}"),
        }
        guarded.check(name);
    }
}

macro_rules! header {
    ($pattern:pat) => {
        |kind| matches!(kind, ParseErrorKind::Header($pattern))
    };
}

macro_rules! is {
    ($($kind:tt)+) => {
        |kind| *kind == ParseErrorKind::$($kind)+
    };
}

pub(super) use {header, is};

macro_rules! path {
    ($pattern:pat) => {
        header!(HeaderError::Path($pattern))
    };
}

pub(super) fn one(raw: RawMember) -> Vec<u8> {
    stream(&[raw])
}

/// A valid stream of the builder must be accepted, or the other tests would prove nothing.
#[test]
fn valid_streams_of_the_builder_are_accepted() {
    let guarded = GuardedTarget::new();
    let members = [
        RawMember::directory(b"./"),
        RawMember::directory(b"d/"),
        RawMember::file(b"d/file", b"content"),
        RawMember::hard_link(b"d/hard", b"d/file"),
        RawMember::symlink(b"d/soft", b"/etc/passwd"),
        RawMember::file(b"long", b"x").with(|raw| {
            raw.name = b"n".repeat(100);
            raw.records = Some(record(b"path", &b"n".repeat(101)));
        }),
        sparse(b"sparse", 1000, "2\n10\n5\n1000\n0\n", b"hello"),
    ];
    let report =
        restore(&stream(&members), &guarded.target(), TargetOptions::default(), 100).expect("accepted");
    assert!(report.is_complete(), "{report:?}");
    let content = std::fs::read(guarded.target().join("sparse")).expect("read");
    assert_eq!((&content[10..15], content.len()), (&b"hello"[..], 1000));
    assert_eq!(std::fs::read(guarded.target().join("d/hard")).expect("read"), b"content");
    guarded.check("control");
}

#[test]
fn paths_that_lead_out_are_refused() {
    let path = |name: &str| RawMember::file(b"harmless", b"x").record(b"path", name.as_bytes());
    refused(vec![
        ("parent", one(RawMember::file(b"../canary/new", b"x")), path!(PathError::Parent)),
        ("parent inside", one(RawMember::file(b"a/../../canary/new", b"x")), path!(PathError::Parent)),
        ("parent at the end", one(RawMember::directory(b"a/../")), path!(PathError::Parent)),
        ("parent alone", one(RawMember::directory(b"../")), path!(PathError::Parent)),
        ("absolute", one(RawMember::file(b"/tmp/kbak-escape", b"x")), path!(PathError::Absolute)),
        ("absolute twice", one(RawMember::file(b"//tmp/kbak-escape", b"x")), path!(PathError::Absolute)),
        ("root", one(RawMember::directory(b"/")), path!(PathError::Absolute)),
        ("dot as a file", one(RawMember::file(b".", b"x")), path!(PathError::Dot)),
        ("dot first", one(RawMember::file(b"./a", b"x")), path!(PathError::Dot)),
        ("dot inside", one(RawMember::file(b"a/./b", b"x")), path!(PathError::Dot)),
        ("no name", one(RawMember::file(b"", b"")), path!(PathError::Empty)),
        ("two slashes", one(RawMember::file(b"a//b", b"x")), path!(PathError::EmptyComponent)),
        (
            "a file with a slash at its end",
            one(RawMember::file(b"a/", b"x")),
            path!(PathError::EmptyComponent),
        ),
        ("a directory without one", one(RawMember::directory(b"a")), header!(HeaderError::NotCanonical)),
        ("parent in PAX", one(path("../canary/new")), path!(PathError::Parent)),
        ("absolute in PAX", one(path("/tmp/kbak-escape")), path!(PathError::Absolute)),
        ("NUL in PAX", one(path("a\0b")), path!(PathError::Nul)),
        ("PAX path without need", one(path("other")), header!(HeaderError::NotCanonical)),
        (
            "4,096 bytes",
            one(path(&"n/".repeat(2048)[..4095].replace('/', "x").replacen('n', "nn", 1))),
            path!(PathError::TooLong),
        ),
        ("64 KiB", one(path(&"n".repeat(65_536))), path!(PathError::TooLong)),
        (
            "sparse name",
            one(sparse(b"../canary/new", 1000, "2\n0\n1\n1000\n0\n", b"x")),
            path!(PathError::Parent),
        ),
        (
            "prefix field",
            one(RawMember::file(b"a", b"x").with(|raw| raw.prefix = b"../canary".to_vec())),
            header!(HeaderError::NotCanonical),
        ),
    ]);
}

#[test]
fn links_that_lead_out_are_refused() {
    let hard =
        |link_target: &[u8]| stream(&[RawMember::file(b"a", b"x"), RawMember::hard_link(b"b", link_target)]);
    refused(vec![
        ("hard link to a parent", hard(b"../canary/secret"), header!(HeaderError::Value(_))),
        ("hard link to an absolute path", hard(b"/etc/passwd"), header!(HeaderError::Value(_))),
        ("hard link to what comes later", hard(b"c"), header!(HeaderError::Value(_))),
        ("hard link to itself", hard(b"b"), header!(HeaderError::Value(_))),
        ("hard link to the root", hard(b"."), header!(HeaderError::Value(_))),
        ("hard link to nothing", hard(b""), header!(HeaderError::Value(_))),
        ("symlink to nothing", one(RawMember::symlink(b"a", b"")), header!(HeaderError::Value(_))),
        (
            "symlink with a NUL",
            one(RawMember::symlink(b"a", b"t").record(b"linkpath", b"a\0b")),
            header!(HeaderError::Value(_)),
        ),
        (
            "symlink of 4,096 bytes",
            one(RawMember::symlink(b"a", b"t").record(b"linkpath", &[b't'; 4096])),
            header!(HeaderError::Value(_)),
        ),
        (
            "through a symlink",
            stream(&[RawMember::symlink(b"a", b"../canary"), RawMember::file(b"a/new", b"x")]),
            is!(NotBeneathDirectory),
        ),
        (
            "through a symlink, deeper",
            stream(&[RawMember::symlink(b"a", b"../canary"), RawMember::file(b"a/folder/file", b"x")]),
            is!(NotBeneathDirectory),
        ),
        (
            "a directory over a symlink",
            stream(&[RawMember::symlink(b"a", b"../canary"), RawMember::directory(b"a/")]),
            is!(Order),
        ),
        (
            "a file over a symlink",
            stream(&[RawMember::symlink(b"a", b"../canary/secret"), RawMember::file(b"a", b"x")]),
            is!(Order),
        ),
        (
            "through a file",
            stream(&[RawMember::file(b"a", b"x"), RawMember::file(b"a/b", b"x")]),
            is!(NotBeneathDirectory),
        ),
        (
            "through a hard link",
            stream(&[
                RawMember::symlink(b"a", b"../canary"),
                RawMember::hard_link(b"b", b"a"),
                RawMember::file(b"b/new", b"x"),
            ]),
            is!(NotBeneathDirectory),
        ),
        ("a file twice", stream(&[RawMember::file(b"a", b"x"), RawMember::file(b"a", b"y")]), is!(Order)),
        (
            "a directory twice",
            stream(&[RawMember::directory(b"a/"), RawMember::directory(b"a/")]),
            is!(Order),
        ),
        ("out of order", stream(&[RawMember::file(b"b", b"x"), RawMember::file(b"a", b"x")]), is!(Order)),
        (
            "the root in the middle",
            stream(&[RawMember::file(b"a", b"x"), RawMember::directory(b"./")]),
            is!(Order),
        ),
    ]);
}

#[test]
fn headers_that_kbak_does_not_write_are_refused() {
    let base = || RawMember::file(b"a", b"x");
    let mut cases: Vec<Case> = Vec::new();
    for (name, kind) in [
        ("GNU long name", b'L'),
        ("GNU long link", b'K'),
        ("global PAX", b'g'),
        ("old sparse", b'S'),
        ("contiguous", b'7'),
        ("old type", 0),
        ("volume label", b'V'),
        ("multi-volume", b'M'),
        ("dump directory", b'D'),
        ("Solaris PAX", b'X'),
        ("unknown", b'?'),
    ] {
        cases.push((name, one(base().with(|raw| raw.kind = kind)), header!(HeaderError::Type(_))));
    }
    cases.extend([
        (
            "checksum",
            one(base().with(|raw| raw.checksum = Some(b"000001\0 ".to_vec()))),
            header!(HeaderError::Checksum) as fn(&_) -> bool,
        ),
        ("GNU magic", one(base().with(|raw| raw.magic = b"ustar  \0".to_vec())), header!(HeaderError::Magic)),
        ("no magic", one(base().with(|raw| raw.magic = vec![0; 8])), header!(HeaderError::Magic)),
        (
            "negative size",
            one(base().with(|raw| raw.size = vec![0xff; 12])),
            header!(HeaderError::Number("size")),
        ),
        (
            "size in base 256",
            one(base().with(|raw| raw.size = [&[0x80][..], &[0; 10], &[1]].concat())),
            header!(HeaderError::Number("size")),
        ),
        (
            "size with spaces",
            one(base().with(|raw| raw.size = b"          1\0".to_vec())),
            header!(HeaderError::Number("size")),
        ),
        (
            "mode of a device",
            one(base().with(|raw| raw.mode = octal(0o100_644, 7))),
            header!(HeaderError::Value(_)),
        ),
        (
            "negative uid",
            one(base().with(|raw| raw.uid = b"-000001\0".to_vec())),
            header!(HeaderError::Number("uid")),
        ),
        (
            "a directory with content",
            one(RawMember::directory(b"a/").with(|raw| raw.size = octal(512, 11))),
            header!(HeaderError::NotCanonical),
        ),
        (
            "a symlink with content",
            one(RawMember::symlink(b"a", b"t").with(|raw| raw.size = octal(512, 11))),
            header!(HeaderError::NotCanonical),
        ),
        (
            "a link target in a file",
            one(base().with(|raw| raw.link = b"t".to_vec())),
            header!(HeaderError::NotCanonical),
        ),
        (
            "a device number in a file",
            one(base().with(|raw| raw.minor = octal(3, 7))),
            header!(HeaderError::NotCanonical),
        ),
        (
            "text after the name's NUL",
            one(base().with(|raw| raw.name = b"a\0../x".to_vec())),
            header!(HeaderError::NotCanonical),
        ),
        (
            "a single block of zeros",
            [&base().bytes()[..], &[0; 512], &base().bytes()].concat(),
            is!(LoneZeros),
        ),
        ("bytes after the end", [one(base()), vec![1]].concat(), is!(Trailing)),
        ("zeros after the end", [one(base()), vec![0; 512]].concat(), is!(Trailing)),
        ("no end", base().bytes(), is!(Truncated)),
        ("nothing", Vec::new(), is!(Truncated)),
        ("half a header", base().bytes()[..300].to_vec(), is!(Truncated)),
        ("half a content", RawMember::file(b"a", &[7; 2000]).bytes()[..1000].to_vec(), is!(Truncated)),
        ("padding", [&base().bytes()[..1000], &[1; 24], &[0; 1024]].concat(), is!(Padding)),
    ]);
    refused(cases);
}
