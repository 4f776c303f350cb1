//! All allowed differences between a cluster and the one restored from its backup. The test fails
//! if a rule explains no difference for one of its kinds.
//!
//! A pointer covers everything beneath it; one `*` in a step matches any text. The empty pointer
//! covers an object that only one of the clusters has.

use serde_json::Value;

use super::raw::ListedKind;

/// An allowed difference and its reason.
pub struct DifferenceRule {
    /// Kinds; `*` is any.
    pub kinds: &'static [&'static str],
    pub pointer: &'static str,
    /// True if the rule holds for this difference.
    pub when: fn(&SeenDifference<'_>) -> bool,
    pub reason: &'static str,
}

/// A difference and the object that it is in.
pub struct SeenDifference<'a> {
    pub kind: &'a ListedKind,
    pub object: &'a Value,
    /// The field's value, truncated.
    pub before: &'a str,
    pub after: &'a str,
}

/// At most 25.
pub const RULES: &[DifferenceRule] = &[
    // Fields that an API server and its controllers write into every object.
    rule(&["*"], "/metadata/resourceVersion", "each store counts its own writes"),
    rule(&["*"], "/metadata/creationTimestamp", "the server stamps what is created"),
    rule(&["*"], "/metadata/generation", "the server counts changes of the spec from 1"),
    rule(&["*"], "/metadata/managedFields/Update *", "who wrote by update is noted anew"),
    rule(&["*"], "/metadata/managedFields/Apply status *", "the status is the new cluster's"),
    when(status, &["*"], "/status", "written apart, by the controllers of the new cluster"),
    // Whole objects.
    rule(
        &[
            "Node",
            "CSINode",
            "CSIStorageCapacity",
            "VolumeAttachment",
            "ResourceSlice",
            "Event",
            "Lease",
            "IPAddress",
        ],
        "",
        "says what is and what happens in the old cluster",
    ),
    rule(
        &["CertificateSigningRequest", "CertificateRequest", "Order", "Challenge"],
        "",
        "a request that is answered once",
    ),
    when(
        controlled,
        &["Pod", "ReplicaSet", "Job", "EndpointSlice", "Endpoints"],
        "",
        "a controller makes it again",
    ),
    when(finished, &["Pod", "Job"], "", "it has run"),
    when(of_a_machine, &["Pod", "Secret"], "", "it belongs to the old cluster's machines"),
    when(provisioned, &["PersistentVolume"], "", "the class makes a new one for the claim"),
    when(of_the_server, &["Service", "Endpoints", "EndpointSlice"], "", "the API server's own address"),
    // Fields.
    when(of_the_cluster, &["ConfigMap", "Secret"], "/data", "CA and tokens are each cluster's own"),
    rule(&["Service"], "/spec/clusterIP*", "an address in the new cluster"),
    rule(&["Service"], "/spec/ports/*/nodePort", "a port that the old cluster chose"),
    rule(&["Service"], "/spec/healthCheckNodePort", "a port that the old cluster chose"),
    rule(&["PersistentVolumeClaim"], "/spec/volumeName", "a volume that the class makes is another one"),
    rule(
        &["PersistentVolumeClaim"],
        "/metadata/annotations/pv.kubernetes.io~1*",
        "the binder notes how it bound it: here by name",
    ),
    rule(
        &["PersistentVolumeClaim"],
        "/metadata/annotations/volume.*kubernetes.io~1storage-provisioner",
        "the binder asks the class for a new volume",
    ),
    rule(
        &["PersistentVolumeClaim"],
        "/metadata/annotations/kbak.dev~1without-data",
        "it got an empty volume: a claim that a provisioner made",
    ),
    rule(&["PersistentVolume"], "/spec/claimRef/resourceVersion", "of the new claim"),
    rule(
        &["Deployment"],
        "/metadata/annotations/deployment.kubernetes.io~1revision",
        "revisions start anew without the ReplicaSets of earlier ones",
    ),
    rule(
        &["Job"],
        "/metadata/labels/*controller-uid",
        "a copy of the template's labels, made before the UID was known",
    ),
    when(of_a_token, &["Pod"], "/spec", "the token's volume has a random name"),
];

const fn rule(kinds: &'static [&'static str], pointer: &'static str, reason: &'static str) -> DifferenceRule {
    DifferenceRule { kinds, pointer, when: |_| true, reason }
}

const fn when(
    when: fn(&SeenDifference<'_>) -> bool,
    kinds: &'static [&'static str],
    pointer: &'static str,
    reason: &'static str,
) -> DifferenceRule {
    DifferenceRule { kinds, pointer, when, reason }
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn status(seen: &SeenDifference<'_>) -> bool {
    seen.kind.status
}

/// True if a controller made it from another object that is restored.
fn controlled(seen: &SeenDifference<'_>) -> bool {
    let object = seen.object;
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let managed = text(object, "/metadata/labels/endpointslice.kubernetes.io~1managed-by");
    let endpoints = text(object, "/metadata/labels/endpoints.kubernetes.io~1managed-by");
    owners.is_some_and(|all| all.iter().any(|owner| owner["controller"] == true))
        || managed.ends_with("-controller.k8s.io")
        || endpoints == "endpoint-controller"
}

fn finished(seen: &SeenDifference<'_>) -> bool {
    let object = seen.object;
    text(object, "/status/phase") == "Succeeded" || !text(object, "/status/completionTime").is_empty()
}

/// True for a mirror of a static pod, and for a token that lets nodes join.
fn of_a_machine(seen: &SeenDifference<'_>) -> bool {
    let object = seen.object;
    object.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some()
        || text(object, "/type") == "bootstrap.kubernetes.io/token"
}

fn of_the_server(seen: &SeenDifference<'_>) -> bool {
    let object = seen.object;
    text(object, "/metadata/namespace") == "default" && text(object, "/metadata/name") == "kubernetes"
}

fn provisioned(seen: &SeenDifference<'_>) -> bool {
    let object = seen.object;
    text(object, "/spec/persistentVolumeReclaimPolicy") == "Delete"
        && !text(object, "/spec/csi/driver").is_empty()
}

fn of_the_cluster(seen: &SeenDifference<'_>) -> bool {
    let object = seen.object;
    ["kube-root-ca.crt", "extension-apiserver-authentication"].contains(&text(object, "/metadata/name"))
        || text(object, "/type") == "kubernetes.io/service-account-token"
}

/// True for the volume that admission adds for a token.
fn of_a_token(seen: &SeenDifference<'_>) -> bool {
    [seen.before, seen.after].iter().all(|name| name.starts_with("\"kube-api-access-"))
}
