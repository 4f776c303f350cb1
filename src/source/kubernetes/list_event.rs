//! The events that listers send to the forwarder.

use std::ops::Range;

use bytes::Bytes;

use super::budget::Reservation;
use super::{GapReason, KindConsistency, ResourcesError};
use crate::kubernetes::ItemMeta;

/// The reason why an attempt ended early.
pub(super) enum AttemptError {
    /// The revision was compacted.
    RevisionExpired,
    /// The reading failed.
    Failed(Box<ResourcesError>),
}

impl From<ResourcesError> for AttemptError {
    fn from(error: ResourcesError) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// An event that a lister sends to the forwarder.
pub(super) enum ListEvent {
    /// A page.
    Page(ListedPage),
    /// The objects so far are not at R; the kind comes again at its own revision.
    OwnRevision { why: String },
    /// The objects so far are incomplete; the kind comes again.
    Restarted,
    /// A part of the kind cannot be read; the rest continues.
    PartMissing { object: String, reason: GapReason },
    /// The kind is complete.
    Complete(KindConsistency, ListSummary),
    /// The kind cannot be read, or no longer.
    Failed(GapReason),
    /// The whole attempt ends.
    EndAttempt(AttemptError),
}

/// A page in memory.
pub(super) struct ListedPage {
    pub(super) body: Bytes,
    pub(super) objects: Vec<(Range<usize>, ItemMeta)>,
    #[expect(dead_code, reason = "gives its bytes back to the budget when the page is done")]
    pub(super) reservation: Reservation,
}

/// A summary of a kind's list, over selected and other objects.
#[derive(Debug, Clone, Default)]
pub(super) struct ListSummary {
    /// The revision of its pages.
    pub(super) revision: String,
    pub(super) objects: u64,
    /// The revision of the object that changed last.
    pub(super) newest: u64,
    /// The digest over namespace, name and revision of each object.
    pub(super) digest: Box<blake3::Hasher>,
}

impl ListSummary {
    pub(super) fn record(&mut self, meta: &ItemMeta) {
        for text in [&meta.namespace, &meta.name, &meta.resource_version] {
            self.digest.update(text.as_bytes());
            self.digest.update(b"\n");
        }
        self.objects += 1;
        self.newest = self.newest.max(meta.resource_version.parse().unwrap_or(0));
    }
}
