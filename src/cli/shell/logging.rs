//! The log on standard error: one line for each request, retry and pack.

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// The detail of the log. Errors and warnings of kbak itself are messages, which every level shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// No log, only the messages of kbak
    Error,
    /// The same
    Warn,
    /// Messages of libraries
    Info,
    /// Also each request, retry, pack and decision
    Debug,
}

/// Logs of libraries, without the levels that would show bodies: `kube_client` logs whole responses on a
/// decode error, even in its warnings; HTTP and signing crates log headers.
const LIBRARIES: &str =
    "info,kube_client=error,kube_client::client::builder=off,aws_config=warn,aws_sigv4=off";

/// Starts the log on standard error.
pub(crate) fn start(level: LogLevel, colour: bool) {
    let filter = match level {
        LogLevel::Error | LogLevel::Warn => "off".to_owned(),
        LogLevel::Info => LIBRARIES.to_owned(),
        LogLevel::Debug => format!("{LIBRARIES},kbak=debug"),
    };
    let to_stderr = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(colour);
    let _ = to_stderr.with_env_filter(EnvFilter::new(filter)).try_init();
}
