//! Restores resources into a cluster: in dependency order, without objects that the server makes itself,
//! and with owners relinked. Or writes them to files.
//!
//! ```text
//! streams ──> order ──> judge ───> change ──┬──> plan: shown, hashed, nothing written
//!    ↑                                      └──> create, or compare with the existing ──┐
//!    │                rounds, until one makes no progress                               │ old UID -> new UID
//!    └──── relink: one merge patch for owners and field managers, status <──────────────┘
//! ```
//!
//! Plan and restore decide by the same pure function (judge/), and change objects by the same steps
//! (change/). Streams are opened kind by kind, and again for later rounds. Between rounds only the missing
//! objects and the UIDs stay in memory.
//!
//! Streams are not trusted: names are escaped into paths, and objects that grant rights or change
//! admission are restored only if the caller allows it ([`Permission`]).

mod apply;
mod change;
mod cluster_state;
mod config;
mod fields;
mod judge;
mod lines;
mod object;
mod object_files;
mod order;
mod outcome;
mod owner;
mod plan;
mod refusal;
mod requirement_search;
mod requirements;
mod selection_usage;
mod stored_line;
mod warning;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::kubernetes::{ApiError, KindInfo};

pub use crate::plan::{ExistingPolicy, Mapping, ObjectName, Permission, Profile, Scope, SideEffect};
pub use apply::{restore_resources, restore_state::NO_DATA};
pub use change::{Change, Modifier, ModifierError};
pub use config::{RestoreConfig, RestoreConfigError, WaitLimits};
pub use judge::{Derived, GitTool, Infrastructure, Skip, is_always_derived};
pub use object::ObjectRef;
pub use object_files::{DirectoryError, FileFormat, WrittenFiles, preview_directory, write_directory};
pub use order::step;
pub use outcome::{Outcome, RestoreReport};
pub use plan::{Action, ActionTotal, ChangeTotal, Conflict, Decision, Grade, Plan, Wait, plan_resources};
pub use refusal::{Refusal, RefusalCause};
pub use selection_usage::UnmatchedSelector;
pub use warning::Warning;

pub(crate) use cluster_state::{
    Answered, ClusterState, ExistingObjects, ServedKind, ServedKinds, get_object,
};
pub(crate) use config::namespace_of;
pub(crate) use fields::{annotation, each, each_mut, is_object, label, map, map_mut, text};
pub(crate) use judge::{
    DecidedObject, Decider, ExistingAction, FIELD_MANAGER, ObjectDecision, PendingWrites, PreparedObject,
    TRACKING_MARKS, VOLUME_IN_USE, has_restore_manager, is_merged, is_shared_namespace, lacks_fields,
    lost_fields, matches_existing, may_be_from_restore, reconcile, refuse_bound_volume,
    reset_observed_generation, skip_reason,
};
pub(crate) use lines::{MemoryBudget, PARALLEL, open_lines, with_budget};
pub(crate) use object::{ApiPaths, ObjectKey, api_paths, object_key, path_segment};
pub(crate) use owner::{LiveOwners, OwnerReference, OwnerSet};
pub(crate) use requirement_search::find_requirements;
pub(crate) use requirements::Requirements;
pub(crate) use selection_usage::SelectionUsage;
pub(crate) use stored_line::{StoredObject, TOO_DEEP};
pub(crate) use warning::{pruned_fields, shown_warnings};

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
    /// The stream of this resource could not be read.
    #[error("the stored {0} cannot be read")]
    Stream(String, #[source] StreamError),
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

impl RestoreError {
    pub(crate) fn damaged(kind: &KindInfo, line: u64, problem: &'static str) -> Self {
        Self::Damaged { resource: kind.resource(), line, problem }
    }
}

/// Called with the outcome of each object, in the order of the outcomes.
pub type OutcomeSink<'a> = &'a (dyn Fn(&ObjectRef, &Outcome) + Send + Sync);
