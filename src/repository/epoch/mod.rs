//! Epochs of a plan: created, read from the store, handed over, wrapped to owners.

pub mod create;
pub mod current;
pub mod error;
pub mod hand_over;
pub mod stored;
pub mod wraps;
