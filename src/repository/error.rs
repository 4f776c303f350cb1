//! The errors of opening, reading and creating a repository.

use crate::format::ids::{NameId, WriterId};
use crate::format::{layout, marker::WrongMarker, wrap::WrapError};
use crate::keys::private_file::FileError;
use crate::pipeline::ReadError;
use crate::repository::read::snapshot::SnapshotError;
use crate::repository::{epoch::error::CreateEpochError, epoch::wraps::KeysError};
use crate::store::StoreError;

/// An error while opening or reading a repository.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// The store returned an error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stream cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The keys of an epoch cannot be opened.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The snapshot cannot be read.
    #[error("the snapshot cannot be read")]
    Snapshot(#[from] SnapshotError),
    /// The marker's content is wrong.
    #[error("{} in {store} is damaged", layout::marker())]
    MarkerDamaged {
        /// The store, without credentials.
        store: String,
        /// The cause.
        source: WrongMarker,
    },
    /// The marker is missing in this store, though a pinned writer's folder exists.
    #[error("{marker} is gone from {0}", marker = layout::marker())]
    MarkerGone(String),
    /// This store holds no repository.
    #[error("there is no kbak repository in {0}")]
    NoRepository(String),
    /// Only writers that are not pinned have stored data.
    #[error("no writer in {store} is pinned with --signer")]
    OtherWriters {
        /// The store, without credentials.
        store: String,
        /// The writers with a folder in the store.
        found: Vec<WriterId>,
        /// The pinned writers.
        pinned: Vec<WriterId>,
    },
    /// The pin names no writer.
    #[error("no writer is pinned")]
    NoSigner,
    /// No plan of a pinned writer has the selected ids.
    #[error("no plan of a pinned writer in {store} is meant")]
    NoPlan {
        /// The store, without credentials.
        store: String,
        /// The first digits of the writer's id, if given.
        writer: Option<String>,
        /// The first digits of the plan's id, if given.
        plan: Option<String>,
    },
    /// No snapshot matches, and an object that could be it has no valid signature.
    #[error("no snapshot {snapshot} that a pinned key signed")]
    NotSigned {
        /// The selector.
        snapshot: String,
        /// The first rejected object and the reason.
        rejected: (String, String),
    },
    /// No snapshot matches.
    #[error("no snapshot {snapshot} in {store}")]
    NotFound {
        /// The selector.
        snapshot: String,
        /// The store, without credentials.
        store: String,
        /// The number of readable snapshots.
        count: usize,
        /// The first epoch that was rejected, and the reason.
        rejected: Option<(String, String)>,
    },
    /// Several snapshots match.
    #[error("{} snapshots could be meant by {snapshot}", found.len())]
    Ambiguous {
        /// The selector.
        snapshot: String,
        /// Their sequences and times, and what tells them apart.
        found: Vec<(String, String)>,
        /// The first digits of the hash of one of them, if only hashes tell them apart: they are of one plan of
        /// one writer.
        by_hash: Option<String>,
    },
    /// `latest` is older than something that is damaged.
    #[error("snapshot {seq:06} is the newest that counts, and something newer lies there")]
    NewerDamaged {
        /// The newest snapshot that can be read.
        seq: u64,
        /// The time at which it finished.
        finished: String,
        /// The damaged objects, each with the reason.
        damaged: Vec<(String, String)>,
    },
    /// The snapshots of a plan cannot be read.
    #[error("{message}")]
    Unreadable {
        /// The request that cannot be answered.
        message: String,
        /// The invalid objects, each with the reason.
        objects: Vec<(String, String)>,
        /// The one plan that can be read, if `latest` was asked for.
        readable: Option<NameId>,
    },
    /// The epoch of a snapshot, with this epoch.json, is missing or damaged.
    #[error("{0}, the epoch of this snapshot, is gone or damaged")]
    EpochGone(String),
}

/// An error while creating a repository.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The store returned an error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The first epoch cannot be created.
    #[error(transparent)]
    Epoch(#[from] CreateEpochError),
    /// Encrypting to an owner failed.
    #[error("cannot encrypt to owner {owner}")]
    Encrypt {
        /// The owner's name.
        owner: String,
        /// The cause.
        source: WrapError,
    },
    /// An identity could not be used.
    #[error("{identity} could not answer its challenge")]
    Challenge {
        /// The identity's label.
        identity: String,
        /// The cause.
        source: WrapError,
    },
    /// An identity belongs to no owner.
    #[error("{identity} opens the challenge of no owner")]
    NotAnOwner {
        /// The identity's label.
        identity: String,
        /// The recipients that it is the key of.
        recipients: Vec<String>,
    },
    /// Two owners have the same recipient.
    #[error("one recipient stands twice: two owners need two keys")]
    SameOwnerTwice,
    /// There are no owners.
    #[error("a repository without owners could be read by nobody")]
    NoOwners,
    /// There is one owner only, and this was not confirmed.
    #[error("one owner only: who loses that key loses every backup")]
    OneOwner,
    /// There is no repository to join in this store.
    #[error("{0} holds no repository to join")]
    NothingToJoin(String),
    /// There is a repository in this store.
    #[error("{0} holds a repository already")]
    Exists(String),
    /// The marker's content is wrong.
    #[error("{store} is not a repository of kbak")]
    NotARepository {
        /// The store, without credentials.
        store: String,
        /// The cause.
        source: WrongMarker,
    },
    /// The marker differs when read back.
    #[error("the marker reads back as something else")]
    MarkerReadBack(#[source] WrongMarker),
    /// The recovery sheet cannot be rendered.
    #[error("the recovery sheet cannot be made")]
    Sheet(#[from] askama::Error),
}
