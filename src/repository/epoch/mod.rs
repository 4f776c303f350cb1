//! Epochs of a plan: created, read from the store, wrapped to owners.

pub mod counting;
pub mod create;
pub mod current;
pub mod error;
pub mod owner_change;
pub mod stored;
pub mod wraps;
