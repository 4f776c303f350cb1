//! A cluster's resources: every kind listed at one revision, as the server's own bytes.
//!
//! ```text
//! discovery ──> kinds ──> probe (rights, one store?) ──> lists at R, four ahead ──> ResourceSink
//!                                                                    └──> one store still? R still?
//! ```
//!
//! [`read_resources`] reads the aggregated discovery documents, takes one revision R, lists every
//! kind at exactly R and hands the objects on, one line of JSON each, kind after kind. Nothing is
//! decoded but the metadata that proves the moment: what is stored is what the server said, with
//! `apiVersion` and `kind` put in front where a list leaves them out.
//!
//! What cannot be read, or cannot be proved to be of that moment, is a [`ResourceGap`] that names
//! the kind and what to do; it is never silent. docs/resources.md says what is proved, and how.

mod budget;
mod client;
mod discovery;
mod hand;
mod list;
mod lister;
mod needs;
mod page;
mod probe;
mod repeat;
mod selection;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use client::{Answer, ApiError, ApiErrorKind, ApiStatus, Cluster, ClusterAccess, Deadlines, StatusCause};
pub(crate) use discovery::page_query;
pub use discovery::{Discovered, StaleGroup, discover};
pub use list::read_resources;
pub use page::{ItemMeta, ListMeta, Page, PageError, cut, head, line};
pub use selection::{ClusterScoped, Selection, SelectionError};

use crate::plan::Consistency as Wanted;

/// One kind of object, as discovery names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KindInfo {
    /// The API group; empty for the core group.
    pub group: String,
    /// The version that is read: for custom resources the storage version, otherwise the first in
    /// the server's order that serves the kind.
    pub version: String,
    /// The resource's name in paths: `deployments`.
    pub plural: String,
    /// The kind in objects: `Deployment`.
    pub kind: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Subresources, sorted: `scale`, `status`.
    #[serde(default)]
    pub subresources: Vec<String>,
}

impl KindInfo {
    /// A kind in namespaces, by what paths need; how its objects call it and what else it has is left
    /// unsaid.
    #[must_use]
    pub fn named(group: &str, version: &str, plural: &str) -> Self {
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            plural: plural.to_owned(),
            kind: String::new(),
            namespaced: true,
            subresources: Vec::new(),
        }
    }

    /// `v1` or `apps/v1`, as objects carry it.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The name of the kind's stream in a backup: `apps/v1/deployments`, `core/v1/pods`.
    #[must_use]
    pub fn stream_name(&self) -> String {
        let group = if self.group.is_empty() { "core" } else { &self.group };
        format!("{group}/{}/{}", self.version, self.plural)
    }

    /// `pods` or `deployments.apps`: the name that selections, gaps and rules use.
    #[must_use]
    pub fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// The path that lists all its objects, or those of one namespace.
    #[must_use]
    pub fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        match namespace {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{}", self.plural),
            None => format!("{root}/{}", self.plural),
        }
    }

    /// Where it comes among the kinds that are read: those in namespaces, those outside, definitions.
    #[must_use]
    pub fn rank(&self) -> u8 {
        let definitions = self.group == "apiextensions.k8s.io" && self.plural == "customresourcedefinitions";
        if definitions { 2 } else { u8::from(!self.namespaced) }
    }

    /// Whether the kind has this subresource.
    #[must_use]
    pub fn has(&self, subresource: &str) -> bool {
        self.subresources.iter().any(|name| name == subresource)
    }
}

/// Why a sink refused; the reading ends with it.
pub type SinkError = Box<dyn std::error::Error + Send + Sync>;

/// Takes the resources of a cluster. Calls come one after the other, in this grammar:
///
/// ```text
/// run     = { attempt restart } attempt
/// attempt = { begin { object } ( end | discard ) }
/// ```
///
/// Kinds come in ascending order of ([rank](KindInfo::rank), group, version, plural); a kind comes
/// again right after its `discard` when it is read anew, and otherwise once an attempt; kinds without
/// objects do not come at all (the report counts them). After the last call the report is returned; if
/// reading fails instead, nothing that came is complete.
///
/// A sink may take its time: pages wait in memory up to [`ResourcesConfig::budget`], and no open
/// response waits for a sink. But a revision lives only 5 to 10 minutes, so a sink that takes
/// longer than that over everything causes restarts.
#[async_trait]
pub trait ResourceSink: Send {
    /// The stream of `kind` begins.
    async fn begin(&mut self, kind: &KindInfo) -> Result<(), SinkError>;

    /// The next object of the kind, in the server's order at R: one line of JSON, LF at its end
    /// and nowhere else. `namespace` is empty for cluster-scoped kinds.
    async fn object(&mut self, namespace: &str, name: &str, line: Bytes) -> Result<(), SinkError>;

    /// The stream is complete.
    async fn end(&mut self) -> Result<(), SinkError>;

    /// The stream begun last stays incomplete: no snapshot may name it. Its gap is in the report.
    async fn discard(&mut self) -> Result<(), SinkError>;

    /// The revision is gone. Everything since the first `begin` is void, and all of it comes
    /// again at a newer revision. Chunks already stored may be reused; streams may not be named.
    async fn restart(&mut self) -> Result<(), SinkError>;
}

/// What to read, and within which limits. Plain values; the plan maps to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourcesConfig {
    /// Which namespaces, kinds, labels.
    pub selection: Selection,
    /// Bytes of list pages that may lie in memory at once, those being read included. At least
    /// [`ResourcesConfig::LEAST_BUDGET`]. A quarter of it (at most 64 MiB) is the largest page,
    /// so the largest object.
    pub budget: usize,
    /// Kinds that are listed at the same time.
    pub parallel: usize,
    /// What a kind that is not of the moment means. Reading does not depend on it.
    pub consistency: Wanted,
}

impl ResourcesConfig {
    /// The least budget: four pages of 2 MiB, above what etcd takes as one object (1.5 MiB).
    pub const LEAST_BUDGET: usize = 8 << 20;
}

impl Default for ResourcesConfig {
    fn default() -> Self {
        Self { selection: Selection::default(), budget: 32 << 20, parallel: 4, consistency: Wanted::Strict }
    }
}

/// What was read. Only returned when every selected kind is either in [`Self::kinds`] or in
/// [`Self::gaps`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResourcesReport {
    /// The revision R of all kinds whose consistency is [`Consistency::AtRevision`].
    pub revision: String,
    /// The UID of the namespace `kube-system`, which identifies a cluster; none if that namespace
    /// may not be read (then a note says so).
    pub cluster_uid: Option<String>,
    /// As the server says it: `v1.34.10`.
    pub server_version: String,
    /// Attempts that ended because R was compacted before this one.
    pub restarts: u32,
    /// Kinds read, in the order they came, those without objects included.
    pub kinds: Vec<KindReport>,
    /// Kinds not read because nothing could be restored from them (no `create` verb): computed by
    /// the server, such as `componentstatuses` and `pods.metrics.k8s.io`.
    pub computed: Vec<String>,
    /// The kind that was listed again at R after all others, and was the same.
    pub repeated: Option<String>,
    /// What is missing or not of one moment.
    pub gaps: Vec<ResourceGap>,
    /// What is not known, and concerns nothing that was selected.
    pub notes: Vec<ResourceGap>,
}

/// One kind that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindReport {
    /// The kind.
    #[serde(flatten)]
    pub kind: KindInfo,
    /// Its objects, after selection.
    pub objects: u64,
    /// The bytes of its stream.
    pub bytes: u64,
    /// Whether it shows the moment R.
    pub consistency: Consistency,
}

/// Which moment the objects of a kind show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// The report's revision: the kind lives in the same store as namespaces (its own revision
    /// lay between two of theirs, before and after the reading), every page said R, and no object
    /// was newer than R.
    AtRevision,
    /// A revision of its own: one moment for this kind, but not that of the others.
    OwnRevision(String),
    /// Unknown: the server did not keep to a revision.
    Unproved,
}

/// Something that is missing from the stream, or not of one moment with the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{object}: {reason}")]
pub struct ResourceGap {
    /// What: a resource (`certificates.cert-manager.io`), a group version, `kube-system`.
    pub object: String,
    /// Why.
    pub reason: GapReason,
}

/// Why there is a gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum GapReason {
    /// The identity lacks a right. The text is the rule to add.
    #[error("not allowed; add the rule {rule} to {role}")]
    Forbidden {
        /// As an entry of `rules:`, in YAML flow style.
        rule: String,
        /// Where: a ClusterRole, a Role in a namespace.
        role: String,
    },
    /// The plan names it, and the cluster has no such thing.
    #[error("the cluster has no such {0}")]
    Absent(String),
    /// Its own revision was compacted away, every time.
    #[error("the cluster compacts its history faster than this can be read ({tries} tries)")]
    Expired {
        /// How many.
        tries: u32,
    },
    /// Its server does not answer: a dead aggregated API or conversion webhook.
    #[error("its server answers {code}: {message}")]
    Unavailable {
        /// The HTTP status.
        code: u16,
        /// What the server said.
        message: String,
    },
    /// It was in discovery and is gone.
    #[error("it is gone (its definition was removed while this ran)")]
    Gone,
    /// Discovery could not reach the group's server, so its kinds are unknown.
    #[error("its API server does not answer discovery; its kinds are unknown")]
    Stale,
    /// It was read whole, but not, or not provably, at the moment of the rest.
    #[error("not proved to be of the same moment as the rest ({why})")]
    NotAtRevision {
        /// Which proof failed, and how.
        why: String,
    },
    /// One object is larger than a page may be.
    #[error("an object is larger than {limit} bytes; raise limits.memory")]
    TooLarge {
        /// The largest page.
        limit: u64,
    },
    /// The server's answer is not what a list looks like.
    #[error("the answer cannot be understood: {0}")]
    Malformed(String),
}

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum ResourcesError {
    /// The cluster did not answer, or not as a cluster does.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Nothing tells the revision of the store.
    #[error("nothing may be listed; add the rule {rule} to {role}, and more")]
    Forbidden {
        /// The rule to begin with.
        rule: String,
        /// Where.
        role: String,
        /// What the server said.
        #[source]
        source: Box<ApiError>,
    },
    /// The selection cannot be used.
    #[error(transparent)]
    Selection(#[from] SelectionError),
    /// A limit is too small to work with.
    #[error("a budget of {budget} bytes for list pages is too small: at least {least}")]
    Budget {
        /// What was given.
        budget: usize,
        /// What is needed.
        least: usize,
    },
    /// Whoever takes the objects refused.
    #[error("the objects of {kind} could not be taken")]
    Sink {
        /// The kind.
        kind: String,
        /// Why.
        #[source]
        source: SinkError,
    },
}
