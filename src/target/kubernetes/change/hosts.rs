//! Maps the host names that a cluster serves.

use serde_json::Value;

use super::Changes;
use crate::kubernetes::{KindInfo, count_step};
use crate::plan::Mapping;
use crate::target::kubernetes::{each_mut, map_mut};

/// Group, resource and pointers to host names; `*` stands for each element of a list.
const HOSTS: &[(&str, &str, &[&str])] = &[
    ("networking.k8s.io", "ingresses", &["/spec/rules/*/host", "/spec/tls/*/hosts/*"]),
    ("extensions", "ingresses", &["/spec/rules/*/host", "/spec/tls/*/hosts/*"]),
    ("gateway.networking.k8s.io", "gateways", &["/spec/listeners/*/hostname"]),
    ("gateway.networking.k8s.io", "httproutes", &["/spec/hostnames/*"]),
    ("gateway.networking.k8s.io", "grpcroutes", &["/spec/hostnames/*"]),
    ("gateway.networking.k8s.io", "tlsroutes", &["/spec/hostnames/*"]),
    ("cert-manager.io", "certificates", &["/spec/dnsNames/*", "/spec/commonName"]),
    ("route.openshift.io", "routes", &["/spec/host"]),
    ("networking.istio.io", "gateways", &["/spec/servers/*/hosts/*"]),
    ("networking.istio.io", "virtualservices", &["/spec/hosts/*"]),
    ("externaldns.k8s.io", "dnsendpoints", &["/spec/endpoints/*/dnsName"]),
];
/// Annotations that hold host names, separated by commas.
const NAMED: &[&str] =
    &["external-dns.alpha.kubernetes.io/hostname", "nginx.ingress.kubernetes.io/server-alias"];

pub(crate) fn map_hosts(kind: &KindInfo, object: &mut Value, mapping: &Mapping, changes: &mut Changes) {
    if mapping.hosts.is_empty() {
        return;
    }
    let of = HOSTS.iter().find(|(group, plural, _)| *group == kind.group && *plural == kind.plural);
    for pointer in of.into_iter().flat_map(|(.., pointers)| *pointers) {
        for_each_at(object, pointer, &mut |value| {
            changes.rename("host", value, |host| mapped(host, mapping));
        });
    }
    for annotation in NAMED {
        let names = map_mut(object, "/metadata/annotations").and_then(|all| all.get_mut(*annotation));
        let Some(names) = names else { continue };
        changes.rename("host", names, |text| {
            let hosts = text.split(',').map(str::trim);
            let new = hosts.map(|host| mapped(host, mapping).unwrap_or_else(|| host.to_owned()));
            Some(new.collect::<Vec<_>>().join(","))
        });
    }
}

/// Returns the new name of `host` if it or a parent domain is mapped.
fn mapped(host: &str, mapping: &Mapping) -> Option<String> {
    let longest = mapping.hosts.iter().filter_map(|(from, to)| {
        let rest = host.strip_suffix(from.as_str())?;
        (rest.is_empty() || rest.ends_with('.')).then(|| (from.len(), format!("{rest}{to}")))
    });
    longest.max().map(|(_, host)| host)
}

/// Calls `with` for each value at `pointer`.
pub(crate) fn for_each_at(value: &mut Value, pointer: &str, with: &mut dyn FnMut(&mut Value)) {
    count_step();
    match pointer.split_once("/*") {
        None => {
            if let Some(found) = value.pointer_mut(pointer) {
                with(found);
            }
        }
        Some((list, rest)) => each_mut(value, list).for_each(|element| for_each_at(element, rest, with)),
    }
}
