//! The contract that every store meets.

use std::sync::Arc;

use futures::future::join_all;
use futures::stream::{self, StreamExt as _};
use kbak::format::ids::NameId;
use kbak::format::layout::ObjectClass;
use kbak::store::listing::folders;
use kbak::store::probe::{ConditionalPut, ProbeReport, StoreFeatures, probe};
use kbak::store::{MAX_OBJECT, MAX_PAGE, PutOutcome, Store, StoreErrorKind};

use super::{TestObjects, all};

/// Checks the whole contract on a store and returns what the probe found. The store is left as it was.
pub async fn check_contract(store: Arc<dyn Store>) -> StoreFeatures {
    put_objects_are_read_back(&store).await;
    missing_objects_are_not_found(&store).await;
    size_limit_is_kept(&store).await;
    ranges_return_exact_bytes(&store).await;
    second_put_keeps_the_first_bytes(&store).await;
    racing_puts_all_succeed(&store).await;
    listings_are_complete_and_ordered(&store).await;
    listings_resume_after_any_key_and_find_folders(&store).await;
    large_objects_are_read_back(&store).await;
    probe_reports_no_fault(&store).await
}

async fn put_objects_are_read_back(store: &Arc<dyn Store>) {
    let objects = TestObjects::new();
    // The smallest object, one around a boundary, one of several slices.
    for object in [objects.needs(1, 0), objects.needs(2, 1170), objects.needs(3, 30_000), objects.probe()] {
        assert_eq!(store.put(&object).await.expect("a put"), PutOutcome::Created);
        let bytes = store.get(object.key(), MAX_OBJECT).await.expect("a get");
        assert_eq!(bytes, *object.bytes());
        store.delete(object.key()).await.expect("a delete");
        let gone = store.get(object.key(), MAX_OBJECT).await.expect_err("it is deleted");
        assert_eq!(gone.kind, StoreErrorKind::NotFound, "{gone}");
    }
}

async fn missing_objects_are_not_found(store: &Arc<dyn Store>) {
    let object = TestObjects::new().needs(1, 1);
    let error = store.get(object.key(), 100).await.expect_err("no object has this key");
    assert_eq!(error.kind, StoreErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains(object.key().as_str()), "{error} names the object");
    let error = store.get_range(object.key(), 0..1).await.expect_err("no object has this key");
    assert_eq!(error.kind, StoreErrorKind::NotFound, "{error}");
    store.delete(object.key()).await.expect("deleting a missing object is no error");
    assert_eq!(all(store, "00000000000000000000000000000000/").await.expect("a list"), []);
}

async fn size_limit_is_kept(store: &Arc<dyn Store>) {
    let object = TestObjects::new().needs(1, 100);
    let size = object.bytes().len() as u64;
    store.put(&object).await.expect("a put");
    assert_eq!(store.get(object.key(), size).await.expect("exactly the limit"), *object.bytes());
    let error = store.get(object.key(), size - 1).await.expect_err("larger than the limit");
    assert_eq!(error.kind, StoreErrorKind::TooLarge { limit: size - 1 });
    store.delete(object.key()).await.expect("a delete");
}

async fn ranges_return_exact_bytes(store: &Arc<dyn Store>) {
    let object = TestObjects::new().needs(1, 1000);
    let (bytes, size) = (object.bytes(), object.bytes().len() as u64);
    store.put(&object).await.expect("a put");
    for range in [0..1, 0..size, 5..9000, size - 1..size, size - 1..size + 5, 0..size * 2] {
        let end = range.end.min(size) as usize;
        let got = store.get_range(object.key(), range.clone()).await.expect("a range");
        assert_eq!(got, bytes.slice(range.start as usize..end), "{range:?}");
    }
    for empty in [size..size + 1, size + 7..size + 9, 3..3] {
        let got = store.get_range(object.key(), empty.clone()).await.expect("an empty range");
        assert!(got.is_empty(), "{empty:?}");
    }
    store.delete(object.key()).await.expect("a delete");
}

async fn second_put_keeps_the_first_bytes(store: &Arc<dyn Store>) {
    let object = TestObjects::new().needs(1, 3);
    assert_eq!(store.put(&object).await.expect("a put"), PutOutcome::Created);
    assert_eq!(store.put(&object).await.expect("a second put"), PutOutcome::Existed);
    assert_eq!(store.get(object.key(), 1000).await.expect("a get"), *object.bytes());
    store.delete(object.key()).await.expect("a delete");
}

async fn racing_puts_all_succeed(store: &Arc<dyn Store>) {
    let object = TestObjects::new().needs(1, 500);
    let puts = join_all((0..8).map(|_| store.put(&object))).await;
    let created =
        puts.into_iter().map(|put| put.expect("a put")).filter(|put| *put == PutOutcome::Created).count();
    assert_eq!(created, 1, "one put creates");
    assert_eq!(store.get(object.key(), MAX_OBJECT).await.expect("a get"), *object.bytes());
    store.delete(object.key()).await.expect("a delete");
}

async fn listings_are_complete_and_ordered(store: &Arc<dyn Store>) {
    let (objects, others) = (TestObjects::new(), TestObjects::new());
    // More than one page of a real store, in folders of different depth.
    let mut put: Vec<_> = (0..MAX_PAGE + 3).map(|n| objects.needs((n % 3) as u8, n % 5)).collect();
    put.push(objects.probe());
    let foreign = others.needs(1, 1);
    store.put(&foreign).await.expect("a put");
    stream::iter(&put)
        .for_each_concurrent(16, |object| async {
            store.put(object).await.expect("a put");
        })
        .await;
    let now = store.now().await.expect("the time");
    let mut expected: Vec<_> =
        put.iter().map(|object| (object.key().clone(), object.bytes().len() as u64)).collect();
    expected.sort();
    expected.dedup();
    let writer = format!("{}/", objects.path.writer);
    let listed = all(store, &writer).await.expect("a list");
    let found: Vec<_> = listed.iter().map(|entry| (entry.key.clone(), entry.size)).collect();
    assert!(found == expected, "{} listed, {} put", found.len(), expected.len());
    for entry in &listed {
        // Last-Modified has whole seconds; this test takes less than an hour.
        let age = now.duration_since(entry.modified).as_secs();
        assert!((-2..3600).contains(&age), "{} was stored {age} s ago", entry.key);
    }
    let folder = objects.path.class_prefix(NameId([1; 8]), ObjectClass::PackRefs);
    let inner = all(store, &folder).await.expect("a list");
    assert_eq!(inner.len(), expected.iter().filter(|(key, _)| key.as_str().starts_with(&folder)).count());
    stream::iter(put.iter().chain([&foreign]))
        .for_each_concurrent(16, |object| async {
            store.delete(object.key()).await.expect("a delete");
        })
        .await;
    assert_eq!(all(store, &writer).await.expect("a list"), []);
}

async fn listings_resume_after_any_key_and_find_folders(store: &Arc<dyn Store>) {
    let objects = TestObjects::new();
    let domains = [1, 2, 7, 9];
    let mut put = Vec::new();
    for domain in domains {
        for packs in 0..4 {
            put.push(objects.needs(domain, packs));
        }
    }
    for object in &put {
        store.put(object).await.expect("a put");
    }
    let under = format!("{}d/", objects.path.prefix());
    let found = folders(store, &under, 10).await.expect("folders");
    let names = domains.map(|domain| NameId([domain; 8]).to_string());
    assert_eq!((found.names.as_slice(), found.complete), (names.as_slice(), true));
    let some = folders(store, &under, 3).await.expect("folders");
    assert_eq!((some.names.as_slice(), some.complete), (&names[..3], false));
    let mut keys: Vec<_> = put.iter().map(|object| object.key().clone()).collect();
    keys.sort();
    // After a key that exists, and after one that does not.
    for (after, expected) in [(keys[5].as_str(), &keys[6..]), (&format!("{under}05"), &keys[8..])] {
        let mut page = store.list(&under, Some(&store.after(after))).await.expect("a page");
        let mut found: Vec<_> = page.entries.into_iter().map(|entry| entry.key).collect();
        while let Some(next) = page.next {
            page = store.list(&under, Some(&next)).await.expect("a page");
            found.extend(page.entries.into_iter().map(|entry| entry.key));
        }
        assert_eq!(found, expected, "after {after}");
    }
    for object in &put {
        store.delete(object.key()).await.expect("a delete");
    }
}

async fn large_objects_are_read_back(store: &Arc<dyn Store>) {
    let object = TestObjects::new().needs(1, 400_000);
    assert!(object.bytes().len() > 15 << 20, "as large as a pack");
    store.put(&object).await.expect("a put");
    let bytes = store.get(object.key(), MAX_OBJECT).await.expect("a get");
    assert!(bytes == *object.bytes(), "16 MiB are read back unchanged");
    store.delete(object.key()).await.expect("a delete");
}

async fn probe_reports_no_fault(store: &Arc<dyn Store>) -> StoreFeatures {
    let objects = TestObjects::new();
    let probed = probe(store, &objects.runtime, objects.path.writer).await.expect("a probe");
    let features = &probed.features;
    assert_eq!(features.conditional_put, ConditionalPut::Honoured, "{probed:?}");
    assert!(features.ordered_lists && features.read_after_write && features.list_after_write, "{probed:?}");
    assert!(features.may_delete, "{probed:?}");
    let writer = format!("{}/", objects.path.writer);
    assert_eq!(all(store, &writer).await.expect("a list"), [], "a probe leaves no object");
    let text = serde_json::to_string(&probed).expect("it serialises");
    assert_eq!(serde_json::from_str::<ProbeReport>(&text).expect("and back"), probed);
    probed.features
}
