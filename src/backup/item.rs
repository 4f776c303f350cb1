//! One item of a run: what is to be done, and what came of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::volume::Tally;
use crate::format::body::Gap;
use crate::format::ids::ObjectHash;
use crate::pipeline::stream::PendingStream;
use crate::plan::Glob;
use crate::source::database::DatabaseConfig;
use crate::source::kubernetes::{Cluster, ResourcesConfig};
use crate::source::volume::VolumeOptions;

/// Something a plan declares.
#[derive(Debug)]
pub struct ItemJob {
    /// Its name in the plan.
    pub name: String,
    /// What to do.
    pub work: Work,
}

/// What to do for an item.
#[derive(Debug)]
pub enum Work {
    /// The resources of a cluster.
    Resources {
        /// Which cluster.
        cluster: Box<Cluster>,
        /// Which of them.
        config: ResourcesConfig,
    },
    /// A database server.
    Database {
        /// Which.
        config: Box<DatabaseConfig>,
        /// Which databases of it.
        databases: Vec<Glob>,
    },
    /// A folder.
    Folder {
        /// Where.
        path: PathBuf,
        /// How.
        options: VolumeOptions,
    },
}

impl Work {
    /// The kind that bodies name.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Resources { .. } => "resources",
            Self::Database { .. } => "database",
            Self::Folder { .. } => "volume",
        }
    }

    /// The domain that its chunks go to.
    #[must_use]
    pub fn domain(&self, item: &str) -> String {
        match self {
            Self::Resources { .. } => "coordinator/resources".into(),
            Self::Database { .. } => "coordinator/databases".into(),
            Self::Folder { .. } => item.to_owned(),
        }
    }
}

/// A stream that is whole, as its source has proven, and not yet named.
#[derive(Debug)]
pub struct StreamDraft {
    /// Its name within the item.
    pub name: String,
    /// What its bytes are.
    pub format: String,
    /// Its chunks.
    pub pending: PendingStream,
    /// SHA-256 of its bytes, where they passed by in one piece.
    pub sha256: Option<ObjectHash>,
}

/// What came of an item.
#[derive(Debug, Default)]
pub struct Finished {
    /// Its streams.
    pub streams: Vec<StreamDraft>,
    /// What is not safe.
    pub gaps: Vec<Gap>,
    /// What was left out by rule.
    pub notes: Vec<Gap>,
    /// How much of it, by code.
    pub left_out: Tally,
    /// Facts of its source.
    pub facts: BTreeMap<String, serde_json::Value>,
    /// One line for people.
    pub summary: String,
}

impl Finished {
    /// With these streams, without gaps.
    #[must_use]
    pub fn new(streams: Vec<StreamDraft>) -> Self {
        Self { streams, ..Self::default() }
    }

    /// Adds a fact.
    pub fn fact(&mut self, name: &str, value: impl Serialize) {
        self.facts.insert(name.to_owned(), serde_json::to_value(value).unwrap_or_default());
    }

    /// Nothing, for this reason.
    #[must_use]
    pub fn failed(code: &str, object: &str, reason: String) -> Self {
        let object = crate::format::name::Name::from(object);
        Self { gaps: vec![Gap { code: code.into(), object, reason }], ..Self::default() }
    }
}
