//! The paths at which one kind is listed, and the gaps where they cannot be.

use super::GapReason;
use crate::kubernetes::{ApiError, ApiErrorKind, KindInfo};

/// The paths and selectors with which one kind is listed.
#[derive(Debug, Clone)]
pub(super) struct Route<'a> {
    pub(super) kind: &'a KindInfo,
    /// The namespaces, if each is named: they are listed one after the other.
    pub(super) namespaces: Option<&'a [String]>,
    /// The label selector that the server applies.
    pub(super) labels: Option<String>,
}

impl<'a> Route<'a> {
    /// Returns the paths to list, in the order of the server's keys.
    pub(super) fn paths(&self) -> Vec<(Option<&'a str>, String)> {
        match self.namespaces.filter(|_| self.kind.namespaced) {
            Some(names) => {
                names.iter().map(|name| (Some(name.as_str()), self.kind.path(Some(name)))).collect()
            }
            None => vec![(None, self.kind.path(None))],
        }
    }

    /// Returns the gap for a missing right, in one namespace or in all that are read.
    pub(super) fn forbidden(&self, namespace: Option<&str>) -> GapReason {
        let named = self.namespaces.filter(|_| self.kind.namespaced);
        let role = match (namespace, named) {
            (Some(namespace), _) => format!("a Role in {namespace}"),
            (None, Some(names)) => format!("a Role in {}", names.join(", ")),
            (None, None) => "a ClusterRole".to_owned(),
        };
        GapReason::Forbidden { rule: self.kind.list_rule(), role }
    }

    /// Returns the gap for a namespace that may not be read by its name.
    pub(super) fn forbidden_namespace(&self, name: &str) -> GapReason {
        GapReason::Forbidden { rule: self.kind.get_rule(name), role: format!("a Role in {name}") }
    }

    /// Returns the gap for a failure of this kind; an error if the failure concerns all kinds.
    pub(super) fn gap(&self, error: ApiError) -> Result<GapReason, ApiError> {
        match &error.kind {
            ApiErrorKind::Status(status) => match status.code {
                401 => Err(error),
                403 => Ok(self.forbidden(None)),
                404 => Ok(GapReason::Gone),
                code => Ok(GapReason::Unavailable { code, message: status.message.clone() }),
            },
            ApiErrorKind::TooLarge { limit } => Ok(GapReason::TooLarge { limit: *limit as u64 }),
            ApiErrorKind::Malformed(what) => Ok(GapReason::Malformed(what.clone())),
            // The server works (others were answered), but this kind's answers do not come completely.
            kind @ (ApiErrorKind::Cut | ApiErrorKind::Deadline(_)) => {
                Ok(GapReason::Unavailable { code: 0, message: kind.to_string() })
            }
            ApiErrorKind::Unreachable | ApiErrorKind::Access(_) => Err(error),
        }
    }

    pub(super) fn is_namespaces(&self) -> bool {
        self.kind.group.is_empty() && self.kind.plural == "namespaces"
    }
}
