//! Epochs of a plan: created, read from the store, wrapped to owners.

pub mod create;
pub mod current;
pub mod error;
pub mod stored;
pub mod wraps;
