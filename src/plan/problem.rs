//! What is wrong with a plan: where, what, and what to do about it.

use std::fmt;

use serde::Serialize;

use crate::report::failure::{Exit, Failure};

/// A place in a plan's text, both counted from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in it.
    pub column: usize,
}

impl Position {
    /// The position of byte `at` of `text`.
    #[must_use]
    pub fn of(text: &str, at: usize) -> Self {
        let before = &text[..text.floor_char_boundary(at)];
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self { line, column: before[start..].chars().count() + 1 }
    }
}

/// What kind of problem it is, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// The text is not YAML, or holds a value of the wrong type.
    Syntax,
    /// No such field.
    UnknownField,
    /// A field that must be there is not.
    MissingField,
    /// A value that cannot be.
    BadValue,
    /// A private key stands in the plan.
    PrivateKey,
    /// The plan selects nothing.
    Empty,
    /// Two items have one name.
    Duplicate,
    /// Two settings exclude each other.
    Contradiction,
    /// A right plan, which this version cannot carry out.
    NotYet,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Its kind.
    pub kind: ProblemKind,
    /// Where in the text, if there is a text.
    pub at: Option<Position>,
    /// The field: `spec.databases[1].name`; empty for the plan as a whole.
    pub field: String,
    /// What is wrong, in one line. Never a secret.
    pub message: String,
    /// What to do.
    pub remedy: Option<String>,
    /// Whether the plan is refused for it. A problem that only another verb will meet is a warning.
    pub refused: bool,
}

impl Problem {
    /// A problem for which the plan is refused.
    #[must_use]
    pub fn new(kind: ProblemKind, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind, at: None, field: field.into(), message: message.into(), remedy: None, refused: true }
    }

    /// With what to do.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// With its place.
    #[must_use]
    pub fn at(mut self, at: Option<Position>) -> Self {
        self.at = at;
        self
    }

    /// As a warning.
    #[must_use]
    pub fn warning(mut self) -> Self {
        self.refused = false;
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = self.at {
            write!(f, "line {}, column {}: ", at.line, at.column)?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// A plan that is refused: everything that is wrong with it, in the order of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanError {
    /// The problems; at least one.
    pub problems: Vec<Problem>,
}

impl From<Problem> for PlanError {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [one] => one.fmt(f),
            many => {
                write!(f, "{} problems", many.len())?;
                many.iter().try_for_each(|problem| write!(f, "; {problem}"))
            }
        }
    }
}

impl std::error::Error for PlanError {}

impl PlanError {
    /// As a failure of the plan that people know as `name` (a file, or `the command line`).
    #[must_use]
    pub fn failure(&self, name: &str) -> Failure {
        let (what, remedy) = match self.problems.as_slice() {
            // An argument is its own field: it is named once.
            [one] if one.at.is_none() && one.field == name => (one.to_string(), one.remedy.clone()),
            [one] => (format!("{name}: {one}"), one.remedy.clone()),
            many => (format!("{name}: {} problems", many.len()), None),
        };
        let mut failure = Failure::new(Exit::Usage, what);
        failure.remedy = remedy;
        if self.problems.len() > 1 {
            for problem in &self.problems {
                let place = problem.at.map_or_else(String::new, |at| format!("{}:{}", at.line, at.column));
                let field =
                    if problem.field.is_empty() { String::new() } else { format!("{}: ", problem.field) };
                failure = failure.fact(place, format!("{field}{}", problem.message));
                if let Some(remedy) = &problem.remedy {
                    failure = failure.fact("", format!("→ {remedy}"));
                }
            }
        }
        failure
    }
}
