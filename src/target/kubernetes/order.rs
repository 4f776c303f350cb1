//! The order in which kinds are created.
//!
//! It avoids most retries but need not be perfect: an object that fails because another is missing is retried
//! in the next round.

use super::{ResourceStreams, RestoreConfig};
use crate::kubernetes::KindInfo;

/// Early steps, first to last: (group, resources). A group may be in several steps.
const STEPS: &[(&str, &[&str])] = &[
    ("", &["namespaces"]),
    ("scheduling.k8s.io", &["priorityclasses"]),
    ("storage.k8s.io", &["storageclasses", "volumeattributesclasses", "csidrivers"]),
    ("networking.k8s.io", &["ingressclasses"]),
    ("node.k8s.io", &["runtimeclasses"]),
    ("snapshot.storage.k8s.io", &["volumesnapshotclasses"]),
    ("apiextensions.k8s.io", &["customresourcedefinitions"]),
    ("", &["persistentvolumes"]),
    ("", &["persistentvolumeclaims"]),
    ("", &["serviceaccounts"]),
    ("", &["secrets"]),
    ("", &["configmaps"]),
    ("rbac.authorization.k8s.io", &["clusterroles", "roles", "clusterrolebindings", "rolebindings"]),
    ("", &["services"]),
    ("", &["endpoints"]),
];
/// Late steps, first to last, after all kinds that are in no table.
const LATE: &[(&str, &[&str])] = &[
    ("", &["pods"]),
    // Limits change pods created after them. The backup's pods keep their values; new pods of controllers get
    // the limits.
    ("", &["limitranges"]),
    ("apps", &["daemonsets", "statefulsets", "deployments", "replicasets"]),
    ("", &["replicationcontrollers"]),
    ("batch", &["jobs", "cronjobs"]),
    ("autoscaling", &["horizontalpodautoscalers"]),
    ("policy", &["poddisruptionbudgets"]),
    ("", &["resourcequotas"]),
    ("apiregistration.k8s.io", &["apiservices"]),
    (
        "admissionregistration.k8s.io",
        &[
            "validatingadmissionpolicies",
            "mutatingadmissionpolicies",
            "validatingadmissionpolicybindings",
            "mutatingadmissionpolicybindings",
            "mutatingwebhookconfigurations",
            "validatingwebhookconfigurations",
        ],
    ),
];

/// Returns a kind's place: the step, and the position within it.
#[must_use]
pub fn step(kind: &KindInfo) -> (usize, usize) {
    let find = |table: &[(&str, &[&str])]| {
        table.iter().enumerate().find_map(|(step, (group, resources))| {
            let place = resources.iter().position(|resource| *resource == kind.plural)?;
            (*group == kind.group).then_some((step, place))
        })
    };
    let rest = STEPS.len();
    // Custom resources come before workloads: an operator that starts and finds none may create its own.
    // Built-in kinds that are in no table come with them.
    find(STEPS).or_else(|| find(LATE).map(|(step, place)| (rest + 1 + step, place))).unwrap_or((rest, 0))
}

/// True if objects of this kind come last, after owners are set, because they affect all later writes.
pub(crate) fn is_last(kind: &KindInfo) -> bool {
    matches!(kind.group.as_str(), "admissionregistration.k8s.io" | "apiregistration.k8s.io")
}

/// The resource of definitions.
pub(crate) const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";

pub(crate) fn is_definition(kind: &KindInfo) -> bool {
    kind.resource() == DEFINITIONS
}

/// Returns the kinds that a config selects and those of required objects, in the order of creation.
pub(crate) fn selected_kinds(
    streams: &dyn ResourceStreams,
    config: &RestoreConfig,
    is_required: impl Fn(&KindInfo) -> bool,
) -> Vec<KindInfo> {
    let mut kinds = streams.kinds();
    kinds.retain(|kind| config.selects_kind(&kind.resource()) || is_required(kind));
    kinds.sort_by_cached_key(|kind| (step(kind), kind.clone()));
    kinds
}
