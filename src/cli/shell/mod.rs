//! The terminal: console, prompts, output, progress, log and signals.

mod bars;
pub(super) mod console;
pub mod display;
pub mod environment;
pub(super) mod guard;
pub(super) mod guide;
pub(super) mod logging;
pub mod metrics;
pub(super) mod output;
pub(super) mod passphrase;
mod progress;
pub(super) mod prompt;
mod retry_throttle;
pub(super) mod signals;
pub mod style;
pub mod summary;
