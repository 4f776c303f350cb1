//! A clock and randomness that tests control.

use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{Clock, Random, Runtime, Workers, lock};

/// A clock that shows the time it was set to.
#[derive(Debug)]
pub struct FixedClock(Mutex<Timestamp>);

impl FixedClock {
    /// Creates a clock that shows `at`.
    #[must_use]
    pub fn new(at: Timestamp) -> Self {
        Self(Mutex::new(at))
    }

    /// Sets the clock to `at`.
    pub fn set(&self, at: Timestamp) {
        *lock(&self.0) = at;
    }
}

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        *lock(&self.0)
    }
}

/// Deterministic randomness from a seed. For tests only: keys made from it protect nothing.
#[derive(Debug)]
pub struct SeededRandom(Mutex<blake3::OutputReader>);

impl SeededRandom {
    /// Creates the sequence that `seed` determines.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("kbak test randomness");
        hasher.update(&seed.to_le_bytes());
        Self(Mutex::new(hasher.finalize_xof()))
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) {
        lock(&self.0).fill(bytes);
    }
}

impl Runtime {
    /// Creates a deterministic runtime on one thread: randomness from `seed`, the clock fixed at `at`.
    #[must_use]
    pub fn seeded(seed: u64, at: Timestamp) -> Self {
        Self {
            clock: Arc::new(FixedClock::new(at)),
            random: Arc::new(SeededRandom::new(seed)),
            workers: Workers::Inline,
            stop: CancellationToken::new(),
        }
    }
}
