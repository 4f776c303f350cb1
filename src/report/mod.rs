//! Reporting: events and counters during a run, summaries and metrics after it.

pub mod counts;
pub mod coverage;
pub mod error;
pub mod event;
pub mod item_state;
pub mod memory;
pub mod outcome;
pub mod recorder;
pub mod run;
pub mod text;
