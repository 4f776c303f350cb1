//! Jobs and pods.

use serde_json::{Value, json};

use super::case_runner::CaseContext;
use super::{core, exists, namespace};
use crate::support::control_plane::{create, patch};
use crate::support::wait::until;

const NEVER: &str = "Never";

fn template(app: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}}, "spec": {"restartPolicy": NEVER,
        "containers": [{"name": "main", "image": "registry.invalid/app:1"}]}})
}

fn jobs(namespace: &str) -> String {
    format!("/apis/batch/v1/namespaces/{namespace}/jobs")
}

/// A Job's selector and labels carry its old UID; with them it finds no pods, or the wrong ones.
pub async fn vl6711_job_is_restored_and_runs(mut case: CaseContext) {
    namespace(&case.source, "vl6711", json!({})).await;
    let job = json!({"metadata": {"name": "import", "labels": {"mine": "1"}}, "spec": {"template": template("import")}});
    create(&case.source, &jobs("vl6711"), job).await;
    let path = format!("{}/import", jobs("vl6711"));
    let old = until(&case.source, &path, |job| job["status"]["active"] == 1).await;
    case.wait_for_backup().await;

    case.restore(&["--namespace", "vl6711", "--release", "jobs"]).await.ended(0);
    let new = until(&case.target, &path, |job| job["status"]["active"] == 1).await;
    let uid = &new["metadata"]["uid"];
    assert_ne!(*uid, old["metadata"]["uid"]);
    let name = "batch.kubernetes.io/controller-uid";
    assert_eq!(new["spec"]["selector"]["matchLabels"], json!({name: uid}));
    assert_eq!(new["spec"]["template"]["metadata"]["labels"][name], *uid);
    assert_eq!(new["spec"]["template"]["metadata"]["labels"]["app"], "import");
    assert_eq!(new["metadata"]["labels"], json!({"mine": "1"}));
}

/// Finished Jobs and their pods made Velero's backups and restores PartiallyFailed.
pub async fn vl6250_finished_jobs_and_pods_are_no_failure(mut case: CaseContext) {
    namespace(&case.source, "vl6250", json!({})).await;
    let spec = json!({"template": template("done"), "managedBy": "demo.kbak.dev/hand"});
    create(&case.source, &jobs("vl6250"), json!({"metadata": {"name": "done"}, "spec": spec})).await;
    let at = "2026-11-24T00:00:00Z";
    let condition = |of: &str| json!({"type": of, "status": "True", "reason": "Done", "lastProbeTime": at, "lastTransitionTime": at});
    let ended = json!({"startTime": at, "completionTime": at, "succeeded": 1,
        "conditions": [condition("SuccessCriteriaMet"), condition("Complete")]});
    patch(&case.source, &format!("{}/done/status", jobs("vl6250")), json!({"status": ended})).await;
    let pods = core("vl6250", "pods");
    // The pods' ServiceAccount is created a moment after their namespace.
    until(&case.source, &core("vl6250", "serviceaccounts/default"), |_| true).await;
    for (name, phase) in [("succeeded", "Succeeded"), ("failed", "Failed"), ("waits", "Pending")] {
        let mut pod = template(name);
        pod["metadata"]["name"] = json!(name);
        create(&case.source, &pods, pod).await;
        patch(&case.source, &format!("{pods}/{name}/status"), json!({"status": {"phase": phase}})).await;
    }
    case.wait_for_backup().await;

    let run = case.restore(&["--namespace", "vl6250", "--release", "jobs"]).await.ended(0);
    assert!(run.gaps().is_empty(), "{:?}", run.gaps());
    assert!(exists(&case.target, &format!("{pods}/waits")).await);
    assert!(!exists(&case.target, &format!("{pods}/succeeded")).await);
    assert!(!exists(&case.target, &format!("{pods}/failed")).await);
    assert!(!exists(&case.target, &format!("{}/done", jobs("vl6250"))).await);
}
