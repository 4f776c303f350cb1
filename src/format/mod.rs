//! The repository format: pure functions between bytes and types. No I/O, no clock, no network.
//!
//! docs/format.md specifies every object byte by byte; the modules here follow its sections.

pub mod container;
pub mod derive;
pub mod epoch;
pub mod ids;
pub mod json;
pub mod layout;
pub mod marker;
pub mod moment;
pub mod object;
pub mod sign;
pub mod signers;
mod signing_key;
pub mod wrap;
