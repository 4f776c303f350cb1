//! A store wrapper that records operations, so that tests can assert the cost of a run.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use super::operation::Operation;
use super::probe::Ask;
use super::{Page, PageToken, Put, Store, StoreError};
use crate::format::layout::ObjectKey;
use crate::format::object::Sealed;
use crate::runtime::lock;

/// One operation on a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The kind of operation.
    pub operation: Operation,
    /// The key or prefix; empty for the clock.
    pub object: String,
    /// The bytes sent or received; 0 for listings and failed reads.
    pub bytes: u64,
    /// `true` if it succeeded.
    pub succeeded: bool,
}

/// Forwards all operations and records them. The list grows without bound: for tests.
pub struct RecordStore {
    inner: Arc<dyn Store>,
    list: Mutex<Vec<Recorded>>,
}

impl RecordStore {
    /// Wraps `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, list: Mutex::default() }
    }

    /// Returns all operations so far, in the order in which they ended.
    #[must_use]
    pub fn recorded(&self) -> Vec<Recorded> {
        lock(&self.list).clone()
    }

    /// Returns the number of operations of one kind, and the bytes that they carried.
    #[must_use]
    pub fn count(&self, operation: Operation) -> (u64, u64) {
        let list = lock(&self.list);
        let these = list.iter().filter(|recorded| recorded.operation == operation);
        these.fold((0, 0), |(count, bytes), one| (count + 1, bytes + one.bytes))
    }

    /// Clears the record.
    pub fn clear(&self) {
        lock(&self.list).clear();
    }

    fn note<T>(
        &self,
        operation: Operation,
        object: &str,
        result: Result<T, StoreError>,
        bytes: impl FnOnce(&T) -> u64,
    ) -> Result<T, StoreError> {
        let recorded = Recorded {
            operation,
            object: object.to_owned(),
            bytes: result.as_ref().map_or(0, bytes),
            succeeded: result.is_ok(),
        };
        lock(&self.list).push(recorded);
        result
    }
}

impl fmt::Debug for RecordStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordStore({:?})", self.inner)
    }
}

#[async_trait]
impl Store for RecordStore {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn ask(&self) -> Option<&dyn Ask> {
        self.inner.ask()
    }

    async fn put(&self, object: &Sealed) -> Result<Put, StoreError> {
        let result = self.inner.put(object).await;
        let size = object.bytes().len() as u64;
        self.note(Operation::Put, object.key().as_str(), result, |_| size)
    }

    async fn get(&self, key: &ObjectKey, limit: u64) -> Result<Bytes, StoreError> {
        let result = self.inner.get(key, limit).await;
        self.note(Operation::Get, key.as_str(), result, |bytes| bytes.len() as u64)
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, StoreError> {
        let result = self.inner.get_range(key, range).await;
        self.note(Operation::GetRange, key.as_str(), result, |bytes| bytes.len() as u64)
    }

    async fn list(&self, prefix: &str, from: Option<&PageToken>) -> Result<Page, StoreError> {
        let result = self.inner.list(prefix, from).await;
        self.note(Operation::List, prefix, result, |_| 0)
    }

    fn after(&self, key: &str) -> PageToken {
        self.inner.after(key)
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let result = self.inner.delete(key).await;
        self.note(Operation::Delete, key.as_str(), result, |()| 0)
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        let result = self.inner.now().await;
        self.note(Operation::Now, "", result, |_| 0)
    }
}
