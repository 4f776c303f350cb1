//! The repository format: pure functions between bytes and types. No I/O, no clock, no network.
//!
//! docs/format.md specifies every object byte by byte; the modules here follow its sections.

pub mod body;
pub mod cache;
pub mod catalog;
pub mod container;
pub mod derive;
mod derived_passphrase;
pub mod epoch;
pub mod ids;
pub mod index;
pub mod json;
pub mod layout;
pub mod list;
pub mod manifest;
pub mod marker;
pub mod name;
mod namespace;
pub mod object;
pub mod pack;
pub mod pack_refs;
pub mod padme;
mod payload;
pub mod record;
pub mod report;
pub mod revocation;
pub mod sign;
pub mod signed_key;
pub mod signers;
mod signing_key;
pub mod state;
mod symmetric;
pub mod tar;
pub mod timestamp;
pub mod wrap;
