//! Failures as people see them: what failed, on which object, why, and what to do.

mod inputs;
pub mod render;
mod repository;
mod restore;
mod store;
mod use_cases;

use std::error::Error;
use std::fmt;

use crate::report::error::cause_lines;
pub use crate::report::outcome::Outcome as Exit;
use crate::report::run::FailureReport;

pub use use_cases::explained;

impl Exit {
    /// Returns the exit code of the process.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Safe => 0,
            Self::Bug => 1,
            Self::Usage => 2,
            Self::Partial => 3,
            Self::Damaged => 4,
            Self::Unreachable => 5,
            Self::Interrupted => 6,
        }
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

    /// Creates a failure of wrong usage or input.
    #[must_use]
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what)
    }

    /// Sets the remedy.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Sets the remedy, if there is one: an empty text is none.
    #[must_use]
    pub fn remedy_if(mut self, remedy: &str) -> Self {
        self.remedy = (!remedy.is_empty()).then(|| remedy.to_owned());
        self
    }

    /// Adds a fact.
    #[must_use]
    pub fn fact(mut self, label: impl Into<String>, value: impl Into<String>) -> Self {
        self.facts.push((label.into(), value.into()));
        self
    }

    /// Adds facts.
    #[must_use]
    pub fn facts(mut self, facts: impl IntoIterator<Item = (String, String)>) -> Self {
        self.facts.extend(facts);
        self
    }

    /// Sets the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Returns the causes, outermost first, one line each.
    pub fn causes(&self) -> Vec<String> {
        cause_lines(self.source.as_deref().map(|error| error as &dyn Error))
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

impl From<&Failure> for FailureReport {
    fn from(failure: &Failure) -> Self {
        Self {
            exit: failure.exit,
            code: failure.exit.code(),
            what: failure.what.clone(),
            facts: failure.facts.clone(),
            causes: failure.causes(),
            remedy: failure.remedy.clone(),
        }
    }
}
