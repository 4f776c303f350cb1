//! Restores resources into a cluster: in dependency order, without objects that the server makes itself,
//! and with owners relinked. Or writes them to files.
//!
//! ```text
//! streams ──> order ──> decide ──> change ──┬──> plan: shown, hashed, nothing written
//!    ↑                                      └──> create, or compare with the existing ──┐
//!    │                rounds, until one makes no progress                               │ old UID -> new UID
//!    └──── relink: one merge patch for owners and field managers, status <──────────────┘
//! ```
//!
//! Plan and restore decide by the same pure function (decide/), and change objects by the same steps
//! (change/). Streams are opened kind by kind, and again for later rounds. Between rounds only the missing
//! objects and the UIDs stay in memory.
//!
//! Streams are not trusted: names are escaped into paths, and objects that grant rights or change
//! admission are restored only if the caller allows it ([`Allow`]).

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

/// The cause of a failure to read a stream.
pub type StreamError = Box<dyn std::error::Error + Send + Sync>;

/// The stored resources of one snapshot. May be opened more than once for a kind.
#[async_trait]
pub trait ResourceStreams: Send + Sync {
    /// Returns the kinds in the snapshot.
    fn kinds(&self) -> Vec<KindInfo>;

    /// Opens the stream of one kind at its start: JSON lines, in pieces of any size.
    async fn open(&self, kind: &KindInfo) -> Result<BoxStream<'_, Result<Bytes, StreamError>>, StreamError>;
}

/// The reason why a restore ended early. Objects created so far stay; a second run continues.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A request to the cluster failed.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A stream could not be read.
    #[error("the stored {resource} cannot be read")]
    Stream {
        /// The resource of the kind.
        resource: String,
        /// The cause.
        #[source]
        source: StreamError,
    },
    /// A stream has contents that no backup writes.
    #[error("the stored {resource} are damaged: line {line}: {problem}")]
    Damaged {
        /// The resource of the kind.
        resource: String,
        /// The line's number, from 1.
        line: u64,
        /// The fault of the line.
        problem: &'static str,
    },
}

/// Called with the outcome of each object, in the order of the outcomes.
pub type OutcomeSink<'a> = &'a (dyn Fn(&ObjectRef, &Outcome) + Send + Sync);
