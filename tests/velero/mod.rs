//! Show 3: kbak's behaviour for each Velero issue about restoring resources. A case is named by the
//! number of the issue at github.com/vmware-tanzu/velero.
//!
//! Omitted, because they are about volumes or about the operation of Velero's controller: 7345,
//! 7481 and 8047's data (an existing volume is filled again), 9359 and 9744 (restores that never
//! finalize: one process, each wait with a deadline), 9461 and 9462 (restores of pods' volumes),
//! 5516 (a queue). 5458 (no consistent moment) and 5658's reading half are tested with the listing;
//! 7902, 3851 and 9169 (memory and speed) by `cluster_full::scale` and scripts/soak.

mod case_runner;
mod existing;
mod namespaces_and_ports;
mod order;
mod owners;
mod volumes;
mod workloads;

use kbak::kubernetes::Cluster;
use serde_json::{Value, json};

use crate::support::control_plane::create;
use case_runner::{Case, run_cases};

/// Expands to a case with its name.
macro_rules! case {
    ($module:ident::$name:ident) => {
        (stringify!($name), |context| Box::pin($module::$name(context)))
    };
}

const CASES: &[Case] = &[
    case!(existing::vl448_dry_run_prints_the_plan_and_makes_no_change),
    case!(existing::vl4503_killed_restore_resumes),
    case!(existing::vl6142_vl9925_vl10014_vl10104_existing_objects_are_changed_only_on_request),
    case!(order::vl487_vl2888_objects_are_created_concurrently),
    case!(order::vl6845_secret_is_restored_with_one_write),
    case!(order::vl2443_webhooks_are_restored_after_the_objects_they_match),
    case!(order::vl4847_restore_waits_for_a_starting_webhook),
    case!(order::vl4045_vl8832_order_between_custom_resources_is_discovered),
    case!(order::vl5658_definitions_and_their_objects_are_restored_in_one_run),
    case!(owners::vl4707_vl10556_owner_references_are_restored),
    case!(owners::vl7862_claim_keeps_its_owner),
    case!(owners::vl5580_finalizers_are_restored),
    case!(owners::vl3029_restored_objects_keep_their_labels_and_helm_annotations),
    case!(namespaces_and_ports::vl2308_node_port_of_the_existing_service_is_accepted),
    case!(namespaces_and_ports::vl5872_service_with_a_taken_node_port_is_restored_without_it),
    case!(namespaces_and_ports::vl6376_health_check_port_is_assigned_by_the_target_cluster),
    case!(namespaces_and_ports::vl5156_namespace_rights_suffice_to_restore_that_namespace),
    case!(namespaces_and_ports::vl5697_vl7516_vl7424_terminating_namespace_is_awaited_once),
    case!(volumes::vl7946_claim_gets_no_selector),
    case!(volumes::vl5332_vl8047_existing_volume_is_never_changed_silently),
    case!(volumes::vl7771_vl9583_snapshots_of_another_storage_are_skipped),
    case!(workloads::vl6711_job_is_restored_and_runs),
    case!(workloads::vl6250_finished_jobs_and_pods_are_no_failure),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_velero_issue_case_passes() {
    run_cases(CASES).await;
}

/// Returns the path of a core kind in a namespace.
fn core(namespace: &str, plural: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/{plural}")
}

/// True if there is an object at `path`.
async fn exists(cluster: &Cluster, path: &str) -> bool {
    match cluster.get(path, "", 16 << 20).await {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.code(), Some(404), "{error}");
            false
        }
    }
}

async fn namespace(cluster: &Cluster, name: &str, labels: Value) {
    create(cluster, "/api/v1/namespaces", json!({"metadata": {"name": name, "labels": labels}})).await;
}

fn map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

/// Returns a validating webhook for creates and updates of objects with the label `judged-by: NAME`.
fn webhook(name: &str, client: Value, group: &str, resource: &str) -> Value {
    json!({"metadata": {"name": name}, "webhooks": [{
        "name": format!("{name}.velero.kbak.dev"), "admissionReviewVersions": ["v1"], "sideEffects": "None", "timeoutSeconds": 10,
        "failurePolicy": "Fail", "clientConfig": client, "objectSelector": {"matchLabels": {"judged-by": name}},
        "rules": [{"apiGroups": [group], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": [resource]}]}]})
}

const WEBHOOKS: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Returns a definition of a schemaless kind of the group `velero.kbak.dev`.
fn definition(kind: &str) -> Value {
    let plural = format!("{}s", kind.to_lowercase());
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    json!({"metadata": {"name": format!("{plural}.velero.kbak.dev")}, "spec": {
        "group": "velero.kbak.dev", "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}})
}

fn custom(kind: &str, name: &str) -> Value {
    json!({"apiVersion": "velero.kbak.dev/v1", "kind": kind, "metadata": {"name": name}, "spec": {"a": 1}})
}

fn custom_path(namespace: &str, plural: &str) -> String {
    format!("/apis/velero.kbak.dev/v1/namespaces/{namespace}/{plural}")
}
