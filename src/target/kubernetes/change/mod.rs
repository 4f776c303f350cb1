//! Changes an object on its way into the cluster, in this order: cuts, version, mapping, modifiers.

mod comparison;
mod difference;
mod hosts;
mod mapping;
mod modify;
mod server_fields;
mod versions;

use std::collections::HashSet;

use serde::Serialize;
use serde_json::Value;

use crate::kubernetes::count_step;

pub(crate) use comparison::{Comparison, compare, keep_server_fields, merge};
pub(crate) use difference::differs;
pub(crate) use mapping::apply_mapping;
pub(crate) use modify::apply_modifiers;
pub use modify::{Modifier, ModifierError};
pub(crate) use server_fields::{
    NodePorts, StripOptions, WITHOUT_DATA, clear_volume_name, mark_without_data, remove_health_check_port,
    remove_node_port, strip_fields, without_families, without_node_ports,
};
pub(crate) use versions::{ApiMove, api_move};

/// A change that is reported. Fields that the server sets in every object are removed without a report.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case", tag = "change")]
pub enum Change {
    /// A field is removed because it ties the object to its old cluster.
    Dropped {
        /// The field, such as `spec.clusterIP`.
        field: String,
    },
    /// A name is mapped.
    Mapped {
        /// Type of name: `namespace`, `class`, `image` or `host`.
        what: &'static str,
        /// The name in the backup.
        from: String,
        /// The new name.
        to: String,
    },
    /// A modifier of the plan changed the object.
    Modified {
        /// The modifier's position in the plan, from 1.
        modifier: usize,
    },
    /// The object is created suspended.
    Suspended {
        /// True for kbak's own jobs, which are always suspended; other jobs are suspended only in a copy.
        own: bool,
    },
    /// The volume's storage is kept when its claim is deleted, because another cluster may use it.
    Retained,
    /// The object is created in another version of the API.
    Version {
        /// The stored version.
        from: String,
        /// The version in which it is created.
        to: String,
    },
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dropped { field } => write!(f, "{field} dropped"),
            Self::Mapped { what, from, to } => write!(f, "{what} {from} → {to} (mapping)"),
            Self::Modified { modifier } => write!(f, "changed by modifier {modifier}"),
            Self::Retained => f.write_str("reclaim policy Retain, since this is a copy"),
            Self::Suspended { own: true } => f.write_str("suspended, as kbak's own jobs always are"),
            Self::Suspended { own: false } => f.write_str("suspended, since this is a copy (--release jobs)"),
            Self::Version { from, to } => write!(f, "{from} → {to}"),
        }
    }
}

/// The changes of one object, each once, in the order in which they are made.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    all: Vec<Change>,
    known: HashSet<Change>,
}

impl Changes {
    pub(crate) fn add(&mut self, change: Change) {
        count_step();
        if self.known.insert(change.clone()) {
            self.all.push(change);
        }
    }

    pub(crate) fn dropped(&mut self, field: impl Into<String>) {
        self.add(Change::Dropped { field: field.into() });
    }

    /// Replaces the name in `value` by the one that `mapped` gives for it, if any.
    pub(crate) fn rename(
        &mut self,
        what: &'static str,
        value: &mut Value,
        mapped: impl FnOnce(&str) -> Option<String>,
    ) {
        let Some(from) = value.as_str() else { return };
        let Some(to) = mapped(from) else { return };
        if from != to {
            self.add(Change::Mapped { what, from: from.to_owned(), to: to.clone() });
        }
        *value = Value::from(to);
    }

    pub(crate) fn into_vec(self) -> Vec<Change> {
        self.all
    }
}
