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
//! The modules: [`mod@format`] is the repository format as pure functions between bytes and types;
//! [`store`] keeps immutable objects; [`pipeline`] turns streams into packs and back; [`repository`]
//! opens, commits and reads snapshots; [`source`] and [`restore`] are the two ends; [`survey`] takes
//! the inventory of a cluster, and [`coverage`] lists what a plan leaves out of it; [`backup`],
//! [`verify`] and [`check`] compose them; [`report`] holds events and run reports; [`world`] holds
//! the clock, randomness and workers, which are passed in so that a seed reproduces a run.
//!
//! The glossary is docs/glossary.md; the byte-level format is docs/format.md.

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
