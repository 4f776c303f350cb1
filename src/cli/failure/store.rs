//! Errors of stores and of the pipeline as failures.

use std::error::Error as StdError;

use super::{Exit, Failure};
use crate::pipeline::PipelineError;
use crate::pipeline::ReadError;
use crate::report::error::next_cause;
use crate::store::operation::Operation;
use crate::store::{StoreError, StoreErrorKind};

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let (exit, remedy) = meaning(&error);
        let what = error.to_string();
        Self { source: error.source, ..Self::new(exit, what).remedy_if(remedy.unwrap_or_default()) }
    }
}

/// Returns the exit code and the remedy for a store's error.
#[must_use]
pub fn meaning(error: &StoreError) -> (Exit, Option<&'static str>) {
    use StoreErrorKind as Kind;
    let folder = error.store.starts_with("file://");
    let (exit, remedy) = match &error.kind {
        Kind::Denied(_) if folder => {
            (Exit::Usage, "give this user the right to the folder, or run kbak as another")
        }
        Kind::Denied(_) => (Exit::Usage, "give these credentials the right, or use others"),
        Kind::Credentials(_) => {
            (Exit::Usage, "check the credentials: --credentials-file, AWS_PROFILE, web identity")
        }
        Kind::Settings(_) => return (Exit::Usage, None),
        Kind::NoBucket if folder => {
            (Exit::Usage, "correct --repo, or mount what holds the folder; kbak init makes a new one")
        }
        Kind::NoBucket => (Exit::Usage, "create the bucket, or correct --repo"),
        Kind::Clock(_) => (Exit::Usage, "set this machine's clock (chrony, systemd-timesyncd)"),
        // The name of the object is the hash that its content should have.
        Kind::Corrupt(_) if error.operation == Operation::Put => (
            Exit::Damaged,
            "what lies there is damaged: move that object away (with credentials that may delete), and \
             run again to store it anew",
        ),
        Kind::Corrupt(_) | Kind::Protocol(_) | Kind::TooLarge { .. } | Kind::NotFound | Kind::NotAFile => {
            (Exit::Damaged, "kbak verify says what is damaged, and which snapshots are whole")
        }
        Kind::Full => (Exit::Unreachable, "free room in the store; running again resumes"),
        Kind::Transient(_) | Kind::RetriesExhausted { .. } | Kind::Other(_) if folder => {
            (Exit::Unreachable, "look at the disk that holds the folder, and run it again")
        }
        Kind::Transient(_) | Kind::RetriesExhausted { .. } | Kind::Other(_) => {
            (Exit::Unreachable, "check --repo, --endpoint and the network, and run it again")
        }
    };
    (exit, Some(remedy))
}

impl From<PipelineError> for Failure {
    fn from(error: PipelineError) -> Self {
        use PipelineError as Error;
        let exit = match error {
            Error::Store(error) => return error.into(),
            Error::Ended => Exit::Interrupted,
            Error::Spill(_) => Exit::Unreachable,
            Error::Container(_) | Error::Codec(_) | Error::Cache(_) | Error::Source(_) | Error::Bug(_) => {
                Exit::Bug
            }
        };
        Self::new(exit, "the stream could not be stored").because(error)
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(error) => error.into(),
            ReadError::Ended => Self::new(Exit::Interrupted, "the restore was interrupted"),
            ReadError::Spill(error) => Self::new(Exit::Unreachable, error.to_string()).because(error),
            damaged => Self::new(Exit::Damaged, "the backup is damaged here")
                .because(damaged)
                .remedy("kbak verify --read-all says what else is, and which snapshots are whole"),
        }
    }
}

/// Returns the exit code for the [`ReadError`] among the causes of `error`, if there is one.
#[must_use]
pub fn reading_outcome(error: &(dyn StdError + 'static)) -> Option<Exit> {
    let mut causes = std::iter::successors(Some(error), |cause| next_cause(*cause));
    Some(match causes.find_map(|cause| cause.downcast_ref::<ReadError>())? {
        ReadError::Store(error) => meaning(error).0,
        ReadError::Ended => Exit::Interrupted,
        ReadError::Spill(_) => Exit::Unreachable,
        _ => Exit::Damaged,
    })
}
