//! The operations of a store, as values: for errors, scripts and records.

use std::fmt;

/// What a [`super::Store`] can be asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Start to use it.
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
    /// Ask for the time.
    Now,
    /// Ask what the store offers.
    Probe,
}

impl Operation {
    /// The word in messages: `cannot <verb> <object>`.
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
