//! Namespaces: the kinds of signed documents.

use std::fmt;

/// The use of a signature. A document of one kind can never be presented as one of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Namespace {
    /// Epochs; signed by the writer.
    Epoch,
    /// Snapshots; signed by the writer.
    Manifest,
    /// Reports of prunes, with reasons; signed by the prune key.
    Prune,
    /// Reports of drills; signed by the drill key or an owner.
    Drill,
    /// Reports of restores; signed by the drill key or an owner.
    Restore,
    /// Bad packs; signed by the drill key or the writer.
    Distrust,
    /// Revoked keys; signed by an owner.
    Trust,
    /// Wraps that an owner opened or added; signed by an owner.
    Receipt,
    /// Accepted gaps; signed by the writer or an owner.
    Exception,
    /// Snapshots that prune keeps; signed by an owner.
    Hold,
    /// Ended plans; signed by an owner.
    Retire,
}

impl Namespace {
    /// All namespaces.
    pub const ALL: [Self; 11] = [
        Self::Epoch,
        Self::Manifest,
        Self::Prune,
        Self::Drill,
        Self::Restore,
        Self::Distrust,
        Self::Trust,
        Self::Receipt,
        Self::Exception,
        Self::Hold,
        Self::Retire,
    ];

    /// The namespaces that a writer's key is pinned for.
    pub const WRITER: [Self; 4] = [Self::Epoch, Self::Manifest, Self::Distrust, Self::Exception];

    /// The namespaces that an owner's key is pinned for.
    pub const OWNER: [Self; 8] = [
        Self::Trust,
        Self::Receipt,
        Self::Drill,
        Self::Restore,
        Self::Exception,
        Self::Distrust,
        Self::Hold,
        Self::Retire,
    ];

    /// Returns the namespace's text in the signature.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Epoch => "kbak-epoch-v1",
            Self::Manifest => "kbak-manifest-v1",
            Self::Prune => "kbak-prune-v1",
            Self::Drill => "kbak-drill-v1",
            Self::Restore => "kbak-restore-v1",
            Self::Distrust => "kbak-distrust-v1",
            Self::Trust => "kbak-trust-v1",
            Self::Receipt => "kbak-receipt-v1",
            Self::Exception => "kbak-exception-v1",
            Self::Hold => "kbak-hold-v1",
            Self::Retire => "kbak-retire-v1",
        }
    }

    /// Returns the value that the document's `type` must have.
    #[must_use]
    pub fn document_type(self) -> &'static str {
        let text = self.as_str();
        &text["kbak-".len()..text.len() - "-v1".len()]
    }

    /// Returns the namespace of records with this `type`; none for those of epochs and manifests.
    #[must_use]
    pub fn of_record(document_type: &str) -> Option<Self> {
        let fits = |namespace: &Self| namespace.document_type() == document_type;
        Self::ALL.into_iter().filter(|one| !matches!(one, Self::Epoch | Self::Manifest)).find(fits)
    }

    /// Returns the namespace of a text.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|namespace| namespace.as_str() == text)
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
