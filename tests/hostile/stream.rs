//! Streams that are refused, each for its own reason, without touching anything outside the target.

use kbak::format::tar::order::PathError;
use kbak::format::tar::parse::{HeaderError, ParseErrorKind};
use kbak::target::volume::TargetOptions;

use super::GuardedTarget;
use super::raw_member::{RawMember, octal, record, sparse, stream};
use crate::support::volume::{VolumeRestoreError, restore};

type Case = (&'static str, Vec<u8>, fn(&ParseErrorKind) -> bool);

/// Feeds each stream and checks the reason of its refusal.
fn refused(cases: Vec<Case>) {
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

macro_rules! path {
    ($pattern:pat) => {
        header!(HeaderError::Path($pattern))
    };
}

fn one(raw: RawMember) -> Vec<u8> {
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
    let hard = |carrier: &[u8]| stream(&[RawMember::file(b"a", b"x"), RawMember::hard_link(b"b", carrier)]);
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
            |kind| *kind == ParseErrorKind::NotBeneathDirectory,
        ),
        (
            "through a symlink, deeper",
            stream(&[RawMember::symlink(b"a", b"../canary"), RawMember::file(b"a/folder/file", b"x")]),
            |kind| *kind == ParseErrorKind::NotBeneathDirectory,
        ),
        (
            "a directory over a symlink",
            stream(&[RawMember::symlink(b"a", b"../canary"), RawMember::directory(b"a/")]),
            |kind| *kind == ParseErrorKind::Order,
        ),
        (
            "a file over a symlink",
            stream(&[RawMember::symlink(b"a", b"../canary/secret"), RawMember::file(b"a", b"x")]),
            |kind| *kind == ParseErrorKind::Order,
        ),
        ("through a file", stream(&[RawMember::file(b"a", b"x"), RawMember::file(b"a/b", b"x")]), |kind| {
            *kind == ParseErrorKind::NotBeneathDirectory
        }),
        (
            "through a hard link",
            stream(&[
                RawMember::symlink(b"a", b"../canary"),
                RawMember::hard_link(b"b", b"a"),
                RawMember::file(b"b/new", b"x"),
            ]),
            |kind| *kind == ParseErrorKind::NotBeneathDirectory,
        ),
        ("a file twice", stream(&[RawMember::file(b"a", b"x"), RawMember::file(b"a", b"y")]), |kind| {
            *kind == ParseErrorKind::Order
        }),
        ("a directory twice", stream(&[RawMember::directory(b"a/"), RawMember::directory(b"a/")]), |kind| {
            *kind == ParseErrorKind::Order
        }),
        ("out of order", stream(&[RawMember::file(b"b", b"x"), RawMember::file(b"a", b"x")]), |kind| {
            *kind == ParseErrorKind::Order
        }),
        (
            "the root in the middle",
            stream(&[RawMember::file(b"a", b"x"), RawMember::directory(b"./")]),
            |kind| *kind == ParseErrorKind::Order,
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
        ("a single block of zeros", [&base().bytes()[..], &[0; 512], &base().bytes()].concat(), |kind| {
            *kind == ParseErrorKind::LoneZeros
        }),
        ("bytes after the end", [one(base()), vec![1]].concat(), |kind| *kind == ParseErrorKind::Trailing),
        ("zeros after the end", [one(base()), vec![0; 512]].concat(), |kind| {
            *kind == ParseErrorKind::Trailing
        }),
        ("no end", base().bytes(), |kind| *kind == ParseErrorKind::Truncated),
        ("nothing", Vec::new(), |kind| *kind == ParseErrorKind::Truncated),
        ("half a header", base().bytes()[..300].to_vec(), |kind| *kind == ParseErrorKind::Truncated),
        ("half a content", RawMember::file(b"a", &[7; 2000]).bytes()[..1000].to_vec(), |kind| {
            *kind == ParseErrorKind::Truncated
        }),
        ("padding", [&base().bytes()[..1000], &[1; 24], &[0; 1024]].concat(), |kind| {
            *kind == ParseErrorKind::Padding
        }),
    ]);
    refused(cases);
}

#[test]
fn records_that_kbak_does_not_write_are_refused() {
    let base = || RawMember::file(b"a", b"x");
    let records = |bytes: &[u8]| one(base().records(bytes));
    let xattr = |name: &[u8], value: &[u8]| one(base().record(&[b"SCHILY.xattr.", name].concat(), value));
    refused(vec![
        ("size disagrees", one(base().record(b"size", b"5")), header!(HeaderError::NotCanonical)),
        ("size without need", one(base().record(b"size", b"1")), header!(HeaderError::NotCanonical)),
        ("negative size", one(base().record(b"size", b"-1")), header!(HeaderError::Number("size"))),
        (
            "size past 63 bits",
            one(base().with(|raw| raw.size = octal(0, 11)).record(b"size", b"9223372036854775808")),
            header!(HeaderError::Value(_)),
        ),
        (
            "size past 64 bits",
            one(base().record(b"size", b"18446744073709551616")),
            header!(HeaderError::Number("size")),
        ),
        ("uid of nobody at all", one(base().record(b"uid", b"4294967295")), header!(HeaderError::Value(_))),
        ("uid past 32 bits", one(base().record(b"uid", b"4294967296")), header!(HeaderError::Number("uid"))),
        ("gid of nobody at all", one(base().record(b"gid", b"4294967295")), header!(HeaderError::Value(_))),
        (
            "mtime with an exponent",
            one(base().record(b"mtime", b"1e9")),
            header!(HeaderError::Number("mtime")),
        ),
        (
            "mtime with trailing zeros",
            one(base().record(b"mtime", b"0.50")),
            header!(HeaderError::NotCanonical),
        ),
        (
            "mtime of ten digits",
            one(base().record(b"mtime", b"0.0000000001")),
            header!(HeaderError::Number("mtime")),
        ),
        (
            "mtime past 63 bits",
            one(base().record(b"mtime", b"9223372036854775808")),
            header!(HeaderError::Number("mtime")),
        ),
        ("another character set", one(base().record(b"hdrcharset", b"UTF-16")), header!(HeaderError::Key(_))),
        ("a comment", one(base().record(b"comment", b"hello")), header!(HeaderError::Key(_))),
        ("atime", one(base().record(b"atime", b"1")), header!(HeaderError::Key(_))),
        (
            "an ACL as text",
            one(base().record(b"SCHILY.acl.access", b"user::rwx")),
            header!(HeaderError::Key(_)),
        ),
        (
            "an attribute of libarchive",
            one(base().record(b"LIBARCHIVE.xattr.user.a", b"QQ")),
            header!(HeaderError::Key(_)),
        ),
        ("old sparse map", one(base().record(b"GNU.sparse.map", b"0,1")), header!(HeaderError::Key(_))),
        ("length too long", records(b"99 path=x\n"), header!(HeaderError::Record)),
        ("length too short", records(b"5 path=x\n"), header!(HeaderError::Record)),
        ("length of zero", records(b"0 path=x\n"), header!(HeaderError::Record)),
        ("length that overflows", records(b"99999999999999999999 path=x\n"), header!(HeaderError::Record)),
        ("negative length", records(b"-9 path=x\n"), header!(HeaderError::Record)),
        ("no length", records(b" path=x\n"), header!(HeaderError::Record)),
        ("no newline", records(b"9 path=xy"), header!(HeaderError::Record)),
        ("no equals sign", records(b"9 path:x\n"), header!(HeaderError::Record)),
        ("leading zeros in the length", records(b"011 path=x\n"), header!(HeaderError::NotCanonical)),
        (
            "a record twice",
            one(base().record(b"mtime", b"0.5").record(b"mtime", b"0.5")),
            header!(HeaderError::NotCanonical),
        ),
        (
            "unsorted attributes",
            one(base().record(b"SCHILY.xattr.user.b", b"").record(b"SCHILY.xattr.user.a", b"")),
            header!(HeaderError::Value(_)),
        ),
        (
            "an attribute twice",
            one(base().record(b"SCHILY.xattr.user.a", b"1").record(b"SCHILY.xattr.user.a", b"2")),
            header!(HeaderError::Value(_)),
        ),
        ("an attribute without a name", xattr(b"", b"v"), header!(HeaderError::Value(_))),
        ("an attribute's name of 256 bytes", xattr(&[b'n'; 256], b"v"), header!(HeaderError::Value(_))),
        (
            "an attribute's value of 64 KiB and one",
            xattr(b"user.a", &[0; 65_537]),
            header!(HeaderError::Value(_)),
        ),
        (
            "an attribute's name escaped otherwise",
            xattr(b"user.%41", b"v"),
            header!(HeaderError::NotCanonical),
        ),
        ("an empty PAX header", records(b""), |kind| *kind == ParseErrorKind::PaxSize(0)),
        (
            "a PAX header of 8 GiB",
            one(base()
                .records(b"9 path=x\n")
                .with(|raw| raw.records_size = Some(octal(8 << 30, 11).split_off(1)))),
            |kind| {
                matches!(kind, ParseErrorKind::PaxSize(_) | ParseErrorKind::Header(HeaderError::Number(_)))
            },
        ),
        (
            "a PAX header of 2 MiB",
            one(base().records(b"9 path=x\n").with(|raw| raw.records_size = Some(octal(2 << 20, 11)))),
            |kind| *kind == ParseErrorKind::PaxSize(2 << 20),
        ),
        (
            "PAX upon PAX",
            one(base().with(|raw| raw.kind = b'x').record(b"mtime", b"0.5")),
            header!(HeaderError::Type(b'x')),
        ),
        (
            "PAX without a member",
            [&base().record(b"mtime", b"0.5").bytes()[..1024], &[0; 1024]].concat(),
            header!(HeaderError::Magic),
        ),
        (
            "garbage after the records",
            one(base().record(b"mtime", b"0.5").with(|raw| {
                raw.records_size = Some(octal(raw.records.as_ref().map_or(0, Vec::len) as u64, 11));
                raw.records.get_or_insert_default().extend_from_slice(b"hidden");
            })),
            header!(HeaderError::NotCanonical),
        ),
    ]);
}

#[test]
fn false_hole_maps_are_refused() {
    let map = |size, map: &str, content: &[u8]| one(sparse(b"a", size, map, content));
    let huge = "65538\n".to_owned();
    refused(vec![
        ("overlapping", map(1000, "3\n0\n10\n5\n10\n1000\n0\n", &[1; 20]), header!(HeaderError::Map)),
        ("touching", map(1000, "3\n0\n10\n10\n10\n1000\n0\n", &[1; 20]), header!(HeaderError::Map)),
        ("unordered", map(1000, "3\n100\n10\n0\n10\n1000\n0\n", &[1; 20]), header!(HeaderError::Map)),
        ("past the size", map(100, "1\n95\n10\n", &[1; 10]), header!(HeaderError::Map)),
        ("past 64 bits", map(100, "1\n18446744073709551610\n10\n", &[1; 10]), header!(HeaderError::Map)),
        ("negative", map(100, "1\n-5\n10\n", &[1; 10]), header!(HeaderError::Map)),
        (
            "an empty extent inside",
            map(100, "3\n5\n0\n10\n10\n100\n0\n", &[1; 10]),
            header!(HeaderError::Map),
        ),
        ("no hole", map(10, "1\n0\n10\n", &[1; 10]), header!(HeaderError::Map)),
        ("no end mark", map(100, "1\n0\n10\n", &[1; 10]), header!(HeaderError::NotCanonical)),
        ("more than it counts", map(1000, "1\n0\n10\n1000\n0\n", &[1; 10]), header!(HeaderError::Map)),
        ("less than it counts", map(1000, "9\n0\n10\n", &[b'\n'; 10]), header!(HeaderError::Map)),
        ("too many extents", map(1 << 40, &huge, b"x"), header!(HeaderError::Map)),
        ("a count past 64 bits", map(1000, "99999999999999999999999\n", b"x"), header!(HeaderError::Map)),
        ("no count", map(1000, "\n0\n10\n", &[1; 10]), header!(HeaderError::Map)),
        ("text", map(1000, "one\n", b"x"), header!(HeaderError::Map)),
        (
            "content longer than its extents",
            map(1000, "2\n0\n10\n1000\n0\n", &[1; 600]),
            header!(HeaderError::NotCanonical),
        ),
        (
            "content shorter than its extents",
            map(1000, "2\n0\n600\n1000\n0\n", &[1; 10]),
            header!(HeaderError::NotCanonical),
        ),
        (
            "hidden bytes in the padding",
            map(1000, "2\n0\n10\n1000\n0\n\0hidden", &[1; 10]),
            header!(HeaderError::NotCanonical),
        ),
        (
            "size past 63 bits",
            map(1 << 63, "2\n0\n10\n9223372036854775808\n0\n", &[1; 10]),
            header!(HeaderError::Value(_)),
        ),
        (
            "a directory with holes",
            one(sparse(b"a", 1000, "2\n0\n1\n1000\n0\n", b"x").with(|raw| {
                raw.kind = b'5';
            })),
            |kind| matches!(kind, ParseErrorKind::Header(_)),
        ),
        (
            "a name without a size",
            one(RawMember::file(b"GNUSparseFile.0/a", b"x").record(b"GNU.sparse.name", b"a")),
            header!(HeaderError::Map),
        ),
        (
            "another version",
            one(RawMember::file(b"a", b"x").record(b"GNU.sparse.major", b"0")),
            header!(HeaderError::Key(_)),
        ),
    ]);
}
