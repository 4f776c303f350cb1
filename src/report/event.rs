//! Events and counters. Use cases raise them; the terminal, the log and `--progress json` show
//! them. Nothing here holds a secret or plaintext from a backup but names the owner chose.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde::Serialize;

/// Something that a reader of the log wants to know at once.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A phase of the run begins: `probe`, `list packs`, `commit`, …
    Phase {
        /// Its name.
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
        /// Its state: good, gap, anomalous, …
        state: String,
        /// One line for people.
        summary: String,
    },
    /// Something is not as declared, or was skipped, capped, approximated.
    Warning {
        /// What it concerns.
        object: String,
        /// What, in one line.
        message: String,
        /// What to do, if there is anything.
        remedy: Option<String>,
    },
    /// A store or server is asked again.
    Retry {
        /// What is tried again.
        operation: String,
        /// The try that begins.
        attempt: u32,
        /// Why.
        reason: String,
    },
}

/// A value with the time, as `--progress json` tells it: one line of JSON.
#[must_use]
pub fn json_line<T: Serialize>(value: &T) -> String {
    #[derive(Serialize)]
    struct Timed<'a, T> {
        time: jiff::Timestamp,
        #[serde(flatten)]
        value: &'a T,
    }
    // Ours have keys that are text, and nothing else can fail.
    serde_json::to_string(&Timed { time: jiff::Timestamp::now(), value }).unwrap_or_default()
}

/// The counters of one item, read by whoever draws progress.
#[derive(Debug)]
pub struct Meter {
    /// The item's name.
    pub item: String,
    /// What `done` and `total` count: `files`, `objects`, `bytes`.
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
        let zero = || AtomicU64::new(0);
        Self {
            item: item.to_owned(),
            unit,
            done: zero(),
            total: zero(),
            bytes: zero(),
            bytes_total: zero(),
            new_bytes: zero(),
            ended: zero(),
        }
    }

    /// `count` more units are done.
    pub fn add_done(&self, count: u64) {
        self.done.fetch_add(count, Ordering::Relaxed);
    }
    /// There are `count` more units than known so far.
    pub fn add_total(&self, count: u64) {
        self.total.fetch_add(count, Ordering::Relaxed);
    }
    /// `count` more bytes went through.
    pub fn add_bytes(&self, count: u64) {
        self.bytes.fetch_add(count, Ordering::Relaxed);
    }
    /// There are `count` more bytes than known so far.
    pub fn add_bytes_total(&self, count: u64) {
        self.bytes_total.fetch_add(count, Ordering::Relaxed);
    }
    /// `count` more bytes were new.
    pub fn add_new_bytes(&self, count: u64) {
        self.new_bytes.fetch_add(count, Ordering::Relaxed);
    }
    /// The item is over.
    pub fn end(&self) {
        self.ended.store(1, Ordering::Relaxed);
    }
    /// What it says now.
    #[must_use]
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
    /// Units known.
    pub total: u64,
    /// Bytes through.
    pub bytes: u64,
    /// Bytes known.
    pub bytes_total: u64,
    /// Bytes that were new.
    pub new_bytes: u64,
    /// Whether the item is over.
    pub ended: bool,
}

/// Who is told.
pub trait Observer: Send + Sync {
    /// Something happened.
    fn event(&self, event: &Event);
}

/// Passed to everything that works: raises events, makes meters. Cheap to clone.
#[derive(Clone)]
pub struct Reporter {
    observer: Arc<dyn Observer>,
    meters: Arc<Mutex<Vec<Arc<Meter>>>>,
    stored: Arc<AtomicU64>,
    packs: Arc<AtomicU64>,
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reporter")
    }
}

impl Reporter {
    /// Tells `observer`.
    #[must_use]
    pub fn new(observer: Arc<dyn Observer>) -> Self {
        Self { observer, meters: Arc::default(), stored: Arc::default(), packs: Arc::default() }
    }

    /// Tells nobody.
    #[must_use]
    pub fn silent() -> Self {
        struct Nobody;
        impl Observer for Nobody {
            fn event(&self, _: &Event) {}
        }
        Self::new(Arc::new(Nobody))
    }

    /// Raises an event.
    pub fn event(&self, event: Event) {
        self.observer.event(&event);
    }

    /// Raises a warning.
    pub fn warn(&self, object: impl Into<String>, message: impl Into<String>) {
        self.event(Event::Warning { object: object.into(), message: message.into(), remedy: None });
    }

    /// A meter for `item`, which counts `unit`.
    #[must_use]
    pub fn meter(&self, item: &str, unit: &'static str) -> Arc<Meter> {
        let meter = Arc::new(Meter::new(item, unit));
        self.meters.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(meter.clone());
        meter
    }

    /// All meters so far.
    #[must_use]
    pub fn meters(&self) -> Vec<Arc<Meter>> {
        self.meters.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// An object of `bytes` was acknowledged by the store.
    pub fn stored(&self, bytes: u64, is_pack: bool) {
        self.stored.fetch_add(bytes, Ordering::Relaxed);
        self.packs.fetch_add(u64::from(is_pack), Ordering::Relaxed);
    }

    /// Bytes and packs acknowledged so far.
    #[must_use]
    pub fn stored_so_far(&self) -> (u64, u64) {
        (self.stored.load(Ordering::Relaxed), self.packs.load(Ordering::Relaxed))
    }
}
