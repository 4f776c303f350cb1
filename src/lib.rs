//! kbak makes encrypted, verifiable, restorable backups of Kubernetes clusters.
//!
//! Data flows one way. Each arrow is a type, so plaintext cannot reach a store and
//! unauthenticated bytes cannot reach a target:
//!
//! ```text
//! Source ── Stream ──> segments, chunks ──> compressed ──> Pack ──> Sealed ──> stored ──> Manifest
//! Manifest ──> chunk list ──> whole or ranged reads ──> authenticated plaintext ──> Target
//! ```
//!
//! The modules, lowest first: [`report`] holds events and run reports, [`runtime`] the clock,
//! randomness and workers; [`mod@format`] is the repository format as pure functions between bytes and
//! types; [`store`] keeps immutable objects, [`keys`] opens them; [`pipeline`] turns streams into packs
//! and back; [`repository`] opens, commits and reads snapshots. [`source`] and [`target`] are the two
//! ends, [`kubernetes`] talks to an API server for both, [`inventory`] lists what a cluster holds.
//! [`backup`], [`restore`], [`verify`], [`compare`] and [`check`] compose them; [`cli`] is the command line.
//!
//! docs/architecture.md says which folder may import which; the glossary is docs/glossary.md, the
//! byte-level format docs/format.md.

#![forbid(unsafe_code)]

pub mod backup;
pub mod check;
pub mod cli;
pub mod compare;
pub mod format;
pub mod fs;
pub mod inventory;
pub mod keys;
pub mod kubernetes;
pub mod pipeline;
pub mod plan;
pub mod report;
pub mod repository;
pub mod restore;
pub mod runtime;
pub mod source;
pub mod store;
pub mod target;
pub mod verify;
