//! Cluster-scoped kinds that other objects may need, and the kinds of those objects. Pure.

use super::KindInfo;

/// Groups beside the core group whose kinds have no CustomResourceDefinition.
const BUILT_IN: &[&str] = &[
    "apps",
    "autoscaling",
    "batch",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "storage.k8s.io",
];

/// Pods, and the built-in kinds that hold the template of one.
const POD_KINDS: &[&str] = &[
    "pods",
    "podtemplates",
    "replicationcontrollers",
    "cronjobs.batch",
    "daemonsets.apps",
    "deployments.apps",
    "jobs.batch",
    "replicasets.apps",
    "statefulsets.apps",
];

/// The objects that may refer to a kind.
enum Referrers {
    /// All objects in namespaces.
    Namespaced,
    /// All custom resources.
    Custom,
    /// Objects of these kinds.
    Kinds(&'static [&'static str]),
    /// Objects of these kinds, and custom resources: their fields are not known.
    KindsAndCustom(&'static [&'static str]),
    /// Pods and their templates, objects of these kinds, and custom resources.
    PodsAndCustom(&'static [&'static str]),
}

/// Each kind with the objects that may refer to it; the backup of resources finds the objects.
const REFERENCED_KINDS: &[(&str, Referrers)] = &[
    ("namespaces", Referrers::Namespaced),
    ("persistentvolumes", Referrers::Kinds(&["persistentvolumeclaims"])),
    ("customresourcedefinitions.apiextensions.k8s.io", Referrers::Custom),
    ("priorityclasses.scheduling.k8s.io", Referrers::PodsAndCustom(&[])),
    // Pods and StatefulSets hold templates of claims.
    ("storageclasses.storage.k8s.io", Referrers::PodsAndCustom(STORAGE_KINDS)),
    ("volumeattributesclasses.storage.k8s.io", Referrers::PodsAndCustom(STORAGE_KINDS)),
    ("volumesnapshotclasses.snapshot.storage.k8s.io", Referrers::Custom),
    (
        "volumesnapshotcontents.snapshot.storage.k8s.io",
        Referrers::Kinds(&["volumesnapshots.snapshot.storage.k8s.io"]),
    ),
    ("ingressclasses.networking.k8s.io", Referrers::KindsAndCustom(&["ingresses.networking.k8s.io"])),
    ("gatewayclasses.gateway.networking.k8s.io", Referrers::Custom),
    ("runtimeclasses.node.k8s.io", Referrers::PodsAndCustom(&[])),
    ("deviceclasses.resource.k8s.io", Referrers::KindsAndCustom(DEVICE_KINDS)),
    ("clusterroles.rbac.authorization.k8s.io", Referrers::Kinds(BINDINGS)),
    // They name accounts, so the objects of a namespace do not show which of them matter.
    ("clusterrolebindings.rbac.authorization.k8s.io", Referrers::Kinds(&[])),
];

const STORAGE_KINDS: &[&str] =
    &["persistentvolumeclaims", "persistentvolumes", "csistoragecapacities.storage.k8s.io"];
const DEVICE_KINDS: &[&str] = &["resourceclaims.resource.k8s.io", "resourceclaimtemplates.resource.k8s.io"];
const BINDINGS: &[&str] =
    &["rolebindings.rbac.authorization.k8s.io", "clusterrolebindings.rbac.authorization.k8s.io"];

/// Returns true if a CustomResourceDefinition defines the kind.
#[must_use]
pub fn has_definition(kind: &KindInfo) -> bool {
    !kind.group.is_empty() && !BUILT_IN.contains(&kind.group.as_str())
}

fn referrers(kind: &KindInfo) -> Option<&'static Referrers> {
    let resource = kind.resource();
    REFERENCED_KINDS.iter().find(|(name, _)| *name == resource).map(|(_, referrers)| referrers)
}

/// Returns true for a cluster-scoped kind that other objects may need.
pub(super) fn is_referenced(kind: &KindInfo) -> bool {
    !kind.namespaced && referrers(kind).is_some()
}

/// Returns true if objects of the kind `from` may refer to objects of the kind `to`.
pub(super) fn may_refer(from: &KindInfo, to: &KindInfo) -> bool {
    let resource = from.resource();
    let is_one = |kinds: &[&str]| kinds.contains(&resource.as_str());
    match referrers(to) {
        None => false,
        Some(Referrers::Namespaced) => from.namespaced,
        Some(Referrers::Custom) => has_definition(from),
        Some(Referrers::Kinds(kinds)) => is_one(kinds),
        Some(Referrers::KindsAndCustom(kinds)) => is_one(kinds) || has_definition(from),
        Some(Referrers::PodsAndCustom(kinds)) => is_one(kinds) || is_one(POD_KINDS) || has_definition(from),
    }
}
