//! Limits the retries in a log: while a store is away, every waiting object fails at once, and again.

use std::time::{Duration, Instant};

/// The minimum time between two lines.
const APART: Duration = Duration::from_secs(10);

/// Chooses the retries that are shown.
#[derive(Debug, Default)]
pub(crate) struct Retries {
    told: Option<Instant>,
    silent: u64,
}

impl Retries {
    /// Returns `None` if a retry at `now` is not shown, else the number hidden since the last one shown.
    pub(crate) fn hear(&mut self, now: Instant) -> Option<u64> {
        if self.told.is_some_and(|told| now.saturating_duration_since(told) < APART) {
            self.silent += 1;
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.silent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_retry_in_ten_seconds_is_shown_and_the_rest_counted() {
        let began = Instant::now();
        let mut retries = Retries::default();
        let told: Vec<Option<u64>> =
            [0, 1, 9, 10, 11, 25].map(|second| retries.hear(began + Duration::from_secs(second))).to_vec();
        assert_eq!(told, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
