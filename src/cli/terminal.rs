//! Standard error and the person behind it: failures, colour, width, passphrases.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::Mutex;

use zeroize::Zeroizing;

use super::args::Verb;
use super::out::Format;
use crate::report::failure::{Exit, Failure};
use crate::report::render;
use crate::report::run::FailureReport;
use crate::report::style::Style;

/// How this process talks.
#[derive(Debug)]
pub(super) struct Talk {
    /// Colour and width.
    pub(super) style: Style,
    /// Whether failures are JSON.
    format: Format,
    /// Held while a line is written, so that lines do not mix.
    line: Mutex<()>,
}

impl Talk {
    /// As the verb's arguments and the terminal ask for.
    pub(super) fn of(verb: &Verb) -> Self {
        let terminal = std::io::stderr().is_terminal();
        // https://no-color.org: any value but an empty one.
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|value| value == "dumb");
        let width = if terminal { columns() } else { Style::plain().width };
        let style = Style { colour: terminal && !no_colour && !dumb, width };
        Self { style, format: verb.format(), line: Mutex::new(()) }
    }

    /// A line to the person.
    pub(super) fn say(&self, line: &str) {
        let _line = self.line.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Nobody can be told that nobody listens.
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }

    /// Something that went well.
    pub(super) fn good(&self, line: &str) {
        self.say(&format!("{} {line}", self.style.good("✓")));
    }

    /// Something to look at.
    pub(super) fn warn(&self, line: &str) {
        self.say(&format!("{} {line}", self.style.warn("!")));
    }

    /// What ended the program.
    pub(super) fn failure(&self, failure: &Failure) {
        let text = match self.format {
            Format::Table => render::failure(failure, self.style),
            Format::Json | Format::Yaml => {
                #[derive(serde::Serialize)]
                struct Shown {
                    error: FailureReport,
                }
                let shown = Shown { error: failure.into() };
                serde_json::to_string(&shown).map_or_else(|_| failure.what.clone(), |text| text + "\n")
            }
        };
        let _line = self.line.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }
}

/// The terminal's columns: as it says, else 100; at most 140,
/// because longer lines are hard to read.
fn columns() -> usize {
    let size = terminal_size::terminal_size_of(std::io::stderr());
    let columns = size.map_or(100, |(terminal_size::Width(columns), _)| columns);
    usize::from(columns).clamp(40, 140)
}

/// A passphrase from a file: its first line. `/dev/fd/3` and `/dev/stdin` are files too.
pub(super) fn passphrase_file(path: &Path) -> Result<Zeroizing<String>, Failure> {
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

/// Whether a person can be asked.
pub(super) fn can_ask() -> bool {
    std::io::stderr().is_terminal() && std::fs::File::open("/dev/tty").is_ok()
}

/// Asks for a passphrase on the terminal, without showing it; nothing when nobody can be asked.
pub(super) fn ask_passphrase(what: &str) -> Option<Zeroizing<String>> {
    if !can_ask() {
        return None;
    }
    rpassword::prompt_password(format!("passphrase for {what}: ")).ok().map(Zeroizing::new)
}

/// Asks for a new passphrase, twice.
pub(super) fn ask_new_passphrase(what: &str) -> Result<Zeroizing<String>, Failure> {
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
