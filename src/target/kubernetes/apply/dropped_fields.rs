//! Fields of a Service that are dropped because the cluster cannot give them: ports and address families.

use serde_json::Value;

use crate::kubernetes::ApiStatus;
use crate::target::kubernetes::{
    ObjectRef, Warning,
    change::{remove_health_check_port, remove_node_port, without_families, without_node_ports},
};

/// The most ports that are dropped one by one, each after a refusal of its own; then all are.
const MAX_SINGLE_PORTS: usize = 16;

/// The most refusals after which a field is dropped.
const MAX_DROPS: usize = MAX_SINGLE_PORTS + 2;

/// The fields that were dropped from one object, in words.
#[derive(Debug, Default)]
pub(crate) struct DroppedFields(Vec<String>);

impl DroppedFields {
    /// Drops the fields because of which the server refuses `object`. Returns false if the refusal has another
    /// reason, if there is nothing to drop, or after [`MAX_DROPS`] refusals.
    pub(crate) fn drop_refused(&mut self, status: &ApiStatus, object: &mut Value) -> bool {
        if self.0.len() >= MAX_DROPS {
            return false;
        }
        let dropped = if is_port_refused(status) {
            let is_single = self.0.len() < MAX_SINGLE_PORTS;
            single_port(status, object).filter(|_| is_single).or_else(|| all_ports(object))
        } else if is_family_refused(status) {
            without_families(object)
                .then(|| "the cluster lacks its address families; the server assigned others".to_owned())
        } else {
            None
        };
        let is_dropped = dropped.is_some();
        self.0.extend(dropped);
        is_dropped
    }

    /// Returns each of them in words.
    pub(crate) fn into_words(self) -> Vec<String> {
        self.0
    }

    /// Returns a warning for each of them.
    pub(crate) fn warnings<'a>(&'a self, object: &'a ObjectRef) -> impl Iterator<Item = Warning> + 'a {
        self.0.iter().map(move |what| Warning::Own(format!("{object}: {what}")))
    }
}

/// Drops the one port that the server names.
fn single_port(status: &ApiStatus, object: &mut Value) -> Option<String> {
    // The server answers 500 for a taken port of the health check, without a field.
    if status.message.contains("HealthCheck NodePort") || is_health_check_fixed(status) {
        let port = remove_health_check_port(object)?;
        return Some(format!("its health check port {port} cannot be had; the server assigned another"));
    }
    let index = status.causes.iter().find_map(|cause| {
        let rest = cause.field.strip_prefix("spec.ports[")?;
        rest.strip_suffix("].nodePort")?.parse::<usize>().ok()
    });
    let port = remove_node_port(object, index?)?;
    Some(format!("its node port {port} cannot be had; the server assigned another"))
}

fn all_ports(object: &mut Value) -> Option<String> {
    without_node_ports(object).then(|| "its node ports cannot be had; the server assigned others".to_owned())
}

/// True if the server refuses because a port of a Service is in use or out of its range.
fn is_port_refused(status: &ApiStatus) -> bool {
    let says = |text: &str| status.message.contains(text);
    let is_taken =
        says("provided port is already allocated") || says("provided port is not in the valid range");
    matches!(status.code, 422 | 500) && (is_taken || is_health_check_fixed(status))
}

/// True if the server refuses to change the port of an existing Service's health check.
fn is_health_check_fixed(status: &ApiStatus) -> bool {
    status.code == 422 && status.causes.iter().any(|cause| cause.field == "spec.healthCheckNodePort")
}

/// True if the server refuses the address families of a Service.
fn is_family_refused(status: &ApiStatus) -> bool {
    let named = |field: &str| field.starts_with("spec.ipFamil");
    status.code == 422 && status.causes.iter().any(|cause| named(&cause.field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::StatusCause;
    use serde_json::json;

    fn status(code: u16, message: &str, field: &str) -> ApiStatus {
        let causes = vec![StatusCause { reason: String::new(), field: field.to_owned() }];
        ApiStatus { code, reason: String::new(), message: message.to_owned(), causes, retry_after: None }
    }

    #[test]
    fn only_the_named_port_is_dropped() {
        let taken = "Invalid value: 30002: provided port is already allocated";
        let ports = json!([{"port": 80, "nodePort": 30001}, {"port": 81, "nodePort": 30002}]);
        let mut object = json!({"spec": {"ports": ports, "healthCheckNodePort": 30003}});
        let mut dropped = DroppedFields::default();
        assert!(!dropped.drop_refused(&status(422, "another reason", ""), &mut object));
        assert!(dropped.drop_refused(&status(422, taken, "spec.ports[1].nodePort"), &mut object));
        assert_eq!(object["spec"]["ports"], json!([{"port": 80, "nodePort": 30001}, {"port": 81}]));
        assert!(dropped.0[0].contains("30002"), "{dropped:?}");
        let health = "Internal error occurred: failed to allocate requested HealthCheck NodePort 30003: \
                      provided port is already allocated";
        assert!(dropped.drop_refused(&status(500, health, ""), &mut object));
        assert_eq!(object["spec"].get("healthCheckNodePort"), None);
        assert!(dropped.0[1].contains("health check port 30003"), "{dropped:?}");
        // A refusal that names no port gives up the rest, and then nothing is left.
        assert!(dropped.drop_refused(&status(422, taken, ""), &mut object));
        assert_eq!(object["spec"]["ports"], json!([{"port": 80}, {"port": 81}]));
        assert!(!dropped.drop_refused(&status(422, taken, ""), &mut object));
    }

    #[test]
    fn ports_of_a_large_service_are_dropped_in_bounded_requests() {
        let ports: Vec<Value> = (0..500).map(|at| json!({"port": at, "nodePort": 30_000 + at})).collect();
        let mut object = json!({"spec": {"ports": ports}});
        let mut dropped = DroppedFields::default();
        let mut requests = 0;
        while let Some(taken) = object["spec"]["ports"]
            .as_array()
            .and_then(|ports| ports.iter().position(|port| port["nodePort"].is_u64()))
        {
            let field = format!("spec.ports[{taken}].nodePort");
            let refused = status(422, "provided port is not in the valid range", &field);
            assert!(dropped.drop_refused(&refused, &mut object));
            requests += 1;
        }
        assert_eq!(requests, MAX_SINGLE_PORTS + 1);
    }
}
