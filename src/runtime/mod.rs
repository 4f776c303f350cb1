//! The clock, randomness and workers of a run.
//!
//! They are passed in, so that tests can run the whole pipeline on one thread with a fixed
//! clock and a seed, and the same seed gives the same run.

mod buffers;
mod clock;
mod kill_points;
mod lock;
mod random;
#[cfg(any(test, feature = "testing"))]
mod testing;
mod workers;

use std::fmt;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

pub use buffers::{Buffer, BufferPool};
pub use clock::{Clock, SystemClock};
pub use kill_points::{kill_point, panic_point};
pub use lock::lock;
pub use random::{Random, SystemRandom};
#[cfg(any(test, feature = "testing"))]
pub use testing::{FixedClock, SeededRandom};
pub use workers::Workers;

/// The clock, randomness, workers and cancellation of a run. Cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The source of random bytes.
    pub random: Arc<dyn Random>,
    /// The workers.
    pub workers: Workers,
    /// Cancelled when the run must end early; work in progress then ends in order.
    pub stop: CancellationToken,
}

impl Runtime {
    /// Creates the runtime of a real process, with one worker per processor.
    #[must_use]
    pub fn real() -> Self {
        let count = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            workers: Workers::Threads { count },
            stop: CancellationToken::new(),
        }
    }

    /// Returns `N` random bytes.
    #[must_use]
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0u8; N];
        self.random.fill(&mut bytes);
        bytes
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("workers", &self.workers).finish_non_exhaustive()
    }
}
