//! Progress bars on a terminal.

use std::sync::Mutex;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::progress::permille;
use super::style::{Style, padded};
use crate::report::event::Reading;
use crate::report::text::plain;
use crate::runtime::lock;

/// One bar per item, and a line below them.
pub(crate) struct Bars {
    all: MultiProgress,
    items: Mutex<Vec<ProgressBar>>,
    footer_bar: ProgressBar,
    phase: Mutex<Option<&'static str>>,
    bar_style: ProgressStyle,
    spinner_style: ProgressStyle,
}

/// The minimum and maximum width of the items' names, in columns.
const MIN_NAME_WIDTH: usize = 11;
const MAX_NAME_WIDTH: usize = 40;

impl Bars {
    pub(crate) fn new(style: Style) -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(12));
        let (bar, spin) =
            if style.colour { ("{bar:20.cyan/dim}", "{spinner:.cyan}") } else { ("{bar:20}", "{spinner}") };
        // A template that does not parse would be a bug; the default bar shows the same figures.
        let template = |text: &str, plain: fn() -> ProgressStyle| {
            ProgressStyle::with_template(text).unwrap_or_else(|_| plain()).progress_chars("█▉▊▋▌▍▎▏·")
        };
        let bar_style = template(&format!("{{prefix}} {bar} {{wide_msg}}"), ProgressStyle::default_bar);
        let spinner_style =
            template(&format!("{{prefix}} {spin:<20} {{wide_msg}}"), ProgressStyle::default_spinner);
        let footer_bar = all.add(ProgressBar::new_spinner());
        footer_bar.set_style(template("{spinner} {wide_msg}", ProgressStyle::default_spinner));
        Self { all, items: Mutex::default(), footer_bar, phase: Mutex::default(), bar_style, spinner_style }
    }

    /// Removes all bars from the terminal until the next one is drawn.
    pub(crate) fn clear(&self) {
        // A terminal that cannot be cleared shows the question below the bars.
        let _ = self.all.clear();
    }

    /// Draws item `number`, at first use inserted above the last line. Names are padded to `columns`.
    pub(crate) fn draw_item(&self, number: usize, name: &str, columns: usize, reading: &Reading, text: &str) {
        let mut items = lock(&self.items);
        while items.len() <= number {
            let bar = self.all.insert_before(&self.footer_bar, ProgressBar::new(1000));
            bar.set_style(self.spinner_style.clone());
            items.push(bar);
        }
        let bar = &items[number];
        bar.set_prefix(padded(&plain(name), columns.clamp(MIN_NAME_WIDTH, MAX_NAME_WIDTH)));
        bar.set_message(text.to_owned());
        let share = if reading.ended { Some(1000) } else { permille(reading) };
        match share {
            Some(share) => {
                bar.set_style(self.bar_style.clone());
                bar.set_position(share);
            }
            None => bar.tick(),
        }
        if reading.ended && !bar.is_finished() {
            bar.abandon();
        }
    }

    /// Draws the line below the items: phase and `text`. `last` ends all bars and clears the line.
    pub(crate) fn draw_footer(&self, text: &str, last: bool) {
        let phase = *lock(&self.phase);
        if last {
            for bar in lock(&self.items).iter() {
                bar.abandon();
            }
            self.footer_bar.finish_and_clear();
            return;
        }
        let parts: Vec<&str> = phase.into_iter().chain([text]).filter(|part| !part.is_empty()).collect();
        self.footer_bar.set_message(parts.join(" · "));
        self.footer_bar.tick();
    }

    /// Sets the current phase of the run, beside its items.
    pub(crate) fn set_phase(&self, name: Option<&'static str>) {
        *lock(&self.phase) = name;
    }

    /// Prints a line above the bars, which stays.
    pub(crate) fn print_above(&self, line: &str) {
        let _ = self.all.println(line);
    }
}
