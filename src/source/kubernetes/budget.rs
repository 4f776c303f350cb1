//! The memory budget for list pages, shared by kinds that are listed ahead.
//!
//! Kinds are forwarded one after the other, but several are listed at a time. The kind whose turn it is must
//! never wait for memory that only later kinds hold. So later kinds leave room for one page, and only the
//! current kind may use it. The budget is never exceeded and never causes a deadlock.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::runtime::lock;

#[derive(Debug)]
struct BudgetState {
    free: usize,
    /// The position of the kind whose turn it is.
    current: usize,
}

/// The shared budget. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct PageBudget {
    state: Arc<Mutex<BudgetState>>,
    changed: Arc<Notify>,
    page_size: usize,
}

/// Bytes taken from the budget; returned on drop.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: PageBudget,
    bytes: usize,
}

impl PageBudget {
    /// Creates a budget of `total` bytes for pages of at most `page_size` bytes; it must hold at least two.
    pub(super) fn new(total: usize, page_size: usize) -> Self {
        debug_assert!(total >= 2 * page_size, "room for one page ahead");
        Self {
            state: Arc::new(Mutex::new(BudgetState { free: total, current: 0 })),
            changed: Arc::default(),
            page_size,
        }
    }

    fn state(&self) -> MutexGuard<'_, BudgetState> {
        lock(&self.state)
    }

    /// Gives the turn to the kind at `position`.
    pub(super) fn set_current(&self, position: usize) {
        self.state().current = position;
        self.changed.notify_waiters();
    }

    /// Waits for room for one page of the kind at `position`.
    pub(super) async fn reserve(&self, position: usize) -> Reservation {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Enabled before the check, so that no change between the check and the wait is missed.
            changed.as_mut().enable();
            {
                let mut state = self.state();
                let needed = if position == state.current { self.page_size } else { 2 * self.page_size };
                if state.free >= needed {
                    state.free -= self.page_size;
                    return Reservation { budget: self.clone(), bytes: self.page_size };
                }
            }
            changed.await;
        }
    }
}

impl Reservation {
    /// Keeps `bytes` of the reservation and returns the rest.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let rest = self.bytes.saturating_sub(bytes);
        self.bytes -= rest;
        self.give_back(rest);
    }

    fn give_back(&self, bytes: usize) {
        self.budget.state().free += bytes;
        self.budget.changed.notify_waiters();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn current_kind_always_gets_a_page() {
        let budget = PageBudget::new(40, 10);
        let ahead: Vec<_> = (0..3).filter_map(|_| budget.reserve(1).now_or_never()).collect();
        assert_eq!(ahead.len(), 3, "later kinds may take all but one page");
        assert!(budget.reserve(2).now_or_never().is_none());
        let first = budget.reserve(0).now_or_never().expect("room was left for it");
        assert!(budget.reserve(0).now_or_never().is_none(), "and no more than there is");
        drop(first);
        budget.set_current(1);
        assert!(budget.reserve(1).now_or_never().is_some());
    }

    #[test]
    fn unused_bytes_of_a_page_are_returned() {
        let budget = PageBudget::new(20, 10);
        let mut page = budget.reserve(0).now_or_never().expect("room");
        let waiting = budget.reserve(1);
        tokio::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        page.shrink(0);
        assert!(waiting.now_or_never().is_some(), "and the waiting lister continues");
    }
}
