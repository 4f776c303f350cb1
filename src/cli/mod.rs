//! The command line, with one file per verb. It parses arguments into option structs, runs the use cases,
//! and renders their results as lines, tables or JSON, with an exit code.
//!
//! Data goes to standard output, messages to standard error. Secrets are never passed as arguments.

mod args;
mod asked_kinds;
mod backup;
mod cat;
mod chain;
mod check;
mod completion;
mod conclude;
mod databases;
mod declared;
mod diff;
mod epoch;
mod export;
mod guard;
mod guide;
mod init;
mod keygen;
mod keyring;
mod keys;
mod ls;
mod man;
mod options;
mod out;
mod place;
mod plan;
mod preview;
mod prompt;
mod reading;
mod resource_args;
mod resources;
mod restore;
mod restore_text;
mod show;
mod signals;
mod snapshots;
mod sources;
mod targets;
mod terminal;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;

use crate::report::failure::{Exit, Failure};
use args::{Cli, Verb};
use terminal::Talk;

/// Returns the clap command with all verbs and their options.
#[must_use]
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Runs the program with the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

/// Runs the program with these arguments and returns its exit code.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    guard::panics();
    guard::core_dumps();
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if arguments.len() <= 1 {
        return guide::show();
    }
    // This check comes first: later errors may quote arguments.
    if let Err(failure) = guard::private_keys(&arguments) {
        Talk::new(out::Format::Table).failure(&failure);
        return ExitCode::from(failure.exit.code());
    }
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, &arguments),
    };
    let talk = Talk::of(&cli.verb);
    guard::logging(cli.log_level, talk.style.colour);
    let ended = signals::watch().and_then(|()| dispatch(cli.verb, &talk));
    // A failure that Ctrl-C at a prompt caused is reported as an interruption.
    match prompt::interrupted().map_or(ended, Err) {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(failure) => {
            talk.failure(&failure);
            ExitCode::from(failure.exit.code())
        }
    }
}

/// Runs a verb. Returns the exit code of a completed run, or the failure that ended it.
fn dispatch(verb: Verb, talk: &Talk) -> Result<Exit, Failure> {
    match verb {
        Verb::Init(args) => init::run(&args, talk),
        Verb::Check(args) => check::run(&args, talk),
        Verb::Backup(args) => backup::run(&args, talk),
        Verb::Snapshots(args) => snapshots::run(&args, talk),
        Verb::Show(args) => show::run(&args, talk),
        Verb::Ls(args) => ls::ls(&args, talk),
        Verb::Cat(args) => cat::run(&args, talk),
        Verb::Find(args) => ls::find(&args, talk),
        Verb::Restore(args) => restore::run(&args, talk),
        Verb::Diff(args) => diff::run(&args, talk),
        Verb::Export(args) => export::run(&args, talk),
        Verb::Verify(args) => verify::run(&args, talk),
        Verb::Keys(args) => keys::run(&args, talk),
        Verb::Epoch(args) => epoch::run(*args, talk),
        Verb::Keygen(args) => keygen::run(args, talk),
        Verb::Plan(args) => plan::run(args, talk),
        Verb::Completion(args) => completion::run(args),
        Verb::Man(args) => man::run(args),
    }
}

/// Prints clap's message. Help and version go to standard output and succeed; the rest are usage errors.
fn usage(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    if error.use_stderr() && wants_json(arguments) {
        let text = error.render().to_string();
        let mut parts = text.trim_start_matches("error: ").split("\n\n");
        let what = parts.next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        let tip = parts.find_map(|part| part.trim().strip_prefix("tip: ").map(str::to_owned));
        let failure = Failure::new(Exit::Usage, what)
            .remedy(tip.unwrap_or_else(|| "kbak VERB --help shows what it takes".into()));
        Talk::new(out::Format::Json).failure(&failure);
        return ExitCode::from(Exit::Usage.code());
    }
    let exit = if error.use_stderr() { Exit::Usage } else { Exit::Safe };
    // A closed pipe, as in `kbak --help | head`, is not an error.
    let _ = error.print();
    ExitCode::from(exit.code())
}

/// True if arguments that clap has rejected ask for JSON.
fn wants_json(arguments: &[OsString]) -> bool {
    let given: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    let after = |pair: &[std::borrow::Cow<'_, str>]| {
        matches!(pair[0].as_ref(), "-o" | "--output") && pair[1] == "json"
    };
    let joined = ["-ojson", "-o=json", "--output=json"];
    given.windows(2).any(after) || given.iter().any(|one| joined.contains(&one.as_ref()))
}
