//! The terminal: console, prompts, output, progress, signals, and the end of a run.

mod bars;
pub(super) mod console;
pub mod display;
pub(super) mod guard;
pub(super) mod guide;
pub(super) mod output;
mod progress;
pub(super) mod prompt;
mod retries;
pub(super) mod run_end;
pub(super) mod signals;
pub mod style;
pub mod summary;
