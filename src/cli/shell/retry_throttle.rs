//! Limits the retries in a log: while a store is away, every waiting object fails at once, and again.

use std::time::{Duration, Instant};

/// The minimum time between two lines.
const MIN_INTERVAL: Duration = Duration::from_secs(10);

/// Chooses the retries that are shown.
#[derive(Debug, Default)]
pub(crate) struct RetryThrottle {
    last_shown: Option<Instant>,
    hidden: u64,
}

impl RetryThrottle {
    /// Returns `None` if a retry at `now` is not shown, else the number hidden since the last one shown.
    pub(crate) fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.last_shown.is_some_and(|shown| now.saturating_duration_since(shown) < MIN_INTERVAL) {
            self.hidden += 1;
            return None;
        }
        self.last_shown = Some(now);
        Some(std::mem::take(&mut self.hidden))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_retry_in_ten_seconds_is_shown_and_the_rest_counted() {
        let began = Instant::now();
        let mut retries = RetryThrottle::default();
        let shown: Vec<Option<u64>> =
            [0, 1, 9, 10, 11, 25].map(|second| retries.admit(began + Duration::from_secs(second))).to_vec();
        assert_eq!(shown, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
