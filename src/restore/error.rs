//! The errors of restoring a stream.

use std::io;
use std::path::PathBuf;

use crate::format::tar::parse::ParseError;
use crate::pipeline::ReadError;
use crate::report::item_state::ItemState;
use crate::repository::read::snapshot::SnapshotError;
use crate::target::volume::TargetError;

/// An error while restoring a stream.
#[derive(Debug, thiserror::Error)]
pub enum RestoreStreamError {
    /// The stream cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The snapshot cannot be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The stream is malformed.
    #[error("the stream is not one that kbak writes")]
    Malformed(#[from] ParseError),
    /// The stream is not whole.
    #[error("the stream stopped before its end")]
    Truncated,
    /// A hard link leads to an entry that is not a file.
    #[error("{0} is a further name of something that is no file")]
    LinkToNoFile(String),
    /// The target folder failed.
    #[error("cannot restore into the folder")]
    Target(#[from] TargetError),
    /// The target folder cannot be created.
    #[error("{}: the target cannot be made", path.display())]
    CreateTarget {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// None of the selected paths is in the snapshot.
    #[error("the snapshot holds nothing at {}", .0.join(", "))]
    NothingAt(Vec<String>),
    /// The output cannot be written.
    #[error("cannot write the output")]
    Output(#[source] io::Error),
    /// The snapshot holds no resources, because their backup failed.
    #[error("this snapshot holds nothing of {item}")]
    NoResources {
        /// The item.
        item: String,
        /// The reason of its first gap; empty if there is none.
        why: String,
    },
    /// The list of kinds cannot be read.
    #[error("the snapshot does not say which kinds it holds")]
    Kinds(#[source] serde_json::Error),
    /// The stream of a kind is missing.
    #[error("{item}: it says that it holds {stream}, and does not")]
    KindMissing {
        /// The item.
        item: String,
        /// The stream.
        stream: String,
    },
    /// The item has no stream.
    #[error("{item} has no data in this snapshot")]
    NoData {
        /// The item.
        item: String,
        /// Its state.
        state: ItemState,
    },
    /// The item has several streams.
    #[error("{item} has {count} streams")]
    SeveralStreams {
        /// The item.
        item: String,
        /// Their number.
        count: usize,
    },
}
