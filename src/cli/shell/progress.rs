//! The text of progress lines: pure functions of figures and time.

use std::collections::VecDeque;
use std::time::Duration;

use crate::report::event::Reading;
use crate::report::text::{about, count, size};

/// A speed over the last seconds, so that a pause shows and the start is forgotten.
#[derive(Debug, Default)]
pub struct Speed {
    samples: VecDeque<(Duration, u64)>,
}

/// The time over which a speed is measured.
const WINDOW: Duration = Duration::from_secs(8);

impl Speed {
    /// Records that `value` was reached at `at`, the time since the start.
    pub fn sample(&mut self, at: Duration, value: u64) {
        self.samples.push_back((at, value));
        while self.samples.len() > 2 && self.samples.front().is_some_and(|(first, _)| *first + WINDOW < at) {
            self.samples.pop_front();
        }
    }

    /// Returns the speed per second; `None` until two samples are half a second apart.
    pub fn per_second(&self) -> Option<u64> {
        let (first, from) = self.samples.front()?;
        let (last, to) = self.samples.back()?;
        let millis = last.saturating_sub(*first).as_millis();
        if millis < 500 {
            return None;
        }
        u64::try_from(u128::from(to.saturating_sub(*from)) * 1000 / millis).ok()
    }
}

/// Returns the share of an item that is done, from 0 to 1000; `None` while no total is known.
#[must_use]
pub fn permille(reading: &Reading) -> Option<u64> {
    let (done, total) = done_and_total(reading)?;
    let share = u128::from(done) * 1000 / u128::from(total);
    Some(u64::try_from(share).unwrap_or(1000).min(1000))
}

/// Returns bytes done and in total, which show best how much is left, or units if no total is known.
fn done_and_total(reading: &Reading) -> Option<(u64, u64)> {
    if reading.bytes_total > 0 {
        return Some((reading.bytes, reading.bytes_total));
    }
    (reading.total > 0).then_some((reading.done, reading.total))
}

/// Returns the time left. `per_second` counts the same as [`permille`]: bytes or units.
#[must_use]
pub fn time_left(reading: &Reading, per_second: u64) -> Option<Duration> {
    let (done, total) = done_and_total(reading)?;
    let left = total.checked_sub(done)?;
    if left == 0 || per_second == 0 {
        return None;
    }
    Some(Duration::from_secs(left.div_ceil(per_second)))
}

/// Returns the figure by which an item's speed is measured: bytes or units.
#[must_use]
pub fn speed_figure(reading: &Reading) -> u64 {
    if reading.bytes_total > 0 || reading.total == 0 { reading.bytes } else { reading.done }
}

/// Formats an item's progress: `41,022 of 98,310 files · 3.2 GiB · 182 MiB/s · new 61 MiB · 5 s left`.
#[must_use]
pub fn line(reading: &Reading, unit: &str, bytes_per_second: Option<u64>, left: Option<Duration>) -> String {
    let mut parts = Vec::new();
    if unit != "bytes" {
        parts.push(match reading.total {
            total if total > reading.done && !reading.ended => {
                format!("{} of {} {unit}", count(reading.done), count(total))
            }
            _ => format!("{} {unit}", count(reading.done)),
        });
    }
    if reading.bytes > 0 || unit == "bytes" {
        parts.push(match reading.bytes_total {
            total if total > reading.bytes && !reading.ended => {
                format!("{} of {}", size(reading.bytes), size(total))
            }
            _ => size(reading.bytes),
        });
    }
    if !reading.ended {
        parts.extend(bytes_per_second.map(|speed| format!("{}/s", size(speed))));
    }
    if reading.new_bytes > 0 {
        parts.push(format!("new {}", size(reading.new_bytes)));
    }
    if !reading.ended {
        parts.extend(left.map(|left| format!("{} left", about(left))));
    }
    parts.join(" · ")
}

/// Formats the line below all items: `stored 71 MiB in 6 packs · memory 84 of 128 MiB`.
#[must_use]
pub fn footer(stored: (u64, u64), resident: Option<u64>, limit: Option<u64>) -> String {
    let mut parts = Vec::new();
    if stored.0 > 0 {
        let packs = crate::report::text::plural(stored.1, "pack", "packs");
        parts.push(format!("stored {} in {packs}", size(stored.0)));
    }
    if let Some(now) = resident {
        let now = now.div_ceil(1 << 20);
        parts.push(match limit {
            Some(limit) => format!("memory {now} of {} MiB", limit >> 20),
            None => format!("memory {now} MiB"),
        });
    }
    parts.join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading() -> Reading {
        Reading {
            done: 41_022,
            total: 98_310,
            bytes: 32 << 27,
            bytes_total: 41 << 27,
            new_bytes: 61 << 20,
            ended: false,
        }
    }

    #[test]
    fn line_shows_done_and_time_left() {
        let left = time_left(&reading(), 182 << 20);
        let text = line(&reading(), "files", Some(182 << 20), left);
        assert_eq!(text, "41,022 of 98,310 files · 4.0 GiB of 5.1 GiB · 182 MiB/s · new 61 MiB · 7 s left");
        let over = Reading { done: 98_310, bytes: 41 << 27, ended: true, ..reading() };
        assert_eq!(line(&over, "files", None, None), "98,310 files · 5.1 GiB · new 61 MiB");
        assert_eq!(line(&Reading::default(), "bytes", None, None), "0 B");
    }

    #[test]
    fn speed_covers_only_the_last_seconds() {
        let mut speed = Speed::default();
        assert_eq!(speed.per_second(), None);
        for second in 0..20u64 {
            // Ten a second for ten seconds, then a standstill.
            speed.sample(Duration::from_secs(second), second.min(10) * 10);
        }
        assert_eq!(speed.per_second(), Some(0));
    }

    #[test]
    fn share_and_time_left_are_unknown_without_a_total() {
        assert_eq!(time_left(&Reading::default(), 5), None);
        assert_eq!(permille(&Reading::default()), None);
        assert_eq!(permille(&Reading { done: 5, total: 4, ..Reading::default() }), Some(1000));
    }

    #[test]
    fn footer_shows_stored_bytes_and_memory_limit() {
        let text = footer((71 << 20, 6), Some(84 << 20), Some(128 << 20));
        assert_eq!(text, "stored 71 MiB in 6 packs · memory 84 of 128 MiB");
        assert_eq!(footer((0, 0), None, Some(1)), "");
    }
}
