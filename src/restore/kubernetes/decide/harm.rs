//! What a copy must not do. A second cluster, or a second namespace, with the same objects would
//! run the same jobs, take the same names in DNS, order the same certificates and ask for the same
//! addresses as the one that is still there.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use zeroize::Zeroizing;

use super::super::config::Release;
use super::super::object::{CONTAINERS, annotation, label, pod_spec, text};
use crate::source::kubernetes::KindInfo;

/// Kinds that a copy does not create: group, resources (`*`: all), what releases them.
const HELD: &[(&str, &[&str], Release)] = &[
    ("networking.k8s.io", &["ingresses"], Release::Ingress),
    ("extensions", &["ingresses"], Release::Ingress),
    (
        "gateway.networking.k8s.io",
        &["gateways", "httproutes", "grpcroutes", "tlsroutes", "tcproutes", "udproutes", "listenersets"],
        Release::Ingress,
    ),
    ("networking.istio.io", &["gateways"], Release::Ingress),
    ("route.openshift.io", &["routes"], Release::Ingress),
    ("traefik.io", &["ingressroutes", "ingressroutetcps", "ingressrouteudps"], Release::Ingress),
    ("traefik.containo.us", &["ingressroutes", "ingressroutetcps", "ingressrouteudps"], Release::Ingress),
    ("projectcontour.io", &["httpproxies"], Release::Ingress),
    ("getambassador.io", &["hosts", "mappings", "tcpmappings"], Release::Ingress),
    ("externaldns.k8s.io", &["dnsendpoints"], Release::Dns),
    ("externaldns.nginx.org", &["dnsendpoints"], Release::Dns),
    ("acme.cert-manager.io", &["*"], Release::Acme),
    ("cert-manager.io", &["certificates", "certificaterequests"], Release::Acme),
    ("networking.gke.io", &["managedcertificates"], Release::Acme),
    // These run on a schedule and cannot be suspended.
    ("k8up.io", &["schedules"], Release::Jobs),
];

/// Kinds that a copy creates suspended: group, resource, where that is said.
const SUSPENDED: &[(&str, &str, &str)] = &[
    ("batch", "cronjobs", "suspend"),
    ("batch", "jobs", "suspend"),
    ("argoproj.io", "cronworkflows", "suspend"),
    ("argoproj.io", "workflows", "suspend"),
    ("postgresql.cnpg.io", "scheduledbackups", "suspend"),
    ("velero.io", "schedules", "paused"),
    ("tekton.dev", "cronjobs", "suspend"),
];

/// Why a copy does not create `object`.
pub(in super::super) fn held(kind: &KindInfo, object: &Value) -> Option<Release> {
    let (group, plural) = (kind.group.as_str(), kind.plural.as_str());
    let whole = HELD
        .iter()
        .find(|(of, plurals, _)| *of == group && (plurals.contains(&"*") || plurals.contains(&plural)));
    if let Some((.., release)) = whole {
        return Some(*release);
    }
    if (group, plural) == ("", "services") && text(object, "/spec/type") == "LoadBalancer" {
        return Some(Release::Loadbalancers);
    }
    let acme = matches!((group, plural), ("cert-manager.io", "issuers" | "clusterissuers"));
    if acme && object.pointer("/spec/acme").is_some() {
        return Some(Release::Acme);
    }
    let annotations = object.pointer("/metadata/annotations").and_then(Value::as_object);
    let published = annotations
        .is_some_and(|all| all.keys().any(|name| name.starts_with("external-dns.alpha.kubernetes.io/")));
    published.then_some(Release::Dns)
}

/// Suspends `object` if it is of a kind that runs by itself. Gives whether it was running.
pub(in super::super) fn suspend(kind: &KindInfo, object: &mut Value) -> bool {
    let of = SUSPENDED.iter().find(|(group, plural, _)| *group == kind.group && *plural == kind.plural);
    let Some((.., field)) = of else { return false };
    let Some(spec) = object.pointer_mut("/spec").and_then(Value::as_object_mut) else { return false };
    spec.insert((*field).to_owned(), Value::Bool(true)) != Some(Value::Bool(true))
}

/// Lets `object` run or rest as the one that is `there` does: what runs is not made worse.
pub(in super::super) fn keep_running(kind: &KindInfo, object: &mut Value, there: &Value) {
    let of = SUSPENDED.iter().find(|(group, plural, _)| *group == kind.group && *plural == kind.plural);
    let Some((.., field)) = of else { return };
    let Some(spec) = object.pointer_mut("/spec").and_then(Value::as_object_mut) else { return };
    match there.pointer("/spec").and_then(|spec| spec.get(*field)) {
        Some(now) => drop(spec.insert((*field).to_owned(), now.clone())),
        None => drop(spec.remove(*field)),
    }
}

/// Whether it holds kbak's own keys. A writer's key that came out of a backup was in the backup's
/// cluster, and an epoch's secret is stale: a new cluster gets new ones.
pub(in super::super) fn own_keys(kind: &KindInfo, object: &Value) -> bool {
    if kind.resource() != "secrets" {
        return false;
    }
    let named = |key: &str| key.contains("writer.key") || key.ends_with(".epoch");
    let data = object.get("data").and_then(Value::as_object);
    data.into_iter().flatten().any(|(key, value)| named(key) && is_own(value.as_str().unwrap_or_default()))
}

/// Whether a value is a file of kbak's: others may be called so, too.
fn is_own(value: &str) -> bool {
    let bytes = Zeroizing::new(BASE64_STANDARD.decode(value).unwrap_or_default());
    serde_json::from_slice::<Own>(&bytes).is_ok_and(|own| !own.kbak.is_empty())
}

/// What every file of kbak's begins with; the rest is not looked at.
#[derive(serde::Deserialize)]
struct Own {
    kbak: String,
}

/// Whether it is a job of kbak's own: two clusters must not write as one.
pub(in super::super) fn own_job(kind: &KindInfo, object: &Value) -> bool {
    if kind.group != "batch" {
        return false;
    }
    let labelled = ["app.kubernetes.io/name", "app.kubernetes.io/part-of"]
        .iter()
        .any(|name| label(object, name) == "kbak" || annotation(object, name) == Some("kbak"));
    let spec = pod_spec(kind).and_then(|pointer| object.pointer(pointer)).unwrap_or(&Value::Null);
    labelled || CONTAINERS.iter().flat_map(|of| spec[*of].as_array()).flatten().any(runs_kbak)
}

fn runs_kbak(container: &Value) -> bool {
    let base = |text: &str| text.rsplit('/').next().unwrap_or_default().to_owned();
    let image = base(text(container, "/image"));
    let image = image.split([':', '@']).next().unwrap_or_default();
    image == "kbak" || base(text(container, "/command/0")) == "kbak"
}
