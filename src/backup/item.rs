//! One item of a run: its job and its result.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::volume::CountByCode;
use crate::format::body::Gap;
use crate::format::ids::ObjectHash;
use crate::kubernetes::Cluster;
use crate::pipeline::stream::PendingStream;
use crate::plan::Glob;
use crate::source::database::DatabaseConfig;
use crate::source::kubernetes::ResourcesConfig;
use crate::source::volume::VolumeOptions;

/// The work for one item that a plan declares.
#[derive(Debug)]
pub struct ItemJob {
    /// The item's name in the plan.
    pub name: String,
    /// The data to back up.
    pub work: ItemSource,
}

/// The kind of data of an item, and its source.
#[derive(Debug)]
pub enum ItemSource {
    /// The resources of a cluster.
    Resources {
        /// The cluster.
        cluster: Box<Cluster>,
        /// The selection of resources.
        config: ResourcesConfig,
    },
    /// A database server.
    Database {
        /// The server and the connection to it.
        config: Box<DatabaseConfig>,
        /// Patterns of the databases to dump; empty for all.
        databases: Vec<Glob>,
    },
    /// A folder.
    Folder {
        /// The folder's path.
        path: PathBuf,
        /// Options of the walk, such as exclude patterns.
        options: VolumeOptions,
    },
}

impl ItemSource {
    /// Returns the kind of item, as snapshot bodies name it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Resources { .. } => "resources",
            Self::Database { .. } => "database",
            Self::Folder { .. } => "volume",
        }
    }

    /// Returns the name of the domain that holds the item's chunks.
    #[must_use]
    pub fn domain(&self, item: &str) -> String {
        match self {
            Self::Resources { .. } => "coordinator/resources".into(),
            Self::Database { .. } => "coordinator/databases".into(),
            Self::Folder { .. } => item.to_owned(),
        }
    }
}

/// A stream that its source has proven complete, and that no snapshot names yet.
#[derive(Debug)]
pub struct UnnamedStream {
    /// The stream's name within the item.
    pub name: String,
    /// The format of its bytes, such as `tar` or `jsonl`.
    pub format: String,
    /// The stream's chunks.
    pub pending: PendingStream,
    /// SHA-256 of all its bytes, if they were read in sequence.
    pub sha256: Option<ObjectHash>,
}

/// The result of one item.
#[derive(Debug, Default)]
pub struct ItemResult {
    /// The streams of the item.
    pub streams: Vec<UnnamedStream>,
    /// Data that could not be backed up.
    pub gaps: Vec<Gap>,
    /// Data left out by rule.
    pub notes: Vec<Gap>,
    /// Number of entries left out, by code.
    pub left_out: CountByCode,
    /// Facts about the source, by name.
    pub facts: BTreeMap<String, serde_json::Value>,
    /// One-line summary for people.
    pub summary: String,
}

impl ItemResult {
    /// Returns a result with these streams and without gaps.
    #[must_use]
    pub fn new(streams: Vec<UnnamedStream>) -> Self {
        Self { streams, ..Self::default() }
    }

    /// Adds a fact about the source.
    pub fn fact(&mut self, name: &str, value: impl Serialize) {
        self.facts.insert(name.to_owned(), serde_json::to_value(value).unwrap_or_default());
    }

    /// Returns a result without streams and with one gap.
    #[must_use]
    pub fn failed(code: &str, object: &str, reason: String) -> Self {
        let object = crate::format::name::Name::from(object);
        Self { gaps: vec![Gap { code: code.into(), object, reason }], ..Self::default() }
    }
}
