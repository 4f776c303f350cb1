//! Streams with PAX records or hole maps that are refused, each for its own reason.

use kbak::format::tar::parse::{HeaderError, ParseErrorKind};

use super::raw_member::{RawMember, octal, sparse};
use super::stream::{header, is, one, refused};

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
        ("an empty PAX header", records(b""), is!(PaxSize(0))),
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
            is!(PaxSize(2 << 20)),
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
