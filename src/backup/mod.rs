//! The backup: items into streams, streams into a snapshot.

pub mod volume;
