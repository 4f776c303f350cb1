//! Restore: brings the items of a snapshot back into targets.

pub mod error;
pub mod folder;
pub mod streams;
