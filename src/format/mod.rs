//! The repository format: pure functions between bytes and types. No I/O, no clock, no network.
//!
//! docs/format.md specifies every object byte by byte; the modules here follow its sections.

pub mod catalog;
pub mod container;
pub mod derive;
pub mod ids;
pub mod index;
pub mod layout;
pub mod list;
pub mod name;
pub mod needs;
pub mod object;
pub mod pack;
pub mod padme;
