//! Files beneath a folder, opened without following links: attributes, extended attributes, holes, names.

pub mod beneath;
pub mod holes;
pub mod listing;
pub mod stat;
pub(crate) mod xattrs;

pub use beneath::Root;
pub use stat::{FileType, Inode, Stat};
