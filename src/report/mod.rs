//! Reporting: events and counters during a run, summaries and metrics after it.

pub mod coverage;
pub mod event;
pub mod item_state;
pub mod memory;
pub mod metrics;
pub mod recorder;
pub mod run;
pub mod text;
