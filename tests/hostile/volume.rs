//! Entries that a parser would have refused, and targets prepared by an attacker, applied to the
//! target. Each case ends in a documented safe result.

use std::os::unix::fs::symlink;
use std::path::Path;

use kbak::format::tar::parse::TarEvent;
use kbak::format::tar::{EntryKind, Extent, FileTime, ROOT, TarEntry, Xattr};
use kbak::target::volume::ExistingFiles::{self, DeleteExtra, Overwrite, Refuse, Skip};
use kbak::target::volume::{FailureKind, TargetError, TargetOptions, VolumeReport, VolumeTarget};

use super::{GuardedTarget, names};

pub fn entry(path: &[u8], kind: EntryKind) -> TarEntry {
    let mode = if kind == EntryKind::Directory { 0o755 } else { 0o644 };
    let euid = rustix::process::geteuid().as_raw();
    let egid = rustix::process::getegid().as_raw();
    let mtime = FileTime { seconds: 1_000_000_000, nanos: 0 };
    TarEntry { path: path.to_vec(), kind, mode, uid: euid, gid: egid, mtime, names: None, xattrs: Vec::new() }
}

pub fn file(path: &str) -> TarEntry {
    entry(path.as_bytes(), EntryKind::File { size: 1 })
}

pub fn directory(path: &str) -> TarEntry {
    entry(path.as_bytes(), EntryKind::Directory)
}

fn soft(path: &str, target: &str) -> TarEntry {
    entry(path.as_bytes(), EntryKind::Symlink { target: target.into() })
}

pub fn hard(path: &str, link_target: &str) -> TarEntry {
    entry(path.as_bytes(), EntryKind::HardLink { link_target: link_target.into() })
}

pub fn options(existing: ExistingFiles) -> TargetOptions {
    TargetOptions { existing, deletion_scope: vec![ROOT.to_vec()], ..TargetOptions::default() }
}

fn put(target: &mut VolumeTarget, entry: TarEntry) -> Result<(), TargetError> {
    let content = matches!(&entry.kind, EntryKind::File { size: 1.. });
    target.apply(TarEvent::Member(Box::new(entry)))?;
    if content {
        target.apply(TarEvent::Data { at: 0, bytes: b"x" })?;
    }
    target.apply(TarEvent::MemberEnd)
}

pub fn apply(
    folder: &Path,
    options: TargetOptions,
    entries: Vec<TarEntry>,
) -> Result<VolumeReport, TargetError> {
    let mut target = VolumeTarget::open(folder, options, [3; 32])?;
    for entry in entries {
        put(&mut target, entry)?;
    }
    target.finish()
}

/// Leaves the target as it is, for [`case`].
pub fn untouched(_: &Path) {}

/// Applies entries to a target prepared by `plant`; `check` inspects the result.
pub fn case(
    name: &str,
    existing: ExistingFiles,
    plant: impl FnOnce(&Path),
    entries: Vec<TarEntry>,
    check: impl FnOnce(&Path, &VolumeReport),
) {
    let guarded = GuardedTarget::new();
    plant(&guarded.target());
    let report =
        apply(&guarded.target(), options(existing), entries).unwrap_or_else(|e| panic!("{name}: {e}"));
    check(&guarded.target(), &report);
    guarded.check(name);
}

#[test]
fn entries_with_invalid_paths_are_refused() {
    for path in [
        "..",
        "../canary/new",
        "../canary/secret",
        "a/../../canary/new",
        "/tmp/kbak-escape",
        "//tmp/kbak-escape",
        "a/..",
        "./../canary/new",
        "",
        "a\0b",
        "a/",
        "a//b/../../../canary/new",
    ] {
        for kind in 0..4 {
            let evil = match kind {
                0 => file(path),
                1 => soft(path, "x"),
                2 => directory(path),
                _ => entry(path.as_bytes(), EntryKind::Fifo),
            };
            let entries = vec![directory("a"), evil];
            case(path, Overwrite, untouched, entries, |target, _| {
                assert!(names(target).iter().all(|name| name == "a"), "{path:?}: {:?}", names(target))
            });
        }
    }
}

#[test]
fn entries_through_links_of_the_stream_are_refused() {
    // Links are made by other threads, so each target is finished before the next entry.
    for target in ["../canary", "/tmp", "../canary/folder", ".", "..", "/proc/self/cwd", "/proc/self/root"] {
        let guarded = GuardedTarget::new();
        apply(&guarded.target(), options(Refuse), vec![soft("a", target)]).expect("a link");
        for evil in [
            file("a/kbak-escape"),
            soft("a/kbak-escape", "x"),
            directory("a/kbak-escape"),
            hard("a/kbak-escape", "a"),
        ] {
            let report = apply(&guarded.target(), options(Skip), vec![evil]).expect("safe");
            assert_eq!(report.failed.count(&FailureKind::ThroughNonDirectory), 1, "{:?}", report.failures);
        }
        guarded.check(target);
    }
    case("through", Refuse, untouched, vec![file("a"), hard("b", "a/c")], |_, report| {
        assert_eq!(report.failed.count(&FailureKind::ThroughNonDirectory), 1, "{:?}", report.failures);
    });
}

#[test]
fn names_that_come_twice_are_reported_as_failures() {
    // As on a case-insensitive target, where `a` and `A` are one.
    case("a file twice", Refuse, untouched, vec![file("a"), file("a")], |target, report| {
        assert_eq!(report.failed.count(&FailureKind::NameCollision), 1);
        assert_eq!(names(target), ["a"]);
    });
    let entries = vec![directory("a"), directory("a"), file("a/b")];
    case("a directory twice", Refuse, untouched, entries, |_, report| {
        assert_eq!(report.failed.count(&FailureKind::NameCollision), 1);
        assert_eq!(report.failed.count(&FailureKind::NoDirectory), 1);
    });
    let entries = vec![file("a"), file("b"), hard("b", "a")];
    case("a hard link over a file", Refuse, untouched, entries, |_, report| {
        assert_eq!(report.failed.count(&FailureKind::NameCollision), 1);
    });
    let entries = vec![directory("a"), file("a/b"), directory("c"), file("c")];
    case("a file over a directory", Overwrite, untouched, entries, |target, report| {
        // The empty directory was replaced, and then could not be given its attributes.
        assert_eq!(report.failed.count(&FailureKind::ThroughNonDirectory), 1, "{:?}", report.failures);
        assert!(target.join("c").is_file() && target.join("a/b").is_file());
    });
    case(
        "a file over a full directory",
        Overwrite,
        |target| {
            std::fs::create_dir_all(target.join("a/full")).expect("folders");
        },
        vec![file("a")],
        |target, report| {
            assert_eq!(report.failed.count(&FailureKind::DirectoryInTheWay), 1);
            assert!(target.join("a/full").exists());
        },
    );
}

#[test]
fn hard_links_to_invalid_targets_are_refused() {
    for (link_target, kind) in [
        ("z", FailureKind::Invalid),
        ("missing", FailureKind::LinkTargetMissing),
        ("missing/deep", FailureKind::LinkTargetMissing),
        ("../canary/secret", FailureKind::Invalid),
        ("/etc/passwd", FailureKind::Invalid),
        ("d", FailureKind::System),
        (".", FailureKind::Invalid),
    ] {
        let entries = vec![directory("d"), hard("z", link_target)];
        case(link_target, Refuse, untouched, entries, |target, report| {
            assert_eq!(report.failed.count(&kind), 1, "{link_target}: {:?}", report.failures);
            assert_eq!(names(target), ["d"], "{link_target}");
        });
    }
}

#[test]
fn impossible_file_sizes_are_refused() {
    let guarded = GuardedTarget::new();
    for size in [1 << 62, u64::MAX / 2, 1 << 50] {
        let evil = entry(b"a", EntryKind::File { size });
        let mut target =
            VolumeTarget::open(&guarded.target(), TargetOptions::default(), [3; 32]).expect("a target");
        let refused = target.apply(TarEvent::Member(Box::new(evil)));
        assert!(matches!(refused, Err(TargetError::NoRoom { .. })), "{refused:?}");
        drop(target);
        assert_eq!(names(&guarded.target()), Vec::<String>::new());
    }
    // Only a hole: no room is needed, but no file can be so long.
    let evil = entry(b"a", EntryKind::Sparse { size: u64::MAX / 2, extents: Vec::new() });
    let report = apply(&guarded.target(), TargetOptions::default(), vec![evil]).expect("safe");
    let failed = report.failed.count(&FailureKind::TooLarge);
    assert!(failed == 1 || names(&guarded.target()) == ["a"], "{report:?}");
    // Data at the end of the longest file.
    let extents = vec![Extent { offset: (1 << 62) - 1, len: 1 }];
    let evil = entry(b"b", EntryKind::Sparse { size: 1 << 62, extents });
    let mut target = VolumeTarget::open(&guarded.target(), options(Skip), [4; 32]).expect("a target");
    target.apply(TarEvent::Member(Box::new(evil))).expect("taken");
    target.apply(TarEvent::Data { at: (1 << 62) - 1, bytes: b"x" }).expect("taken");
    target.apply(TarEvent::MemberEnd).expect("taken");
    target.finish().expect("safe");
    guarded.check("sizes");
}

#[test]
fn attributes_not_asked_for_are_not_restored() {
    let mut evil = file("a");
    evil.xattrs = [&b"security.evil"[..], b"trusted.overlay.opaque", b"trusted.overlay.redirect"]
        .map(|name| Xattr { name: name.to_vec(), value: b"/".to_vec() })
        .to_vec();
    case("attributes", Refuse, untouched, vec![evil], |target, report| {
        assert_eq!(report.lost.count(&kbak::target::volume::LostAttribute::OtherXattr), 3);
        let mut names = [0u8; 1000];
        let len = rustix::fs::llistxattr(target.join("a"), &mut names[..]).expect("a list");
        let names = String::from_utf8_lossy(&names[..len]);
        assert!(!names.contains("trusted") && !names.contains("evil"), "{names}");
    });
}

#[test]
fn too_long_names_are_reported() {
    let long = "n".repeat(300);
    let entries = vec![file("a"), file(&long), directory(&"o".repeat(256))];
    case("long", Refuse, untouched, entries, |target, report| {
        let found = (names(target), report.failed.total());
        assert_eq!(found, (vec!["a".to_owned()], 2), "{:?}", report.failures);
    });
}

/// Another process swaps a directory for a link while the restore runs.
#[test]
fn directory_swapped_for_a_link_during_restore_is_not_followed() {
    for threads in [0, 4] {
        let guarded = GuardedTarget::new();
        let options = TargetOptions { threads, ..TargetOptions::default() };
        let mut target = VolumeTarget::open(&guarded.target(), options, [5; 32]).expect("a target");
        for entry in [directory("d"), directory("d/e"), file("d/e/first"), directory("f")] {
            put(&mut target, entry).expect("taken");
        }
        for name in ["d", "f"] {
            let (from, to) = (guarded.target().join(name), guarded.target().join(format!("moved-{name}")));
            std::fs::rename(from, to).expect("rename");
            symlink("../canary", guarded.target().join(name)).expect("link");
        }
        for entry in [
            file("d/e/second"),
            file("d/folder/new"),
            hard("f/h", "d/e/first"),
            file("f/new"),
            directory("f/sub"),
        ] {
            put(&mut target, entry).expect("taken");
        }
        let report = target.finish().expect("safe");
        // Neither the files nor the attributes of the two directories went through the links.
        assert!(report.failed.count(&FailureKind::ThroughNonDirectory) >= 3, "{:?}", report.failures);
        guarded.check("swapped");
    }
}

/// Entries in any order and number: nothing outside changes.
#[test]
fn any_mixture_of_entries_stays_inside_the_target() {
    use proptest::prelude::*;
    let part = prop::sample::select(vec!["a", "b", "..", ".", "", "c", "canary", "\u{e4}"]);
    let path = prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"));
    let mixed = (path.clone(), path, 0..6u8).prop_map(|(path, other, kind)| match kind {
        0 => file(&path),
        1 => directory(&path),
        2 => soft(&path, &other),
        3 => soft(&path, &format!("../canary/{other}")),
        4 => hard(&path, &other),
        _ => entry(path.as_bytes(), EntryKind::Fifo),
    });
    let policy = prop::sample::select(vec![Skip, Overwrite, DeleteExtra]);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&(prop::collection::vec(mixed, 1..20), policy, 0..3usize), |(entries, policy, threads)| {
            let guarded = GuardedTarget::new();
            for half in [&entries[..entries.len() / 2], &entries[entries.len() / 2..]] {
                let options = TargetOptions { threads, ..options(policy) };
                apply(&guarded.target(), options, half.to_vec()).expect("safe");
            }
            guarded.check("mixture");
            Ok(())
        })
        .expect("nothing outside changes");
}
