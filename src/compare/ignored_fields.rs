//! Fields that a server or a controller sets by itself. They change without user action, so a comparison
//! ignores them. docs/diff.md shows the table.

use serde_json::Value;

use crate::kubernetes::{KindInfo, count_step, is_empty_collection};

/// An ignored field: the kind (`*` for all), a JSON pointer (`*` for any element of a list), the reason.
pub type Rule = (&'static str, &'static str, &'static str);

/// All ignored fields.
pub const RULES: &[Rule] = &[
    ("*", "/metadata/uid", "given by the server"),
    ("*", "/metadata/resourceVersion", "counts changes"),
    ("*", "/metadata/generation", "counts changes"),
    ("*", "/metadata/creationTimestamp", "given by the server"),
    ("*", "/metadata/selfLink", "given by old servers"),
    ("*", "/metadata/managedFields", "who set which field, and when"),
    ("*", "/metadata/ownerReferences/*/uid", "follows the owner's uid"),
    ("*", "/status", "what controllers report, where the kind has a status of its own"),
    ("services", "/spec/clusterIP", "given by the server"),
    ("services", "/spec/clusterIPs", "given by the server"),
    ("services", "/spec/healthCheckNodePort", "given by the server"),
    ("services", "/spec/ports/*/nodePort", "given by the server"),
    ("persistentvolumeclaims", "/metadata/annotations/pv.kubernetes.io~1bind-completed", "of the binder"),
    (
        "persistentvolumeclaims",
        "/metadata/annotations/pv.kubernetes.io~1bound-by-controller",
        "of the binder",
    ),
    (
        "persistentvolumeclaims",
        "/metadata/annotations/kbak.dev~1without-data",
        "of a restore that made the claim without its data",
    ),
    ("persistentvolumes", "/spec/claimRef/uid", "follows the claim's uid"),
    ("persistentvolumes", "/spec/claimRef/resourceVersion", "counts changes of the claim"),
    ("jobs.batch", "/spec/selector/matchLabels/batch.kubernetes.io~1controller-uid", "carries the Job's uid"),
    (
        "jobs.batch",
        "/spec/template/metadata/labels/batch.kubernetes.io~1controller-uid",
        "carries the Job's uid",
    ),
    ("jobs.batch", "/spec/template/metadata/labels/controller-uid", "carries the Job's uid"),
    ("jobs.batch", "/metadata/labels/batch.kubernetes.io~1controller-uid", "carries the Job's uid"),
    ("deployments.apps", "/metadata/annotations/deployment.kubernetes.io~1revision", "counts rollouts"),
    ("pods", "/spec/nodeName", "set by the scheduler"),
    ("serviceaccounts", "/secrets", "filled by old controllers"),
];

/// Kinds whose objects the cluster itself creates and rewrites all the time; they are not compared.
pub const VOLATILE_KINDS: &[&str] = &[
    "csistoragecapacities.storage.k8s.io",
    "endpoints",
    "endpointslices.discovery.k8s.io",
    "events",
    "events.events.k8s.io",
    "ipaddresses.networking.k8s.io",
    "leases.coordination.k8s.io",
    "volumeattachments.storage.k8s.io",
];

/// True if the cluster itself rewrites a kind's objects all the time.
#[must_use]
pub fn is_volatile(kind: &KindInfo) -> bool {
    VOLATILE_KINDS.contains(&kind.resource().as_str())
}

/// Removes the fields that a server owns from an object.
pub(super) fn remove_ignored_fields(kind: &KindInfo, object: &mut Value) {
    let resource = kind.resource();
    for (of, pointer, _) in RULES {
        // A status without a subresource is ordinary data.
        let data = *pointer == "/status" && !kind.has("status");
        if (*of == "*" || *of == resource) && !data {
            let steps: Vec<String> =
                pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
            remove(object, &steps);
        }
    }
    // The server stores none of these, and the ignored fields may have been all.
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|_, value| !is_empty_collection(value));
    }
}

fn remove(value: &mut Value, steps: &[String]) {
    count_step();
    let Some((first, rest)) = steps.split_first() else { return };
    match value {
        Value::Object(map) if rest.is_empty() => {
            map.remove(first);
        }
        Value::Object(map) => {
            let Some(inner) = map.get_mut(first) else { return };
            let was_empty = is_empty_collection(inner);
            remove(inner, rest);
            // A map of nothing but ignored fields is ignored itself.
            if !was_empty && is_empty_collection(inner) {
                map.remove(first);
            }
        }
        Value::Array(all) if first == "*" => all.iter_mut().for_each(|one| remove(one, rest)),
        _ => {}
    }
}
