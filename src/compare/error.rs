//! The errors that end a comparison.

use crate::format::tar::parse::ParseError;
use crate::kubernetes::ApiError;
use crate::pipeline::ReadError;
use crate::repository::read::snapshot::SnapshotError;

/// An error that ends a comparison.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// The snapshot holds no resources.
    #[error("the snapshot holds no resources of a cluster")]
    NoResources,
    /// The cluster cannot be read.
    #[error("the cluster cannot be read")]
    Cluster(#[source] ApiError),
    /// A stream cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The snapshot cannot be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A catalog contradicts its stream.
    #[error("{0}")]
    Catalog(&'static str),
    /// A stream is malformed.
    #[error("the stream is not one that kbak writes")]
    Stream(#[from] ParseError),
    /// A member or an item cannot be compared.
    #[error("{label} {value}")]
    At {
        /// `path` or `item`.
        label: &'static str,
        /// The name of the member or the item.
        value: String,
        /// The cause.
        source: Box<CompareError>,
    },
    /// The receiver of the differences failed.
    #[error(transparent)]
    Output(Box<dyn std::error::Error + Send + Sync>),
}

impl CompareError {
    /// Adds the member or the item that could not be compared.
    #[must_use]
    pub fn at(self, label: &'static str, value: &str) -> Self {
        Self::At { label, value: value.to_owned(), source: Box::new(self) }
    }
}
