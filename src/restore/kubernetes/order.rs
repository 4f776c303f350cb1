//! The order in which kinds are created.
//!
//! It spares most waiting but need not be perfect: what fails because something is not there yet
//! is tried again in the next round.

use super::{ResourceStreams, RestoreConfig};
use crate::source::kubernetes::KindInfo;

/// Steps, first to last: (group, resources). A group may stand at several steps.
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
/// Late steps, first to last, after all kinds that no table names.
const LATE: &[(&str, &[&str])] = &[
    ("", &["pods"]),
    // Limits change the pods that come after them: those of the backup are as they were, those that
    // controllers make anew get what is set for all.
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

/// A kind's place: first the step, then the place within it.
#[must_use]
pub fn step(kind: &KindInfo) -> (usize, usize) {
    let find = |table: &[(&str, &[&str])]| {
        table.iter().enumerate().find_map(|(step, (group, resources))| {
            let place = resources.iter().position(|resource| *resource == kind.plural)?;
            (*group == kind.group).then_some((step, place))
        })
    };
    let rest = STEPS.len();
    // Custom resources come before workloads: an operator that starts and finds none may make
    // its own. The built-in kinds that no table names stand with them.
    find(STEPS).or_else(|| find(LATE).map(|(step, place)| (rest + 1 + step, place))).unwrap_or((rest, 0))
}

/// Whether objects of this kind come last, after owners are set: they change what happens to every
/// write that follows.
#[must_use]
pub(super) fn is_last(kind: &KindInfo) -> bool {
    matches!(kind.group.as_str(), "admissionregistration.k8s.io" | "apiregistration.k8s.io")
}

/// Whether they define kinds.
#[must_use]
pub(super) fn is_definition(kind: &KindInfo) -> bool {
    kind.resource() == "customresourcedefinitions.apiextensions.k8s.io"
}

/// The kinds that a config selects, in the order in which they are created.
pub(super) fn selected(streams: &dyn ResourceStreams, config: &RestoreConfig) -> Vec<KindInfo> {
    let mut kinds = streams.kinds();
    kinds.retain(|kind| config.selects_kind(&kind.resource()));
    kinds.sort_by_cached_key(|kind| (step(kind), kind.clone()));
    kinds
}
