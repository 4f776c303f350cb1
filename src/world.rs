//! What a run takes from outside its own logic: time, randomness and workers.
//!
//! They are passed in, so that tests run the whole pipeline on one thread with a clock and a seed
//! of their own, and the same seed gives the same run.

use std::fmt;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Now, in UTC.
    fn now(&self) -> Timestamp;
}

/// Gives random bytes.
pub trait Random: Send + Sync {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// The machine's clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// The operating system's randomness.
#[derive(Debug, Clone, Copy)]
pub struct SystemRandom;

impl Random for SystemRandom {
    #[expect(clippy::expect_used, reason = "a system without randomness must not make keys")]
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system gives random bytes");
    }
}

/// A clock that stands where it is put.
#[derive(Debug)]
pub struct FixedClock(Mutex<Timestamp>);

impl FixedClock {
    /// A clock that shows `at`.
    #[must_use]
    pub fn new(at: Timestamp) -> Self {
        Self(Mutex::new(at))
    }

    /// Puts the clock to `at`.
    pub fn set(&self, at: Timestamp) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = at;
    }
}

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Randomness that a seed repeats. For tests: the keys that it gives are worth nothing.
#[derive(Debug)]
pub struct SeededRandom(Mutex<(u64, blake3::OutputReader)>);

impl SeededRandom {
    /// The sequence of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("kbak test randomness");
        hasher.update(&seed.to_le_bytes());
        Self(Mutex::new((seed, hasher.finalize_xof())))
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).1.fill(bytes);
    }
}

/// Where blocking and computing work runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// On the runtime's blocking threads.
    Threads {
        /// How many jobs a stage may have under way at once.
        count: usize,
    },
    /// At once, on the caller's thread: one order of events for one seed.
    Inline,
}

impl Workers {
    /// How many jobs a stage may have under way at once.
    #[must_use]
    pub fn count(self) -> usize {
        match self {
            Self::Threads { count } => count.max(1),
            Self::Inline => 1,
        }
    }

    /// Runs `job` and gives its result. A panic in the job goes on in the caller.
    pub async fn run<T: Send + 'static>(self, job: impl FnOnce() -> T + Send + 'static) -> T {
        match self {
            Self::Inline => job(),
            Self::Threads { .. } => match tokio::task::spawn_blocking(job).await {
                Ok(value) => value,
                Err(join) if join.is_panic() => std::panic::resume_unwind(join.into_panic()),
                // Blocking jobs are cancelled only when the runtime shuts down, and then nobody
                // waits for this future any more.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

/// Everything together; cheap to clone.
#[derive(Clone)]
pub struct World {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Workers.
    pub workers: Workers,
    /// Cancelled when the run is to end early: what may, leaves in order.
    pub stop: CancellationToken,
}

impl World {
    /// The real world, with one worker per processor.
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

    /// A world that `seed` repeats, standing at `at`, on one thread.
    #[must_use]
    pub fn seeded(seed: u64, at: Timestamp) -> Self {
        Self {
            clock: Arc::new(FixedClock::new(at)),
            random: Arc::new(SeededRandom::new(seed)),
            workers: Workers::Inline,
            stop: CancellationToken::new(),
        }
    }

    /// `N` random bytes.
    #[must_use]
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0u8; N];
        self.random.fill(&mut bytes);
        bytes
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("workers", &self.workers).finish_non_exhaustive()
    }
}

/// A named point at which the kill tests end the process, as the kernel would: `KBAK_KILL_AT=name`
/// or `name:N` for the N-th time it is passed. Compiled in only with the feature `kill-points`.
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
    let mut passed = PASSED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let count = passed.entry(name).or_default();
    *count += 1;
    if *count == *nth {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Nothing, without the feature `kill-points`.
#[cfg(not(feature = "kill-points"))]
#[inline(always)]
pub fn kill_point(_name: &'static str) {}

/// A place at which a test makes the program panic over what it holds there:
/// `KBAK_PANIC_AT=name:what`. Compiled in only with the feature `kill-points`.
#[cfg(feature = "kill-points")]
pub fn panic_point(name: &'static str, what: &str, held: &[u8]) {
    let wanted = std::env::var("KBAK_PANIC_AT").ok();
    if wanted.and_then(|wanted| Some(wanted.strip_prefix(name)?.strip_prefix(':')? == what)) == Some(true) {
        panic!("{}", String::from_utf8_lossy(held));
    }
}

/// Nothing, without the feature `kill-points`.
#[cfg(not(feature = "kill-points"))]
#[inline(always)]
pub fn panic_point(_name: &'static str, _what: &str, _held: &[u8]) {}
