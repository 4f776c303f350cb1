//! Errors of plans as failures.

use super::{Exit, Failure};
use crate::plan::PlanError;

impl PlanError {
    /// Converts it to a failure of the plan that people know as `name` (a file, or `the command line`).
    #[must_use]
    pub fn failure(&self, name: &str) -> Failure {
        let (what, remedy) = match self.problems.as_slice() {
            // For an argument, `name` is also the field: it is named once.
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
