//! Creates, opens, writes and reads repositories.

pub mod chain;
pub mod epoch;
pub mod error;
pub mod fetched;
mod first_stored;
pub mod index_loader;
pub mod read;
pub mod records;
pub mod reports;
pub mod signed_listing;
pub mod write;
