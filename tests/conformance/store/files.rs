//! Behaviour of the folder store beyond the contract of all stores.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use kbak::report::event::{Event, Observer, Reporter};
use kbak::runtime::{Runtime, lock};
use kbak::store::file::FileStore;
use kbak::store::listing::list_all;
use kbak::store::{PutOutcome, Store, StoreErrorKind};

use super::{TestObjects, all};
use crate::support::program::{beneath, ran_one};
use futures::TryStreamExt as _;

fn store(folder: &Path) -> FileStore {
    FileStore::open(folder, false, Runtime::real()).expect("a store")
}

#[tokio::test]
async fn stored_files_and_folders_are_private_to_the_owner() {
    let folder = tempfile::tempdir().expect("a folder");
    store(folder.path()).put(&TestObjects::new().needs(1, 1)).await.expect("a put");
    let found = beneath(folder.path());
    assert_eq!(found.len(), 7, "six folders and a file: {found:?}");
    for path in found {
        let meta = path.symlink_metadata().expect("it is there");
        let expected = if meta.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(meta.permissions().mode() & 0o7777, expected, "{}", path.display());
    }
}

#[tokio::test]
async fn links_inside_the_store_are_not_followed() {
    let outside = tempfile::tempdir().expect("a folder");
    std::fs::write(outside.path().join("secret"), "canary").expect("a file");
    let folder = tempfile::tempdir().expect("a folder");
    let (store, objects) = (store(folder.path()), TestObjects::new());
    // A link in place of an object.
    let object = objects.needs(1, 1);
    let path = folder.path().join(object.key().as_str());
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
    symlink(outside.path().join("secret"), &path).expect("a link");
    let error = store.get(object.key(), 100).await.expect_err("a link");
    assert_eq!(error.kind, StoreErrorKind::NotAFile, "{error}");
    let error = store.get_range(object.key(), 0..6).await.expect_err("a link");
    assert_eq!(error.kind, StoreErrorKind::NotAFile, "{error}");
    assert_eq!(store.put(&object).await.expect("a put"), PutOutcome::Existed);
    assert_eq!(std::fs::read(outside.path().join("secret")).expect("it is there"), b"canary");
    // A link in place of a folder.
    let inner = TestObjects::new().needs(1, 1);
    let (writer, _) = inner.key().as_str().split_once('/').expect("a folder");
    symlink(outside.path(), folder.path().join(writer)).expect("a link");
    let error = store.put(&inner).await.expect_err("a link");
    assert!(matches!(error.kind, StoreErrorKind::Protocol(_)), "{error}");
    assert_eq!(beneath(outside.path()).len(), 1, "nothing was written outside");
    let error = store.list(&format!("{writer}/probe/"), None).await.expect_err("a link");
    assert!(matches!(error.kind, StoreErrorKind::Protocol(_)), "{error}");
    // The first is listed in the object's place with size 0; nothing behind either link is listed.
    let store: Arc<dyn Store> = Arc::new(store);
    let listed = all(&store, "").await.expect("a list");
    let listed: Vec<_> = listed.iter().map(|entry| (&entry.key, entry.size, entry.is_file)).collect();
    assert_eq!(listed, [(object.key(), 0, false)]);
}

#[tokio::test]
async fn pipe_in_place_of_an_object_does_not_block() {
    let folder = tempfile::tempdir().expect("a folder");
    let object = TestObjects::new().probe();
    let path = folder.path().join(object.key().as_str());
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
    assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
    let error = store(folder.path()).get(object.key(), 100).await.expect_err("a pipe");
    assert_eq!(error.kind, StoreErrorKind::NotAFile, "{error}");
}

#[tokio::test]
async fn folder_in_place_of_an_object_is_listed_and_not_entered() {
    let folder = tempfile::tempdir().expect("a folder");
    let objects = TestObjects::new();
    let mut put = vec![objects.needs(1, 1), objects.needs(1, 2), objects.needs(1, 3)];
    put.sort_by(|a, b| a.key().cmp(b.key()));
    for object in &put {
        store(folder.path()).put(object).await.expect("a put");
    }
    let path = folder.path().join(put[1].key().as_str());
    std::fs::remove_file(&path).expect("gone");
    std::fs::create_dir(&path).expect("a folder");
    std::fs::write(path.join("0"), "mine").expect("a file");
    // A key between the folder's name and its content.
    std::fs::write(path.with_extension("age"), "theirs").expect("a file");
    let store: Arc<dyn Store> = Arc::new(store(folder.path()).with_page(1));
    let listed = all(&store, "").await.expect("a list");
    assert_eq!(listed.iter().map(|entry| entry.is_file).collect::<Vec<_>>(), [true, false, true, true]);
    assert_eq!((&listed[1].key, listed[1].size), (put[1].key(), 0));
    let error = store.get(put[1].key(), 100).await.expect_err("a folder");
    assert_eq!(error.kind, StoreErrorKind::NotAFile, "{error}");
}

#[tokio::test]
async fn foreign_files_are_reported_and_left_alone() {
    #[derive(Default)]
    struct WarningLog(Mutex<Vec<String>>);
    impl Observer for WarningLog {
        fn event(&self, event: &Event) {
            if let Event::Warning { message, .. } = event {
                lock(&self.0).push(message.clone());
            }
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let store = store(folder.path());
    let object = TestObjects::new().probe();
    store.put(&object).await.expect("a put");
    let writer = folder.path().join(object.key().as_str()).parent().expect("a parent").to_owned();
    std::fs::write(writer.join("Notes.txt"), "mine").expect("a file");
    std::fs::create_dir(folder.path().join("lost+found")).expect("a folder");
    std::fs::write(folder.path().join("lost+found/0"), "mine").expect("a file");
    // Remains of a killed put: not an object, and not reported.
    std::fs::write(writer.join(".kbak-00000000000000000000000000000000"), "half").expect("a file");
    let warnings = Arc::new(WarningLog::default());
    let found: Vec<_> =
        list_all(Arc::new(store), "", Reporter::new(warnings.clone())).try_collect().await.expect("a list");
    assert_eq!(found.iter().map(|entry| &entry.key).collect::<Vec<_>>(), [object.key()]);
    let warnings = lock(&warnings.0);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings.iter().any(|line| line.contains("Notes.txt")), "{warnings:?}");
    assert!(warnings.iter().any(|line| line.contains("lost+found/")), "{warnings:?}");
}

#[tokio::test]
async fn remains_of_a_killed_put_are_removed_after_a_day() {
    let folder = tempfile::tempdir().expect("a folder");
    let objects = TestObjects::new();
    let object = objects.probe();
    store(folder.path()).put(&object).await.expect("a put");
    let path = folder.path().join(object.key().as_str()).parent().expect("a parent").to_owned();
    let (old, new) = (path.join(".kbak-old"), path.join(".kbak-new"));
    for file in [&old, &new] {
        std::fs::write(file, "half").expect("a file");
    }
    let days_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3 * 86400);
    std::fs::File::options().write(true).open(&old).expect("a file").set_modified(days_ago).expect("a time");
    // Another process puts an object.
    store(folder.path()).put(&objects.probe()).await.expect("a put");
    assert!(!old.exists() && new.exists());
}

#[tokio::test]
async fn simulated_clock_sets_object_times() {
    let at = "2027-01-02T03:04:05Z".parse().expect("a time");
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = Runtime::seeded(1, at);
    let store = FileStore::open(folder.path(), false, runtime.clone()).expect("a store");
    let store: Arc<dyn Store> = Arc::new(store.with_clock(runtime.clock));
    store.put(&TestObjects::new().probe()).await.expect("a put");
    assert_eq!(store.now().await.expect("the time"), at);
    assert_eq!(all(&store, "").await.expect("a list")[0].modified, at);
}

#[tokio::test]
async fn put_without_write_permission_is_denied() {
    let folder = tempfile::tempdir().expect("a folder");
    if folder.path().metadata().expect("it is there").uid() == 0 && !runs_without_rights() {
        // Root may write anywhere, so the test runs again as `nobody`.
        let status =
            inner("put_without_write_permission_is_denied", &["setpriv", "--reuid=65534", "--clear-groups"]);
        assert!(status, "as nobody");
        return;
    }
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o500)).expect("rights");
    let store = store(folder.path());
    let error = store.put(&TestObjects::new().probe()).await.expect_err("no right");
    assert!(matches!(error.kind, StoreErrorKind::Denied(_)), "{error}");
    store.now().await.expect("who may only read is told the time");
}

/// Uses a store on a file system of 1 MiB, in the test's own mount namespace.
#[tokio::test]
async fn full_disk_is_reported_and_leaves_no_remains() {
    let Some(folder) = std::env::var_os("KBAK_TEST_SMALL_DISK").map(PathBuf::from) else {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_str().expect("text");
        let mount =
            format!("mount -t tmpfs -o size=1m none {path} && KBAK_TEST_SMALL_DISK={path} exec \"$@\"");
        let as_root = folder.path().metadata().expect("it is there").uid() == 0;
        let mut before = vec!["unshare", "--mount"];
        if !as_root {
            before.extend(["--user", "--map-root-user"]);
        }
        before.extend(["sh", "-c", &mount, "sh"]);
        assert!(inner("full_disk_is_reported_and_leaves_no_remains", &before), "on a small disk");
        return;
    };
    let (store, objects) = (store(&folder), TestObjects::new());
    let small = objects.needs(1, 100);
    store.put(&small).await.expect("room for a small one");
    let error = store.put(&objects.needs(1, 40_000)).await.expect_err("no room for 1.6 MB");
    assert_eq!(error.kind, StoreErrorKind::Full, "{error}");
    let files = beneath(&folder).into_iter().filter(|path| path.is_file()).count();
    assert_eq!(files, 1, "only the small one");
    store.put(&objects.needs(1, 200)).await.expect("room for a small one");
    assert_eq!(store.get(small.key(), 10_000).await.expect("a get"), *small.bytes());
}

/// Runs one test of this file again, started through other programs.
fn inner(test: &str, before: &[&str]) -> bool {
    let program = std::env::current_exe().expect("this program");
    let copy = tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o755))
        .tempdir()
        .expect("a folder");
    // A place from which other users can run it.
    let place = copy.path().join("suite");
    std::fs::copy(&program, &place).expect("a copy");
    Command::new(before[0])
        .args(&before[1..])
        .arg(&place)
        .args(["--exact", &format!("conformance::store::files::{test}"), "--test-threads=1"])
        .env("KBAK_TEST_INNER", "1")
        .env("TMPDIR", "/tmp")
        .output()
        .map(|run| ran_one(&run))
        .expect("the program runs")
}

fn runs_without_rights() -> bool {
    std::env::var_os("KBAK_TEST_INNER").is_some()
}
