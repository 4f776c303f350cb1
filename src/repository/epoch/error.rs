//! The errors of creating or finding the epoch of a run, and their remedies.

use crate::format::container::ContainerError;
use crate::format::epoch::EpochError;
use crate::format::ids::EpochId;
use crate::format::wrap::WrapError;
use crate::keys::writer_key::WriterFileError;
use crate::store::StoreError;

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
    /// Encrypting to an owner failed.
    #[error("cannot encrypt the epoch's keys to {owner}")]
    Owner {
        /// The owner's name.
        owner: String,
        /// The cause.
        source: WrapError,
    },
    /// The new keys do not decrypt what they encrypt.
    #[error("the self-test of the new epoch's keys failed")]
    SelfTest(#[source] Option<ContainerError>),
    /// The stored object differs from the one that was put.
    #[error("{0} was stored, and reads back as something else")]
    ReadBack(String),
    /// The plan has an open epoch, but its secret is missing.
    #[error("the secret of epoch {epoch} is not in {keeper}")]
    SecretLost {
        /// The epoch.
        epoch: EpochId,
        /// The place where the secret was expected.
        keeper: String,
    },
    /// The epoch whose secret is kept is no longer valid.
    #[error("{object} is damaged, and so is its copy")]
    Damaged {
        /// The key of one of its copies.
        object: String,
        /// The cause.
        #[source]
        source: Box<EpochError>,
    },
    /// A newer kbak has written this plan.
    #[error("{0} was written by a newer kbak")]
    Newer(String, #[source] Box<EpochError>),
    /// The hand-over file cannot be used.
    #[error("the hand-over of an epoch cannot be used: {0}")]
    HandOver(&'static str),
}
