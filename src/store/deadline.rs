//! A store wrapper that gives every try a deadline, so that no store can block a run for ever.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use super::{ObjectPage, PageToken, PutOutcome, Store, StoreError, StoreErrorKind, operation::Operation};
use crate::format::{layout::ObjectKey, object::SealedObject};

/// The time limit of one try: `base`, plus the time for its bytes at the slowest acceptable rate.
///
/// This is the outer bound. A store that monitors its connection notices a stall earlier. So the
/// rate here is that of a slow line shared by several uploads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreDeadlines {
    /// The time for the answer itself.
    pub base: Duration,
    /// The slowest rate, in bytes per second, at least 1.
    pub slowest: u64,
}

impl Default for StoreDeadlines {
    fn default() -> Self {
        Self { base: Duration::from_secs(60), slowest: 64 << 10 }
    }
}

impl StoreDeadlines {
    /// Returns the deadline of a try that carries `bytes`.
    pub fn of(&self, bytes: u64) -> Duration {
        self.base + Duration::from_secs(bytes.div_ceil(self.slowest.max(1)))
    }
}

/// Ends tries beyond their deadline with [`StoreErrorKind::Transient`].
#[derive(Debug)]
pub struct DeadlineStore {
    inner: Arc<dyn Store>,
    deadlines: StoreDeadlines,
}

impl DeadlineStore {
    /// Wraps `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, deadlines: StoreDeadlines) -> Self {
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

#[async_trait]
impl Store for DeadlineStore {
    forward_to_inner!();

    async fn put(&self, object: &SealedObject) -> Result<PutOutcome, StoreError> {
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

    async fn list(&self, prefix: &str, from: Option<&PageToken>) -> Result<ObjectPage, StoreError> {
        self.within(Operation::List, prefix, 0, self.inner.list(prefix, from)).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.within(Operation::Delete, key.as_str(), 0, self.inner.delete(key)).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.within(Operation::Now, "", 0, self.inner.now()).await
    }
}
