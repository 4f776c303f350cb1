//! kbak makes encrypted, verifiable, restorable backups of Kubernetes clusters.
//!
//! Data flows one way, and every arrow is a type, so that plaintext cannot reach a store and
//! unauthenticated bytes cannot reach a target:
//!
//! ```text
//! Source ── Stream ──> segments, chunks ──> compressed ──> Pack ──> Sealed ──> stored ──> Manifest
//! Manifest ──> chunk list ──> whole or ranged reads ──> authenticated plaintext ──> Target
//! ```
//!
//! Where to look: [`mod@format`] is the repository format as pure functions between bytes and types;
//! [`store`] keeps immutable objects; [`pipeline`] carries streams into packs and back;
//! [`repository`] opens, commits and reads snapshots; [`source`] and [`restore`] are the two ends;
//! [`survey`] looks at what else a cluster holds and [`coverage`] at what of it a plan forgets;
//! [`backup`], [`verify`] and [`check`] compose them; [`report`] says what happened; [`world`] holds clock,
//! randomness and workers, which are passed in so that a seed reproduces a run.
//!
//! The glossary is in docs/glossary.md; the byte-level format in docs/format.md.

#![forbid(unsafe_code)]

pub mod backup;
pub mod check;
pub mod cli;
pub mod compare;
pub mod coverage;
pub mod draft;
pub mod format;
pub mod pipeline;
pub mod plan;
pub mod report;
pub mod repository;
pub mod restore;
pub mod source;
pub mod store;
pub mod survey;
pub mod verify;
pub mod world;
