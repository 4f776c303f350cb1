//! File systems of their own: mount points in a volume, a full target. Each test runs again in its
//! own mount namespace, which only root can make.

use std::path::Path;
use std::process::Command;

use kbak::format::tar;
use kbak::source::volume::{SkipReason, VolumeOptions, VolumeReader, WalkEvent};
use kbak::target::kubernetes::{DirectoryError, FileFormat, RestoreConfig, write_directory};
use kbak::target::volume::{ExistingFiles, TargetError, TargetOptions};
use serde_json::json;

use crate::support::backup_builder::backup_of;
use crate::support::cli_repo::{CliRepo, as_strs};
use crate::support::fuse::{self, StatedFile};
use crate::support::program::{beneath, ran_one, run_json};
use crate::support::volume::{VolumeRestoreError, bytes, restore};

const CHILD: &str = "KBAK_TEST_MOUNTS";

/// Runs `inside` with a folder to mount in, in a process with a private mount namespace.
fn with_mounts(name: &str, inside: impl FnOnce(&Path)) {
    if let Some(folder) = std::env::var_os(CHILD) {
        return inside(Path::new(&folder));
    }
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let run = Command::new("unshare")
        .arg("--mount")
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", &format!("end_to_end::mounts::{name}"), "--nocapture"])
        .env(CHILD, dir.path())
        .output()
        .expect("unshare");
    assert!(ran_one(&run), "{run:?}");
}

fn mount(args: &[&str], at: &Path) {
    let status = Command::new("mount").args(args).arg(at).status().expect("mount");
    assert!(status.success(), "mount {args:?}");
}

#[test]
fn mount_points_are_reported_and_not_entered() {
    with_mounts("mount_points_are_reported_and_not_entered", |dir| {
        let root = dir.join("root");
        for folder in ["a/mounted", "bound", "z"] {
            std::fs::create_dir_all(root.join(folder)).expect("folders");
        }
        std::fs::write(root.join("z/file"), b"kept").expect("a file");
        std::fs::write(root.join("z/secret"), b"under").expect("a file");
        mount(&["-t", "tmpfs", "none"], &root.join("a/mounted"));
        std::fs::write(root.join("a/mounted/file"), b"of another file system").expect("a file");
        // The same file system, mounted in itself: its content is in the walk already.
        mount(&["--bind", root.join("z").to_str().expect("text")], &root.join("bound"));
        mount(&["--bind", "/etc/hostname"], &root.join("z/secret"));
        let volume = VolumeReader::open(&root, VolumeOptions::default()).expect("a volume");
        let (mut members, mut skipped) = (Vec::new(), Vec::new());
        for walked in volume.walk() {
            match walked {
                WalkEvent::Member(member) => {
                    members.push(String::from_utf8(member.entry.path).expect("text"))
                }
                WalkEvent::Skipped(skip) => {
                    skipped.push((String::from_utf8(skip.path).expect("text"), skip.why))
                }
                WalkEvent::Gap(gap) => panic!("{gap}"),
            }
        }
        assert_eq!(members, [".", "a", "a/mounted", "bound", "z", "z/file"]);
        let expected =
            ["a/mounted", "bound", "z/secret"].map(|path| (path.to_owned(), SkipReason::MountPoint));
        assert_eq!(skipped, expected);
    });
}

#[test]
fn deleting_extra_files_stops_at_mount_points() {
    with_mounts("deleting_extra_files_stops_at_mount_points", |dir| {
        let (from, to) = (dir.join("from"), dir.join("to"));
        std::fs::create_dir_all(from.join("known")).expect("folders");
        for folder in ["known", "extra/mounted"] {
            std::fs::create_dir_all(to.join(folder)).expect("folders");
            mount(&["-t", "tmpfs", "none"], &to.join(folder));
            std::fs::write(to.join(folder).join("file"), b"stays").expect("a file");
        }
        std::fs::write(to.join("extra/file"), b"goes").expect("a file");
        let (stream, _) = bytes(&from, VolumeOptions::default());
        let (existing, deletion_scope) = (ExistingFiles::DeleteExtra, vec![tar::ROOT.to_vec()]);
        let options = TargetOptions { existing, deletion_scope, ..TargetOptions::default() };
        let report = restore(&stream, &to, options, 1 << 16).expect("restored");
        assert_eq!(report.deleted, 1, "{report:?}");
        assert!(to.join("known/file").exists() && to.join("extra/mounted/file").exists());
    });
}

#[test]
fn full_target_stops_the_restore_without_partial_files() {
    with_mounts("full_target_stops_the_restore_without_partial_files", |dir| {
        let (from, to) = (dir.join("from"), dir.join("to"));
        for folder in [&from, &to] {
            std::fs::create_dir(folder).expect("a folder");
        }
        for number in 0..40 {
            std::fs::write(from.join(format!("f{number:02}")), vec![1u8; 100_000]).expect("a file");
        }
        let (stream, _) = bytes(&from, VolumeOptions::default());
        mount(&["-t", "tmpfs", "-o", "size=2M", "none"], &to);
        let full = restore(&stream, &to, TargetOptions::default(), 1 << 16);
        assert!(matches!(full, Err(VolumeRestoreError::Target(TargetError::Stopped { .. }))), "{full:?}");
        let entries: Vec<_> =
            std::fs::read_dir(&to).expect("a folder").map(|entry| entry.expect("an entry")).collect();
        assert!(!entries.is_empty() && entries.len() < 40);
        for entry in entries {
            assert_eq!(entry.metadata().expect("stat").len(), 100_000, "{:?}", entry.file_name());
        }
        // A file that does not fit is refused before any of it is written.
        std::fs::write(from.join("a-large"), vec![1u8; 3_000_000]).expect("a file");
        let (stream, _) = bytes(&from, VolumeOptions::default());
        let skip = TargetOptions { existing: ExistingFiles::Skip, ..TargetOptions::default() };
        let full = restore(&stream, &to, skip, 1 << 16);
        assert!(matches!(full, Err(VolumeRestoreError::Target(TargetError::NoRoom { .. }))), "{full:?}");
    });
}

#[test]
fn dry_run_foresees_files_for_which_the_target_has_no_room() {
    with_mounts("dry_run_foresees_files_for_which_the_target_has_no_room", |dir| {
        let (cli, to) = (CliRepo::new(), dir.join("to"));
        for name in ["a", "b"] {
            std::fs::write(cli.at("data").join(name), vec![1u8; 1_500_000]).expect("a file");
        }
        let (code, _, said) = cli.backup(&[]);
        assert_eq!(code, 0, "{said}");
        std::fs::create_dir(&to).expect("a folder");
        mount(&["-t", "tmpfs", "-o", "size=2M", "none"], &to);
        let restore = |more: &[&str]| {
            let args = ["restore", "latest", "--to", to.to_str().expect("text")];
            let (code, _, said) = cli.run_reader(&[&args[..], more].concat());
            (code, said.lines().find(|line| line.contains("because")).map(str::to_owned))
        };
        assert_eq!(restore(&["--path", "a", "--dry-run"]).0, 0);
        let (code, said) = restore(&["--dry-run"]);
        assert!(
            code == 3 && said.as_ref().is_some_and(|said| said.contains("bytes free")),
            "{code} {said:?}"
        );
        assert_eq!(restore(&[]).0, code);
    });
}

#[test]
fn resource_files_that_do_not_fit_leave_no_partial_file() {
    with_mounts("resource_files_that_do_not_fit_leave_no_partial_file", |dir| {
        let to = dir.join("to");
        std::fs::create_dir(&to).expect("a folder");
        mount(&["-t", "tmpfs", "-o", "size=1M", "none"], &to);
        let large = json!({"data": {"a": "x".repeat(700_000)}});
        let objects = [("shop/a", large.clone()), ("shop/b", large)];
        let held = backup_of(&[("core/v1/configmaps ConfigMap", &objects)]);
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let config = RestoreConfig::default();
        let written = runtime.block_on(write_directory(&held, &to, FileFormat::Json, &config));
        assert!(matches!(written, Err(DirectoryError::Io { .. })), "{written:?}");
        let files: Vec<_> = beneath(&to).into_iter().filter(|path| path.is_file()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
    });
}

/// Returns bytes that do not repeat, so that a wrong length or place shows.
fn text(length: usize) -> Vec<u8> {
    (0..length.div_ceil(8)).flat_map(|number| format!("{number:07}\n").into_bytes()).take(length).collect()
}

#[test]
fn files_are_stored_to_their_end_whatever_size_the_file_system_says() {
    with_mounts("files_are_stored_to_their_end_whatever_size_the_file_system_says", |dir| {
        let root = dir.join("root");
        std::fs::create_dir(&root).expect("a folder");
        let file = |name, stated, length| StatedFile { name, stated, content: text(length) };
        let (little, much) = (1080, 9 << 20);
        let files = vec![
            file("empty", 0, 0),
            file("right", 1080, little),
            file("right-large", 9 << 20, much),
            file("zero", 0, little),
            file("zero-one-byte", 0, 1),
            file("zero-one-block", 0, 512),
            file("zero-large", 0, much),
            file("too-little", 5, little),
            file("too-little-by-one", 1079, little),
            file("too-little-by-much", 5, 3 << 20),
            file("too-little-large", 5 << 20, much),
            file("too-much", 4096, little),
            file("too-much-by-one", 1081, little),
            file("too-much-empty", 4096, 0),
            file("too-much-large", 20 << 20, much),
            file("too-much-large-and-little", 9 << 20, little),
            file("too-much-large-empty", 9 << 20, 0),
            // It was taken for a small file, and is too large for the place that such a file has.
            file("unstorable", 5, 12 << 20),
        ];
        fuse::mount(&root, files.clone());
        let cli = CliRepo::new();
        let path = root.to_str().expect("text");
        let back_up = || {
            let writer = cli.writer_args();
            run_json(&[&["backup", "--path", path], &as_strs(&writer)[..]].concat())
        };
        for run in 0..2 {
            let (code, report, said) = back_up();
            assert_eq!(code, 3, "{said}");
            let gaps = report["items"][0]["gaps"].as_array().expect("gaps").clone();
            let named: Vec<&str> = gaps.iter().filter_map(|gap| gap["object"].as_str()).collect();
            assert_eq!(named, ["unstorable"], "{gaps:?}");
            assert!(gaps[0]["reason"].as_str().expect("text").contains("a wrong size"), "{gaps:?}");
            let to = cli.text(&format!("out{run}"));
            let (code, _, said) = cli.run_reader(&["restore", "latest", "--to", &to]);
            assert_eq!(code, 3, "{said}");
            for file in files.iter().filter(|file| file.name != "unstorable") {
                let restored = std::fs::read(Path::new(&to).join(file.name)).expect("restored");
                assert!(restored == file.content, "{}: {} bytes", file.name, restored.len());
            }
        }
    });
}
