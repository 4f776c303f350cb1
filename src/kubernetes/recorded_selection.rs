//! The selection of a backup as its snapshot records it, for comparisons with the cluster afterwards.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{KindInfo, Selection};
use crate::plan::{Glob, GlobError};

/// The part of a cluster that a backup selected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordedSelection {
    /// Patterns of the namespaces.
    namespaces: Vec<String>,
    /// Patterns of excluded namespaces.
    exclude_namespaces: Vec<String>,
    /// The label selector.
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<String>,
    /// The kinds of which only the objects were read that others need, as their streams are named.
    on_demand: BTreeSet<String>,
}

impl RecordedSelection {
    /// Records the selection of a backup that read these kinds.
    pub fn of<'a>(selection: &Selection, kinds: impl Iterator<Item = &'a KindInfo>) -> Self {
        let texts = |globs: &[Glob]| globs.iter().map(|glob| glob.as_str().to_owned()).collect();
        let on_demand = kinds.filter(|kind| selection.is_read_on_demand(kind));
        Self {
            namespaces: texts(&selection.namespaces),
            exclude_namespaces: texts(&selection.exclude_namespaces),
            labels: selection.labels.clone(),
            on_demand: on_demand.map(KindInfo::stream_name).collect(),
        }
    }

    /// Returns the label selector with which the objects of a kind were read.
    #[must_use]
    pub fn labels_for(&self, kind: &KindInfo) -> Option<&str> {
        self.labels.as_deref().filter(|_| !self.is_on_demand(kind))
    }

    /// Returns true if only the objects of a kind were read that others need.
    #[must_use]
    pub fn is_on_demand(&self, kind: &KindInfo) -> bool {
        self.on_demand.contains(&kind.stream_name())
    }

    /// Returns the namespaces that were selected.
    ///
    /// # Errors
    /// [`GlobError`] for a pattern that this version does not know.
    pub fn namespaces(&self) -> Result<SelectedNamespaces, GlobError> {
        let (include, exclude) =
            (Glob::parse_all(&self.namespaces)?, Glob::parse_all(&self.exclude_namespaces)?);
        Ok(SelectedNamespaces { include, exclude })
    }
}

/// Patterns of the namespaces that a backup selected.
#[derive(Debug, Clone)]
pub struct SelectedNamespaces {
    include: Vec<Glob>,
    exclude: Vec<Glob>,
}

impl SelectedNamespaces {
    /// Returns true for a selected namespace. Snapshots of older versions do not record the patterns: then for all.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        let any = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(name));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }
}
