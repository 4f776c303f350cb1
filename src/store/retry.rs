//! A store wrapper that retries within bounds. No other code retries store operations.
//!
//! Full jitter over an exponential ceiling (Brooker, "Exponential Backoff And Jitter", 2015): the
//! pause before a try is a uniformly random part of a ceiling that doubles up to a cap. A put can
//! be repeated after any failure, because an object's bytes are fixed by its name or by its random
//! key. If the lost answer was a success, the next one is [`PutOutcome::Existed`].

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use backon::Retryable;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::time::Instant;

use super::{ObjectPage, PageToken, PutOutcome, Store, StoreError, StoreErrorKind, operation::Operation};
use crate::format::{layout::ObjectKey, object::SealedObject};
use crate::report::event::{Event, Reporter};
use crate::runtime::Runtime;

/// The bounds of the retries of one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The number of tries while the store has never answered, so that a wrong address is reported soon.
    pub initial_tries: u32,
    /// The number of tries once the store has answered.
    pub tries: u32,
    /// The ceiling of the first pause; it doubles with each try.
    pub first_pause: Duration,
    /// The maximum of the ceiling.
    pub max_pause: Duration,
    /// The time from an operation's first failure, after which no try begins.
    pub budget: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            initial_tries: 5,
            tries: 60,
            first_pause: Duration::from_millis(200),
            max_pause: Duration::from_secs(20),
            budget: Duration::from_secs(600),
        }
    }
}

/// Retries transient failures and reports each retry with [`Event::Retry`].
#[derive(Debug)]
pub struct RetryStore {
    inner: Arc<dyn Store>,
    policy: RetryPolicy,
    runtime: Runtime,
    reporter: Reporter,
    answered: AtomicBool,
}

impl RetryStore {
    /// Wraps `inner`. The jitter is the runtime's randomness, the pauses use tokio's time.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, policy: RetryPolicy, runtime: Runtime, reporter: Reporter) -> Self {
        Self { inner, policy, runtime, reporter, answered: AtomicBool::new(false) }
    }

    async fn run<T, F>(
        &self,
        operation: Operation,
        object: &str,
        attempt: impl Fn() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let tries = AtomicU32::new(0);
        let began = Instant::now();
        let result = (|| {
            tries.fetch_add(1, Ordering::Relaxed);
            attempt()
        })
        .retry(self.pauses())
        .when(|error| self.should_retry(error, tries.load(Ordering::Relaxed)))
        .notify(|error, _| {
            tracing::debug!(%operation, object, reason = %error.kind, "store retry");
            self.reporter.event(Event::Retry {
                operation: format!("{operation} {object}").trim_end().to_owned(),
                attempt: tries.load(Ordering::Relaxed) + 1,
                reason: error.kind.to_string(),
            });
        })
        .await;
        let tries = tries.into_inner();
        let millis = began.elapsed().as_millis();
        tracing::debug!(%operation, object, tries, millis, done = result.is_ok(), "store request");
        match result {
            Err(error) if error.kind.is_transient() && tries > 1 => {
                Err(retries_exhausted(error, tries, began.elapsed()))
            }
            other => {
                if !matches!(&other, Err(error) if error.kind.is_transient()) {
                    self.answered.store(true, Ordering::Relaxed);
                }
                other
            }
        }
    }

    fn should_retry(&self, error: &StoreError, tries: u32) -> bool {
        let answered = self.answered.load(Ordering::Relaxed);
        let most = if answered { self.policy.tries } else { self.policy.initial_tries };
        error.kind.is_transient() && tries < most
    }

    fn pauses(&self) -> Pauses {
        Pauses {
            policy: self.policy,
            runtime: self.runtime.clone(),
            ceiling: self.policy.first_pause,
            failed: None,
        }
    }
}

fn retries_exhausted(error: StoreError, tries: u32, after: Duration) -> StoreError {
    let last = error.kind.to_string();
    StoreError {
        kind: StoreErrorKind::RetriesExhausted { tries, after, last },
        operation: error.operation,
        object: error.object,
        store: error.store,
        source: error.source,
    }
}

/// The pauses between the tries of one operation; ends when the budget is spent.
struct Pauses {
    policy: RetryPolicy,
    runtime: Runtime,
    ceiling: Duration,
    failed: Option<Instant>,
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let first_failure = *self.failed.get_or_insert_with(Instant::now);
        // 53 random bits give a fraction from 0 to just under 1.
        let bits = u64::from_le_bytes(self.runtime.random::<8>()) >> 11;
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
        let part = bits as f64 / (1u64 << 53) as f64;
        let pause = self.ceiling.mul_f64(part);
        self.ceiling = self.ceiling.saturating_mul(2).min(self.policy.max_pause);
        (first_failure.elapsed() + pause < self.policy.budget).then_some(pause)
    }
}

#[async_trait]
impl Store for RetryStore {
    forward_to_inner!();

    async fn put(&self, object: &SealedObject) -> Result<PutOutcome, StoreError> {
        self.run(Operation::Put, object.key().as_str(), || self.inner.put(object)).await
    }

    async fn get(&self, key: &ObjectKey, limit: u64) -> Result<Bytes, StoreError> {
        self.run(Operation::Get, key.as_str(), || self.inner.get(key, limit)).await
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, StoreError> {
        let attempt = || self.inner.get_range(key, range.clone());
        self.run(Operation::GetRange, key.as_str(), attempt).await
    }

    async fn list(&self, prefix: &str, from: Option<&PageToken>) -> Result<ObjectPage, StoreError> {
        self.run(Operation::List, prefix, || self.inner.list(prefix, from)).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.run(Operation::Delete, key.as_str(), || self.inner.delete(key)).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.run(Operation::Now, "", || self.inner.now()).await
    }
}
