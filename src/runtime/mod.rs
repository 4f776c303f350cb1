//! The clock, randomness and workers of a run.
//!
//! They are passed in, so that tests can run the whole pipeline on one thread with a fixed
//! clock and a seed, and the same seed gives the same run.

mod lock;

use std::fmt;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

pub use lock::lock;

/// A source of the current time.
pub trait Clock: Send + Sync {
    /// Returns the current time in UTC.
    fn now(&self) -> Timestamp;
}

/// A source of random bytes.
pub trait Random: Send + Sync {
    /// Fills `bytes` with random bytes.
    fn fill(&self, bytes: &mut [u8]);
}

/// The system clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// The operating system's random number generator.
#[derive(Debug, Clone, Copy)]
pub struct SystemRandom;

impl Random for SystemRandom {
    #[expect(clippy::expect_used, reason = "a system without randomness must not make keys")]
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system gives random bytes");
    }
}

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
pub struct SeededRandom(Mutex<(u64, blake3::OutputReader)>);

impl SeededRandom {
    /// Creates the sequence that `seed` determines.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("kbak test randomness");
        hasher.update(&seed.to_le_bytes());
        Self(Mutex::new((seed, hasher.finalize_xof())))
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) {
        lock(&self.0).1.fill(bytes);
    }
}

/// The threads on which blocking and CPU-bound work runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// The runtime's blocking threads.
    Threads {
        /// The number of jobs that a stage may run at once.
        count: usize,
    },
    /// The caller's thread, immediately: a seed then fixes the order of events.
    Inline,
}

impl Workers {
    /// Returns the number of jobs that a stage may run at once, at least 1.
    #[must_use]
    pub fn count(self) -> usize {
        match self {
            Self::Threads { count } => count.max(1),
            Self::Inline => 1,
        }
    }

    /// Runs `job` and returns its result. A panic in the job is resumed in the caller.
    pub async fn run<T: Send + 'static>(self, job: impl FnOnce() -> T + Send + 'static) -> T {
        match self {
            Self::Inline => job(),
            Self::Threads { .. } => match tokio::task::spawn_blocking(job).await {
                Ok(value) => value,
                Err(join) if join.is_panic() => std::panic::resume_unwind(join.into_panic()),
                // Blocking jobs are cancelled only when the runtime shuts down. By then this future is no
                // longer awaited.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

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
        f.debug_struct("World").field("workers", &self.workers).finish_non_exhaustive()
    }
}

/// A named point at which the kill tests end the process with SIGKILL: `KBAK_KILL_AT=name`, or
/// `name:N` for the N-th time it is passed. Compiled in only with the feature `kill-points`.
#[cfg(feature = "kill-points")]
pub fn kill_point(name: &'static str) {
    use std::collections::HashMap;
    use std::sync::LazyLock;
    static WANTED: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let text = std::env::var("KBAK_KILL_AT").ok()?;
        Some(match text.rsplit_once(':') {
            Some((name, nth)) => (name.to_owned(), nth.parse().ok()?),
            None => (text, 1),
        })
    });
    static PASSED: LazyLock<Mutex<HashMap<&'static str, u64>>> = LazyLock::new(Mutex::default);
    let Some((wanted, nth)) = WANTED.as_ref() else { return };
    if wanted != name {
        return;
    }
    let mut passed = lock(&PASSED);
    let count = passed.entry(name).or_default();
    *count += 1;
    if *count == *nth {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Does nothing without the feature `kill-points`.
#[cfg(not(feature = "kill-points"))]
#[inline(always)]
pub fn kill_point(_name: &'static str) {}

/// A named point at which a test makes the process panic with the data held there:
/// `KBAK_PANIC_AT=name:what`. Compiled in only with the feature `kill-points`.
#[cfg(feature = "kill-points")]
pub fn panic_point(name: &'static str, what: &str, held: &[u8]) {
    let wanted = std::env::var("KBAK_PANIC_AT").ok();
    if wanted.and_then(|wanted| Some(wanted.strip_prefix(name)?.strip_prefix(':')? == what)) == Some(true) {
        panic!("{}", String::from_utf8_lossy(held));
    }
}

/// Does nothing without the feature `kill-points`.
#[cfg(not(feature = "kill-points"))]
#[inline(always)]
pub fn panic_point(_name: &'static str, _what: &str, _held: &[u8]) {}
