//! What happened: events and counters while it happens, summaries and metrics afterwards.

pub mod event;
pub mod failure;
