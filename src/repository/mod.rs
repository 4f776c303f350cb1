//! Repositories: opened, written, committed, read.

pub mod chain;
pub mod commit;
pub mod dedup;
