//! What is given up of an object where the server refuses it.

use serde_json::Value;

use super::change::{without_families, without_node_ports};
use crate::source::kubernetes::ApiStatus;

/// When, how, and in words.
pub(super) type GivenUp = (fn(&ApiStatus) -> bool, fn(&mut Value) -> bool, &'static str);

pub(super) const GIVEN_UP: [GivenUp; 2] = [
    (taken, without_node_ports, "its node ports are taken; it has others now"),
    (families, without_families, "its address families are not those of this cluster; it has others now"),
];

/// Whether a service's ports are somebody else's.
fn taken(status: &ApiStatus) -> bool {
    status.code == 422 && status.message.contains("provided port is already allocated")
}

/// Whether a cluster has not the address families that a service wants.
fn families(status: &ApiStatus) -> bool {
    let named = |field: &str| field.starts_with("spec.ipFamil");
    status.code == 422 && status.causes.iter().any(|cause| named(&cause.field))
}
