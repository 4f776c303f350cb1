//! Resources created again: in an order that works, without what the server makes itself, with
//! owners relinked; or written to files.
//!
//! ```text
//! streams ──> order ──> derived? allowed? ──> surgery ──> create ──┐
//!    ↑            rounds, until one makes no progress              │ old UID -> new UID
//!    └──────────────────────── relink: one merge patch per object <┘
//! ```
//!
//! Streams are opened kind by kind, and again for a later round, so nothing that is large stays
//! in memory: between rounds only which objects are missing, and the UIDs.
//!
//! Nothing in a stream is trusted: names are escaped into paths, and objects that give rights or
//! change how others are admitted come back only when the caller says so ([`Allow`]).

mod apply;
mod create;
mod derived;
mod directory;
mod lines;
mod order;
mod relink;
mod surgery;
mod target;

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use serde::Serialize;

use crate::plan::Glob;
use crate::source::kubernetes::{ApiError, KindInfo};

pub use apply::restore_resources;
pub use derived::Derived;
pub use directory::{DirectoryError, FileFormat, Written, write_directory};
pub use order::step;

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

/// What comes back only if it is said, because it gives rights or changes what others may create.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Allow {
    /// Roles, ClusterRoles and their bindings.
    Rbac,
    /// Webhook configurations and admission policies with their bindings.
    Webhooks,
    /// CustomResourceDefinitions.
    Crds,
    /// APIServices with a service behind them.
    Apiservices,
}

impl Allow {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Rbac, Self::Webhooks, Self::Crds, Self::Apiservices];

    /// As `--allow` takes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rbac => "rbac",
            Self::Webhooks => "webhooks",
            Self::Crds => "crds",
            Self::Apiservices => "apiservices",
        }
    }
}

impl std::fmt::Display for Allow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What to restore, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreConfig {
    /// What of that which is refused by default may be created.
    pub allow: BTreeSet<Allow>,
    /// Only objects in these namespaces, and the namespaces themselves; empty: everything.
    pub namespaces: Vec<Glob>,
    /// Only these kinds (`pods`, `deployments.apps`); empty: all.
    pub kinds: Vec<Glob>,
    /// Keep the node ports of Services.
    pub node_ports: bool,
    /// Creates under way at once.
    pub parallel: usize,
    /// How often a round without progress is tried again, after a pause that doubles from one
    /// second: controllers and webhooks need time to stand up.
    pub patience: u32,
}

impl Default for RestoreConfig {
    fn default() -> Self {
        Self {
            allow: BTreeSet::new(),
            namespaces: Vec::new(),
            kinds: Vec::new(),
            node_ports: false,
            parallel: 16,
            patience: 3,
        }
    }
}

/// An object's name, all of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ObjectRef {
    /// `pods`, `deployments.apps`.
    pub resource: String,
    /// The kind: `Deployment`.
    pub kind: String,
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl std::fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{}/{}", self.kind, self.name),
            namespace => write!(f, "{}/{namespace}/{}", self.kind, self.name),
        }
    }
}

/// What became of an object. Each object gets exactly one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was created.
    Created,
    /// One of that name was there and was left alone.
    Existed,
    /// Not created, because the cluster makes it itself.
    Derived(Derived),
    /// Not created, because it was not allowed.
    Refused(Allow),
    /// The cluster does not serve its kind.
    Unserved,
    /// The server refused it to the last.
    Failed(Refusal),
}

/// Why the server refused an object. Holds no values of the object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{reason}{}{}", if .fields.is_empty() { String::new() } else { format!(" at {}", .fields.join(", ")) },
    if .message.is_empty() { String::new() } else { format!(": {}", .message) })]
pub struct Refusal {
    /// The HTTP status; 0 if the object was not sent.
    pub code: u16,
    /// The server's reason: `Invalid`, `Forbidden`.
    pub reason: String,
    /// The fields that the server names.
    pub fields: Vec<String>,
    /// The server's words, where they cannot quote the object.
    pub message: String,
}

/// What a restore did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RestoreReport {
    /// Objects created.
    pub created: u64,
    /// Objects that were there already.
    pub existed: u64,
    /// Objects that the cluster makes itself, by rule.
    pub derived: BTreeMap<Derived, u64>,
    /// Objects not allowed.
    pub refused: BTreeMap<Allow, u64>,
    /// Objects of kinds that the cluster does not serve, by resource.
    pub unserved: BTreeMap<String, u64>,
    /// Objects that the server refused to the last.
    pub failed: u64,
    /// The first thousand of them.
    pub failures: Vec<(ObjectRef, Refusal)>,
    /// Objects whose owners were set again.
    pub relinked: u64,
    /// Owner references left out, because the owner is not there.
    pub owners_lost: u64,
    /// Rounds that were needed.
    pub rounds: u32,
    /// The server's warnings, each once, at most a hundred.
    pub warnings: BTreeSet<String>,
}

impl RestoreReport {
    /// Whether everything that was wanted is there.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.failed == 0 && self.unserved.is_empty() && self.refused.is_empty()
    }
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
