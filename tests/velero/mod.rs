//! Show 3: kbak's behaviour for each Velero issue about restoring resources. A case is named by the
//! number of the issue at github.com/vmware-tanzu/velero.
//!
//! Omitted, because they are about volumes or about the operation of Velero's controller: 7345,
//! 7481 and 8047's data (an existing volume is filled again), 9359 and 9744 (restores that never
//! finalize: one process, each wait with a deadline), 9461 and 9462 (restores of pods' volumes),
//! 5516 (a queue). 5458 (no consistent moment) and 5658's reading half are tested with the listing;
//! 7902, 3851 and 9169 (memory and speed) by `cluster_full::scale` and scripts/soak.

mod existing;
mod order;
mod owners;
mod places;
mod stage;
mod volumes;
mod workloads;

use kbak::kubernetes::Cluster;
use serde_json::{Value, json};

use crate::support::plane::create;
use stage::{Case, play};

/// Expands to a case with its name.
macro_rules! case {
    ($module:ident::$name:ident) => {
        (stringify!($name), |scene| Box::pin($module::$name(scene)))
    };
}

const CASES: &[Case] = &[
    case!(existing::vl448_a_dry_run_shows_the_plan_and_changes_nothing),
    case!(existing::vl4503_a_restore_that_was_killed_goes_on),
    case!(existing::vl6142_vl9925_vl10014_vl10104_what_is_there_is_brought_back_if_it_is_said),
    case!(order::vl487_vl2888_objects_are_created_side_by_side),
    case!(order::vl6845_a_secret_costs_one_write),
    case!(order::vl2443_webhooks_come_after_what_they_judge),
    case!(order::vl4847_a_webhook_that_is_not_up_yet_is_waited_for),
    case!(order::vl4045_vl8832_order_between_custom_resources_is_found),
    case!(order::vl5658_definitions_and_their_objects_come_in_one_run),
    case!(owners::vl4707_vl10556_owner_references_come_back),
    case!(owners::vl7862_a_claim_keeps_its_owner),
    case!(owners::vl5580_finalizers_come_back),
    case!(owners::vl3029_no_label_is_added_and_helm_knows_its_objects),
    case!(places::vl2308_a_node_port_that_its_own_service_has_is_no_failure),
    case!(places::vl5872_a_node_port_that_another_has_costs_the_port_alone),
    case!(places::vl6376_a_health_check_port_is_the_new_clusters),
    case!(places::vl5156_rights_in_one_namespace_restore_it),
    case!(places::vl5697_vl7516_vl7424_a_namespace_that_goes_is_waited_for_once),
    case!(volumes::vl7946_a_claim_gets_no_selector),
    case!(volumes::vl5332_vl8047_a_volume_that_is_there_is_never_changed_silently),
    case!(volumes::vl7771_vl9583_snapshots_of_another_storage_are_left_out),
    case!(workloads::vl6711_a_job_comes_back_and_runs),
    case!(workloads::vl6250_what_has_run_is_no_failure),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_velero_issue_case_passes() {
    play(CASES).await;
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
