//! Passphrases and questions of plugins, from the terminal or from a file.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::prompt;
use crate::cli::failure::Failure;
use crate::keys::Prompt;
use crate::report::text::without_bom;

/// Reads a passphrase from the first line of a file, which may be `/dev/fd/3` or `/dev/stdin`.
pub(crate) fn read_passphrase_file(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let failure = |what: &str| Failure::usage(format!("{}: {what}", path.display()));
    let mut text = Zeroizing::new(String::with_capacity(4096));
    std::fs::File::open(path)
        .and_then(|file| file.take(4096).read_to_string(&mut text))
        .map_err(|error| failure("the passphrase cannot be read").because(error))?;
    let line = without_bom(&text).split('\n').next().unwrap_or("").trim_end_matches('\r');
    if line.is_empty() {
        return Err(failure("the passphrase's file begins with an empty line"));
    }
    Ok(Zeroizing::new(line.to_owned()))
}

/// Asks for a passphrase on the terminal without echo; `None` if there is no terminal or no answer.
fn ask_passphrase(what: &str) -> Option<Zeroizing<String>> {
    prompt::ask_secret(&format!("passphrase for {what}"))
}

/// The prompt for passphrases and for questions of plugins. Passphrases may come from a file.
pub(crate) struct PassphrasePrompt {
    passphrase: Option<Zeroizing<String>>,
}

impl PassphrasePrompt {
    /// Returns a prompt, with the passphrase from `file` if one is given.
    pub(crate) fn shared(file: Option<&Path>) -> Result<Arc<dyn Prompt>, Failure> {
        Ok(Arc::new(Self { passphrase: file.map(read_passphrase_file).transpose()? }))
    }
}

impl Prompt for PassphrasePrompt {
    fn passphrase(&self, what: &str) -> Option<Zeroizing<String>> {
        self.passphrase.clone().or_else(|| ask_passphrase(what))
    }

    fn input(&self, question: &str) -> Option<String> {
        prompt::ask_line(question)
    }

    fn confirm(&self, question: &str, yes: &str, no: Option<&str>) -> Option<bool> {
        let no = no.unwrap_or("no");
        let answer = prompt::ask_line(&format!("{question} ({yes}/{no})"))?;
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
    let no_answer = || {
        Failure::usage(format!("{what} needs a passphrase, and there is no terminal to ask for it"))
            .remedy("run it on a terminal, or give --passphrase-file FILE, or --no-passphrase")
    };
    let first = ask_passphrase(what).ok_or_else(no_answer)?;
    if first.is_empty() {
        return Err(Failure::usage("the passphrase is empty; nothing was created")
            .remedy("choose one, or give --no-passphrase"));
    }
    let second = ask_passphrase("the same again").ok_or_else(no_answer)?;
    if *first == *second {
        return Ok(first);
    }
    Err(Failure::usage("the two passphrases differ; nothing was created").remedy("run it again"))
}
