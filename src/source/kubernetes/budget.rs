//! The memory budget for list pages, shared by kinds that are listed ahead.
//!
//! Kinds are forwarded one after the other, but several are listed at a time. The kind whose turn
//! it is must never wait for memory that only later kinds hold. So later kinds leave room for one
//! page, and only the current kind may use it. The budget is never exceeded and never causes a
//! deadlock.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::runtime::lock;

#[derive(Debug)]
struct State {
    free: usize,
    /// The position of the kind whose turn it is.
    turn: usize,
}

/// The shared budget. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    page: usize,
}

/// Bytes taken from the budget; returned on drop.
#[derive(Debug)]
pub(super) struct Grant {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    /// Creates a budget of `total` bytes for pages of at most `page` bytes; it must hold at least two.
    pub(super) fn new(total: usize, page: usize) -> Self {
        debug_assert!(total >= 2 * page, "room for one page ahead");
        Self { state: Arc::new(Mutex::new(State { free: total, turn: 0 })), changed: Arc::default(), page }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Gives the turn to the kind at `place`.
    pub(super) fn turn(&self, place: usize) {
        self.state().turn = place;
        self.changed.notify_waiters();
    }

    /// Waits for room for one page of the kind at `place`.
    pub(super) async fn take(&self, place: usize) -> Grant {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Enabled before the check, so that no change between the check and the wait is missed.
            changed.as_mut().enable();
            {
                let mut state = self.state();
                let needed = if place == state.turn { self.page } else { 2 * self.page };
                if state.free >= needed {
                    state.free -= self.page;
                    return Grant { budget: self.clone(), bytes: self.page };
                }
            }
            changed.await;
        }
    }
}

impl Grant {
    /// Keeps `bytes` of the grant and returns the rest.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let rest = self.bytes.saturating_sub(bytes);
        self.bytes -= rest;
        self.give(rest);
    }

    fn give(&self, bytes: usize) {
        self.budget.state().free += bytes;
        self.budget.changed.notify_waiters();
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.give(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn current_kind_always_gets_a_page() {
        let budget = Budget::new(40, 10);
        let ahead: Vec<_> = (0..3).filter_map(|_| budget.take(1).now_or_never()).collect();
        assert_eq!(ahead.len(), 3, "later kinds may take all but one page");
        assert!(budget.take(2).now_or_never().is_none());
        let first = budget.take(0).now_or_never().expect("room was left for it");
        assert!(budget.take(0).now_or_never().is_none(), "and no more than there is");
        drop(first);
        budget.turn(1);
        assert!(budget.take(1).now_or_never().is_some());
    }

    #[test]
    fn unused_bytes_of_a_page_are_returned() {
        let budget = Budget::new(20, 10);
        let mut page = budget.take(0).now_or_never().expect("room");
        let waiting = budget.take(1);
        tokio::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        page.shrink(0);
        assert!(waiting.now_or_never().is_some(), "and whoever waits is told");
    }
}
