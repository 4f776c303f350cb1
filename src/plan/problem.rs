//! Problems of a plan, each with position, message and remedy.

use std::fmt;

use serde::Serialize;

/// A position in a plan's text. Lines and columns count from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    /// The line, from 1.
    pub line: usize,
    /// The column, in characters, from 1.
    pub column: usize,
}

impl Position {
    /// Returns the position of byte `at` of `text`.
    #[must_use]
    pub fn of(text: &str, at: usize) -> Self {
        let before = &text[..text.floor_char_boundary(at)];
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self { line, column: before[start..].chars().count() + 1 }
    }
}

/// The kind of a problem, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// The text is too long, is not YAML, or holds several documents.
    Syntax,
    /// A field that does not exist.
    UnknownField,
    /// A required field is missing.
    MissingField,
    /// A value that is not allowed.
    BadValue,
    /// The plan contains a private key.
    PrivateKey,
    /// The plan, or a part of it, selects nothing.
    Empty,
    /// A field, an item or a recipient occurs twice.
    Duplicate,
    /// Two settings exclude each other.
    Contradiction,
    /// A valid plan that this version does not support yet.
    NotYet,
}

/// A problem of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The kind, for programs.
    pub kind: ProblemKind,
    /// The position in the text, if there is a text.
    pub at: Option<Position>,
    /// The field: `spec.databases[1].name`; empty for the plan as a whole.
    pub field: String,
    /// The problem in one line. It never contains a secret.
    pub message: String,
    /// The remedy, if there is one.
    pub remedy: Option<String>,
    /// `true` if the plan is rejected for it; `false` for a warning, which only another verb will meet.
    pub refused: bool,
}

impl Problem {
    /// Creates a problem for which the plan is rejected.
    #[must_use]
    pub fn new(kind: ProblemKind, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind, at: None, field: field.into(), message: message.into(), remedy: None, refused: true }
    }

    /// Sets the remedy.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Sets the remedy of a problem that is already listed.
    pub(super) fn set_remedy(&mut self, remedy: impl Into<String>) {
        self.remedy = Some(remedy.into());
    }

    /// Sets the position.
    #[must_use]
    pub fn at(mut self, at: Option<Position>) -> Self {
        self.at = at;
        self
    }

    /// Makes it a warning.
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

/// A rejected plan: all its problems, in the order of the text.
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

/// Returns the most similar of `names`, if it is similar enough to have been meant.
#[must_use]
pub fn suggest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = |other: &str| strsim::jaro_winkler(&name.to_lowercase(), &other.to_lowercase());
    let scored = names.map(|other| (near(other), other)).filter(|(score, _)| *score > 0.8);
    scored.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, other)| other)
}
