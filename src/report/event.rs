//! Events and counters. Use cases raise them; the terminal, the log and `--progress json` show them. They
//! hold no secrets, and of a backup's plaintext only names that the owner chose.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde::Serialize;

use super::text::opaque_debug;

/// An event that a reader of the log wants to see at once.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A phase of the run begins: `probe`, `list packs`, `commit`, …
    Phase {
        /// The phase's name.
        name: &'static str,
    },
    /// An item begins.
    ItemStarted {
        /// The item's name in the plan.
        item: String,
    },
    /// An item ended.
    ItemFinished {
        /// The item's name in the plan.
        item: String,
        /// The item's state: good, gap, anomalous, …
        state: String,
        /// The result for people, in one line.
        summary: String,
    },
    /// Something is not as declared, or was skipped, capped or approximated.
    Warning {
        /// The object that it concerns.
        object: String,
        /// The message, in one line.
        message: String,
        /// The remedy, if there is one.
        remedy: Option<String>,
    },
    /// A request to a store or server is repeated.
    Retry {
        /// The operation that is repeated.
        operation: String,
        /// The number of the attempt that begins.
        attempt: u32,
        /// The reason.
        reason: String,
    },
}

/// Returns a value with the current time as one line of JSON, as `--progress json` prints it.
#[must_use]
pub fn json_line<T: Serialize>(value: &T) -> String {
    #[derive(Serialize)]
    struct Timed<'a, T> {
        time: jiff::Timestamp,
        #[serde(flatten)]
        value: &'a T,
    }
    // Serialization can only fail for keys that are not text, and all keys here are text.
    serde_json::to_string(&Timed { time: jiff::Timestamp::now(), value }).unwrap_or_default()
}

/// The counters of one item, which the display reads.
#[derive(Debug, Default)]
pub struct Meter {
    /// The item's name.
    pub item: String,
    /// The unit of `done` and `total`: `files`, `objects`, `bytes`.
    pub unit: &'static str,
    done: AtomicU64,
    total: AtomicU64,
    bytes: AtomicU64,
    bytes_total: AtomicU64,
    new_bytes: AtomicU64,
    ended: AtomicU64,
}

impl Meter {
    fn new(item: &str, unit: &'static str) -> Self {
        Self { item: item.to_owned(), unit, ..Self::default() }
    }

    /// Adds `count` units that are done.
    pub fn add_done(&self, count: u64) {
        self.done.fetch_add(count, Ordering::Relaxed);
    }
    /// Adds `count` newly found units to the total.
    pub fn add_total(&self, count: u64) {
        self.total.fetch_add(count, Ordering::Relaxed);
    }
    /// Adds `count` processed bytes.
    pub fn add_bytes(&self, count: u64) {
        self.bytes.fetch_add(count, Ordering::Relaxed);
    }
    /// Adds `count` newly found bytes to the total.
    pub fn add_bytes_total(&self, count: u64) {
        self.bytes_total.fetch_add(count, Ordering::Relaxed);
    }
    /// Adds `count` bytes that were new to the store.
    pub fn add_new_bytes(&self, count: u64) {
        self.new_bytes.fetch_add(count, Ordering::Relaxed);
    }
    /// Marks the item as ended.
    pub fn end(&self) {
        self.ended.store(1, Ordering::Relaxed);
    }
    /// Returns the current figures.
    pub fn read(&self) -> Reading {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Reading {
            done: get(&self.done),
            total: get(&self.total),
            bytes: get(&self.bytes),
            bytes_total: get(&self.bytes_total),
            new_bytes: get(&self.new_bytes),
            ended: get(&self.ended) == 1,
        }
    }
}

/// A meter's figures at one moment. Totals are 0 while unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// Units done.
    pub done: u64,
    /// Units in total, as far as known.
    pub total: u64,
    /// Bytes processed.
    pub bytes: u64,
    /// Bytes in total, as far as known.
    pub bytes_total: u64,
    /// Bytes that were new to the store.
    pub new_bytes: u64,
    /// `true` if the item has ended.
    pub ended: bool,
}

/// A receiver of events.
pub trait Observer: Send + Sync {
    /// Handles an event.
    fn event(&self, event: &Event);
}

/// Raises events and makes meters. It is passed to everything that works, and is cheap to clone.
#[derive(Clone)]
pub struct Reporter {
    observer: Arc<dyn Observer>,
    meters: Arc<Mutex<Vec<Arc<Meter>>>>,
    stored: Arc<AtomicU64>,
    packs: Arc<AtomicU64>,
}

opaque_debug!(Reporter: "Reporter");

impl Reporter {
    /// Creates a reporter that sends events to `observer`.
    #[must_use]
    pub fn new(observer: Arc<dyn Observer>) -> Self {
        Self { observer, meters: Arc::default(), stored: Arc::default(), packs: Arc::default() }
    }

    /// Creates a reporter that drops all events.
    #[must_use]
    pub fn silent() -> Self {
        struct Nobody;
        impl Observer for Nobody {
            fn event(&self, _: &Event) {}
        }
        Self::new(Arc::new(Nobody))
    }

    /// Sends an event to the observer.
    pub fn event(&self, event: Event) {
        self.observer.event(&event);
    }

    /// Raises a warning without a remedy.
    pub fn warn(&self, object: impl Into<String>, message: impl Into<String>) {
        self.event(Event::Warning { object: object.into(), message: message.into(), remedy: None });
    }

    /// Creates a meter for `item` that counts `unit`.
    pub fn meter(&self, item: &str, unit: &'static str) -> Arc<Meter> {
        let meter = Arc::new(Meter::new(item, unit));
        self.meters.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(meter.clone());
        meter
    }

    /// Returns all meters created so far.
    pub fn meters(&self) -> Vec<Arc<Meter>> {
        self.meters.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Counts an object of `bytes` bytes that the store has acknowledged.
    pub fn stored(&self, bytes: u64, is_pack: bool) {
        self.stored.fetch_add(bytes, Ordering::Relaxed);
        self.packs.fetch_add(u64::from(is_pack), Ordering::Relaxed);
    }

    /// Returns the bytes and packs acknowledged so far.
    pub fn stored_so_far(&self) -> (u64, u64) {
        (self.stored.load(Ordering::Relaxed), self.packs.load(Ordering::Relaxed))
    }
}
