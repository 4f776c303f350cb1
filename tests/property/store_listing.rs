//! A folder store lists like the reference store, whatever its names are. Listings that jump find what a whole one
//! finds.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::TryStreamExt as _;
use kbak::format::layout::ObjectKey;
use kbak::report::event::Reporter;
use kbak::runtime::Runtime;
use kbak::store::file::FileStore;
use kbak::store::listing::{folders_beside, list_all, list_all_beside, list_named};
use kbak::store::memory::MemoryStore;
use kbak::store::{ListedObject, Store};
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

/// Returns a folder store and the reference store with objects of these keys.
fn stores(folder: &std::path::Path, keys: Vec<String>, page: usize) -> [Arc<dyn Store>; 2] {
    let runtime = Runtime::seeded(1, "2026-11-23T00:00:00Z".parse().expect("a time"));
    let memory = MemoryStore::new(runtime.clock.clone()).with_page(page);
    for key in keys {
        let path = folder.join(&key);
        // A name is a folder or an object, never both.
        if std::fs::create_dir_all(path.parent().expect("a parent")).is_err() || path.is_dir() {
            continue;
        }
        std::fs::write(&path, &key).expect("a file");
        memory.overwrite(ObjectKey::parse(&key).expect("a key"), key.into_bytes().into());
    }
    let files = FileStore::open(folder, false, runtime).expect("a store").with_page(page);
    [Arc::new(files), Arc::new(memory)]
}

fn keys_of(entries: Vec<ListedObject>) -> Vec<ObjectKey> {
    entries.into_iter().map(|entry| entry.key).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn folder_store_lists_like_the_memory_store(keys in keys(), page in 1usize..6, under in prop::option::of(segment())) {
        let folder = tempfile::tempdir().expect("a folder");
        let [files, memory] = stores(folder.path(), keys, page);
        let prefix = under.map_or(String::new(), |name| format!("{name}/"));
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let list = |store: Arc<dyn Store>| {
            let all = list_all(store, prefix.clone(), Reporter::silent());
            let found: Vec<_> = runtime.block_on(all.try_collect()).expect("a list that keeps the rules");
            found.into_iter().map(|entry| (entry.key, entry.size)).collect::<Vec<_>>()
        };
        prop_assert_eq!(list(files), list(memory));
    }

    #[test]
    fn listings_that_jump_find_what_a_whole_listing_finds(
        stored in keys(), others in keys(), page in 1usize..6, skipped in segment(), most in 0usize..4,
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let wanted: BTreeSet<ObjectKey> =
            stored.iter().step_by(2).chain(&others).filter_map(|key| ObjectKey::parse(key)).collect();
        let known: BTreeSet<&str> = others.iter().filter_map(|key| key.split('/').next()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        for store in stores(folder.path(), stored.clone(), page) {
            runtime.block_on(async {
                let all: Vec<ListedObject> =
                    list_all(store.clone(), "", Reporter::silent()).try_collect().await.expect("a list");
                let named = list_named(&store, String::new(), wanted.iter().cloned());
                let named: Vec<ListedObject> = named.try_collect().await.expect("a list");
                let expected = all.iter().filter(|entry| wanted.contains(&entry.key)).cloned().collect();
                prop_assert_eq!(keys_of(named), keys_of(expected));

                let skipped = format!("{skipped}/");
                let is_beside = |entry: &&ListedObject| !entry.key.as_str().starts_with(&skipped);
                let expected = all.iter().filter(is_beside).cloned().collect();
                let beside = list_all_beside(store.clone(), "", skipped.clone(), Reporter::silent());
                prop_assert_eq!(keys_of(beside.try_collect().await.expect("a list")), keys_of(expected));

                let mut names: Vec<&str> =
                    all.iter().filter_map(|entry| Some(entry.key.as_str().split_once('/')?.0)).collect();
                names.dedup();
                let surplus = names.iter().filter(|name| !known.contains(*name)).nth(most);
                // Those before the first folder that is one too many.
                let expected: Vec<&str> =
                    names.iter().copied().take_while(|name| Some(name) != surplus).collect();
                let found = folders_beside(&store, "", most, |name| known.contains(name)).await.expect("folders");
                prop_assert_eq!((found.names, found.complete), (expected.iter().map(ToString::to_string).collect(), surplus.is_none()));
                Ok::<(), TestCaseError>(())
            })?;
        }
    }
}
