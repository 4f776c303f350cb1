//! A store that runs an action before an object is put, to simulate concurrent changes.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use kbak::format::layout::ObjectKey;
use kbak::format::object::SealedObject;
use kbak::store::probe::StoreQueries;
use kbak::store::{ObjectPage, PageToken, PutOutcome, Store, StoreError, Versions};

/// The action; its argument is the number of earlier calls.
type PutHook = Box<dyn Fn(usize) + Send + Sync>;

/// A store that passes all calls on.
pub struct HookedStore {
    inner: Arc<dyn Store>,
    part: &'static str,
    most: usize,
    times: AtomicUsize,
    hook: PutHook,
}

impl HookedStore {
    /// Runs `hook` before each of the first `most` puts of keys that contain `part`.
    pub fn new(inner: Arc<dyn Store>, part: &'static str, most: usize, hook: PutHook) -> Self {
        Self { inner, part, most, times: AtomicUsize::new(0), hook }
    }

    /// Returns the number of times that `hook` ran.
    pub fn times(&self) -> usize {
        self.times.load(Ordering::SeqCst).min(self.most)
    }
}

impl fmt::Debug for HookedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HookedStore({:?})", self.inner)
    }
}

#[async_trait]
impl Store for HookedStore {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn queries(&self) -> Option<&dyn StoreQueries> {
        self.inner.queries()
    }

    fn versions(&self) -> Option<&dyn Versions> {
        self.inner.versions()
    }

    async fn put(&self, object: &SealedObject) -> Result<PutOutcome, StoreError> {
        if object.key().as_str().contains(self.part) {
            let before = self.times.fetch_add(1, Ordering::SeqCst);
            if before < self.most {
                (self.hook)(before);
            }
        }
        self.inner.put(object).await
    }

    async fn get(&self, key: &ObjectKey, limit: u64) -> Result<Bytes, StoreError> {
        self.inner.get(key, limit).await
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.inner.get_range(key, range).await
    }

    async fn list(&self, prefix: &str, from: Option<&PageToken>) -> Result<ObjectPage, StoreError> {
        self.inner.list(prefix, from).await
    }

    fn after(&self, key: &str) -> PageToken {
        self.inner.after(key)
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.inner.now().await
    }
}
