//! Effects that a copy must not have: with the same objects, a second cluster or namespace would run the same
//! jobs, publish the same DNS names, order the same certificates, request the same addresses and write to the
//! same storage as the original.

use serde_json::Value;

use crate::kubernetes::KindInfo;
use crate::plan::SideEffect;
use crate::target::kubernetes::{each, map, map_mut, text};

/// Kinds that a copy does not create: group, resources (`*`: all), and the effect to release.
const HELD_BACK: &[(&str, &[&str], SideEffect)] = &[
    ("networking.k8s.io", &["ingresses"], SideEffect::Ingress),
    ("extensions", &["ingresses"], SideEffect::Ingress),
    (
        "gateway.networking.k8s.io",
        &["gateways", "httproutes", "grpcroutes", "tlsroutes", "tcproutes", "udproutes", "listenersets"],
        SideEffect::Ingress,
    ),
    ("networking.istio.io", &["gateways", "virtualservices"], SideEffect::Ingress),
    ("route.openshift.io", &["routes"], SideEffect::Ingress),
    ("traefik.io", &["ingressroutes", "ingressroutetcps", "ingressrouteudps"], SideEffect::Ingress),
    ("traefik.containo.us", &["ingressroutes", "ingressroutetcps", "ingressrouteudps"], SideEffect::Ingress),
    ("projectcontour.io", &["httpproxies"], SideEffect::Ingress),
    ("getambassador.io", &["hosts", "mappings", "tcpmappings"], SideEffect::Ingress),
    ("externaldns.k8s.io", &["dnsendpoints"], SideEffect::Dns),
    ("externaldns.nginx.org", &["dnsendpoints"], SideEffect::Dns),
    ("acme.cert-manager.io", &["*"], SideEffect::Acme),
    ("cert-manager.io", &["certificates", "certificaterequests"], SideEffect::Acme),
    ("networking.gke.io", &["managedcertificates"], SideEffect::Acme),
    // These run on a schedule and cannot be suspended.
    ("k8up.io", &["schedules"], SideEffect::Jobs),
];

/// Kinds that a copy creates suspended: group, resource, and the field that suspends them.
const SUSPENDED: &[(&str, &str, &str)] = &[
    ("batch", "cronjobs", "suspend"),
    ("batch", "jobs", "suspend"),
    ("argoproj.io", "cronworkflows", "suspend"),
    ("argoproj.io", "workflows", "suspend"),
    ("postgresql.cnpg.io", "scheduledbackups", "suspend"),
    ("velero.io", "schedules", "paused"),
    // They deploy to a cluster that they name, which may be that of the backup, or write to Git.
    ("helm.toolkit.fluxcd.io", "helmreleases", "suspend"),
    ("kustomize.toolkit.fluxcd.io", "kustomizations", "suspend"),
    ("image.toolkit.fluxcd.io", "imageupdateautomations", "suspend"),
    ("tekton.dev", "cronjobs", "suspend"),
];

/// Returns the effect for which a copy holds `object` back, if any.
pub(crate) fn side_effect_of(kind: &KindInfo, object: &Value) -> Option<SideEffect> {
    let (group, plural) = (kind.group.as_str(), kind.plural.as_str());
    let whole = HELD_BACK
        .iter()
        .find(|(of, plurals, _)| *of == group && (plurals.contains(&"*") || plurals.contains(&plural)));
    if let Some((.., release)) = whole {
        return Some(*release);
    }
    let takes_addresses =
        || text(object, "/spec/type") == "LoadBalancer" || each(object, "/spec/externalIPs").next().is_some();
    if (group, plural) == ("", "services") && takes_addresses() {
        return Some(SideEffect::Loadbalancers);
    }
    if (group, plural) == ("", "persistentvolumes") && is_storage_shared(object) {
        return Some(SideEffect::Volumes);
    }
    if group == "argoproj.io" && is_synced_automatically(plural, object) {
        return Some(SideEffect::Jobs);
    }
    let acme = matches!((group, plural), ("cert-manager.io", "issuers" | "clusterissuers"));
    if acme && object.pointer("/spec/acme").is_some() {
        return Some(SideEffect::Acme);
    }
    let annotations = map(object, "/metadata/annotations");
    let mut names = annotations.into_iter().flat_map(|all| all.keys());
    let published = names.any(|name| name.starts_with("external-dns.alpha.kubernetes.io/"));
    published.then_some(SideEffect::Dns)
}

/// True if the storage of a volume is outside of the cluster: two clusters with the same volume write to the same
/// data, and the first that deletes its claim may delete the data of both.
fn is_storage_shared(volume: &Value) -> bool {
    ["/spec/hostPath", "/spec/local"].iter().all(|at| map(volume, at).is_none())
}

/// Keeps the storage of a volume that another cluster may use, whatever happens to its claim. Returns true if it
/// would have been deleted or wiped.
pub(crate) fn retain_storage(kind: &KindInfo, object: &mut Value) -> bool {
    const POLICY: &str = "persistentVolumeReclaimPolicy";
    if kind.resource() != "persistentvolumes" || !is_storage_shared(object) {
        return false;
    }
    let Some(spec) = map_mut(object, "/spec") else { return false };
    let before = spec.insert(POLICY.to_owned(), "Retain".into());
    before.is_some_and(|policy| policy != "Retain")
}

/// True if Argo CD would deploy an Application automatically, to a cluster that it names, which may be that
/// of the backup.
fn is_synced_automatically(plural: &str, object: &Value) -> bool {
    let automated = |at: &str| {
        let automated = object.pointer(at).filter(|automated| !automated.is_null());
        automated.is_some_and(|automated| automated.get("enabled") != Some(&Value::Bool(false)))
    };
    match plural {
        "applications" => automated("/spec/syncPolicy/automated"),
        "applicationsets" => {
            automated("/spec/template/spec/syncPolicy/automated")
                || text(object, "/spec/templatePatch").contains("automated")
        }
        _ => false,
    }
}

/// Suspends `object` if its kind can be suspended. Returns true if it was running.
pub(crate) fn suspend(kind: &KindInfo, object: &mut Value) -> bool {
    let (Some(field), Some(spec)) = (suspending_field(kind), map_mut(object, "/spec")) else { return false };
    spec.insert(field.to_owned(), Value::Bool(true)) != Some(Value::Bool(true))
}

/// Sets the suspension of `object` to that of `existing`, so that no running object is stopped.
pub(crate) fn keep_running(kind: &KindInfo, object: &mut Value, existing: &Value) {
    let (Some(field), Some(spec)) = (suspending_field(kind), map_mut(object, "/spec")) else { return };
    match map(existing, "/spec").and_then(|spec| spec.get(field)) {
        Some(now) => drop(spec.insert(field.to_owned(), now.clone())),
        None => drop(spec.remove(field)),
    }
}

fn suspending_field(kind: &KindInfo) -> Option<&'static str> {
    let row = SUSPENDED.iter().find(|(group, plural, _)| *group == kind.group && *plural == kind.plural);
    row.map(|(.., field)| *field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_with_effects_beyond_a_copy_are_held_back() {
        let of = |group: &str, plural: &str, spec: Value| {
            side_effect_of(
                &KindInfo::from_path_parts(group, "v1", plural),
                &json!({"metadata": {}, "spec": spec}),
            )
        };
        let addresses = json!({"type": "ClusterIP", "externalIPs": ["192.0.2.7"]});
        assert_eq!(of("", "services", addresses), Some(SideEffect::Loadbalancers));
        assert_eq!(of("", "services", json!({"type": "ClusterIP", "externalIPs": []})), None);
        assert_eq!(of("networking.istio.io", "virtualservices", json!({})), Some(SideEffect::Ingress));
        let disk = json!({"csi": {"driver": "d", "volumeHandle": "h"}});
        assert_eq!(of("", "persistentvolumes", disk), Some(SideEffect::Volumes));
        assert_eq!(of("", "persistentvolumes", json!({"local": {"path": "/d"}})), None);
        let policy = |automated: Value| json!({"syncPolicy": {"automated": automated}});
        for (automated, wanted) in [
            (json!({}), Some(SideEffect::Jobs)),
            (json!({"prune": true, "enabled": true}), Some(SideEffect::Jobs)),
            (json!({"enabled": false}), None),
            (Value::Null, None),
        ] {
            assert_eq!(of("argoproj.io", "applications", policy(automated.clone())), wanted, "{automated}");
            let template = json!({"template": {"spec": policy(automated.clone())}});
            assert_eq!(of("argoproj.io", "applicationsets", template), wanted, "{automated}");
        }
        assert_eq!(of("argoproj.io", "rollouts", policy(json!({}))), None);
    }

    #[test]
    fn flux_deployments_are_suspended_in_a_copy() {
        for (group, plural) in
            [("helm.toolkit.fluxcd.io", "helmreleases"), ("kustomize.toolkit.fluxcd.io", "kustomizations")]
        {
            let mut object = json!({"spec": {"interval": "5m"}});
            assert!(suspend(&KindInfo::from_path_parts(group, "v2", plural), &mut object));
            assert_eq!(object["spec"]["suspend"], true);
        }
    }
}
