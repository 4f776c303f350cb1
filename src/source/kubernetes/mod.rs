//! A cluster's resources: every kind listed at one revision, as the server's own bytes.
//!
//! ```text
//! discovery ──> kinds ──> probe (rights, one store?) ──> lists at R, four ahead ──> ResourceSink
//!                                                                    └──> one store still? R still?
//! ```
//!
//! [`read_resources`] reads the aggregated discovery documents, takes one revision R and lists
//! every kind at exactly R. It forwards the objects kind after kind, one line of JSON each. Only
//! the metadata that proves the revision is decoded. The server's bytes are stored as they are,
//! with `apiVersion` and `kind` put in front where a list omits them.
//!
//! A kind that cannot be read, or cannot be proved to be at R, becomes a [`ResourceGap`] that names
//! the kind and the remedy; it is never dropped silently. docs/resources.md describes the proofs.

mod budget;
mod forward;
mod list;
mod list_event;
mod lister;
mod recheck;
mod references;
mod revision_probe;
mod route;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use list::read_resources;

use crate::kubernetes::{ApiError, KindInfo, Selection, SelectionError};
use crate::plan::{ConsistencyPolicy, GlobError, ResourcesSpec};

/// The error of a sink; the reading ends with it.
pub type SinkError = Box<dyn std::error::Error + Send + Sync>;

/// Receives the resources of a cluster. Calls come one after the other, in this grammar:
///
/// ```text
/// run     = { attempt restart } attempt
/// attempt = { begin { object } ( end | discard ) }
/// ```
///
/// Kinds come in ascending order of ([read_order](KindInfo::read_order), group, version, plural). A kind comes
/// again right after its `discard` when it is read again, and otherwise once per attempt. Kinds
/// without objects do not come at all (the report counts them). The report is returned after the
/// last call; if reading fails instead, all streams are incomplete.
///
/// A sink may be slow: pages wait in memory up to [`ResourcesConfig::budget`], and no open response waits for
/// a sink. But a revision lasts only 5 to 10 minutes, so a sink that takes longer in total causes restarts.
#[async_trait]
pub trait ResourceSink: Send {
    /// Begins the stream of `kind`.
    async fn begin(&mut self, kind: &KindInfo) -> Result<(), SinkError>;

    /// Takes the next object of the kind, in the server's order at R: one line of JSON, with an LF
    /// only at its end. `namespace` is empty for cluster-scoped kinds.
    async fn object(&mut self, namespace: &str, name: &str, line: Bytes) -> Result<(), SinkError>;

    /// Ends the stream: it is complete.
    async fn end(&mut self) -> Result<(), SinkError>;

    /// Abandons the stream begun last: no snapshot may name it. A kind that never completes is a gap.
    async fn discard(&mut self) -> Result<(), SinkError>;

    /// Starts all streams again at a newer revision, because R was compacted. Everything since the
    /// first `begin` is void. Chunks already stored may be reused; streams may not be named.
    async fn restart(&mut self) -> Result<(), SinkError>;
}

/// The selection and the limits of a reading. Plain values; the plan maps to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourcesConfig {
    /// The selected namespaces, kinds and labels.
    pub selection: Selection,
    /// The bytes of list pages that may be in memory at once: at least [`ResourcesConfig::LEAST_BUDGET`]. A
    /// quarter of it (at most 64 MiB) is the largest page, so the largest object.
    pub budget: usize,
    /// The number of kinds that are listed at the same time.
    pub parallel: usize,
    /// The plan's rule for kinds that are not at R. Reading does not depend on it.
    pub consistency: ConsistencyPolicy,
}

impl ResourcesConfig {
    /// The least budget: four pages of 2 MiB, above the largest object that etcd accepts (1.5 MiB).
    pub const LEAST_BUDGET: usize = 8 << 20;

    /// Returns the settings for what a plan declares, within `memory` bytes for the whole run.
    ///
    /// # Errors
    /// [`GlobError`] for an invalid pattern.
    pub fn of(resources: &ResourcesSpec, memory: u64) -> Result<Self, GlobError> {
        let selection = Selection::of(resources)?;
        // List pages share the memory with the pipeline's buffers; an eighth leaves enough for those.
        let budget = usize::try_from(memory / 8).unwrap_or(usize::MAX).clamp(Self::LEAST_BUDGET, 64 << 20);
        Ok(Self { selection, budget, consistency: resources.consistency, ..Self::default() })
    }
}

impl Default for ResourcesConfig {
    fn default() -> Self {
        Self {
            selection: Selection::default(),
            budget: 32 << 20,
            parallel: 4,
            consistency: ConsistencyPolicy::Strict,
        }
    }
}

/// The report of a complete reading. Every selected kind is in [`Self::kinds`] or in [`Self::gaps`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResourcesReport {
    /// The revision R of all kinds whose consistency is [`KindConsistency::AtRevision`].
    pub revision: String,
    /// The UID of the namespace `kube-system`, which identifies a cluster; none if that namespace
    /// cannot be read (then a note says so).
    pub cluster_uid: Option<String>,
    /// The server's version, such as `v1.34.10`.
    pub server_version: String,
    /// The number of earlier attempts that ended because R was compacted.
    pub restarts: u32,
    /// Kinds that were read, in order, including those without objects.
    pub kinds: Vec<KindReport>,
    /// Kinds that were not read because they cannot be restored (no `create` verb). The server
    /// computes them, such as `componentstatuses` and `pods.metrics.k8s.io`.
    pub computed: Vec<String>,
    /// The kind that was listed again at R after all others, with the same result.
    pub repeated: Option<String>,
    /// Objects and kinds that are missing or not at R.
    pub gaps: Vec<ResourceGap>,
    /// Facts that are unknown and concern no selected object.
    pub notes: Vec<ResourceGap>,
}

/// One kind that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindReport {
    /// The kind.
    #[serde(flatten)]
    pub kind: KindInfo,
    /// The number of objects after selection.
    pub objects: u64,
    /// The size of its stream in bytes.
    pub bytes: u64,
    /// Its consistency with revision R.
    pub consistency: KindConsistency,
}

/// The revision that the objects of a kind show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KindConsistency {
    /// The report's revision. The kind is in the same store as namespaces: its own revision was between two
    /// of theirs, before and after the reading. Every page showed R, and no object was newer than R.
    AtRevision,
    /// A revision of its own: consistent in itself, but not with the other kinds.
    OwnRevision(String),
    /// Unknown: the server did not keep to a revision, or the proof could not be repeated.
    Unproved,
}

/// A part that is missing from the stream or not consistent with the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{object}: {reason}")]
pub struct ResourceGap {
    /// The affected part: a resource (`certificates.cert-manager.io`), a group version, a namespace.
    pub object: String,
    /// The reason.
    pub reason: GapReason,
}

/// The reason for a gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum GapReason {
    /// The identity lacks a right. Carries the rule to add.
    #[error("not allowed; add the rule {rule} to {role}")]
    Forbidden {
        /// The rule as an entry of `rules:`, in YAML flow style.
        rule: String,
        /// The role that needs it: a ClusterRole, or a Role in a namespace.
        role: String,
    },
    /// The plan names it, but the cluster does not have it.
    #[error("no such {0} in the cluster")]
    Absent(String),
    /// Its own revision was compacted in every try.
    #[error("the cluster compacts its history faster than this can be read ({tries} tries)")]
    Expired {
        /// The number of tries.
        tries: u32,
    },
    /// Its server does not answer, such as a dead aggregated API or conversion webhook.
    #[error("{}", describe_unavailable(*code, message))]
    Unavailable {
        /// The HTTP status; 0 if the answer did not arrive completely.
        code: u16,
        /// The server's message.
        message: String,
    },
    /// Discovery listed it, but it no longer exists.
    #[error("it no longer exists (its definition was removed during the run)")]
    Gone,
    /// Discovery could not reach the group's server, so its kinds are unknown.
    #[error("its API server does not answer discovery; its kinds are unknown")]
    Stale,
    /// It was read completely, but is not proved to be at the revision of the rest.
    #[error("not proved to be at the common revision ({why})")]
    NotAtRevision {
        /// The proof that failed, and the reason.
        why: String,
    },
    /// One object is larger than the largest page.
    #[error("an object is larger than {limit} bytes; raise limits.memory")]
    TooLarge {
        /// The largest page in bytes.
        limit: u64,
    },
    /// Objects are nested too deep: they are stored, and not restored into a cluster.
    #[error(
        "{count} of its objects have more than {limit} levels of lists and maps (as {example}): they are \
             stored, and can be restored only as files"
    )]
    TooDeep {
        /// The most levels.
        limit: u64,
        /// The number of such objects.
        count: u64,
        /// The first of them.
        example: String,
    },
    /// The server's answer is not a list.
    #[error("the answer cannot be understood: {0}")]
    Malformed(String),
}

fn describe_unavailable(code: u16, message: &str) -> String {
    match code {
        0 => format!("its server did not answer completely: {message}"),
        code => format!("its server answers {code}: {message}"),
    }
}

/// An error that ends the reading of all resources.
#[derive(Debug, thiserror::Error)]
pub enum ResourcesError {
    /// The cluster did not answer, or not as a cluster does.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// No list that shows the store's revision is allowed.
    #[error("no kind may be listed; add the rule {rule} to {role}, and more")]
    Forbidden {
        /// The first rule to add.
        rule: String,
        /// The role that needs it.
        role: String,
        /// The server's answer.
        #[source]
        source: Box<ApiError>,
    },
    /// The selection is unusable.
    #[error(transparent)]
    Selection(#[from] SelectionError),
    /// The budget for list pages is too small.
    #[error("a budget of {budget} bytes for list pages is too small: at least {least}")]
    Budget {
        /// The given budget in bytes.
        budget: usize,
        /// The least budget in bytes.
        least: usize,
    },
    /// The sink failed to take an object.
    #[error("cannot store the objects of {kind}")]
    Sink {
        /// The kind.
        kind: String,
        /// The cause.
        #[source]
        source: SinkError,
    },
}
