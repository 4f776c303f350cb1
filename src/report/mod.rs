//! Reporting: events and counters during a run, summaries and metrics after it.

mod bars;
pub mod display;
pub mod event;
pub mod failure;
pub mod memory;
pub mod metrics;
pub mod progress;
pub mod recorder;
pub mod render;
mod retries;
pub mod run;
pub mod style;
pub mod summary;
pub mod text;
