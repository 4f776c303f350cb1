//! A store wrapper that limits bytes per second, separately for each direction.

use std::fmt;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::time::Instant;

use super::probe::Ask;
use super::{Page, PageToken, Put, Store, StoreError};
use crate::format::layout::ObjectKey;
use crate::format::object::Sealed;
use crate::runtime::lock;

/// Limits in bytes per second; `None` is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// The limit for puts.
    pub upload: Option<NonZeroU64>,
    /// The limit for gets.
    pub download: Option<NonZeroU64>,
}

/// Keeps the average of each direction at its rate.
///
/// It limits whole objects: one is sent at full speed, and the next waits until the rate allows
/// it. Over any time the bytes sent are at most rate × time + one object per caller.
pub struct LimitStore {
    inner: Arc<dyn Store>,
    upload: Option<Bucket>,
    download: Option<Bucket>,
}

impl LimitStore {
    /// Wraps `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, rates: Rates) -> Self {
        Self { inner, upload: rates.upload.map(Bucket::new), download: rates.download.map(Bucket::new) }
    }
}

/// A token bucket that allows debt: a caller may start when all earlier debt is paid, and then adds
/// its own bytes. Unused time is not saved.
struct Bucket {
    rate: NonZeroU64,
    paid_at: Mutex<Option<Instant>>,
}

impl Bucket {
    fn new(rate: NonZeroU64) -> Self {
        Self { rate, paid_at: Mutex::new(None) }
    }

    /// Adds the debt of `bytes` and returns the moment at which all earlier debt is paid.
    fn owe(&self, bytes: u64) -> Instant {
        let mut paid_at = lock(&self.paid_at);
        let now = Instant::now();
        let start = paid_at.map_or(now, |at| at.max(now));
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate.get());
        *paid_at = Some(start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)));
        start
    }

    async fn wait(&self, bytes: u64) {
        tokio::time::sleep_until(self.owe(bytes)).await;
    }
}

impl fmt::Debug for LimitStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LimitStore({:?})", self.inner)
    }
}

#[async_trait]
impl Store for LimitStore {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn ask(&self) -> Option<&dyn Ask> {
        self.inner.ask()
    }

    async fn put(&self, object: &Sealed) -> Result<Put, StoreError> {
        if let Some(bucket) = &self.upload {
            bucket.wait(object.bytes().len() as u64).await;
        }
        self.inner.put(object).await
    }

    async fn get(&self, key: &ObjectKey, limit: u64) -> Result<Bytes, StoreError> {
        let Some(bucket) = &self.download else { return self.inner.get(key, limit).await };
        bucket.wait(0).await;
        let bytes = self.inner.get(key, limit).await?;
        // The size is known only now: the next caller waits for it.
        bucket.owe(bytes.len() as u64);
        Ok(bytes)
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, StoreError> {
        if let Some(bucket) = &self.download {
            bucket.wait(range.end.saturating_sub(range.start)).await;
        }
        self.inner.get_range(key, range).await
    }

    async fn list(&self, prefix: &str, from: Option<&PageToken>) -> Result<Page, StoreError> {
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
