//! A folder through the whole pipeline: backed up twice, changed, restored, compared.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kbak::cli::failure::Exit;
use kbak::runtime::{Runtime, Workers};
use kbak::store::StoreErrorKind;
use kbak::store::fault::{FaultRule, FaultStore, StoreFault};
use kbak::store::operation::Operation;
use kbak::store::recording::RecordingStore;

use crate::support::hooked_store::HookedStore;
use crate::support::program::print_figure;
use crate::support::test_repo::TestRepo;
use crate::support::tree::write_seeded;

fn tree(root: &Path) {
    for at in 0..1500u64 {
        write_seeded(&root.join(format!("d{}/f{at:05}", at % 40)), at, (at * 37 % 9000) as usize);
    }
    write_seeded(&root.join("large.bin"), 1_000_000, 20 << 20);
    std::os::unix::fs::symlink("d1/f00001", root.join("link")).expect("a link");
    std::fs::hard_link(root.join("large.bin"), root.join("twin.bin")).expect("a hard link");
}

fn same(a: &Path, b: &Path) {
    let output = Command::new("diff").args(["-r", "--no-dereference"]).args([a, b]).output().expect("diff");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folder_is_restored_and_unchanged_folder_stores_no_data() {
    let scratch = tempfile::tempdir().expect("a folder");
    let (source, target) = (scratch.path().join("source"), scratch.path().join("target"));
    tree(&source);
    let repo = TestRepo::new().await;
    let first = repo.backup(&source).await;
    assert!(first.born.is_some() && first.committed.seq == 1);
    let packs = repo.packs();

    let second = repo.backup(&source).await;
    assert_eq!((second.committed.seq, second.born), (2, None));
    assert_eq!(repo.packs(), packs, "an unchanged folder stores no pack");
    assert_eq!(second.committed.envelope.items, first.committed.envelope.items);
    assert_eq!(second.committed.envelope.previous, [first.committed.head]);

    repo.restore("latest", None, &target).await;
    same(&source, &target);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_folder_stores_only_changes_and_keeps_old_snapshots() {
    let scratch = tempfile::tempdir().expect("a folder");
    let source = scratch.path().join("source");
    tree(&source);
    let repo = TestRepo::new().await;
    repo.backup(&source).await;
    let stored =
        |repo: &TestRepo| repo.memory.objects().values().map(|bytes| bytes.len() as u64).sum::<u64>();
    let before = stored(&repo);
    let copy = scratch.path().join("copy");
    assert!(Command::new("cp").arg("-a").args([&source, &copy]).status().expect("cp").success());

    write_seeded(&source.join("d3/f00003"), 77, 5000);
    write_seeded(&source.join("d7/new"), 78, 3000);
    std::fs::remove_file(source.join("d5/f00005")).expect("removed");
    std::fs::remove_dir_all(source.join("d9")).expect("removed");
    repo.backup(&source).await;
    let new = stored(&repo) - before;
    assert!(new < 600_000, "{new} B were stored for 8 kB of changes");

    repo.restore("1", None, &scratch.path().join("one")).await;
    same(&copy, &scratch.path().join("one"));
    repo.restore("2", None, &scratch.path().join("two")).await;
    same(&source, &scratch.path().join("two"));
    repo.restore("2", Some(&["d3", "d7/new"]), &scratch.path().join("some")).await;
    same(&source.join("d3"), &scratch.path().join("some/d3"));
    same(&source.join("d7/new"), &scratch.path().join("some/d7/new"));
    assert_eq!(std::fs::read_dir(scratch.path().join("some")).expect("a folder").count(), 2);
}

/// Larger than a run with [`SMALL`] memory may hold of it, so that packs are stored while it is being read.
const LARGE: usize = 48 << 20;

/// The smallest budget.
const SMALL: u64 = 64 << 20;

/// Overwrites a byte of the file each time one of the first `times` packs is stored.
fn modify_during_put(repo: &mut TestRepo, file: &Path, times: usize) -> Arc<HookedStore> {
    let file = std::fs::File::options().write(true).open(file).expect("a file");
    let touch = move |at: usize| file.write_all_at(&[at as u8], at as u64).expect("written");
    let hooked = Arc::new(HookedStore::new(repo.memory.clone(), "/packs/", times, Box::new(touch)));
    repo.store = hooked.clone();
    hooked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_file_changed_during_read_is_read_again() {
    let scratch = tempfile::tempdir().expect("a folder");
    let (source, target) = (scratch.path().join("source"), scratch.path().join("target"));
    write_seeded(&source.join("before"), 1, 700);
    write_seeded(&source.join("large"), 2, LARGE);
    write_seeded(&source.join("then"), 3, 800);
    let mut repo = TestRepo { limit: SMALL, ..TestRepo::new().await };
    let hooked = modify_during_put(&mut repo, &source.join("large"), 1);
    repo.backup(&source).await;
    assert_eq!(hooked.times(), 1, "the file was not changed");
    repo.restore("latest", None, &target).await;
    same(&source, &target);

    let packs = repo.packs();
    repo.backup(&source).await;
    assert_eq!(repo.packs(), packs, "an unchanged folder stores no pack");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn constantly_changing_large_file_is_a_gap() {
    let scratch = tempfile::tempdir().expect("a folder");
    let source = scratch.path().join("source");
    write_seeded(&source.join("large"), 2, LARGE);
    write_seeded(&source.join("then"), 3, 800);
    let repo = TestRepo { limit: SMALL, ..TestRepo::new().await };
    // Reading takes many ticks of the kernel's clock, so each try sees a change.
    let over = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (over, file) = (over.clone(), source.join("large"));
        move || {
            let file = std::fs::File::options().write(true).open(file).expect("a file");
            while !over.load(Ordering::SeqCst) {
                file.write_all_at(b"x", 5).expect("written");
                std::thread::yield_now();
            }
        }
    });
    let report = repo.run_backup(&source).await;
    over.store(true, Ordering::SeqCst);
    writer.join().expect("the writer ended");
    let gaps = &report.items[0].0.gaps;
    assert_eq!(report.outcome(), Exit::Partial);
    assert_eq!(gaps.iter().map(|gap| gap.code.as_str()).collect::<Vec<_>>(), ["changed-while-read"]);
    let target = scratch.path().join("target");
    repo.restore("1", None, &target).await;
    same(&source.join("then"), &target.join("then"));
    assert_eq!(std::fs::metadata(target.join("large")).expect("a file").len(), LARGE as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changing_one_file_in_a_hundred_stores_little() {
    let scratch = tempfile::tempdir().expect("a folder");
    let source = scratch.path().join("source");
    // Enough members for several groups of the scan cache.
    for at in 0..24_000u64 {
        write_seeded(&source.join(format!("d{:03}/f{at:05}", at % 97)), at, (at * 31 % 500) as usize);
    }
    let repo = TestRepo::new().await;
    repo.backup(&source).await;
    let stored =
        |repo: &TestRepo| repo.memory.objects().values().map(|bytes| bytes.len() as u64).sum::<u64>();
    let groups = repo.memory.objects().keys().filter(|key| key.as_str().contains("/cache/")).count();
    assert!(groups > 6, "{groups} cache objects are too few to tell");
    let before = stored(&repo);
    for at in (0..24_000u64).step_by(100) {
        // Another size, so that chunk boundaries move.
        write_seeded(
            &source.join(format!("d{:03}/f{at:05}", at % 97)),
            30_000 + at,
            (at * 37 % 900) as usize,
        );
    }
    repo.backup(&source).await;
    let new = stored(&repo) - before;
    assert!(new < before / 4, "{new} B were stored for 1 % of {before} B");
    repo.restore("2", None, &scratch.path().join("two")).await;
    same(&source, &scratch.path().join("two"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_index_objects_are_merged() {
    let scratch = tempfile::tempdir().expect("a folder");
    let source = scratch.path().join("source");
    write_seeded(&source.join("always"), 1, 40_000);
    let mut repo = TestRepo::new().await;
    // Each run stores a chunk, and so its own index object.
    let mut named = Vec::new();
    for run in 0..68u64 {
        write_seeded(&source.join("changes"), 100 + run, 2000);
        let report = repo.backup(&source).await;
        named.push(report.committed.envelope.index.iter().map(|one| one.objects.len()).sum::<usize>());
    }
    assert!(named[60] > 60, "{named:?}");
    assert!(named[67] < 5, "{named:?}");
    let record = Arc::new(RecordingStore::new(repo.memory.clone()));
    repo.store = record.clone();
    let packs = repo.packs();
    repo.backup(&source).await;
    assert_eq!(repo.packs(), packs, "unchanged chunks are found in the merged index");
    let read = record.recorded().into_iter().filter(|one| one.operation == Operation::Get);
    let indexes = read.filter(|one| one.object.contains("/index/")).count();
    assert!(indexes < 5, "{indexes} index objects were read");
    repo.restore("latest", None, &scratch.path().join("target")).await;
    same(&source, &scratch.path().join("target"));
    repo.restore("3", None, &scratch.path().join("third")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_store_ends_a_walk_that_is_far_ahead() {
    let scratch = tempfile::tempdir().expect("a folder");
    let source = scratch.path().join("source");
    write_seeded(&source.join("a-large"), 1, LARGE);
    // Many more members than the groups that may wait can hold.
    for at in 0..30_000u32 {
        std::fs::write(source.join(format!("f{at:05}")), b"").expect("a file");
    }
    for workers in [Workers::Threads { count: 2 }, Workers::Inline] {
        let mut repo = TestRepo { limit: SMALL, ..TestRepo::new().await };
        repo.runtime = Runtime { workers, ..repo.runtime };
        let fault = StoreFault::Fail(StoreErrorKind::Full);
        let faulty =
            FaultStore::new(repo.store.clone(), vec![FaultRule::from(Operation::Put, "*/packs/*", 1, fault)]);
        repo.store = Arc::new(faulty);
        let guard = std::time::Duration::from_secs(120);
        let refused = tokio::time::timeout(guard, repo.refused_backup(&source)).await;
        let refused = refused.unwrap_or_else(|_| panic!("the backup hangs with {workers:?}"));
        assert_eq!(refused.exit, Exit::Unreachable, "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compression_level_of_a_run_decides_about_new_chunks_only() {
    let scratch = tempfile::tempdir().expect("a folder");
    let source = scratch.path().join("source");
    std::fs::create_dir(&source).expect("a folder");
    let text = |from: u32| (from..from + 60_000).map(|n| format!("{n} {:x}\n", n.wrapping_mul(0x9e37_79b9)));
    let mut stored = Vec::new();
    for level in [1, 9] {
        std::fs::write(source.join("text"), text(0).collect::<String>()).expect("a file");
        let mut repo = TestRepo { level: Some(level), ..TestRepo::new().await };
        repo.backup(&source).await;
        let packs = repo.packs();
        stored.push(repo.memory.objects().values().map(|bytes| bytes.len()).sum::<usize>());
        // The next run has another level, and finds the chunks that are stored.
        repo.level = Some(10 - level);
        repo.backup(&source).await;
        assert_eq!(repo.packs(), packs, "an unchanged folder stores no pack");
        std::fs::write(source.join("more"), text(60_000).collect::<String>()).expect("a file");
        repo.backup(&source).await;
        let target = scratch.path().join(format!("target{level}"));
        repo.restore("latest", None, &target).await;
        same(&source, &target);
        std::fs::remove_file(source.join("more")).expect("a removal");
    }
    assert!(stored[1] < stored[0], "{stored:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restore_of_one_file_reads_few_chunks_of_the_catalog() {
    let scratch = tempfile::tempdir().expect("a folder");
    let source = scratch.path().join("source");
    // Long paths, so that a few thousand files fill many chunks.
    let long = "n".repeat(240);
    let folder = |at: u32| format!("d{at}{}", format!("/{long}").repeat(14));
    for at in 0..10 {
        std::fs::create_dir_all(source.join(folder(at))).expect("a folder");
        for file in 0..500 {
            std::fs::write(source.join(folder(at)).join(format!("f{file:03}")), format!("{at} {file}"))
                .expect("a file");
        }
    }
    let mut repo = TestRepo::new().await;
    repo.backup(&source).await;
    let chunks = repo.open("latest").await.body().items[0].streams[0].catalog.len();
    assert!(chunks > 16, "{chunks} chunks are too few to tell");
    let record = Arc::new(RecordingStore::new(repo.memory.clone()));
    repo.store = record.clone();
    let (file, target) = (format!("{}/f250", folder(5)), scratch.path().join("file"));
    repo.restore("latest", Some(&[&file]), &target).await;
    let (reads, _) = record.count(Operation::GetRange);
    print_figure(&format!("{reads} ranges were read for one file of {chunks} chunks of a catalog"));
    // A search by halves, with the headers of two packs, and the chunks of data.
    assert!(reads < chunks as u64, "{reads} ranges were read for one of {chunks} chunks");
    assert_eq!(std::fs::read(target.join(&file)).expect("a file"), b"5 250");
    let target = scratch.path().join("folders");
    repo.restore("latest", Some(&["d8", &file, "d2"]), &target).await;
    for name in ["d2", "d8"] {
        same(&source.join(name), &target.join(name));
    }
    assert_eq!(std::fs::read_dir(&target).expect("a folder").count(), 3);
    assert_eq!(std::fs::read(target.join(&file)).expect("a file"), b"5 250");
}
