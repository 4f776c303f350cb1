//! The command line, with one file per verb. It parses arguments into option structs, runs the use cases,
//! and renders their results as lines, tables or JSON, with an exit code.
//!
//! Data goes to standard output, messages to standard error. Secrets are never passed as arguments.

mod args;
pub mod failure;
mod options;
pub mod shell;
mod verbs;

use std::ffi::OsString;
use std::process::ExitCode;

use args::{Cli, Verb};
use clap::Parser as _;
use options::ProgressMode;

use crate::cli::failure::{Exit, Failure};
use crate::cli::shell::console::Console;

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
    shell::guard::hide_panic_messages();
    shell::guard::disable_core_dumps();
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if arguments.len() <= 1 {
        return shell::guide::show();
    }
    // This check comes first: later errors may quote arguments.
    if let Err(failure) = shell::guard::refuse_private_keys(&arguments) {
        Console::new(shell::output::OutputFormat::Table).failure(&failure);
        return ExitCode::from(failure.exit.code());
    }
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, &arguments),
    };
    let console = console_for(&cli.verb);
    shell::logging::start(cli.log_level, console.style.colour);
    let ended = shell::signals::watch().and_then(|()| dispatch(cli.verb, &console));
    // A failure that Ctrl-C at a prompt caused is reported as an interruption.
    match shell::prompt::interrupted().map_or(ended, Err) {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(failure) => {
            console.failure(&failure);
            ExitCode::from(failure.exit.code())
        }
    }
}

/// Returns the console for the arguments of a verb.
fn console_for(verb: &Verb) -> Console {
    let console = Console::new(verb.format());
    if verb.progress() == Some(ProgressMode::Json) { console.with_json_lines() } else { console }
}

/// Runs a verb. Returns the exit code of a completed run, or the failure that ended it.
fn dispatch(verb: Verb, console: &Console) -> Result<Exit, Failure> {
    match verb {
        Verb::Init(args) => verbs::init::run(&args, console),
        Verb::Check(args) => verbs::check::run(&args, console),
        Verb::Backup(args) => verbs::backup::run(&args, console),
        Verb::Snapshots(args) => verbs::snapshots::run(&args, console),
        Verb::Show(args) => verbs::show::run(&args, console),
        Verb::Ls(args) => verbs::ls::ls(&args, console),
        Verb::Cat(args) => verbs::cat::run(&args, console),
        Verb::Find(args) => verbs::ls::find(&args, console),
        Verb::Restore(args) => verbs::restore::run(&args, console),
        Verb::Diff(args) => verbs::diff::run(&args, console),
        Verb::Export(args) => verbs::export::run(&args, console),
        Verb::Verify(args) => verbs::verify::run(&args, console),
        Verb::Keys(args) => verbs::keys::run(&args, console),
        Verb::Epoch(args) => verbs::epoch::run(*args, console),
        Verb::Keygen(args) => verbs::keygen::run(args, console),
        Verb::Plan(args) => verbs::plan::run(args, console),
        Verb::Rbac(args) => verbs::rbac::run(&args, console),
        Verb::Completion(args) => verbs::completion::run(args, command()),
        Verb::Man(args) => verbs::man::run(args, command()),
    }
}

/// Prints clap's message. Help and version go to standard output and succeed; the rest are usage errors.
fn usage(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    if error.use_stderr() && wants_json(arguments) {
        let text = error.render().to_string();
        let mut parts = text.trim_start_matches("error: ").split("\n\n");
        let what = parts.next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        let tip = parts.find_map(|part| part.trim().strip_prefix("tip: ").map(str::to_owned));
        let failure =
            Failure::usage(what).remedy(tip.unwrap_or_else(|| "kbak VERB --help lists the arguments".into()));
        Console::new(shell::output::OutputFormat::Json).failure(&failure);
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
