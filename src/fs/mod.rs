//! Files beneath a folder: opened without following links, their attributes, holes and names.

pub mod beneath;
pub mod holes;
pub mod listing;
pub mod stat;

pub use beneath::Root;
pub use stat::{FileType, Inode, Stat};
