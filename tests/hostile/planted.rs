//! Links, pipes and hard links that an attacker planted in the target before the restore.

use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::Path;

use kbak::format::tar::{DeviceNumber, EntryKind};
use kbak::target::volume::ExistingFiles::{DeleteExtra, Overwrite, Refuse, Skip};
use kbak::target::volume::FailureKind;

use super::volume::{apply, case, directory, entry, file, hard, options, untouched};
use super::{GuardedTarget, names};

#[test]
fn planted_links_in_the_target_are_not_followed() {
    let link = |to: &'static str| move |target: &Path| symlink(to, target.join("a")).expect("link");
    case(
        "directory over a link, skip",
        Skip,
        link("../canary"),
        vec![directory("a"), file("a/new")],
        |_, report| {
            assert_eq!(report.failed.count(&FailureKind::Different), 1);
            assert_eq!(report.failed.count(&FailureKind::NoDirectory), 1);
        },
    );
    case(
        "directory over a link, overwrite",
        Overwrite,
        link("../canary"),
        vec![directory("a"), file("a/new")],
        |target, report| {
            assert!(report.failed.is_empty());
            assert!(target.join("a").symlink_metadata().expect("stat").is_dir());
        },
    );
    case("file over a link, skip", Skip, link("../canary/secret"), vec![file("a")], |_, report| {
        assert_eq!(report.failed.count(&FailureKind::Different), 1)
    });
    case("file over a link, overwrite", Overwrite, link("../canary/secret"), vec![file("a")], |target, _| {
        assert_eq!(std::fs::read(target.join("a")).expect("read"), b"x");
        assert!(target.join("a").symlink_metadata().expect("stat").is_file());
    });
    case("file over a link to nothing", Overwrite, link("../canary/new"), vec![file("a")], |_, _| {});
    case(
        "implied directory over a link",
        Overwrite,
        link("../canary"),
        vec![file("a/folder/new")],
        |_, report| assert_eq!(report.failed.count(&FailureKind::ThroughNonDirectory), 1),
    );
    case(
        "hard link to a planted link",
        Overwrite,
        link("../canary/secret"),
        vec![hard("b", "a")],
        |target, _| assert!(target.join("b").symlink_metadata().expect("stat").is_symlink()),
    );
    case(
        "hard link over a planted link",
        Overwrite,
        link("../canary/secret"),
        vec![file("0"), hard("a", "0")],
        |target, _| assert_eq!(std::fs::read(target.join("a")).expect("read"), b"x"),
    );
    case("delete a link to a folder", DeleteExtra, link("../canary"), vec![file("b")], |target, report| {
        assert_eq!((names(target), report.deleted), (vec!["b".to_owned()], 1))
    });
    case(
        "delete a folder with links",
        DeleteExtra,
        |target| {
            std::fs::create_dir_all(target.join("d/e")).expect("folders");
            symlink("../../../canary", target.join("d/e/out")).expect("link");
            symlink("/", target.join("d/root")).expect("link");
        },
        vec![file("b")],
        |target, report| assert_eq!((names(target), report.deleted), (vec!["b".to_owned()], 4)),
    );
    case(
        "a link under a temporary name",
        Skip,
        |target| {
            symlink("../canary/secret", target.join(".kbak-restore-0123456789abcdef-0")).expect("link");
        },
        vec![file("b")],
        |target, report| assert_eq!((names(target), report.cleaned), (vec!["b".to_owned()], 1)),
    );
}

#[test]
fn planted_hard_link_is_replaced_without_changing_its_file() {
    let plant = |target: &Path| {
        std::fs::hard_link(target.join("../canary/secret"), target.join("a")).expect("link");
    };
    let guarded = GuardedTarget::new();
    plant(&guarded.target());
    let mut evil = file("a");
    evil.mode = 0o777;
    apply(&guarded.target(), options(Overwrite), vec![evil]).expect("safe");
    guarded.check("a file over a hard link");
    assert_eq!(std::fs::metadata(guarded.canary().join("secret")).expect("stat").nlink(), 1);
}

#[test]
fn planted_pipes_are_replaced_unopened_and_devices_are_refused() {
    let fifo = |target: &Path| {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, target.join("a"), rustix::fs::FileType::Fifo, mode, 0)
            .expect("mkfifo");
    };
    // It has no reader, so opening it for writing would block for ever.
    case("a file over a pipe", Overwrite, fifo, vec![file("a")], |target, _| {
        assert!(target.join("a").symlink_metadata().expect("stat").is_file())
    });
    case("a directory over a pipe", Overwrite, fifo, vec![directory("a"), file("a/b")], |target, _| {
        assert!(target.join("a/b").symlink_metadata().expect("stat").is_file())
    });
    case("a pipe over a pipe", Skip, fifo, vec![entry(b"a", EntryKind::Fifo)], |_, report| {
        assert_eq!(report.present, 1)
    });
    case("a pipe", Refuse, untouched, vec![entry(b"a", EntryKind::Fifo)], |target, _| {
        assert!(target.join("a").symlink_metadata().expect("stat").file_type().is_fifo())
    });
    for kind in [
        EntryKind::CharDevice(DeviceNumber { major: 1, minor: 1 }),
        EntryKind::BlockDevice(DeviceNumber { major: 8, minor: 0 }),
        EntryKind::CharDevice(DeviceNumber { major: 0, minor: 0 }),
    ] {
        case("a device", Refuse, untouched, vec![entry(b"sda", kind)], |target, report| {
            assert_eq!(names(target), Vec::<String>::new());
            assert_eq!(report.failed.count(&FailureKind::DeviceNotAllowed), 1);
        });
    }
}
