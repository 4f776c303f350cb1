//! Errors of stores and of the pipeline as failures.

use super::{Exit, Failure};
use crate::pipeline::PipelineError;
use crate::pipeline::ReadError;
use crate::store::operation::Operation;
use crate::store::{StoreError, StoreErrorKind};

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let mut failure = Self::new(error.outcome(), error.to_string());
        failure.remedy = remedy(&error).map(str::to_owned);
        failure.source = error.source;
        failure
    }
}

/// Returns the remedy for a store's error, if there is one.
#[must_use]
pub fn remedy(error: &StoreError) -> Option<&'static str> {
    use StoreErrorKind as Kind;
    let folder = error.store.starts_with("file://");
    Some(match &error.kind {
        Kind::Denied(_) if folder => "give this user the right to the folder, or run kbak as another",
        Kind::Denied(_) => "give these credentials the right, or use others",
        Kind::Credentials(_) => "check the credentials: --credentials-file, AWS_PROFILE, web identity",
        Kind::CredentialsFile(_) => {
            "check --credentials-file; in a pod, the file is a key of the Secret that the pod mounts at its \
             folder: kubectl describe pod names the Secret, kubectl describe secret its keys"
        }
        Kind::Settings(_) => return None,
        Kind::NoBucket if folder => {
            "correct --repo, or mount what holds the folder; kbak init makes a new one"
        }
        Kind::NoBucket => "create the bucket, or correct --repo",
        Kind::Clock(_) => "set this machine's clock (chrony, systemd-timesyncd)",
        // The name of the object is the hash that its content should have.
        Kind::Corrupt(_) if error.operation == Operation::Put => {
            "what lies there is damaged: move that object away (with credentials that may delete), and run \
             again to store it anew"
        }
        Kind::Corrupt(_) | Kind::Protocol(_) | Kind::TooLarge { .. } | Kind::NotFound | Kind::NotAFile => {
            "kbak verify says what is damaged, and which snapshots are whole"
        }
        Kind::Flooded { .. } => {
            "if its owner did not put them there, the key was stolen: an owner revokes it with kbak keys cut-off \
             (docs/keys.md), and then they count no more"
        }
        Kind::Full => "free room in the store; running again resumes",
        Kind::Transient(_) | Kind::RetriesExhausted { .. } | Kind::Other(_) if folder => {
            "look at the disk that holds the folder, and run it again"
        }
        Kind::Transient(_) | Kind::RetriesExhausted { .. } | Kind::Other(_) => {
            "check --repo, --endpoint and the network, and run it again"
        }
    })
}

impl From<PipelineError> for Failure {
    fn from(error: PipelineError) -> Self {
        use PipelineError as Error;
        let exit = match error {
            Error::Store(error) => return error.into(),
            Error::Ended => Exit::Interrupted,
            Error::Spill(_) => Exit::Unreachable,
            Error::Container(_)
            | Error::Codec(_)
            | Error::Index(_)
            | Error::Cache(_)
            | Error::Source(_)
            | Error::Bug(_) => Exit::Bug,
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
