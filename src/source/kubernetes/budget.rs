//! Bytes of list pages that may lie in memory, shared by kinds that are listed ahead.
//!
//! Kinds are handed on one after the other, but listed several at a time. The one whose turn it
//! is must never wait for memory that only later kinds hold: so later kinds leave room for one
//! page, and the kind whose turn it is may use that room. So the whole never passes its limit and
//! never stands still.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

#[derive(Debug)]
struct State {
    free: usize,
    /// Which kind's turn it is, by its place in the order.
    turn: usize,
}

/// The budget. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    page: usize,
}

/// Bytes taken; given back on drop.
#[derive(Debug)]
pub(super) struct Grant {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    /// A budget of `total` bytes for pages of at most `page` bytes, of which it holds two or more.
    pub(super) fn new(total: usize, page: usize) -> Self {
        debug_assert!(total >= 2 * page, "room for one page ahead");
        Self { state: Arc::new(Mutex::new(State { free: total, turn: 0 })), changed: Arc::default(), page }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is the turn of the kind at `place`.
    pub(super) fn turn(&self, place: usize) {
        self.state().turn = place;
        self.changed.notify_waiters();
    }

    /// Room for one page of the kind at `place`, as soon as there is some.
    pub(super) async fn take(&self, place: usize) -> Grant {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Enabled before looking, so that no change between looking and waiting is missed.
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
    /// Keeps `bytes` of what was taken and gives the rest back.
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
    fn the_kind_whose_turn_it_is_always_gets_a_page() {
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
    fn what_a_page_does_not_use_goes_back() {
        let budget = Budget::new(20, 10);
        let mut page = budget.take(0).now_or_never().expect("room");
        let waiting = budget.take(1);
        tokio::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        page.shrink(0);
        assert!(waiting.now_or_never().is_some(), "and whoever waits is told");
    }
}
