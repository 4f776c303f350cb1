//! The outcome of a run. Its meaning never changes; the command line gives each one an exit code.

use serde::{Deserialize, Serialize};

/// The outcome of a run, or of one part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// All declared items are safe, or their gap is accepted in the plan.
    Safe,
    /// A bug in kbak, or `diff` found differences.
    Bug,
    /// Usage or configuration; `check` found problems.
    Usage,
    /// Some declared item is not safe, or not restored; it is named.
    Partial,
    /// Tampered or damaged data; a drill failed.
    Damaged,
    /// The store or the cluster cannot be reached.
    Unreachable,
    /// Interrupted: running again resumes.
    Interrupted,
}
