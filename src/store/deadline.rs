//! A store wrapper that gives every try a deadline, so that no store can block a run for ever.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use super::operation::Operation;
use super::probe::Ask;
use super::{Page, PageToken, Put, Store, StoreError, StoreErrorKind};
use crate::format::layout::ObjectKey;
use crate::format::object::Sealed;

/// The time limit of one try: `base`, plus the time for its bytes at the slowest acceptable rate.
///
/// This is the outer bound. A store that monitors its connection notices a stall earlier. So the
/// rate here is that of a slow line shared by several uploads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// The time for the answer itself.
    pub base: Duration,
    /// The slowest rate, in bytes per second, at least 1.
    pub slowest: u64,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { base: Duration::from_secs(60), slowest: 64 << 10 }
    }
}

impl Deadlines {
    /// Returns the deadline of a try that carries `bytes`.
    #[must_use]
    pub fn of(&self, bytes: u64) -> Duration {
        self.base + Duration::from_secs(bytes.div_ceil(self.slowest.max(1)))
    }
}

/// Ends tries beyond their deadline with [`StoreErrorKind::Transient`].
pub struct DeadlineStore {
    inner: Arc<dyn Store>,
    deadlines: Deadlines,
}

impl DeadlineStore {
    /// Wraps `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, deadlines: Deadlines) -> Self {
        Self { inner, deadlines }
    }

    async fn within<T>(
        &self,
        operation: Operation,
        object: &str,
        bytes: u64,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let most = self.deadlines.of(bytes);
        tokio::time::timeout(most, answer).await.unwrap_or_else(|_| {
            let kind = StoreErrorKind::Transient(format!("no answer within {} s", most.as_secs()));
            Err(StoreError::new(operation, object, self.inner.describe(), kind))
        })
    }
}

impl fmt::Debug for DeadlineStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeadlineStore({:?})", self.inner)
    }
}

#[async_trait]
impl Store for DeadlineStore {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn ask(&self) -> Option<&dyn Ask> {
        self.inner.ask()
    }

    async fn put(&self, object: &Sealed) -> Result<Put, StoreError> {
        let size = object.bytes().len() as u64;
        self.within(Operation::Put, object.key().as_str(), size, self.inner.put(object)).await
    }

    async fn get(&self, key: &ObjectKey, limit: u64) -> Result<Bytes, StoreError> {
        self.within(Operation::Get, key.as_str(), limit, self.inner.get(key, limit)).await
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, StoreError> {
        let size = range.end.saturating_sub(range.start);
        self.within(Operation::GetRange, key.as_str(), size, self.inner.get_range(key, range)).await
    }

    async fn list(&self, prefix: &str, from: Option<&PageToken>) -> Result<Page, StoreError> {
        self.within(Operation::List, prefix, 0, self.inner.list(prefix, from)).await
    }

    fn after(&self, key: &str) -> PageToken {
        self.inner.after(key)
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.within(Operation::Delete, key.as_str(), 0, self.inner.delete(key)).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.within(Operation::Now, "", 0, self.inner.now()).await
    }
}
