//! Asks for a secret on the terminal without echo, and always restores the terminal's settings. Ctrl-C
//! reaches the program as a byte, so that it cannot end the process while the echo is off.

use std::fs::File;
use std::io::{BufRead as _, BufReader, IsTerminal as _, Read as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::cli::failure::{Exit, Failure};

/// The longest secret, in bytes. The buffer never grows, because that would leave copies in memory.
const MAX_SECRET: usize = 4096;

/// True if a prompt was answered with Ctrl-C. The caller then gets no answer and fails in order, and the
/// program reports the interruption instead.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Returns the interruption, if a prompt was answered with Ctrl-C. It replaces all later failures.
pub(crate) fn interrupted() -> Option<Failure> {
    INTERRUPTED
        .load(Ordering::Relaxed)
        .then(|| Failure::new(Exit::Interrupted, "interrupted at the passphrase"))
}

/// True if standard error and the process have a terminal for prompts.
pub(crate) fn can_ask() -> bool {
    std::io::stderr().is_terminal() && open_tty().is_some()
}

/// Opens the controlling terminal of this process.
pub(crate) fn open_tty() -> Option<File> {
    std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty").ok()
}

/// Asks a question on the terminal and returns the line of the answer; `None` if there is no terminal.
pub(crate) fn ask_line(question: &str) -> Option<String> {
    if !can_ask() {
        return None;
    }
    let mut tty = open_tty()?;
    write!(tty, "{question}: ").ok()?;
    let mut line = String::new();
    BufReader::new(tty).read_line(&mut line).ok()?;
    Some(line.trim_end().to_owned())
}

/// Asks on the terminal before something that cannot be undone. Fails unless the answer is `yes`.
pub(crate) async fn confirm(question: &str, remedy: &str) -> Result<(), Failure> {
    let question = format!("{question}\ntype yes to go on");
    match tokio::task::spawn_blocking(move || ask_line(&question)).await {
        Ok(Some(answer)) if answer == "yes" => Ok(()),
        _ => Err(Failure::usage("not confirmed; nothing was changed").remedy(remedy)),
    }
}

/// Asks for a secret; `None` if there is no terminal or no answer.
pub(crate) fn ask_secret(question: &str) -> Option<Zeroizing<String>> {
    if !can_ask() || INTERRUPTED.load(Ordering::Relaxed) {
        return None;
    }
    let quiet = SilentTerminal::begin(open_tty()?)?;
    loop {
        write!(&quiet.tty, "{question}: ").ok()?;
        let line = read_line(&quiet.tty);
        writeln!(&quiet.tty).ok()?;
        match line {
            TypedLine::Line(bytes) => match std::str::from_utf8(&bytes) {
                Ok(text) => return Some(Zeroizing::new(text.to_owned())),
                Err(_) => writeln!(&quiet.tty, "that is not UTF-8; once more").ok()?,
            },
            TypedLine::TooLong => {
                writeln!(&quiet.tty, "that is longer than {MAX_SECRET} bytes; once more").ok()?
            }
            TypedLine::Interrupt => {
                INTERRUPTED.store(true, Ordering::Relaxed);
                return None;
            }
            TypedLine::End => return None,
        }
    }
}

/// A terminal with echo and signal keys turned off until it is dropped.
struct SilentTerminal {
    tty: File,
    before: Termios,
}

impl SilentTerminal {
    fn begin(tty: File) -> Option<Self> {
        let before = tcgetattr(&tty).ok()?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG | LocalModes::ICANON);
        quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
        quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
        // Input from before the question is discarded.
        tcsetattr(&tty, OptionalActions::Flush, &quiet).ok()?;
        Some(Self { tty, before })
    }
}

impl Drop for SilentTerminal {
    fn drop(&mut self) {
        // A failure is ignored: the terminal is gone.
        let _ = tcsetattr(&self.tty, OptionalActions::Drain, &self.before);
    }
}

/// The answer to a prompt.
enum TypedLine {
    Line(Zeroizing<Vec<u8>>),
    TooLong,
    Interrupt,
    End,
}

/// Reads a line with the editing of a terminal: backspace deletes a character, Ctrl-U the line.
fn read_line(mut tty: &File) -> TypedLine {
    let mut typed = Zeroizing::new(Vec::with_capacity(MAX_SECRET));
    let mut long = false;
    let mut byte = [0u8];
    loop {
        match tty.read(&mut byte) {
            Ok(1) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            _ => return TypedLine::End,
        }
        match byte[0] {
            b'\n' | b'\r' if long => return TypedLine::TooLong,
            b'\n' | b'\r' => return TypedLine::Line(typed),
            // Ctrl-C and Ctrl-\.
            0x03 | 0x1c => return TypedLine::Interrupt,
            // Ctrl-D.
            0x04 if typed.is_empty() => return TypedLine::End,
            0x08 | 0x7f => while typed.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            // Ctrl-U.
            0x15 => typed.clear(),
            _ if typed.len() == MAX_SECRET => long = true,
            other => typed.push(other),
        }
    }
}
