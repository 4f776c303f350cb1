//! Backup: turns items into streams, and streams into a snapshot.

mod boundary;
pub mod carrier;
pub mod coordinator;
pub mod database;
pub mod epoch_secret;
pub mod error;
pub mod from_plan;
pub mod history;
pub mod item;
pub mod job;
mod lineage;
pub mod resources;
mod start;
pub mod volume;

pub use error::{CLOCK_REFUSE, CLOCK_WARN};
