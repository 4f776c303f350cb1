//! A folder becomes a stream and a folder again; an independent walker finds no difference.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use kbak::format::tar;
use kbak::source::volume::{
    AppendResult, LeftOut, ReadConsistency, SkipReason, VolumeOptions, VolumeReader, WalkEvent,
};
use kbak::target::volume::{
    DeletionExceptions, ExistingFiles, FailureKind, TargetError, TargetOptions, VolumeTarget,
};

use rustix::fs::{CWD, FileType as NodeType, Mode};

use crate::support::compare::{Attribute, differences};
use crate::support::program::ran_one;
use crate::support::tree::{self, Shape};
use crate::support::volume::{VolumeRestore, VolumeRestoreError, bytes, restore, stream};

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn devices() -> TargetOptions {
    TargetOptions { allow_devices: true, sync_every: 64 << 10, ..TargetOptions::default() }
}

fn existing(existing: ExistingFiles) -> TargetOptions {
    let deletion_scope = vec![tar::ROOT.to_vec()];
    TargetOptions {
        existing,
        deletion_scope,
        allow_devices: true,
        sync_every: 64 << 10,
        ..TargetOptions::default()
    }
}

/// Returns a torture tree and an empty folder to restore it into.
fn torture(entries: usize) -> (tempfile::TempDir, std::path::PathBuf, std::path::PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    tree::build(&from, Shape { seed: 1, entries, root: is_root() });
    (dir, from, to)
}

#[test]
fn every_attribute_is_restored() {
    // 3,000 entries here; scripts/soak asks for 100,000.
    let entries = std::env::var("KBAK_TEST_ENTRIES").map_or(3000, |text| text.parse().expect("a number"));
    let (_dir, from, to) = torture(entries);
    let mut restoring = VolumeRestore::open(&to, devices(), 1).expect("a target");
    let left = stream(&from, VolumeOptions::default(), |piece| restoring.feed(piece).expect("accepted"));
    let report = restoring.finish().expect("restored");
    assert_eq!((&left.skipped[..], &left.gaps[..]), (&[][..], &[][..]));
    assert!(report.failed.is_empty(), "{:?}", report.failures);
    if is_root() {
        assert!(report.lost.is_empty(), "{:?}", report.lost);
    }
    assert_eq!(differences(&from, &to), []);
    assert!(left.members >= entries, "{}", left.members);
}

#[test]
fn stream_and_folder_do_not_depend_on_thread_count() {
    let (_dir, from, to) = torture(400);
    let alone = VolumeOptions { threads: 0, ..VolumeOptions::default() };
    let (stream, _) = bytes(&from, alone);
    let (again, _) = bytes(&from, VolumeOptions { threads: 7, ..VolumeOptions::default() });
    assert!(stream == again, "the number of threads shows in the stream");
    let options = TargetOptions { threads: 0, ..devices() };
    restore(&stream, &to, options, 1 << 20).expect("restored");
    assert_eq!(differences(&from, &to), []);
    let (third, _) = bytes(&to, VolumeOptions::default());
    assert!(stream == third, "the stream of the copy differs");
}

#[test]
fn stream_in_small_pieces_restores_the_same_folder() {
    let (_dir, from, to) = torture(0);
    let (stream, _) = bytes(&from, VolumeOptions::default());
    let report = restore(&stream, &to, devices(), 509).expect("restored");
    assert!(report.is_complete() || !is_root());
    assert_eq!(differences(&from, &to), []);
}

#[test]
fn members_are_ordered_and_declare_their_length() {
    let (_dir, from, _) = torture(1500);
    let volume = VolumeReader::open(&from, VolumeOptions::default()).expect("a volume");
    let mut last: Option<Vec<u8>> = None;
    let mut total = tar::END.len() as u64;
    for walked in volume.walk() {
        let WalkEvent::Member(member) = walked else { panic!("{walked:?}") };
        if let Some(last) = &last {
            assert!(
                tar::order::compare(last, &member.entry.path).is_lt(),
                "{last:?} {:?}",
                member.entry.path
            );
        }
        total += member.encoded_len();
        last = Some(member.entry.path);
    }
    assert_eq!(total, bytes(&from, VolumeOptions::default()).0.len() as u64);
}

#[test]
fn skipped_entries_are_reported_and_exclusions_applied() {
    let dir = tempfile::tempdir().expect("a folder");
    let from = dir.path().join("from");
    std::fs::create_dir_all(from.join("cache/deep")).expect("folders");
    std::fs::create_dir_all(from.join("lost+found")).expect("a folder");
    std::fs::create_dir_all(from.join("keep/lost+found")).expect("a folder");
    for name in ["a.tmp", "keep/b.tmp", "keep/important.tmp", "cache/deep/x", "keep/c"] {
        std::fs::write(from.join(name), name).expect("a file");
    }
    let _socket = std::os::unix::net::UnixListener::bind(from.join("keep/socket")).expect("a socket");
    let exclude = ["*.tmp", "!important.tmp", "/cache/"].map(str::to_owned).to_vec();
    let options = VolumeOptions { exclude, ..VolumeOptions::default() };
    let mut paths = Vec::new();
    let volume = VolumeReader::open(&from, options).expect("a volume");
    let mut skipped = Vec::new();
    let mut walk = volume.walk();
    for walked in walk.by_ref() {
        match walked {
            WalkEvent::Member(member) => paths.push(String::from_utf8(member.entry.path).expect("text")),
            WalkEvent::Skipped(skip) => skipped.push((skip.path, skip.why)),
            WalkEvent::Gap(gap) => panic!("{gap}"),
        }
    }
    // The folder is not the root of a file system: this lost+found belongs to the user.
    assert_eq!(paths, [".", "keep", "keep/c", "keep/important.tmp", "keep/lost+found", "lost+found"]);
    let expected = [(b"keep/socket".to_vec(), SkipReason::Socket)];
    assert_eq!(skipped, expected);
    assert_eq!(walk.left_out().count(&LeftOut::Excluded), 3);
}

#[test]
fn nonempty_target_is_refused_by_default() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("mine"), b"keep").expect("a file");
    let refused = VolumeTarget::open(dir.path(), TargetOptions::default(), [1; 32]);
    assert!(matches!(refused, Err(TargetError::NotEmpty(_))), "{refused:?}");
}

#[test]
fn second_restore_into_a_busy_target_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let first = VolumeTarget::open(dir.path(), TargetOptions::default(), [1; 32]).expect("a target");
    let second = VolumeTarget::open(dir.path(), TargetOptions::default(), [2; 32]);
    assert!(matches!(second, Err(TargetError::Busy(_))), "{second:?}");
    drop(first);
    VolumeTarget::open(dir.path(), TargetOptions::default(), [3; 32]).expect("a target");
}

#[test]
fn interrupted_restore_resumes() {
    let (_dir, from, to) = torture(600);
    let (stream, _) = bytes(&from, VolumeOptions::default());
    let mut restoring = VolumeRestore::open(&to, devices(), 1).expect("a target");
    // The process ends here: its partial work is left as it is.
    restoring.feed(&stream[..stream.len() / 2]).expect("accepted");
    drop(restoring);
    std::fs::write(to.join(".kbak-restore-0123456789abcdef-7"), b"half").expect("remains");
    let report = restore(&stream, &to, existing(ExistingFiles::Skip), 1 << 16).expect("restored");
    assert!(report.failed.is_empty(), "{:?}", report.failures);
    assert!(report.present > 0 && report.files > 0, "{report:?}");
    assert_eq!(report.cleaned, 1);
    assert_eq!(differences(&from, &to), []);
}

#[test]
fn skip_keeps_differing_files_and_reports_them() {
    let (_dir, from, to) = torture(0);
    let (stream, _) = bytes(&from, VolumeOptions::default());
    restore(&stream, &to, devices(), 1 << 16).expect("restored");
    std::fs::write(to.join("names/plain"), b"newer").expect("write");
    let report = restore(&stream, &to, existing(ExistingFiles::Skip), 1 << 16).expect("restored");
    assert_eq!(report.failed.count(&FailureKind::Different), 1);
    assert_eq!(report.failures[0].path, b"names/plain");
    assert_eq!(std::fs::read(to.join("names/plain")).expect("read"), b"newer");
}

#[test]
fn overwrite_replaces_entries_without_writing_through_links() {
    let (dir, from, to) = torture(0);
    let (stream, _) = bytes(&from, VolumeOptions::default());
    std::fs::create_dir_all(to.join("names")).expect("folders");
    let outside = dir.path().join("outside");
    std::fs::create_dir(&outside).expect("a folder");
    std::fs::write(outside.join("file"), b"untouched").expect("a file");
    std::fs::write(to.join("extra"), b"stays").expect("a file");
    // A hard link and a link to files outside, and a link in place of a directory.
    std::fs::hard_link(outside.join("file"), to.join("names/plain")).expect("link");
    std::os::unix::fs::symlink(outside.join("file"), to.join("names/a")).expect("link");
    std::os::unix::fs::symlink(&outside, to.join("modes")).expect("link");
    let report = restore(&stream, &to, existing(ExistingFiles::Overwrite), 1 << 16).expect("restored");
    assert!(report.failed.is_empty(), "{:?}", report.failures);
    assert_eq!(std::fs::read_dir(&outside).expect("a folder").count(), 1);
    assert_eq!(std::fs::read(outside.join("file")).expect("read"), b"untouched");
    assert_eq!(std::fs::metadata(outside.join("file")).expect("stat").nlink(), 1);
    assert_eq!(differences(&from, &to), [(Attribute::Extra, "extra".to_owned())]);
}

#[test]
fn delete_extra_makes_the_target_equal() {
    let (dir, from, to) = torture(0);
    let (stream, _) = bytes(&from, VolumeOptions::default());
    restore(&stream, &to, devices(), 1 << 16).expect("restored");
    let outside = dir.path().join("outside");
    std::fs::create_dir(&outside).expect("a folder");
    std::fs::write(outside.join("file"), b"untouched").expect("a file");
    std::fs::create_dir_all(to.join("extra/deep/er")).expect("folders");
    std::fs::write(to.join("extra/deep/file"), b"goes").expect("a file");
    std::os::unix::fs::symlink(&outside, to.join("extra/link")).expect("link");
    std::os::unix::fs::symlink(&outside, to.join("names/link")).expect("link");
    std::fs::remove_file(to.join("names/plain")).expect("remove");
    std::fs::create_dir_all(to.join("names/plain/was/a/folder")).expect("folders");
    let report = restore(&stream, &to, existing(ExistingFiles::DeleteExtra), 1 << 16).expect("restored");
    assert!(report.failed.is_empty(), "{:?}", report.failures);
    assert!(report.deleted >= 6, "{report:?}");
    assert_eq!(differences(&from, &to), []);
    assert_eq!(std::fs::read(outside.join("file")).expect("read"), b"untouched");
}

#[test]
fn delete_extra_keeps_files_that_are_gaps_in_the_backup() {
    let dir = tempfile::tempdir().expect("a folder");
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    for folder in [&from, &to] {
        std::fs::create_dir_all(folder.join("held")).expect("a folder");
        std::fs::write(folder.join("held/file"), b"held").expect("a file");
    }
    for lost in ["locked/a/b", "held/unread", "gone/x", "gone/deep/unread", "gone/deep/y"] {
        let path = to.join(lost);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        std::fs::write(path, b"only here").expect("a file");
    }
    let (stream, _) = bytes(&from, VolumeOptions::default());
    let paths = ["locked", "held/unread", "gone/deep/unread"].map(|path| path.as_bytes().to_vec());
    let keep = DeletionExceptions { paths: paths.to_vec(), ..DeletionExceptions::default() };
    let options = TargetOptions { deletion_exceptions: keep.clone(), ..existing(ExistingFiles::DeleteExtra) };
    let deletion_exceptions = DeletionExceptions { all_named: false, ..keep };
    let unknown = TargetOptions { deletion_exceptions, ..options.clone() };
    let report = restore(&stream, &to, unknown, 1 << 16).expect("restored");
    assert!(report.deletion_held_back && report.deleted == 0, "{report:?}");
    let report = restore(&stream, &to, options, 1 << 16).expect("restored");
    assert!(report.deleted == 2 && report.failed.is_empty(), "{report:?}");
    for spared in ["locked/a/b", "held/unread", "gone/deep/unread"] {
        assert!(to.join(spared).is_file(), "{spared}");
    }
}

#[test]
fn truncated_stream_fails_the_restore() {
    let (_dir, from, to) = torture(200);
    let (stream, _) = bytes(&from, VolumeOptions::default());
    let cut = restore(&stream[..stream.len() - 1024], &to, devices(), 1 << 16);
    assert!(matches!(cut, Err(VolumeRestoreError::Stream(_))), "{cut:?}");
    let temporary = |path: &Path| {
        std::fs::read_dir(path)
            .expect("a folder")
            .any(|entry| entry.expect("an entry").file_name().to_string_lossy().starts_with(".kbak-restore-"))
    };
    assert!(!temporary(&to.join("names")) && !temporary(&to));
}

#[test]
fn files_changed_after_the_walk_are_detected() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("file");
    std::fs::write(&path, vec![1u8; 300_000]).expect("a file");
    let volume = VolumeReader::open(dir.path(), VolumeOptions::default()).expect("a volume");
    let member = |volume: &VolumeReader| {
        volume.walk().find_map(|walked| match walked {
            WalkEvent::Member(member) if member.entry.path == b"file" => Some(*member),
            _ => None,
        })
    };
    // Between the walk and the read: the member is read anew.
    let old = member(&volume).expect("the file");
    std::fs::write(&path, vec![2u8; 1000]).expect("rewrite");
    let mut out = Vec::new();
    let appended = volume.append(old, 1 << 20, &mut out).expect("read");
    let AppendResult::Stored(now, content) = appended else { panic!("{appended:?}") };
    assert_eq!((now.content, content), (1000, ReadConsistency::Stable));
    assert_eq!(out.len() as u64, now.encoded_len());
    // During the read: the declared length is kept, the missing end is zeros.
    let mut reading = volume.read(now).expect("open");
    let mut half = vec![9u8; 400];
    assert_eq!(reading.next_block(&mut half).expect("read"), 400);
    let file = std::fs::File::options().write(true).open(&path).expect("open");
    file.set_len(500).expect("shrink");
    let mut rest = vec![9u8; 4000];
    assert_eq!(reading.next_block(&mut rest).expect("read"), 600);
    assert_eq!((&rest[..100], &rest[100..600]), (&[2u8; 100][..], &[0u8; 500][..]));
    assert_eq!(reading.next_block(&mut rest).expect("read"), 0);
    let (_, content) = reading.finish().expect("stat");
    assert_eq!(content, ReadConsistency::Changed);
    // Deleted: no member, and the buffer is unchanged.
    let old = member(&volume).expect("the file");
    std::fs::remove_file(&path).expect("remove");
    let before = out.clone();
    volume.append(old, 1 << 20, &mut out).expect_err("no folder exists");
    assert_eq!(out, before);
}

#[test]
fn symlink_in_place_of_a_walked_file_is_not_followed() {
    let dir = tempfile::tempdir().expect("a folder");
    let (root, secret) = (dir.path().join("root"), dir.path().join("secret"));
    std::fs::create_dir_all(root.join("sub")).expect("folders");
    std::fs::write(&secret, b"outside").expect("a file");
    std::fs::write(root.join("sub/file"), b"inside!").expect("a file");
    let volume = VolumeReader::open(&root, VolumeOptions::default()).expect("a volume");
    let members: Vec<_> = volume.walk().collect();
    std::fs::remove_file(root.join("sub/file")).expect("remove");
    std::os::unix::fs::symlink(&secret, root.join("sub/file")).expect("link");
    for walked in members {
        let WalkEvent::Member(member) = walked else { panic!("{walked:?}") };
        let mut out = Vec::new();
        if volume.append(*member, 1 << 20, &mut out).is_ok() {
            assert!(!out.windows(7).any(|seen| seen == b"outside"));
        }
    }
}

/// Restores as user 1234 by running this test again under `setpriv`.
#[test]
fn restore_without_root_has_only_the_documented_differences() {
    const CHILD: &str = "KBAK_TEST_PLAIN_USER";
    if let Some(folder) = std::env::var_os(CHILD) {
        return as_plain_user(Path::new(&folder));
    }
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).expect("chmod");
    let from = dir.path().join("from");
    tree::build(&from, Shape { seed: 2, entries: 300, root: true });
    let (stream, _) = bytes(&from, VolumeOptions::default());
    std::fs::write(dir.path().join("stream"), stream).expect("write");
    let program = dir.path().join("test");
    std::fs::copy(std::env::current_exe().expect("this program"), &program).expect("copy");
    let name = "end_to_end::volume::restore_without_root_has_only_the_documented_differences";
    let run = std::process::Command::new("setpriv")
        .args(["--reuid=1234", "--regid=1234", "--clear-groups"])
        .arg(&program)
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, dir.path())
        .output()
        .expect("setpriv");
    assert!(ran_one(&run), "{run:?}");
    let mut kinds: Vec<Attribute> = Vec::new();
    for (what, path) in differences(&from, &dir.path().join("to")) {
        let documented = match what {
            Attribute::Owner | Attribute::Group => true,
            // Setuid and setgid of files that now have another owner.
            Attribute::Mode => {
                path.contains("7777")
                    || path.contains("6711")
                    || path.contains("4755")
                    || path.contains("2755")
                    || path.contains("setuid")
            }
            Attribute::Xattrs => path.contains("capable"),
            Attribute::Missing => path.starts_with("devices/"),
            _ => false,
        };
        assert!(documented, "{what:?} {path}");
        kinds.push(what);
    }
    for what in [Attribute::Owner, Attribute::Group, Attribute::Mode, Attribute::Xattrs, Attribute::Missing] {
        assert!(kinds.contains(&what), "{what:?} is documented and did not happen");
    }
}

fn as_plain_user(folder: &Path) {
    use kbak::target::volume::LostAttribute as Lost;
    assert_eq!(rustix::process::geteuid().as_raw(), 1234);
    let stream = std::fs::read(folder.join("stream")).expect("read");
    let report = restore(&stream, &folder.join("to"), TargetOptions::default(), 1 << 20).expect("restored");
    let lost: Vec<Lost> = report.lost.iter().map(|(loss, _)| *loss).collect();
    assert_eq!(lost, [Lost::Owner, Lost::Group, Lost::Setuid, Lost::Setgid, Lost::Capability]);
    assert_eq!(report.failed.count(&FailureKind::DeviceNotAllowed), 3);
    assert_eq!(report.failed.total(), 3, "{:?}", report.failures);
    // Everything exists already, also files that their owner cannot read.
    let again = TargetOptions { existing: ExistingFiles::Skip, ..TargetOptions::default() };
    let report = restore(&stream, &folder.join("to"), again, 1 << 20).expect("restored");
    assert_eq!((report.files, report.failed.total()), (0, 3), "{:?}", report.failures);
}

#[test]
fn files_of_proc_and_sysfs_are_read_to_their_end() {
    // The first says 0 for all files, the second 4096.
    for (folder, name) in [("/proc/sys/kernel/random", "poolsize"), ("/sys/kernel/cgroup", "delegate")] {
        let exclude = vec!["*".to_owned(), format!("!{name}")];
        let dir = tempfile::tempdir().expect("a folder");
        let options = VolumeOptions { exclude, ..VolumeOptions::default() };
        let (stream, left) = bytes(Path::new(folder), options);
        assert_eq!((left.members, &left.gaps[..]), (2, &[][..]), "{folder}");
        restore(&stream, dir.path(), TargetOptions::default(), 1 << 16).expect("restored");
        let truth = std::fs::read(Path::new(folder).join(name)).expect("a file");
        assert_eq!(std::fs::read(dir.path().join(name)).expect("restored"), truth, "{folder}");
        assert!(!truth.is_empty());
    }
}

#[test]
fn pipes_and_devices_take_no_acl_from_the_folder_that_they_are_restored_into() {
    const ACCESS: &str = "system.posix_acl_access";
    let dir = tempfile::tempdir().expect("a folder");
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    for folder in [from.join("inner"), to.clone()] {
        std::fs::create_dir_all(folder).expect("a folder");
    }
    let none = rustix::fs::XattrFlags::empty();
    let acl = tree::acl_for_a_named_user();
    let mut names = Vec::new();
    for (name, mode) in [("pipe", 0o640), ("inner/pipe", 0o606), ("open-pipe", 0o666), ("closed-pipe", 0)] {
        let path = from.join(name);
        rustix::fs::mknodat(CWD, &path, NodeType::Fifo, Mode::RUSR, 0).expect("a pipe");
        names.push((path, name, mode));
    }
    if is_root() {
        let path = from.join("device");
        rustix::fs::mknodat(CWD, &path, NodeType::CharacterDevice, Mode::RUSR, rustix::fs::makedev(1, 3))
            .expect("a device");
        names.push((path, "device", 0o620));
    }
    for (path, _, mode) in &names {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(*mode)).expect("its mode");
    }
    let own = from.join("own-acl");
    rustix::fs::mknodat(CWD, &own, NodeType::Fifo, Mode::RUSR, 0).expect("a pipe");
    rustix::fs::lsetxattr(&own, ACCESS, &acl, none).expect("an ACL");
    rustix::fs::lsetxattr(&to, "system.posix_acl_default", &acl, none).expect("an ACL");

    let (stream, left) = bytes(&from, VolumeOptions::default());
    assert_eq!(left.gaps, []);
    let report = restore(&stream, &to, devices(), 1 << 16).expect("restored");
    assert!(report.failed.is_empty() && report.lost.is_empty(), "{report:?}");
    let mut value = [0u8; 256];
    for (_, name, mode) in names {
        let path = to.join(name);
        let found = path.symlink_metadata().expect("restored").permissions().mode() & 0o7777;
        assert_eq!(found, mode, "{name}");
        let acl = rustix::fs::lgetxattr(&path, ACCESS, &mut value[..]);
        assert_eq!(acl, Err(rustix::io::Errno::NODATA), "{name}");
    }
    let length = rustix::fs::lgetxattr(to.join("own-acl"), ACCESS, &mut value[..]).expect("its own ACL");
    assert_eq!(&value[..length], &acl[..]);
}
