//! Errors of the use cases as failures.

use std::error::Error as _;

use super::{Exit, Failure};
use crate::backup::error::{BackupError, JobError};
use crate::check::{CheckError, Finding};
use crate::compare::CompareError;
use crate::kubernetes::ApiError;
use crate::report::error::causes;
use crate::verify::DistrustError;

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        use BackupError as Error;
        let what = error.to_string();
        let usage = Self::usage(what.clone());
        match error {
            Error::Store(error) => error.into(),
            Error::Repository(error) => error.into(),
            Error::Epoch(error) => error.into(),
            Error::Writer(error) => error.into(),
            Error::Pipeline(error) => error.into(),
            Error::Commit(error) => error.into(),
            Error::Resources(error) => Self::new(Exit::Unreachable, what).because(error),
            Error::EpochGone => Self::new(Exit::Unreachable, what),
            Error::Interrupted => {
                Self::new(Exit::Interrupted, what).remedy("run it again: what was stored is reused")
            }
            Error::NoItems => {
                usage.remedy("name resources, a database or a volume in it, or use --path, --database, --resources")
            }
            Error::WriterCutOff { why } => usage
                .fact("why", why)
                .remedy("give the writer a new key (docs/keys.md), and find out who had this one"),
            Error::NotThisWriters { writer, .. } => usage.fact("writer", writer.to_string()).remedy(
                "is this the right repository, and is it whole? kbak init --join makes a writer for another one; \
                 --new-epoch starts over in this one",
            ),
            Error::NumbersExhausted { .. } => Self::new(Exit::Damaged, what).remedy(
                "somebody with the writer's key made it: an owner revokes that key (kbak keys cut-off), and the \
                 writer gets a new one (docs/keys.md)",
            ),
            Error::Newer { .. } => usage.remedy("use the version of kbak that wrote it, or a later one"),
            Error::Clock { store, machine } => usage
                .fact("store", store.to_string())
                .fact("this machine", machine.to_string())
                .remedy("set this machine's clock (chrony, systemd-timesyncd)"),
        }
    }
}

impl From<DistrustError> for Failure {
    fn from(error: DistrustError) -> Self {
        let what = error.to_string();
        match error {
            DistrustError::Repository(error) => error.into(),
            DistrustError::Put(error) => error.into(),
            DistrustError::Store(error) => error.into(),
            DistrustError::NotPinned(_) => {
                Self::usage(what).remedy("give the writer.key of a writer in --signer")
            }
            DistrustError::Sign(error) => Self::new(Exit::Bug, what).because(error),
        }
    }
}

impl From<CompareError> for Failure {
    fn from(error: CompareError) -> Self {
        let what = error.to_string();
        match error {
            CompareError::Read(error) => error.into(),
            CompareError::Snapshot(error) => error.into(),
            CompareError::At { label, value, source } => Self::from(*source).fact(label, value),
            CompareError::NoResources => {
                Self::usage(what).remedy("name a snapshot of a plan with resources:")
            }
            CompareError::Cluster(error) => {
                let exit = if error.code().is_some() { Exit::Usage } else { Exit::Unreachable };
                Self::new(exit, what).because(error)
            }
            CompareError::Catalog(_) => Self::new(Exit::Damaged, what),
            CompareError::Stream(error) => Self::new(Exit::Damaged, what).because(error),
            // What receives the differences is the command line itself.
            CompareError::Output(error) => match error.downcast::<Self>() {
                Ok(failure) => *failure,
                Err(other) => Self::usage(what).because(other),
            },
        }
    }
}

impl From<JobError> for Failure {
    fn from(error: JobError) -> Self {
        match error {
            JobError::Access(error) => error.into(),
            other => {
                let what = other.to_string();
                Self {
                    source: other.source().map(|cause| causes(cause).into()),
                    ..Self::new(Exit::Usage, what)
                }
            }
        }
    }
}

/// An error before the first request to a cluster.
impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::new(Exit::Usage, "there is no access to a cluster")
            .because(error)
            .remedy("give --kubeconfig or --context, or cluster: in the plan; in a pod, a ServiceAccount")
    }
}

impl From<CheckError> for Failure {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::Store(error) => error.into(),
            CheckError::Writer(error) => error.into(),
        }
    }
}

/// Gives a finding the text and the remedy of its error. Causes and facts go into its line.
#[must_use]
pub fn explained(mut finding: Finding) -> Finding {
    if let Some(failure) = finding.error.take().map(Failure::from) {
        finding.what = causes(&failure);
        for (label, value) in &failure.facts {
            finding.what.push_str(&format!("; {label} {value}"));
        }
        finding.remedy = failure.remedy;
    }
    finding
}
