//! A store in memory, for tests: the reference for the other stores.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Bound, Range};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use super::{
    ListedObject, MAX_PAGE, ObjectPage, PageToken, PutOutcome, Store, StoreError, StoreErrorKind, Versions,
    operation::Operation,
};
use md5::Digest as _;

use crate::format::{ids::to_hex, layout::ObjectKey, object::SealedObject};
use crate::runtime::{Clock, lock};

struct MemoryObject {
    key: ObjectKey,
    bytes: Bytes,
    first_stored: Timestamp,
    modified: Timestamp,
    etag: String,
}

impl MemoryObject {
    fn new(key: ObjectKey, bytes: Bytes, modified: Timestamp) -> Self {
        let etag = to_hex(&md5::Md5::digest(&bytes));
        Self { key, bytes, first_stored: modified, modified, etag }
    }
}

/// A store of objects in a map, with the clock passed in. Puts are atomic, and seen at once.
pub struct MemoryStore {
    objects: Mutex<BTreeMap<String, MemoryObject>>,
    clock: Arc<dyn Clock>,
    page: usize,
    keeps_versions: AtomicBool,
}

impl MemoryStore {
    /// Creates an empty store with the given clock.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { objects: Mutex::default(), clock, page: MAX_PAGE, keeps_versions: AtomicBool::new(false) }
    }

    /// Limits pages to `keys` keys (1 to [`MAX_PAGE`]), so that small tests get many pages.
    #[must_use]
    pub fn with_page(mut self, keys: usize) -> Self {
        self.page = keys.clamp(1, MAX_PAGE);
        self
    }

    /// Keeps the time of an object's first version when it is overwritten, as buckets with versions do.
    pub fn keep_versions(&self) {
        self.keeps_versions.store(true, Ordering::Relaxed);
    }

    /// Returns all objects. The bytes are shared, not copied.
    pub fn objects(&self) -> BTreeMap<ObjectKey, Bytes> {
        self.lock().values().map(|object| (object.key.clone(), object.bytes.clone())).collect()
    }

    /// Stores any bytes at `key`, also over an existing object, for tests of damage and forgery.
    pub fn overwrite(&self, key: ObjectKey, bytes: Bytes) {
        let name = key.as_str().to_owned();
        let mut object = MemoryObject::new(key, bytes, self.clock.now());
        let mut objects = self.lock();
        if let Some(earlier) = objects.get(&name).filter(|_| self.keeps_versions.load(Ordering::Relaxed)) {
            object.first_stored = earlier.first_stored;
        }
        objects.insert(name, object);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, MemoryObject>> {
        lock(&self.objects)
    }

    fn error(&self, operation: Operation, key: &ObjectKey, kind: StoreErrorKind) -> StoreError {
        StoreError::new(operation, key.as_str(), self.describe(), kind)
    }

    fn read(&self, operation: Operation, key: &ObjectKey) -> Result<Bytes, StoreError> {
        let bytes = self.lock().get(key.as_str()).map(|object| object.bytes.clone());
        bytes.ok_or_else(|| self.error(operation, key, StoreErrorKind::NotFound))
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryStore({} objects)", self.lock().len())
    }
}

#[async_trait]
impl Versions for MemoryStore {
    async fn first_stored(&self, key: &ObjectKey) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.lock().get(key.as_str()).map(|object| object.first_stored))
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn describe(&self) -> String {
        "memory".into()
    }

    async fn put(&self, object: &SealedObject) -> Result<PutOutcome, StoreError> {
        let stored = MemoryObject::new(object.key().clone(), object.bytes().clone(), self.clock.now());
        match self.lock().entry(object.key().as_str().to_owned()) {
            std::collections::btree_map::Entry::Occupied(_) => Ok(PutOutcome::Existed),
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(stored);
                Ok(PutOutcome::Created)
            }
        }
    }

    async fn get(&self, key: &ObjectKey, limit: u64) -> Result<Bytes, StoreError> {
        let bytes = self.read(Operation::Get, key)?;
        if bytes.len() as u64 > limit {
            return Err(self.error(Operation::Get, key, StoreErrorKind::TooLarge { limit }));
        }
        Ok(bytes)
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, StoreError> {
        let bytes = self.read(Operation::GetRange, key)?;
        let clamp = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let (start, end) = (clamp(range.start), clamp(range.end));
        Ok(if start < end { bytes.slice(start..end) } else { Bytes::new() })
    }

    async fn list(&self, prefix: &str, from: Option<&PageToken>) -> Result<ObjectPage, StoreError> {
        let objects = self.lock();
        let start = match from {
            Some(token) => Bound::Excluded(token.0.as_str()),
            None => Bound::Included(prefix),
        };
        let mut under = objects
            .range::<str, _>((start, Bound::Unbounded))
            .map(|(_, object)| object)
            .take_while(|object| object.key.as_str().starts_with(prefix))
            .map(|object| ListedObject {
                key: object.key.clone(),
                size: object.bytes.len() as u64,
                is_file: true,
                modified: object.modified,
                etag: Some(object.etag.clone()),
            });
        let entries: Vec<ListedObject> = under.by_ref().take(self.page).collect();
        let more = under.next().is_some();
        let next = entries.last().filter(|_| more).map(|entry| PageToken(entry.key.as_str().to_owned()));
        Ok(ObjectPage { entries, unknown: Vec::new(), next })
    }

    fn after(&self, key: &str) -> PageToken {
        PageToken(key.to_owned())
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.lock().remove(key.as_str());
        Ok(())
    }

    fn versions(&self) -> Option<&dyn Versions> {
        Some(self)
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(self.clock.now())
    }
}
