//! What keeps secrets and plaintext out of places where nobody looks for them: panics, core
//! dumps, logs.

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How much libraries may say.
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

/// Says that a panic is a bug, where, and ends. What the panic says is left out: it may quote data.
pub(super) fn panics() {
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
        // What only draws must not end what backs up.
        if std::thread::current().name() != Some(crate::report::display::THREAD) {
            std::process::exit(1);
        }
    }));
}

/// A core dump would write keys and plaintext to a disk.
pub(super) fn core_dumps() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    // Lowering a limit cannot fail; where it did, there is nothing better to do.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}

/// Sends what libraries say to standard error, below levels at which they would show bodies:
/// `kube_client` logs whole responses on a decode error, HTTP and signing crates log headers.
pub(super) fn logging(level: LogLevel) {
    let level = match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
    };
    // kube_client's decode errors are warnings, so it is held to errors where they carry bodies.
    let filter = EnvFilter::new(format!(
        "{level},kube_client::client=error,kube_client=warn,aws_sigv4=warn,aws_smithy_runtime=info,\
         aws_smithy_runtime_api=info,aws_config=info,hyper=info,hyper_util=info,rustls=warn,h2=info"
    ));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}
