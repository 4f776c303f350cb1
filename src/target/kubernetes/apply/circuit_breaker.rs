//! Stops creating objects of a kind while its webhook does not answer.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::runtime::lock;
use crate::target::kubernetes::{Refusal, RefusalCause};

/// Consecutive webhook failures after which a kind is left to another round. Each may have taken ten seconds
/// or more.
const MAX_WEBHOOK_FAILURES: u32 = 64;

/// Counts the consecutive webhook failures of one kind.
#[derive(Debug, Default)]
pub(crate) struct CircuitBreaker {
    failures: AtomicU32,
    last: Mutex<Option<Refusal>>,
}

impl CircuitBreaker {
    /// Returns the last failure if there were too many.
    pub(super) fn open_reason(&self) -> Option<Refusal> {
        let last = || lock(&self.last).clone();
        (self.failures.load(Ordering::Relaxed) >= MAX_WEBHOOK_FAILURES).then(last).flatten()
    }

    /// Records the result of a create.
    pub(super) fn record(&self, refusal: Option<&Refusal>) {
        match refusal.filter(|refusal| refusal.cause == RefusalCause::Webhook) {
            Some(refusal) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                *lock(&self.last) = Some(refusal.clone());
            }
            None => self.failures.store(0, Ordering::Relaxed),
        }
    }
}
