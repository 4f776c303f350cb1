//! Fields that are dropped from an object if the server refuses them.

use serde_json::Value;

use crate::kubernetes::ApiStatus;
use crate::target::kubernetes::change::{without_families, without_node_ports};

/// The refusal that applies, the change to the object, and the warning.
pub(crate) type FallbackEdit = (fn(&ApiStatus) -> bool, fn(&mut Value) -> bool, &'static str);

pub(crate) const FALLBACK_EDITS: [FallbackEdit; 2] = [
    (is_port_conflict, without_node_ports, "its node ports are in use; the server assigned others"),
    (
        is_family_refused,
        without_families,
        "the cluster lacks its address families; the server assigned others",
    ),
];

/// True if the server refuses because node ports of a Service are in use.
fn is_port_conflict(status: &ApiStatus) -> bool {
    status.code == 422 && status.message.contains("provided port is already allocated")
}

/// True if the server refuses the address families of a Service.
fn is_family_refused(status: &ApiStatus) -> bool {
    let named = |field: &str| field.starts_with("spec.ipFamil");
    status.code == 422 && status.causes.iter().any(|cause| named(&cause.field))
}
