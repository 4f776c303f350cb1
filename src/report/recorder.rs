//! Records the warnings and retries of a run for its report.

use std::sync::{Mutex, PoisonError};

use super::event::{Event, Observer};
use super::run::Notice;

/// The maximum number of warnings kept word for word. The rest are counted, which bounds the memory.
const MAX_WARNINGS: usize = 1000;

/// The warnings and retries recorded so far.
#[derive(Debug, Default)]
pub struct Recorder(Mutex<Recorded>);

#[derive(Debug, Default)]
struct Recorded {
    warnings: Vec<Notice>,
    left_out: u64,
    retries: u64,
}

impl Observer for Recorder {
    fn event(&self, event: &Event) {
        let mut recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Warning { .. } if recorded.warnings.len() >= MAX_WARNINGS => recorded.left_out += 1,
            Event::Warning { object, message, remedy } => recorded.warnings.push(Notice {
                object: object.clone(),
                message: message.clone(),
                remedy: remedy.clone(),
            }),
            Event::Retry { .. } => recorded.retries += 1,
            Event::Phase { .. } | Event::ItemStarted { .. } | Event::ItemFinished { .. } => {}
        }
    }
}

impl Recorder {
    /// Returns the warnings, and the number of further ones that were not kept.
    pub fn warnings(&self) -> (Vec<Notice>, u64) {
        let recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (recorded.warnings.clone(), recorded.left_out)
    }

    /// Returns the number of requests to a store or server that were repeated.
    pub fn retries(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retries
    }
}
