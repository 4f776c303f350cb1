//! The operations of a store, as values for errors, fault scripts and records.

use std::fmt;

/// An operation of a [`super::Store`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Open the store.
    Open,
    /// Store an object.
    Put,
    /// Read a whole object.
    Get,
    /// Read a part of an object.
    GetRange,
    /// Read one page of a listing.
    List,
    /// Remove an object.
    Delete,
    /// Read the store's clock.
    Now,
    /// Test the store's features.
    Probe,
}

impl Operation {
    /// Returns the word for messages: `cannot <verb> <object>`.
    #[must_use]
    pub fn verb(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Put => "put",
            Self::Get => "get",
            Self::GetRange => "get a range of",
            Self::List => "list",
            Self::Delete => "delete",
            Self::Now => "read the clock of",
            Self::Probe => "probe",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.verb())
    }
}
