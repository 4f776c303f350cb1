//! Errors as text: an error with its causes in one line.

use std::error::Error;

/// Returns an error and its causes in one line.
#[must_use]
pub fn causes(error: &dyn Error) -> String {
    cause_lines(Some(error)).join(": ")
}

/// Returns an error and its causes, outermost first, without lines that repeat the one before.
#[must_use]
pub fn cause_lines(error: Option<&dyn Error>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut next = error;
    while let Some(error) = next {
        let line = error.to_string();
        if lines.last() != Some(&line) {
            lines.push(line);
        }
        next = error.source();
    }
    lines
}

/// Returns the next cause. An I/O error that wraps another gives that one's cause as its own, which hides it.
#[must_use]
pub fn next_cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

/// Returns the first error of a type among an error and its causes.
pub fn find_cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    std::iter::successors(Some(error), |cause| next_cause(*cause)).find_map(|cause| cause.downcast_ref())
}
