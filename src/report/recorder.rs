//! Remembers what a run reported, for its report.

use std::sync::{Mutex, PoisonError};

use super::event::{Event, Observer};
use super::run::Notice;

/// The most warnings that are kept word by word; the rest are counted, so that a tree with a
/// million unreadable files fits in memory.
const MOST_WARNINGS: usize = 1000;

/// What was heard.
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
    /// The warnings, and how many more there were.
    #[must_use]
    pub fn warnings(&self) -> (Vec<Notice>, u64) {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (heard.warnings.clone(), heard.left_out)
    }

    /// How often a store or server was asked again.
    #[must_use]
    pub fn retries(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retries
    }
}
