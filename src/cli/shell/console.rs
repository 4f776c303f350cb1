//! The console: messages on standard error, with colour and width, and prompts for passphrases.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde::Serialize;
use zeroize::Zeroizing;

use crate::cli::args::Verb;
use crate::cli::failure::render;
use crate::cli::failure::{Exit, Failure};
use crate::cli::options::Progress;
use crate::cli::shell::output::Format;
use crate::cli::shell::prompt;
use crate::cli::shell::style::Style;
use crate::keys::Prompt;
use crate::report::event::{Event, Observer, Reporter, json_line};
use crate::report::run::{FailureReport, RunReport};
use crate::report::text::plain;
use crate::runtime::lock;
use crate::store::probe::{Finding, Weight};

/// The console: writes messages to standard error, as text or as JSON.
#[derive(Debug)]
pub(crate) struct Console {
    /// Colour and width.
    pub(crate) style: Style,
    /// The output format. Failures are JSON unless it is `Table`.
    format: Format,
    /// True if each line on standard error is a JSON object.
    json_lines: bool,
    /// The lock that is held while a line is written, so that lines do not mix.
    line: Mutex<()>,
}

impl Console {
    /// Returns the console for the arguments of a verb.
    pub(crate) fn of(verb: &Verb) -> Self {
        let mut console = Self::new(verb.format());
        console.json_lines = verb.progress() == Some(Progress::Json);
        console.style.colour &= !console.json_lines;
        console
    }

    /// Returns a console with this format, and the colour and width of the terminal.
    pub(crate) fn new(format: Format) -> Self {
        let terminal = std::io::stderr().is_terminal();
        // https://no-color.org: any value but an empty one.
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|value| value == "dumb");
        let width = if terminal { columns() } else { Style::plain().width };
        let style = Style { colour: terminal && !no_colour && !dumb, width };
        Self { style, format, json_lines: false, line: Mutex::new(()) }
    }

    /// True if standard error is a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        std::io::stderr().is_terminal()
    }

    /// Returns a reporter that prints warnings at once, for verbs that show no progress.
    pub(crate) fn reporter(&self) -> Reporter {
        Reporter::new(Arc::new(Warnings { style: self.style, told: AtomicU64::new(0) }))
    }

    /// Writes the end of a run: the lines for people, or the report as the last JSON event.
    pub(crate) fn summary(&self, report: &RunReport, lines: impl FnOnce() -> String) {
        #[derive(Serialize)]
        struct Ended<'a> {
            event: &'static str,
            report: &'a RunReport,
        }
        match self.json_lines {
            true => self.event(&Ended { event: "summary", report }),
            false => self.write(&lines()),
        }
    }

    /// Writes a line, as text or as a JSON event.
    pub(crate) fn say(&self, line: &str) {
        #[derive(Serialize)]
        struct Said<'a> {
            event: &'static str,
            message: &'a str,
        }
        match self.json_lines {
            true => self.event(&Said { event: "note", message: line }),
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
    pub(crate) fn good(&self, line: &str) {
        self.say(&format!("{} {line}", self.style.good("✓")));
    }

    /// Writes a line that is marked as a warning.
    pub(crate) fn warn(&self, line: &str) {
        self.say(&format!("{} {line}", self.style.warn("!")));
    }

    /// Writes a finding of a probe, with its remedy.
    pub(crate) fn finding(&self, finding: &Finding) {
        match finding.weight {
            Weight::Good => self.good(&finding.what),
            Weight::Note => self.say(&format!("· {}", finding.what)),
            Weight::Warning => self.warn(&finding.what),
            Weight::Problem => self.say(&format!("{} {}", self.style.bad("✗"), finding.what)),
        }
        if let Some(remedy) = &finding.remedy {
            self.say(&format!("  → {remedy}"));
        }
    }

    /// Writes the failure that ended the program.
    pub(crate) fn failure(&self, failure: &Failure) {
        #[derive(Serialize)]
        struct Shown {
            error: FailureReport,
        }
        #[derive(Serialize)]
        struct Failed {
            event: &'static str,
            error: FailureReport,
        }
        match self.format {
            _ if self.json_lines => self.event(&Failed { event: "failure", error: failure.into() }),
            Format::Table => self.write(&render::failure(failure, self.style)),
            Format::Json | Format::Yaml => {
                let shown = serde_json::to_string(&Shown { error: failure.into() });
                self.write(&(shown.unwrap_or_else(|_| failure.what.clone()) + "\n"));
            }
        }
    }
}

/// The number of warnings that are printed for one verb.
const MOST_WARNINGS: u64 = 50;

struct Warnings {
    style: Style,
    told: AtomicU64,
}

impl Observer for Warnings {
    fn event(&self, event: &Event) {
        let Event::Warning { object, message, remedy } = event else { return };
        let mark = self.style.warn("!");
        let line = match self.told.fetch_add(1, Ordering::Relaxed) {
            0..MOST_WARNINGS => format!("{mark} {}: {}", plain(object), plain(message)),
            MOST_WARNINGS => format!("{mark} more warnings are not shown"),
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

/// Reads a passphrase from the first line of a file, which may be `/dev/fd/3` or `/dev/stdin`.
pub(crate) fn passphrase_file(path: &Path) -> Result<Zeroizing<String>, Failure> {
    use std::io::Read as _;
    let failure = |what: &str| Failure::new(Exit::Usage, format!("{}: {what}", path.display()));
    let mut text = Zeroizing::new(String::with_capacity(4096));
    std::fs::File::open(path)
        .and_then(|file| file.take(4096).read_to_string(&mut text))
        .map_err(|error| failure("the passphrase cannot be read").because(error))?;
    let line = text.split('\n').next().unwrap_or("").trim_end_matches('\r');
    if line.is_empty() {
        return Err(failure("the passphrase's file begins with an empty line"));
    }
    Ok(Zeroizing::new(line.to_owned()))
}

/// Asks for a passphrase on the terminal without echo; `None` if there is no terminal or no answer.
fn ask_passphrase(what: &str) -> Option<Zeroizing<String>> {
    prompt::secret(&format!("passphrase for {what}"))
}

/// The prompt for passphrases and for questions of plugins. Passphrases may come from a file.
pub(crate) struct PassphrasePrompt {
    passphrase: Option<Zeroizing<String>>,
}

impl PassphrasePrompt {
    /// Returns a prompt, with the passphrase from `file` if one is given.
    pub(crate) fn shared(file: Option<&Path>) -> Result<Arc<dyn Prompt>, Failure> {
        Ok(Arc::new(Self { passphrase: file.map(passphrase_file).transpose()? }))
    }

    fn line(question: &str) -> Option<String> {
        if !prompt::can_ask() {
            return None;
        }
        let mut tty = prompt::tty()?;
        write!(tty, "{question}: ").ok()?;
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(tty), &mut line).ok()?;
        Some(line.trim_end().to_owned())
    }
}

impl Prompt for PassphrasePrompt {
    fn passphrase(&self, what: &str) -> Option<Zeroizing<String>> {
        self.passphrase.clone().or_else(|| ask_passphrase(what))
    }

    fn input(&self, question: &str) -> Option<String> {
        Self::line(question)
    }

    fn confirm(&self, question: &str, yes: &str, no: Option<&str>) -> Option<bool> {
        let no = no.unwrap_or("no");
        let answer = Self::line(&format!("{question} ({yes}/{no})"))?;
        if answer.eq_ignore_ascii_case(yes) {
            Some(true)
        } else {
            answer.eq_ignore_ascii_case(no).then_some(false)
        }
    }

    fn message(&self, message: &str) {
        let _ = writeln!(std::io::stderr().lock(), "{message}");
    }
}

/// Asks for a new passphrase, twice.
pub(crate) fn ask_new_passphrase(what: &str) -> Result<Zeroizing<String>, Failure> {
    let nobody = || {
        Failure::new(Exit::Usage, format!("{what} needs a passphrase, and nobody can be asked for one"))
            .remedy("run it on a terminal, or give --passphrase-file FILE, or --no-passphrase")
    };
    let first = ask_passphrase(what).ok_or_else(nobody)?;
    if first.is_empty() {
        return Err(Failure::new(Exit::Usage, "the passphrase is empty; nothing was made")
            .remedy("choose one, or say --no-passphrase"));
    }
    let second = ask_passphrase("the same again").ok_or_else(nobody)?;
    if *first == *second {
        return Ok(first);
    }
    Err(Failure::new(Exit::Usage, "the two passphrases differ; nothing was made").remedy("run it again"))
}
