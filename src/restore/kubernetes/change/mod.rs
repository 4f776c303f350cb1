//! What is changed in an object on its way into the cluster, in this order: surgery, version,
//! mapping, modifiers.

mod existing;
mod hosts;
mod mapping;
mod modify;
mod surgery;
mod versions;

use serde::Serialize;

pub(super) use existing::{beside, carry_over, lacks, merge};
pub(super) use mapping::map;
pub(super) use modify::modify;
pub use modify::{Modifier, ModifierError};
pub(super) use surgery::{NodePorts, Options, cut, unbind, without_families, without_node_ports};
pub(super) use versions::{Moved, moved};

/// One change that is worth telling. What the server sets in any object is cut without a word.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case", tag = "change")]
pub enum Change {
    /// A field is left out: it ties the object to the cluster it came from.
    Dropped {
        /// Which: `spec.clusterIP`.
        field: String,
    },
    /// Something is called otherwise.
    Mapped {
        /// What: `namespace`, `class`, `image`, `host`.
        what: &'static str,
        /// Its name in the backup.
        from: String,
        /// Its name now.
        to: String,
    },
    /// A modifier of the plan, by its place from 1, had its way.
    Modified {
        /// Which.
        modifier: usize,
    },
    /// It does not run by itself.
    Suspended {
        /// Whether it is a job of kbak's own, which never does; others only in a copy.
        own: bool,
    },
    /// It comes in another version of the API.
    Version {
        /// As it was stored.
        from: String,
        /// As it is created.
        to: String,
    },
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dropped { field } => write!(f, "{field} dropped"),
            Self::Mapped { what, from, to } => write!(f, "{what} {from} → {to} (mapping)"),
            Self::Modified { modifier } => write!(f, "changed by modifier {modifier}"),
            Self::Suspended { own: true } => f.write_str("suspended, as kbak's own jobs always are"),
            Self::Suspended { own: false } => f.write_str("suspended, since this is a copy (--release jobs)"),
            Self::Version { from, to } => write!(f, "{from} → {to}"),
        }
    }
}

/// What was changed in one object.
#[derive(Debug, Default)]
pub(super) struct Changes(Vec<Change>);

impl Changes {
    pub(super) fn add(&mut self, change: Change) {
        if !self.0.contains(&change) {
            self.0.push(change);
        }
    }

    pub(super) fn dropped(&mut self, field: impl Into<String>) {
        self.add(Change::Dropped { field: field.into() });
    }

    pub(super) fn mapped(&mut self, what: &'static str, from: &str, to: &str) {
        if from != to {
            self.add(Change::Mapped { what, from: from.to_owned(), to: to.to_owned() });
        }
    }

    pub(super) fn into_vec(self) -> Vec<Change> {
        self.0
    }
}
