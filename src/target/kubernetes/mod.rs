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
mod cluster_state;
mod config;
mod denial;
mod judge;
mod lines;
mod object;
mod object_files;
mod order;
mod outcome;
mod plan;
mod selection_usage;
mod served_kinds;
mod warning;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::kubernetes::{ApiError, KindInfo};

pub use crate::target::kubernetes::apply::restore_resources;
pub use crate::target::kubernetes::change::{Change, Modifier, ModifierError};
pub use crate::target::kubernetes::config::{
    Allow, Existing, Mapping, Profile, Release, RestoreConfig, Scope, Selected, Waits,
};
pub use crate::target::kubernetes::judge::{Derived, Infrastructure, Skip, Tool};
pub use crate::target::kubernetes::object::ObjectRef;
pub use crate::target::kubernetes::object_files::{
    DirectoryError, FileFormat, Written, absent, write_directory,
};
pub use crate::target::kubernetes::order::step;
pub use crate::target::kubernetes::outcome::{Obstacle, Outcome, Refusal, RestoreReport};
pub use crate::target::kubernetes::plan::{
    Action, ChangeSum, Conflict, Decision, Grade, Plan, Sum, Wait, plan_resources,
};
pub use crate::target::kubernetes::selection_usage::UnmatchedSelector;
pub use crate::target::kubernetes::warning::Warning;

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
