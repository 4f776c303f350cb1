//! Restore: brings the items of a snapshot back into targets.

mod databases;
pub mod error;
pub mod folder;
pub mod job;
mod preview;
mod resources;
pub mod run;
mod selection;
pub mod streams;

pub use databases::{DatabasePreview, DatabasesPreview};
pub use preview::{ItemPreview, ResourcesPreview};
