//! Retries in a log: when a store is away, every object that waits for it fails at once, and again.

use std::time::{Duration, Instant};

/// At most one line in this time.
const APART: Duration = Duration::from_secs(10);

/// Which retries are told.
#[derive(Debug, Default)]
pub(super) struct Retries {
    told: Option<Instant>,
    silent: u64,
}

impl Retries {
    /// Of a retry at `now`: nothing if it is not told; else how many were not since the last that was.
    pub(super) fn hear(&mut self, now: Instant) -> Option<u64> {
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
    fn one_is_told_in_ten_seconds_and_the_rest_counted() {
        let began = Instant::now();
        let mut retries = Retries::default();
        let told: Vec<Option<u64>> =
            [0, 1, 9, 10, 11, 25].map(|second| retries.hear(began + Duration::from_secs(second))).to_vec();
        assert_eq!(told, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
