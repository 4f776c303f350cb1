//! Resources created again: in an order that works, without what the server makes itself, with
//! owners relinked; or written to files.
//!
//! ```text
//! streams ──> order ──> decide ──> change ──┬──> plan: said, hashed, nothing written
//!    ↑                                      └──> create or meet what is there ──┐
//!    │                rounds, until one makes no progress                       │ old UID -> new UID
//!    └──── relink: one merge patch for owners and managers of fields, status <──┘
//! ```
//!
//! Plan and restore decide by the same pure function (decide/), and change objects by the same
//! steps (change/). Streams are opened kind by kind, and again for a later round, so nothing that is
//! large stays in memory: between rounds only which objects are missing, and the UIDs.
//!
//! Nothing in a stream is trusted: names are escaped into paths, and objects that give rights or
//! change how others are admitted come back only when the caller says so ([`Allow`]).

mod apply;
mod change;
mod config;
mod create;
mod decide;
mod denial;
mod directory;
mod fits;
mod given_up;
mod ground;
mod hooks;
mod known;
mod ledger;
mod lines;
mod made;
mod object;
mod order;
mod outcome;
mod owners;
mod plan;
mod relink;
mod target;
mod warning;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::source::kubernetes::{ApiError, KindInfo};

pub use apply::restore_resources;
pub use change::{Change, Modifier, ModifierError};
pub use config::{Allow, Existing, Mapping, Profile, Release, RestoreConfig, Scope, Selected, Waits};
pub use decide::{Derived, Infrastructure, Skip, Tool};
pub use directory::{DirectoryError, FileFormat, Written, absent, write_directory};
pub use fits::Absent;
pub use object::ObjectRef;
pub use order::step;
pub use outcome::{Obstacle, Outcome, Refusal, RestoreReport};
pub use plan::{Action, ChangeSum, Conflict, Decision, Grade, Plan, Sum, Wait, plan_resources};
pub use warning::Warning;

/// Why a stream cannot be read (further).
pub type StreamError = Box<dyn std::error::Error + Send + Sync>;

/// The stored resources of one snapshot. May be opened more than once for a kind.
#[async_trait]
pub trait ResourceStreams: Send + Sync {
    /// The kinds that there are.
    fn kinds(&self) -> Vec<KindInfo>;

    /// The stream of one kind from its start: JSON lines, in pieces cut anywhere.
    async fn open(&self, kind: &KindInfo) -> Result<BoxStream<'_, Result<Bytes, StreamError>>, StreamError>;
}

/// Why a restore ended early. What was created so far stays; running again goes on.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The cluster did not answer.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A stream could not be read.
    #[error("the stored {resource} cannot be read")]
    Stream {
        /// The kind.
        resource: String,
        /// Why.
        #[source]
        source: StreamError,
    },
    /// A stream holds what no backup writes.
    #[error("the stored {resource} are damaged: line {line}: {problem}")]
    Damaged {
        /// The kind.
        resource: String,
        /// Which line, from 1.
        line: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Told what became of each object, in the order in which it happened.
pub type OutcomeSink<'a> = &'a (dyn Fn(&ObjectRef, &Outcome) + Send + Sync);
