//! The errors of creating or finding the epoch of a run, and their remedies.

use crate::format::{container::ContainerError, epoch::EpochError, ids::EpochId, wrap::WrapError};
use crate::keys::writer_key::WriterFileError;
use crate::store::StoreError;
use jiff::Timestamp;

/// The result of a step of creating or finding an epoch.
pub(super) type Result<T, E = CreateEpochError> = std::result::Result<T, E>;

/// An error while creating or finding the epoch of a run.
#[derive(Debug, thiserror::Error)]
pub enum CreateEpochError {
    /// The store returned an error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The writer's key files cannot be used.
    #[error(transparent)]
    Writer(#[from] WriterFileError),
    /// The document epoch.json is not valid.
    #[error(transparent)]
    Epoch(#[from] EpochError),
    /// A new epoch would have too few owners, or only owners who could not decrypt the last one.
    #[error("{0}")]
    Owners(String),
    /// The plan names no owners, so nobody could read its backups.
    #[error("the plan names no recipients: nobody could read the backup")]
    NoOwners,
    /// Encrypting to the owner of this name failed.
    #[error("cannot encrypt the epoch's keys to {0}")]
    Owner(String, #[source] WrapError),
    /// The new keys do not decrypt what they encrypt.
    #[error("the self-test of the new epoch's keys failed")]
    SelfTest(#[source] Option<ContainerError>),
    /// The stored object differs from the one that was put.
    #[error("{0} was stored, and reads back as something else")]
    ReadBack(String),
    /// The plan has an open epoch, but its secret is missing in this place.
    #[error("the secret of epoch {epoch} is not in {keeper}")]
    SecretLost {
        /// The newest open epoch.
        epoch: EpochId,
        /// The place that keeps secrets.
        keeper: String,
        /// The fingerprint of the key that signed the epoch: this writer's.
        signer: String,
        /// The time at which the store received the epoch.
        stored: Timestamp,
    },
    /// The epoch whose secret is kept is no longer valid. Holds the key of one of its copies.
    #[error("{0} is damaged, and so is its copy")]
    Damaged(String, #[source] Box<EpochError>),
    /// A newer kbak has written this plan.
    #[error("{0} was written by a newer kbak")]
    Newer(String, #[source] Box<EpochError>),
    /// The hand-over file cannot be used.
    #[error("the hand-over of an epoch cannot be used: {0}")]
    HandOver(&'static str),
}
