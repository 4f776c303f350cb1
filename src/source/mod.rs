//! Readers of the data to back up. A source gives a stream of bytes; it knows no packs, keys or stores.

pub mod database;
pub mod kubernetes;
pub mod volume;
