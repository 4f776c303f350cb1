//! Encoded entries are read back the same, by kbak and by independent programs.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use kbak::format::tar;
use kbak::format::tar::order::compare;
use kbak::format::tar::parse::{ExpectedInput, ParseError, TarEvent, TarParser};
use kbak::format::tar::{DeviceNumber, END, EntryKind, Extent, FileTime, MAX_SIZE, OwnerNames, ROOT};
use kbak::format::tar::{TarEntry, Xattr, encode, padding};
use kbak::source::volume::VolumeOptions;
use proptest::prelude::*;

use crate::support::compare::differences;
use crate::support::tree::{self, Shape};
use crate::support::volume::bytes;

fn component() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![8 => 33..127u8, 2 => any::<u8>()].prop_filter("a name", |b| *b != b'/' && *b != 0);
    let len = prop_oneof![8 => 1..20usize, 1 => 95..110usize, 1 => 255..256usize];
    len.prop_flat_map(move |len| prop::collection::vec(byte.clone(), len))
        .prop_filter("no dots", |name| name != b"." && name != b"..")
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(component(), 1..6).prop_map(|parts| parts.join(&b'/'))
}

fn extents() -> impl Strategy<Value = EntryKind> {
    let runs = prop::collection::vec((1..5000u64, 1..3000u64), 0..40);
    (runs, 0..4000u64, 0..3u64).prop_map(|(runs, tail, scale)| {
        let (mut at, mut extents) = (0, Vec::new());
        for (hole, len) in runs {
            let offset = at + (hole << (scale * 15));
            extents.push(Extent { offset, len });
            at = offset + len;
        }
        // At least one hole somewhere.
        let size = if extents.is_empty() { at + tail + 1 } else { at + tail };
        EntryKind::Sparse { size, extents }
    })
}

fn kind(path: Vec<u8>) -> impl Strategy<Value = (Vec<u8>, EntryKind)> {
    let target = prop_oneof![path_like(), prop::collection::vec(1..=255u8, 90..110), Just(vec![b't'; 4095])];
    let number = || prop_oneof![0..300u32, Just(0o7_777_777)];
    let device = (number(), number()).prop_map(|(major, minor)| DeviceNumber { major, minor });
    let size = prop_oneof![4 => 0..5000u64, 1 => Just(0o77_777_777_777), 1 => Just(0o100_000_000_000), 1 => Just(MAX_SIZE)];
    // A link target that is certainly earlier: the same path without its last byte, or a smaller one.
    let link_target = match path.len() {
        1 => vec![1],
        len => path[..len - 1].to_vec(),
    };
    let link_target_fits =
        tar::order::check_path(&link_target).is_ok() && compare(&link_target, &path).is_lt();
    let link = if link_target_fits { EntryKind::HardLink { link_target } } else { EntryKind::Fifo };
    prop_oneof![
        3 => size.prop_map(|size| EntryKind::File { size }),
        2 => extents(),
        1 => Just(EntryKind::Directory),
        2 => target.prop_map(|target| EntryKind::Symlink { target }),
        1 => Just(link),
        1 => Just(EntryKind::Fifo),
        1 => device.clone().prop_map(EntryKind::CharDevice),
        1 => device.prop_map(EntryKind::BlockDevice),
    ]
    .prop_map(move |kind| (path.clone(), kind))
}

fn path_like() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(1..=255u8, 1..60)
}

fn id() -> impl Strategy<Value = u32> {
    prop_oneof![0..70_000u32, Just(0o7_777_777), Just(0o10_000_000), Just(u32::MAX - 1)]
}

fn time() -> impl Strategy<Value = FileTime> {
    let seconds = prop_oneof![-3_000_000_000..9_000_000_000i64, Just(i64::MIN), Just(i64::MAX), Just(-1i64)];
    let nanos = prop_oneof![Just(0u32), 0..1_000_000_000u32, Just(500_000_000)];
    (seconds, nanos).prop_map(|(seconds, nanos)| FileTime { seconds, nanos })
}

fn xattrs() -> impl Strategy<Value = Vec<Xattr>> {
    let name = prop::collection::vec(1..=255u8, 1..40).prop_map(|tail| [b"user.".to_vec(), tail].concat());
    let value = prop_oneof![4 => prop::collection::vec(any::<u8>(), 0..100), 1 => Just(vec![9; 65_536])];
    prop::collection::btree_map(name, value, 0..5)
        .prop_map(|map| map.into_iter().map(|(name, value)| Xattr { name, value }).collect())
}

fn owners() -> impl Strategy<Value = Option<OwnerNames>> {
    let name = || prop_oneof!["[a-z]{1,10}", "[a-z]{30,34}", "[äöü]{1,9}", Just(String::new())];
    prop::option::of((name(), name()).prop_filter_map("a name", |(user, group)| {
        (!user.is_empty() || !group.is_empty())
            .then(|| OwnerNames { user: user.into_bytes(), group: group.into_bytes() })
    }))
}

fn entry() -> impl Strategy<Value = TarEntry> {
    let root = (Just(ROOT.to_vec()), Just(EntryKind::Directory));
    let named = prop_oneof![20 => path().prop_flat_map(kind), 1 => root];
    (named, 0..=0o7777u32, id(), id(), time(), owners(), xattrs()).prop_map(
        |((path, kind), mode, uid, gid, mtime, names, xattrs)| TarEntry {
            path,
            kind,
            mode,
            uid,
            gid,
            mtime,
            names,
            xattrs,
        },
    )
}

/// Parses a stream into its entries, each with the length of its data.
fn parse(bytes: &[u8], piece: usize, expect: ExpectedInput) -> Result<Vec<(TarEntry, u64)>, ParseError> {
    let mut parser = TarParser::new(expect);
    let mut found: Vec<(TarEntry, u64)> = Vec::new();
    for mut piece in bytes.chunks(piece) {
        while let Some(event) = parser.next(&mut piece)? {
            match event {
                TarEvent::Member(entry) => found.push((*entry, 0)),
                TarEvent::Data { bytes, .. } => {
                    found.last_mut().expect("a member").1 += bytes.len() as u64;
                }
                TarEvent::MemberEnd | TarEvent::End => {}
            }
        }
    }
    parser.finish()?;
    Ok(found)
}

/// Returns a member with its content, or only its header if the content is too large.
fn member(entry: &TarEntry) -> (Vec<u8>, Option<u64>) {
    let encoded = encode(entry).expect("a valid entry");
    let mut bytes = [encoded.header, encoded.map].concat();
    if encoded.content > 1 << 20 {
        return (bytes, None);
    }
    bytes.resize(bytes.len() + encoded.content as usize, b'c');
    bytes.resize(bytes.len() + padding(encoded.content), 0);
    (bytes, Some(encoded.content))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn entry_round_trips_through_its_header(entry in entry(), piece in 1..2000usize) {
        let (bytes, content) = member(&entry);
        prop_assert_eq!(encode(&entry), encode(&entry.clone()));
        let parsed = match content {
            Some(_) => parse(&bytes, piece, ExpectedInput::Members),
            // Without its content the member is incomplete, but its header was read.
            None => {
                let mut parser = TarParser::new(ExpectedInput::Members);
                match parser.next(&mut &bytes[..]).expect("accepted") {
                    Some(TarEvent::Member(entry)) => Ok(vec![(*entry, 0)]),
                    other => panic!("{other:?}"),
                }
            }
        };
        prop_assert_eq!(parsed.expect("accepted"), vec![(entry, content.unwrap_or(0))]);
    }

    #[test]
    fn accepted_header_is_exactly_the_encoded_one(
        entry in entry(), at in any::<prop::sample::Index>(), bit in 0..8u8
    ) {
        let encoded = encode(&entry).expect("a valid entry");
        let mut bytes = [encoded.header, encoded.map].concat();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let mut parser = TarParser::new(ExpectedInput::Members);
        if let Ok(Some(TarEvent::Member(read))) = parser.next(&mut &bytes[..]) {
            let again = encode(&read).expect("what was read can be written");
            let again = [again.header, again.map].concat();
            // A changed count may make the header shorter: then the rest was not read.
            prop_assert_eq!(&bytes[..again.len()], &again[..]);
            prop_assert_ne!(*read, entry);
        }
    }

    #[test]
    fn parser_never_panics_on_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..3000), piece in 1..700usize) {
        let _ = parse(&bytes, piece, ExpectedInput::Stream);
    }

    #[test]
    fn path_order_is_total_and_agrees_with_components(a in path(), b in path()) {
        let split = |path: &[u8]| path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect::<Vec<_>>();
        prop_assert_eq!(compare(&a, &b), split(&a).cmp(&split(&b)));
        prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
    }

    #[test]
    fn tar_crate_reads_the_same_entries(entries in prop::collection::vec(entry(), 1..8)) {
        let mut entries = entries;
        entries.retain(|entry| {
            let small = !matches!(entry.kind, EntryKind::File { size } if size > 1 << 20);
            // That crate knows no GNU.sparse 1.0, and cuts records at the first newline.
            let lines = [&entry.path, link_of(entry)].into_iter();
            let lines = lines.chain(entry.xattrs.iter().flat_map(|xattr| [&xattr.name, &xattr.value]));
            small && !matches!(entry.kind, EntryKind::Sparse { .. }) && lines.into_iter().all(|l| !l.contains(&b'\n'))
        });
        entries.sort_by(|a, b| compare(&a.path, &b.path));
        entries.dedup_by(|a, b| a.path == b.path);
        let mut stream: Vec<u8> = entries.iter().flat_map(|entry| member(entry).0).collect();
        stream.extend_from_slice(&END);
        let mut archive = ::tar::Archive::new(&stream[..]);
        let mut read = archive.entries().expect("an archive");
        for entry in &entries {
            let mut theirs = read.next().expect("a member").expect("readable");
            same_as_the_tar_crate(entry, &mut theirs)?;
        }
        prop_assert!(read.next().is_none());
    }
}

fn link_of(entry: &TarEntry) -> &Vec<u8> {
    match &entry.kind {
        EntryKind::Symlink { target } | EntryKind::HardLink { link_target: target } => target,
        _ => &entry.path,
    }
}

fn same_as_the_tar_crate(ours: &TarEntry, theirs: &mut ::tar::Entry<'_, &[u8]>) -> Result<(), TestCaseError> {
    let mut path = theirs.path_bytes().into_owned();
    if ours.kind == EntryKind::Directory && path.last() == Some(&b'/') {
        path.pop();
    }
    prop_assert_eq!(&path, &ours.path);
    let header = theirs.header().clone();
    prop_assert_eq!(header.mode().expect("mode"), ours.mode);
    match &ours.kind {
        EntryKind::Symlink { target } | EntryKind::HardLink { link_target: target } => {
            let link = theirs.link_name_bytes().expect("a link").into_owned();
            prop_assert_eq!(&link, target);
        }
        EntryKind::CharDevice(device) | EntryKind::BlockDevice(device) => {
            prop_assert_eq!(header.device_major().expect("a number"), Some(device.major));
            prop_assert_eq!(header.device_minor().expect("a number"), Some(device.minor));
        }
        EntryKind::File { size } => prop_assert_eq!(theirs.size(), *size),
        _ => {}
    }
    let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    if let Some(extensions) = theirs.pax_extensions().expect("records") {
        for record in extensions {
            let record = record.expect("a record");
            records.push((record.key_bytes().to_vec(), record.value_bytes().to_vec()));
        }
    }
    let value = |key: &[u8]| records.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
    let number = |key: &[u8], field: u64| match value(key) {
        Some(text) => String::from_utf8(text).expect("text").parse().expect("a number"),
        None => field,
    };
    prop_assert_eq!(number(b"uid", header.uid().expect("uid")), u64::from(ours.uid));
    prop_assert_eq!(number(b"gid", header.gid().expect("gid")), u64::from(ours.gid));
    for xattr in ours.xattrs.iter().filter(|xattr| !xattr.name.contains(&b'=') && !xattr.name.contains(&b'%'))
    {
        let key = [b"SCHILY.xattr.".to_vec(), xattr.name.clone()].concat();
        prop_assert_eq!(value(&key), Some(xattr.value.clone()));
    }
    let mut content = Vec::new();
    theirs.read_to_end(&mut content).expect("content");
    prop_assert!(content.iter().all(|byte| *byte == b'c'));
    Ok(())
}

/// GNU tar, told to keep all attributes, restores the torture tree's stream to the same folder.
#[test]
fn gnu_tar_restores_the_torture_tree() {
    let is_root = rustix::process::geteuid().is_root();
    let dir = tempfile::tempdir().expect("a folder");
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    tree::build(&from, Shape { seed: 3, entries: 300, root: is_root });
    let (stream, left) = bytes(&from, VolumeOptions::default());
    assert!(left.gaps.is_empty() && left.skipped.is_empty());
    let archive = dir.path().join("archive.tar");
    std::fs::write(&archive, stream).expect("write");
    std::fs::create_dir(&to).expect("a folder");
    gnu_tar(&archive, &to);
    assert_eq!(differences(&from, &to), []);
}

fn gnu_tar(archive: &Path, to: &Path) {
    let run = Command::new("tar")
        .args(["--extract", "--preserve-permissions", "--same-owner", "--numeric-owner"])
        .args(["--xattrs", "--xattrs-include=*", "--warning=no-unknown-keyword", "--file"])
        .arg(archive)
        .arg("--directory")
        .arg(to)
        .output()
        .expect("GNU tar");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}

/// Names that are not UTF-8 are listed unchanged.
#[test]
fn gnu_tar_lists_non_utf8_names_unchanged() {
    let names: Vec<Vec<u8>> = [&b"\xff\xfe"[..], &[b'n'; 255], b"latin-\xe4", "umlaut-\u{e4}".as_bytes()]
        .map(<[u8]>::to_vec)
        .to_vec();
    let dir = tempfile::tempdir().expect("a folder");
    let from = dir.path().join("from");
    std::fs::create_dir(&from).expect("a folder");
    for name in &names {
        std::fs::write(from.join(std::ffi::OsStr::from_bytes(name)), b"x").expect("a file");
    }
    let (stream, _) = bytes(&from, VolumeOptions::default());
    let archive = dir.path().join("archive.tar");
    std::fs::write(&archive, stream).expect("write");
    let run = Command::new("tar")
        .args(["--list", "--quoting-style=literal", "--file"])
        .arg(&archive)
        .output()
        .expect("GNU tar");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let mut listed: Vec<Vec<u8>> = run.stdout.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    listed.retain(|name| !name.is_empty() && name != b"./");
    let mut names = names;
    names.sort();
    listed.sort();
    assert_eq!(listed, names);
}
