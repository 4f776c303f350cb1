//! Records the warnings and retries of a run for its report.

use std::sync::{Mutex, PoisonError};

use super::event::{Event, Observer};
use super::run::Notice;

/// The maximum number of warnings kept word for word. The rest are counted, which bounds the memory.
const MAX_WARNINGS: usize = 1000;

/// The maximum number of items that are recorded.
const MAX_ITEMS: usize = 10_000;

/// The warnings and retries recorded so far.
#[derive(Debug, Default)]
pub struct Recorder(Mutex<Recorded>);

#[derive(Debug, Default)]
struct Recorded {
    warnings: Vec<Notice>,
    left_out: u64,
    retries: u64,
    items: Vec<RecordedItem>,
}

/// An item that a run began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedItem {
    /// The item's name.
    pub item: String,
    /// The result in one line; none if the item was not finished.
    pub summary: Option<String>,
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
            Event::ItemStarted { item } if recorded.items.len() < MAX_ITEMS => {
                recorded.items.push(RecordedItem { item: item.clone(), summary: None });
            }
            Event::ItemFinished { item, summary, .. } => {
                if let Some(found) = recorded.items.iter_mut().find(|found| found.item == *item) {
                    found.summary = Some(summary.clone());
                }
            }
            Event::Phase { .. } | Event::ItemStarted { .. } => {}
        }
    }
}

impl Recorder {
    /// Returns the warnings, and the number of further ones that were not kept.
    pub fn warnings(&self) -> (Vec<Notice>, u64) {
        let recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (recorded.warnings.clone(), recorded.left_out)
    }

    /// Returns the items that the run began, in this order.
    pub fn items(&self) -> Vec<RecordedItem> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).items.clone()
    }

    /// Returns the number of requests to a store or server that were repeated.
    pub fn retries(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retries
    }
}
