//! The console: messages on standard error, as text with colour and width or as JSON lines.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde::Serialize;

use super::output::OutputFormat;
use super::style::Style;
use crate::cli::failure::{Failure, render};
use crate::report::event::{Event, Observer, Reporter, json_line};
use crate::report::run::{FailureReport, RunReport};
use crate::report::text::plain;
use crate::runtime::lock;
use crate::store::probe::{Severity, StoreFinding};

/// Writes messages to standard error, as text or as JSON.
#[derive(Debug)]
pub(crate) struct Console {
    /// Colour and width.
    pub(crate) style: Style,
    /// The output format. Failures are JSON unless it is `Table`.
    format: OutputFormat,
    /// True if each line on standard error is a JSON object.
    json_lines: bool,
    /// The lock that is held while a line is written, so that lines do not mix.
    line: Mutex<()>,
}

impl Console {
    /// Returns a console with this format, and the colour and width of the terminal.
    pub(crate) fn new(format: OutputFormat) -> Self {
        let terminal = std::io::stderr().is_terminal();
        // https://no-color.org: any value but an empty one.
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|value| value == "dumb");
        let width = if terminal { columns() } else { Style::plain().width };
        let style = Style { colour: terminal && !no_colour && !dumb, width };
        Self { style, format, json_lines: false, line: Mutex::new(()) }
    }

    /// Returns this console with one JSON object, without colour, for each line on standard error.
    pub(crate) fn with_json_lines(mut self) -> Self {
        self.json_lines = true;
        self.style.colour = false;
        self
    }

    /// True if standard error is a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        std::io::stderr().is_terminal()
    }

    /// Returns a reporter that prints warnings at once, for verbs that show no progress.
    pub(crate) fn reporter(&self) -> Reporter {
        Reporter::new(Arc::new(Warnings { style: self.style, printed: AtomicU64::new(0) }))
    }

    /// Writes the end of a run: the lines for people, or the report as the last JSON event.
    pub(crate) fn summary(&self, report: &RunReport, lines: impl FnOnce() -> String) {
        #[derive(Serialize)]
        struct SummaryEvent<'a> {
            event: &'static str,
            report: &'a RunReport,
        }
        match self.json_lines {
            true => self.event(&SummaryEvent { event: "summary", report }),
            false => self.write(&lines()),
        }
    }

    /// Writes a line, as text or as a JSON event.
    pub(crate) fn line(&self, line: &str) {
        #[derive(Serialize)]
        struct NoteEvent<'a> {
            event: &'static str,
            message: &'a str,
        }
        match self.json_lines {
            true => self.event(&NoteEvent { event: "note", message: line }),
            false => self.write(&format!("{line}\n")),
        }
    }

    fn event(&self, event: &impl Serialize) {
        self.write(&(json_line(event) + "\n"));
    }

    fn write(&self, text: &str) {
        let _line = lock(&self.line);
        // A failed write to standard error cannot be reported.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }

    /// Writes a line that is marked as a success.
    pub(crate) fn success(&self, line: &str) {
        self.line(&format!("{} {line}", self.style.good("✓")));
    }

    /// Writes a line that is marked as a warning.
    pub(crate) fn warn(&self, line: &str) {
        self.line(&format!("{} {line}", self.style.warn("!")));
    }

    /// Writes a finding of a probe, with its remedy.
    pub(crate) fn finding(&self, finding: &StoreFinding) {
        match finding.severity {
            Severity::Good => self.success(&finding.what),
            Severity::Note => self.line(&format!("· {}", finding.what)),
            Severity::Warning => self.warn(&finding.what),
            Severity::Problem => self.line(&format!("{} {}", self.style.bad("✗"), finding.what)),
        }
        if let Some(remedy) = &finding.remedy {
            self.line(&format!("  → {remedy}"));
        }
    }

    /// Writes the failure that ended the program.
    pub(crate) fn failure(&self, failure: &Failure) {
        #[derive(Serialize)]
        struct FailureDocument {
            error: FailureReport,
        }
        #[derive(Serialize)]
        struct FailureEvent {
            event: &'static str,
            error: FailureReport,
        }
        match self.format {
            _ if self.json_lines => self.event(&FailureEvent { event: "failure", error: failure.into() }),
            OutputFormat::Table => self.write(&render::failure(failure, self.style)),
            OutputFormat::Json | OutputFormat::Yaml => {
                let shown = serde_json::to_string(&FailureDocument { error: failure.into() });
                self.write(&(shown.unwrap_or_else(|_| failure.what.clone()) + "\n"));
            }
        }
    }
}

/// The number of warnings that are printed for one verb.
const MAX_WARNINGS: u64 = 50;

struct Warnings {
    style: Style,
    printed: AtomicU64,
}

impl Observer for Warnings {
    fn event(&self, event: &Event) {
        let Event::Warning { object, message, remedy } = event else { return };
        let mark = self.style.warn("!");
        let line = match self.printed.fetch_add(1, Ordering::Relaxed) {
            0..MAX_WARNINGS => format!("{mark} {}: {}", plain(object), plain(message)),
            MAX_WARNINGS => format!("{mark} more warnings are not shown"),
            _ => return,
        };
        let remedy = remedy.as_ref().map(|text| format!("\n  → {}", plain(text))).unwrap_or_default();
        let _ = writeln!(std::io::stderr().lock(), "{line}{remedy}");
    }
}

/// Returns the terminal's columns, 100 if unknown. At least 40; at most 140, as longer lines read badly.
fn columns() -> usize {
    let size = terminal_size::terminal_size_of(std::io::stderr());
    let columns = size.map_or(100, |(terminal_size::Width(columns), _)| columns);
    usize::from(columns).clamp(40, 140)
}
