//! Hard links whose target, the path that holds the content, is replaced or deleted before it is read.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kbak::backup::job::BackupReport;
use kbak::cli::failure::Exit;
use kbak::source::volume::{
    AppendResult, GapKind, ReadConsistency, VolumeMember, VolumeOptions, VolumeReader, WalkEvent,
};

use crate::support::hooked_store::HookedStore;
use crate::support::test_repo::TestRepo;
use crate::support::tree::write_seeded;

/// The content of the link target and its link.
const CONTENT: &[u8] = b"of both names";

/// The smallest budget: the first large file is stored while it is being read.
const SMALL: u64 = 64 << 20;

/// A link target and a link to it, each in its own piece. The files before the target take long enough to
/// change it between walk and read. The files between the two take long enough for it to be read first.
struct LinkFixture {
    repo: TestRepo,
    scratch: tempfile::TempDir,
}

impl LinkFixture {
    async fn new() -> Self {
        let fixture = Self {
            repo: TestRepo { limit: SMALL, ..TestRepo::new().await },
            scratch: tempfile::tempdir().expect("a folder"),
        };
        fixture.fill(0);
        write_seeded(&fixture.at("3-large"), 3, 24 << 20);
        write_seeded(&fixture.at("4-tail"), 4, 9000);
        fs::write(fixture.at("2-one"), CONTENT).expect("a file");
        fs::hard_link(fixture.at("2-one"), fixture.at("5-two")).expect("a link");
        fixture
    }

    /// Writes new content to all files before the link target.
    fn fill(&self, seed: u64) {
        write_seeded(&self.at("0-large"), seed, 48 << 20);
        write_seeded(&self.at("1-bulk"), seed + 1, 9000);
    }

    fn at(&self, name: &str) -> PathBuf {
        self.scratch.path().join("source").join(name)
    }

    /// Runs a backup in which `change` happens after the walk, before the link target is read.
    async fn backup_with_change(&mut self, change: impl Fn(&Path) + Send + Sync + 'static) -> BackupReport {
        let source = self.scratch.path().join("source");
        let of = source.clone();
        let hooked = HookedStore::new(self.repo.memory.clone(), "/packs/", 1, Box::new(move |_| change(&of)));
        let hooked = Arc::new(hooked);
        self.repo.store = hooked.clone();
        let report = self.repo.run_backup(&source).await;
        assert_eq!(hooked.times(), 1, "the hook did not run");
        report
    }

    /// Restores the latest snapshot and returns the target.
    async fn restore_latest(&self) -> PathBuf {
        let target = self.scratch.path().join("target");
        self.repo.restore("latest", None, &target).await;
        target
    }

    /// Checks that the link target is missing and the link holds the content. If the link was stored
    /// before the missing target was noticed, which this test cannot rule out, the target is a gap.
    async fn assert_gap_or_stored_under_link(&self, report: &BackupReport) {
        match report.outcome() {
            Exit::Safe => self.assert_stored_under_link().await,
            _ => assert_gap(report),
        }
    }

    /// Checks that the link target is missing and the link holds the content.
    async fn assert_stored_under_link(&self) {
        let target = self.restore_latest().await;
        assert!(!target.join("2-one").exists(), "a file outside the walk was stored");
        assert_eq!(fs::read(target.join("5-two")).expect("a file"), CONTENT);
    }
}

/// Checks that the link target is a gap.
fn assert_gap(report: &BackupReport) {
    let gaps = &report.items[0].0.gaps;
    let named: Vec<_> = gaps.iter().map(|gap| (gap.code.as_str(), gap.object.0.as_slice())).collect();
    assert_eq!(named, [("changed-while-read", &b"2-one"[..])], "{gaps:?}");
    assert!(gaps[0].reason.contains("linked"), "{gaps:?}");
    assert_eq!(report.outcome(), Exit::Partial);
}

fn replace(source: &Path) {
    let other = source.with_file_name("other");
    fs::write(&other, b"of another file").expect("a file");
    fs::rename(other, source.join("2-one")).expect("renamed");
}

fn remove(source: &Path) {
    fs::remove_file(source.join("2-one")).expect("removed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaced_link_target_is_a_gap_and_its_link_keeps_the_content() {
    let mut fixture = LinkFixture::new().await;
    let report = fixture.backup_with_change(replace).await;
    assert_gap(&report);
    fixture.assert_stored_under_link().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn link_holds_the_content_of_a_deleted_target() {
    let mut fixture = LinkFixture::new().await;
    let report = fixture.backup_with_change(remove).await;
    fixture.assert_gap_or_stored_under_link(&report).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unchanged_link_holds_the_content_of_a_deleted_target() {
    let mut fixture = LinkFixture::new().await;
    let report = fixture.backup_with_change(|_| {}).await;
    assert_eq!(report.outcome(), Exit::Safe);
    // The target's chunk, shared with others, is not worth keeping; that of the link is.
    fixture.fill(70);
    let report = fixture.backup_with_change(remove).await;
    fixture.assert_gap_or_stored_under_link(&report).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn link_target_rewritten_in_place_is_stored_with_new_content() {
    let mut fixture = LinkFixture::new().await;
    let report = fixture
        .backup_with_change(|source| fs::write(source.join("2-one"), b"rewritten").expect("written"))
        .await;
    assert_eq!((report.outcome(), &report.items[0].0.gaps), (Exit::Safe, &Vec::new()));
    let target = fixture.restore_latest().await;
    let meta = |name| fs::metadata(target.join(name)).expect("a file");
    assert_eq!(meta("2-one").ino(), meta("5-two").ino());
    assert_eq!(fs::read(target.join("5-two")).expect("a file"), b"rewritten");
}

fn member(volume: &VolumeReader, path: &str) -> VolumeMember {
    let found = volume.walk().find_map(|walked| match walked {
        WalkEvent::Member(member) if member.entry.path == path.as_bytes() => Some(*member),
        _ => None,
    });
    found.expect("a member")
}

#[test]
fn link_target_replaced_by_another_file_is_refused_on_every_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    fs::write(at("one"), CONTENT).expect("a file");
    fs::hard_link(at("one"), at("two")).expect("a link");
    fs::write(at("alone"), CONTENT).expect("a file");
    let volume = VolumeReader::open(dir.path(), VolumeOptions::default()).expect("a volume");
    let (one, alone) = (member(&volume, "one"), member(&volume, "alone"));

    // Rewritten and without its other name, it is still the same file.
    fs::write(at("one"), b"rewritten").expect("written");
    fs::remove_file(at("two")).expect("removed");
    let again = volume.read(one.clone()).expect("the same file").member().clone();
    assert_eq!(again.content, 9);

    // Another file does not match, whichever earlier read it is compared with.
    fs::write(at("other"), b"other").expect("a file");
    fs::rename(at("other"), at("one")).expect("renamed");
    let mut out = Vec::new();
    for member in [&one, &again] {
        let error = volume.append(member.clone(), 1 << 20, &mut out).expect_err("another file");
        assert_eq!((error, out.len()), (GapKind::LinkTargetGone, 0));
    }
    fs::remove_file(at("one")).expect("removed");
    let error = volume.append(again, 1 << 20, &mut out).expect_err("no file");
    assert!(matches!(error, GapKind::Open(_)) && out.is_empty(), "{error:?}");

    // Without links to it, the file that is there now is accepted.
    fs::write(at("other"), b"other").expect("a file");
    fs::rename(at("other"), at("alone")).expect("renamed");
    let appended = volume.append(alone, 1 << 20, &mut out).expect("read");
    assert!(
        matches!(&appended, AppendResult::Stored(now, ReadConsistency::Stable) if now.content == 5),
        "{appended:?}"
    );
}
