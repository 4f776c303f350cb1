//! Failures as people see them: what failed, on which object, why, and what to do.

pub mod render;

use std::error::Error;
use std::fmt;

/// Exit codes. Their meaning never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// All declared items are safe, or their gap is accepted in the plan.
    Safe = 0,
    /// A bug in kbak, or `diff` found differences.
    Bug = 1,
    /// Usage or configuration; `check` found problems.
    Usage = 2,
    /// Some declared item is not safe, or not restored; it is named.
    Partial = 3,
    /// Tampered or damaged data; a drill failed.
    Damaged = 4,
    /// The store or the cluster cannot be reached.
    Unreachable = 5,
    /// Interrupted: running again resumes.
    Interrupted = 6,
}

impl Exit {
    /// Returns the number that the process exits with.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// A failure with its four parts. Typed errors are converted to it at the edge of a use case.
#[derive(Debug)]
pub struct Failure {
    /// The exit code of the process.
    pub exit: Exit,
    /// The failed action and its object, in one line.
    pub what: String,
    /// Facts in the order of a small table: label and value.
    pub facts: Vec<(String, String)>,
    /// The remedy in one line, if there is one.
    pub remedy: Option<String>,
    /// The cause.
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    /// Creates a failure without cause, facts or remedy.
    #[must_use]
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), facts: Vec::new(), remedy: None, source: None }
    }

    /// Sets the remedy.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Adds a fact.
    #[must_use]
    pub fn fact(mut self, label: impl Into<String>, value: impl Into<String>) -> Self {
        self.facts.push((label.into(), value.into()));
        self
    }

    /// Sets the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Returns the causes, outermost first, one line each.
    #[must_use]
    pub fn causes(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut next: Option<&(dyn Error + 'static)> = self.source.as_deref().map(|e| e as _);
        while let Some(error) = next {
            let line = error.to_string();
            if lines.last() != Some(&line) {
                lines.push(line);
            }
            next = error.source();
        }
        lines
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}

/// Returns an error and its causes in one line.
#[must_use]
pub fn causes(error: &dyn Error) -> String {
    let mut lines = vec![error.to_string()];
    let mut next = error.source();
    while let Some(error) = next {
        let line = error.to_string();
        if lines.last() != Some(&line) {
            lines.push(line);
        }
        next = error.source();
    }
    lines.join(": ")
}

/// Returns the next cause. An I/O error that wraps another error gives that error's cause as its own, which
/// would hide the wrapped error.
#[must_use]
pub fn beneath<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

impl From<crate::store::StoreError> for Failure {
    fn from(error: crate::store::StoreError) -> Self {
        let (exit, remedy) = meaning(&error);
        let mut failure = Self::new(exit, error.to_string());
        failure.remedy = remedy.map(str::to_owned);
        failure.source = error.source;
        failure
    }
}

/// Returns the exit code and the remedy for a store's error.
#[must_use]
pub fn meaning(error: &crate::store::StoreError) -> (Exit, Option<&'static str>) {
    use crate::store::StoreErrorKind as Kind;
    let folder = error.store.starts_with("file://");
    let damaged = "kbak verify says what is damaged, and which snapshots are whole";
    match &error.kind {
        Kind::Denied(_) if folder => {
            (Exit::Usage, Some("give this user the right to the folder, or run kbak as another"))
        }
        Kind::Denied(_) => (Exit::Usage, Some("give these credentials the right, or use others")),
        Kind::Credentials(_) => {
            (Exit::Usage, Some("check the credentials: --credentials-file, AWS_PROFILE, web identity"))
        }
        Kind::Settings(_) => (Exit::Usage, None),
        Kind::NoBucket if folder => {
            (Exit::Usage, Some("correct --repo, or mount what holds the folder; kbak init makes a new one"))
        }
        Kind::NoBucket => (Exit::Usage, Some("create the bucket, or correct --repo")),
        Kind::Clock(_) => (Exit::Usage, Some("set this machine's clock (chrony, systemd-timesyncd)")),
        Kind::Corrupt(_) if error.operation == crate::store::operation::Operation::Put => (
            Exit::Damaged,
            // The name of the object is the hash that its content should have.
            Some(
                "what lies there is damaged: move that object away (with credentials that may delete), and \
                     run again to store it anew",
            ),
        ),
        Kind::Corrupt(_) | Kind::Protocol(_) | Kind::TooLarge { .. } | Kind::NotFound | Kind::NotAFile => {
            (Exit::Damaged, Some(damaged))
        }
        Kind::Full => (Exit::Unreachable, Some("free room in the store; running again resumes")),
        Kind::Transient(_) | Kind::GaveUp { .. } | Kind::Other(_) if folder => {
            (Exit::Unreachable, Some("look at the disk that holds the folder, and run it again"))
        }
        Kind::Transient(_) | Kind::GaveUp { .. } | Kind::Other(_) => {
            (Exit::Unreachable, Some("check --repo, --endpoint and the network, and run it again"))
        }
    }
}

impl From<crate::pipeline::PipelineError> for Failure {
    fn from(error: crate::pipeline::PipelineError) -> Self {
        use crate::pipeline::PipelineError as Error;
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

impl From<crate::repository::write::commit::CommitError> for Failure {
    fn from(error: crate::repository::write::commit::CommitError) -> Self {
        use crate::repository::write::commit::CommitError as Error;
        let (exit, remedy) = match error {
            Error::Store(error) => return error.into(),
            Error::Body(_) | Error::State(_) | Error::Manifest(_) => (Exit::Bug, None),
            Error::Unstored { .. } => (
                Exit::Damaged,
                Some(
                    "if it was damaged before (kbak verify names it), move it away and run again; if not, this \
                     store loses what it acknowledges: do not trust it with backups",
                ),
            ),
            Error::Lost(_) => (
                Exit::Damaged,
                Some(
                    "this store loses what it acknowledges: do not trust it with backups; run again to store anew",
                ),
            ),
            Error::TooLate { .. } => {
                (Exit::Partial, Some("run again; raise epoch.maxRun if runs take this long"))
            }
        };
        let mut failure = Self::new(exit, "the snapshot was not committed").because(error);
        failure.remedy = remedy.map(str::to_owned);
        failure
    }
}
