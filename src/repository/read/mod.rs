//! A repository as a reader finds it: opened, its damage named, a snapshot read.

pub mod copies;
pub mod damage;
pub mod open;
pub mod reader;
pub mod snapshot;
