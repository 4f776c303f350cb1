//! Shows a run while it goes: bars on a terminal, lines in a log, JSON lines for programs, or nothing. It
//! only reads meters and events, and never affects the run.

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use super::bars::Bars;
use super::progress::{Speed, footer, line, speed_figure, time_left};
use super::retry_throttle::RetryThrottle;
use super::style::{Style, width};
use crate::report::event::{Event, Meter, Observer, Reading, Reporter, json_line};
use crate::report::memory::resident;
use crate::report::recorder::Recorder;
use crate::report::text::{opaque_debug, plain, plural};
use crate::runtime::lock;

/// The form in which a run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisplayMode {
    /// Progress bars, for a terminal.
    Bars,
    /// A line at increasing intervals, for a log.
    Plain,
    /// One JSON object per line.
    Json,
    /// No output.
    None,
}

/// Options of a display.
#[derive(Debug, Clone, Copy)]
pub struct DisplayOptions {
    /// The form.
    pub mode: DisplayMode,
    /// Colour and width.
    pub style: Style,
    /// The memory limit of the run, in bytes.
    pub memory: Option<u64>,
}

/// The name of the display's thread.
pub const DISPLAY_THREAD: &str = "display";

/// A running display, on a thread of its own.
pub struct Display {
    shared: Arc<DisplayState>,
    thread: Option<JoinHandle<()>>,
}

opaque_debug!(Display: "Display");

struct DisplayState {
    options: DisplayOptions,
    out: Mutex<Box<dyn Write + Send>>,
    bars: Option<Bars>,
    reporter: Reporter,
    recorder: Arc<Recorder>,
    retries: Mutex<RetryThrottle>,
    is_over: Mutex<bool>,
    /// True while a question is asked; the lock is held while the display draws.
    is_paused: Mutex<bool>,
    wake: Condvar,
    began: Instant,
}

/// Records events, also before the display exists, so that none is lost.
struct EventSink {
    recorder: Arc<Recorder>,
    shown: Mutex<Option<std::sync::Weak<DisplayState>>>,
}

impl Observer for EventSink {
    fn event(&self, event: &Event) {
        self.recorder.event(event);
        let shared = lock(&self.shown).as_ref().and_then(std::sync::Weak::upgrade);
        if let Some(shared) = shared {
            shared.show(event);
        }
    }
}

impl Display {
    /// Starts the display on `out` (bars draw on standard error themselves).
    #[must_use]
    pub fn start(options: DisplayOptions, out: Box<dyn Write + Send>) -> Self {
        let recorder = Arc::new(Recorder::default());
        let sink = Arc::new(EventSink { recorder: recorder.clone(), shown: Mutex::new(None) });
        let reporter = Reporter::new(sink.clone());
        let shared = Arc::new(DisplayState {
            options,
            out: Mutex::new(out),
            bars: (options.mode == DisplayMode::Bars).then(|| Bars::new(options.style)),
            reporter,
            recorder,
            retries: Mutex::default(),
            is_over: Mutex::new(false),
            is_paused: Mutex::new(false),
            wake: Condvar::new(),
            began: Instant::now(),
        });
        *lock(&sink.shown) = Some(Arc::downgrade(&shared));
        let thread = (options.mode != DisplayMode::None).then(|| {
            let shared = shared.clone();
            std::thread::Builder::new().name(DISPLAY_THREAD.into()).spawn(move || shared.run()).ok()
        });
        Self { shared, thread: thread.flatten() }
    }

    /// Returns the reporter for the run.
    pub fn reporter(&self) -> Reporter {
        self.shared.reporter.clone()
    }

    /// Removes the bars and draws nothing until the returned value is dropped, so that a question stays visible.
    #[must_use]
    pub fn pause(&self) -> DisplayPause<'_> {
        let mut is_paused = lock(&self.shared.is_paused);
        *is_paused = true;
        if let Some(bars) = &self.shared.bars {
            bars.clear();
        }
        DisplayPause(&self.shared)
    }

    /// Returns the events that are recorded so far.
    pub fn recorder(&self) -> &Recorder {
        &self.shared.recorder
    }

    /// Ends the display: the last figures are drawn, and stay. Returns the recorded events.
    #[must_use]
    pub fn finish(mut self) -> Arc<Recorder> {
        self.stop();
        self.shared.recorder.clone()
    }

    fn stop(&mut self) {
        *lock(&self.shared.is_over) = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            // A display that panicked must not end the run; its panic was already reported.
            let _ = thread.join();
        }
    }
}

/// A display that draws nothing until this is dropped.
pub struct DisplayPause<'a>(&'a DisplayState);

opaque_debug!(DisplayPause<'_>: "DisplayPause");

impl Drop for DisplayPause<'_> {
    fn drop(&mut self) {
        *lock(&self.0.is_paused) = false;
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.stop();
    }
}

impl DisplayState {
    fn run(&self) {
        let mut watched: Vec<WatchedMeter> = Vec::new();
        let mut pause = UpdateInterval::new(self.options.mode);
        loop {
            let is_over = lock(&self.is_over);
            let (is_over, _) = self
                .wake
                .wait_timeout_while(is_over, pause.next(), |is_over| !*is_over)
                .unwrap_or_else(PoisonError::into_inner);
            let last = *is_over;
            drop(is_over);
            let at = self.began.elapsed();
            for meter in self.reporter.meters().into_iter().skip(watched.len()) {
                watched.push(WatchedMeter::new(meter));
            }
            watched.iter_mut().for_each(|one| one.sample(at));
            let is_paused = lock(&self.is_paused);
            if !*is_paused {
                self.draw(&watched, last);
            }
            drop(is_paused);
            if last {
                return;
            }
        }
    }

    fn draw(&self, watched: &[WatchedMeter], last: bool) {
        let stored = self.reporter.stored_so_far();
        let memory = resident().map(|resident| resident.now);
        let under = footer(stored, memory, self.options.memory);
        match self.options.mode {
            DisplayMode::Bars => {
                let Some(bars) = &self.bars else { return };
                let columns = watched.iter().map(|one| width(&plain(&one.meter.item))).max().unwrap_or(0);
                for (number, one) in watched.iter().enumerate() {
                    bars.draw_item(number, &one.meter.item, columns, &one.reading, &one.text());
                }
                bars.draw_footer(&under, last);
            }
            // The summary shows the end of a run.
            DisplayMode::Plain if !last => {
                let runs = |one: &&WatchedMeter| !one.reading.ended && one.reading != Reading::default();
                for one in watched.iter().filter(runs) {
                    self.write_line(&format!("{}  {}", plain(&one.meter.item), one.text()));
                }
                if !under.is_empty() {
                    self.write_line(&under);
                }
            }
            DisplayMode::Json => self.write_json(&ProgressEvent {
                event: "progress",
                items: watched.iter().map(WatchedMeter::figures).collect(),
                stored_bytes: stored.0,
                stored_packs: stored.1,
                memory,
            }),
            DisplayMode::Plain | DisplayMode::None => {}
        }
    }

    fn show(&self, event: &Event) {
        match self.options.mode {
            DisplayMode::None => {}
            DisplayMode::Json => self.write_json(event),
            DisplayMode::Bars => {
                let Some(bars) = &self.bars else { return };
                match event {
                    Event::Phase { name } => bars.set_phase(Some(name)),
                    Event::ItemStarted { .. } => bars.set_phase(None),
                    Event::Warning { .. } | Event::Retry { .. } => {
                        self.event_line(event).iter().for_each(|line| bars.print_above(line));
                    }
                    Event::ItemFinished { .. } => {}
                }
            }
            DisplayMode::Plain => {
                if let Some(line) = self.event_line(event) {
                    self.write_line(&line);
                }
            }
        }
    }

    /// Formats an event for people; `None` if it is not shown.
    fn event_line(&self, event: &Event) -> Option<String> {
        let line = render_event(event, self.options.style);
        if !matches!(event, Event::Retry { .. }) {
            return Some(line);
        }
        match lock(&self.retries).admit(Instant::now())? {
            0 => Some(line),
            silent => Some(format!("{line}; {} before it", plural(silent, "retry", "retries"))),
        }
    }

    fn write_line(&self, line: &str) {
        let time = Timestamp::now().strftime("%H:%M:%SZ");
        // A failed write is ignored: there is nowhere to report it.
        let _ = writeln!(lock(&self.out), "{time} {line}");
    }

    fn write_json<T: Serialize>(&self, value: &T) {
        let _ = writeln!(lock(&self.out), "{}", json_line(value));
    }
}

/// Formats an event as a line; foreign names cannot steer the terminal.
fn render_event(event: &Event, style: Style) -> String {
    match event {
        Event::Phase { name } => format!("{name} …"),
        Event::ItemStarted { item } => format!("{} begins", plain(item)),
        Event::ItemFinished { item, state, summary } => {
            let mark = match state.as_str() {
                "good" => style.good("✓"),
                "accepted" => style.warn("!"),
                _ => style.bad("✗"),
            };
            format!("{mark} {}  {}", plain(item), plain(summary))
        }
        Event::Warning { object, message, remedy } => {
            let remedy = remedy.as_ref().map(|remedy| format!(" → {}", plain(remedy))).unwrap_or_default();
            format!("{} {}: {}{remedy}", style.warn("!"), plain(object), plain(message))
        }
        Event::Retry { operation, attempt, reason } => {
            style.dim(&format!("{} again (try {attempt}): {}", plain(operation), plain(reason)))
        }
    }
}

#[derive(Serialize)]
struct ProgressEvent<'a> {
    event: &'static str,
    items: Vec<ItemProgress<'a>>,
    stored_bytes: u64,
    stored_packs: u64,
    memory: Option<u64>,
}

#[derive(Serialize)]
struct ItemProgress<'a> {
    item: &'a str,
    unit: &'static str,
    #[serde(flatten)]
    reading: Reading,
    seconds_left: Option<u64>,
}

/// A meter and its speeds.
struct WatchedMeter {
    meter: Arc<Meter>,
    reading: Reading,
    bytes: Speed,
    pace: Speed,
}

impl WatchedMeter {
    fn new(meter: Arc<Meter>) -> Self {
        Self { meter, reading: Reading::default(), bytes: Speed::default(), pace: Speed::default() }
    }

    fn sample(&mut self, at: Duration) {
        if self.reading.ended {
            return;
        }
        self.reading = self.meter.read();
        self.bytes.sample(at, self.reading.bytes);
        self.pace.sample(at, speed_figure(&self.reading));
    }

    fn left(&self) -> Option<Duration> {
        time_left(&self.reading, self.pace.per_second()?)
    }

    fn text(&self) -> String {
        line(&self.reading, self.meter.unit, self.bytes.per_second().filter(|speed| *speed > 0), self.left())
    }

    fn figures(&self) -> ItemProgress<'_> {
        ItemProgress {
            item: &self.meter.item,
            unit: self.meter.unit,
            reading: self.reading,
            seconds_left: self.left().map(|left| left.as_secs()),
        }
    }
}

/// The time until the next update: constant on a terminal; in a log short at first, then longer, so that a
/// short run shows life and a long one does not fill the log.
struct UpdateInterval {
    mode: DisplayMode,
    updates: u32,
}

impl UpdateInterval {
    fn new(mode: DisplayMode) -> Self {
        Self { mode, updates: 0 }
    }

    fn next(&mut self) -> Duration {
        self.updates += 1;
        match self.mode {
            DisplayMode::Bars => Duration::from_millis(100),
            DisplayMode::Json => Duration::from_secs(1),
            DisplayMode::Plain | DisplayMode::None => Duration::from_secs(match self.updates {
                1 => 2,
                2..=12 => 10,
                13..=60 => 30,
                _ => 300,
            }),
        }
    }
}
