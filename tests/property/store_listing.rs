//! A folder store lists like the reference store, whatever its names are.

use std::sync::Arc;

use futures::TryStreamExt as _;
use kbak::format::layout::ObjectKey;
use kbak::report::event::Reporter;
use kbak::runtime::Runtime;
use kbak::store::Store;
use kbak::store::file::FileStore;
use kbak::store::listing::list_all;
use kbak::store::memory::MemoryStore;
use proptest::prelude::*;

/// Generates segments around the slash's place in byte order: `-` and `.` come before it, digits
/// and letters after.
fn segment() -> impl Strategy<Value = String> {
    "[a0_-][a0._-]{0,2}"
}

fn keys() -> impl Strategy<Value = Vec<String>> {
    let key = prop::collection::vec(segment(), 1..4).prop_map(|segments| segments.join("/"));
    prop::collection::vec(key, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn folder_store_lists_like_the_memory_store(keys in keys(), page in 1usize..6, under in prop::option::of(segment())) {
        let folder = tempfile::tempdir().expect("a folder");
        let runtime = Runtime::seeded(1, "2026-11-23T00:00:00Z".parse().expect("a time"));
        let memory = MemoryStore::new(runtime.clock.clone()).with_page(page);
        for key in keys {
            let path = folder.path().join(&key);
            // A name is a folder or an object, never both.
            if std::fs::create_dir_all(path.parent().expect("a parent")).is_err() || path.is_dir() {
                continue;
            }
            std::fs::write(&path, &key).expect("a file");
            memory.overwrite(ObjectKey::parse(&key).expect("a key"), key.into_bytes().into());
        }
        let files = FileStore::open(folder.path(), false, runtime).expect("a store").with_page(page);
        let prefix = under.map_or(String::new(), |name| format!("{name}/"));
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let list = |store: Arc<dyn Store>| {
            let all = list_all(store, prefix.clone(), Reporter::silent());
            let found: Vec<_> = runtime.block_on(all.try_collect()).expect("a list that keeps the rules");
            found.into_iter().map(|entry| (entry.key, entry.size)).collect::<Vec<_>>()
        };
        prop_assert_eq!(list(Arc::new(files)), list(Arc::new(memory)));
    }
}
