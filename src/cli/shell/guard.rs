//! Keeps secrets and plaintext out of arguments, panic messages, core dumps and logs.

use std::ffi::OsString;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use crate::cli::failure::{Exit, Failure};

/// The log level of libraries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Errors only.
    Error,
    /// Warnings too.
    Warn,
    /// What happens.
    Info,
    /// In detail.
    Debug,
}

/// Reports a panic as a bug with its location, and exits. Its message is left out: it may quote data.
pub(crate) fn panics() {
    std::panic::set_hook(Box::new(|info| {
        use std::io::Write as _;
        let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        let mut err = std::io::stderr().lock();
        let _ = writeln!(
            err,
            "\nerror: kbak has a bug: it stopped at {place}\n  version    {}\n  \
             nothing that is in the store was harmed; running again resumes\n  \
             → report it with this text; what the bug saw is left out, because it may be your data\n  exit 1",
            env!("CARGO_PKG_VERSION")
        );
        // A panic of the display thread must not end the backup.
        if std::thread::current().name() != Some(crate::cli::shell::display::THREAD) {
            std::process::exit(1);
        }
    }));
}

/// Refuses arguments that hold a private key: other processes can see them, and errors quote them.
pub(crate) fn private_keys(arguments: &[OsString]) -> Result<(), Failure> {
    let signs = ["AGE-SECRET-KEY-1", "PRIVATE KEY-----"];
    let private = |text: &OsString| {
        let text = text.to_string_lossy().to_uppercase();
        signs.iter().any(|sign| text.contains(sign))
    };
    let Some(at) = arguments.iter().position(private) else { return Ok(()) };
    let before = at.checked_sub(1).map(|before| arguments[before].to_string_lossy());
    let place = before.filter(|text| text.starts_with("--"));
    let what = match place {
        Some(option) => format!("{option}: this is a private key"),
        None => "an argument is a private key".to_owned(),
    };
    Err(Failure::new(Exit::Usage, what).remedy(
        "give the public key, or the file that holds this one; it stands in the shell's history and the \
         process list now: make another",
    ))
}

/// Disables core dumps, which would write keys and plaintext to a disk.
pub(crate) fn core_dumps() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    // Lowering a limit cannot fail, and there would be no better action.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}

/// Sends the logs of libraries to standard error, without the levels that would show bodies:
/// `kube_client` logs whole responses on a decode error, HTTP and signing crates log headers.
pub(crate) fn logging(level: LogLevel, colour: bool) {
    // kbak itself reports failures, with object and remedy: libraries log only if `info` or `debug` is
    // asked for. kube_client logs bodies even in its warnings.
    let filter = EnvFilter::new(match level {
        LogLevel::Error | LogLevel::Warn => "off",
        LogLevel::Info => {
            "info,kube_client=error,kube_client::client::builder=off,aws_config=warn,aws_sigv4=off"
        }
        LogLevel::Debug => {
            "debug,kube_client::client=error,kube_client::client::builder=off,kube_client=warn,aws_sigv4=warn,\
             aws_smithy_runtime=info,aws_smithy_runtime_api=info,aws_config=info,hyper=info,hyper_util=info,\
             rustls=warn,h2=info"
        }
    });
    let to_stderr = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(colour);
    let _ = to_stderr.with_env_filter(filter).try_init();
}
