//! Fields that are dropped from an object if the server refuses them.

use serde_json::Value;

use crate::kubernetes::ApiStatus;
use crate::target::kubernetes::change::{without_families, without_node_ports};

/// The refusal that applies, the change to the object, and the warning.
pub(crate) type GivenUp = (fn(&ApiStatus) -> bool, fn(&mut Value) -> bool, &'static str);

pub(crate) const GIVEN_UP: [GivenUp; 2] = [
    (taken, without_node_ports, "its node ports are taken; it has others now"),
    (families, without_families, "its address families are not those of this cluster; it has others now"),
];

/// True if the server refuses because node ports of a Service are in use.
fn taken(status: &ApiStatus) -> bool {
    status.code == 422 && status.message.contains("provided port is already allocated")
}

/// True if the server refuses the address families of a Service.
fn families(status: &ApiStatus) -> bool {
    let named = |field: &str| field.starts_with("spec.ipFamil");
    status.code == 422 && status.causes.iter().any(|cause| named(&cause.field))
}
