//! The errors of creating or finding the epoch of a run, and their remedies.

use crate::cli::failure::{Exit, Failure};
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

impl From<CreateEpochError> for Failure {
    fn from(error: CreateEpochError) -> Self {
        let (exit, remedy) = match error {
            CreateEpochError::Store(error) => return error.into(),
            CreateEpochError::Writer(error) => return error.into(),
            CreateEpochError::SecretLost { .. } => (
                Exit::Usage,
                Some(
                    "bring the file back, or open a new epoch with --new-epoch (everything is read and stored anew)",
                ),
            ),
            CreateEpochError::Damaged { .. } => (
                Exit::Damaged,
                Some(
                    "bring back its older version, if the bucket keeps versions: without it no snapshot of this \
                     epoch can be read; --new-epoch goes on without it",
                ),
            ),
            CreateEpochError::Newer(..) => {
                (Exit::Usage, Some("use the version of kbak that wrote it, or a later one"))
            }
            CreateEpochError::Owners(_) => (
                Exit::Usage,
                Some("name the owners of before as well; --change-owners begins an epoch for these alone"),
            ),
            CreateEpochError::NoOwners => (Exit::Usage, Some("give --recipient, or recipients: in the plan")),
            CreateEpochError::Owner { .. } => {
                (Exit::Usage, Some("check the recipient; a plugin must be on PATH"))
            }
            CreateEpochError::HandOver(_) => (Exit::Usage, Some("make it anew: kbak epoch new --outside")),
            CreateEpochError::ReadBack(_) => (Exit::Damaged, None),
            CreateEpochError::Epoch(_) => (Exit::Damaged, None),
            CreateEpochError::SelfTest(_) => (Exit::Bug, None),
        };
        let mut failure = Self::new(exit, "no epoch to write into").because(error);
        failure.remedy = remedy.map(str::to_owned);
        failure
    }
}
