//! Backup: turns items into streams, and streams into a snapshot.

mod cutter;
pub mod database;
pub mod item;
pub mod resources;
pub mod run;
mod start;
pub mod volume;

pub use start::{CLOCK_REFUSE, CLOCK_WARN};
