//! Records the warnings and retries of a run for its report.

use std::sync::{Mutex, PoisonError};

use super::event::{Event, Observer};
use super::run::Notice;

/// The maximum number of warnings kept word for word. The rest are counted, so that a tree with a million
/// unreadable files fits in memory.
const MOST_WARNINGS: usize = 1000;

/// The warnings and retries recorded so far.
#[derive(Debug, Default)]
pub struct Recorder(Mutex<Heard>);

#[derive(Debug, Default)]
struct Heard {
    warnings: Vec<Notice>,
    left_out: u64,
    retries: u64,
}

impl Observer for Recorder {
    fn event(&self, event: &Event) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Warning { .. } if heard.warnings.len() >= MOST_WARNINGS => heard.left_out += 1,
            Event::Warning { object, message, remedy } => heard.warnings.push(Notice {
                object: object.clone(),
                message: message.clone(),
                remedy: remedy.clone(),
            }),
            Event::Retry { .. } => heard.retries += 1,
            Event::Phase { .. } | Event::ItemStarted { .. } | Event::ItemFinished { .. } => {}
        }
    }
}

impl Recorder {
    /// Returns the warnings, and the number of further ones that were not kept.
    #[must_use]
    pub fn warnings(&self) -> (Vec<Notice>, u64) {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (heard.warnings.clone(), heard.left_out)
    }

    /// Returns the number of requests to a store or server that were repeated.
    #[must_use]
    pub fn retries(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retries
    }
}
