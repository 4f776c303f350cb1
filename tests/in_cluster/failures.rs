//! Runs that fail: the pod's log and its termination message name the reason, and the Job is tried
//! again only where that can help.

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::helper;
use super::installed::{Installed, NODE, end_of};
use super::sidecars::native_sidecars_end_with_the_run_and_old_ones_at_the_deadline;
use crate::support::control_plane::patch;
use crate::support::wait::until;

/// A failure: values that cause it, the exit code, and the reason in log and message.
const FAILURES: &[(&str, &str, i64, &str)] = &[
    (
        "wrong-plan",
        "plan.spec.resources.kinds.include={secrets},plan.spec.resources.kinds.exclude={secrets}",
        2,
        "no kind is selected",
    ),
    ("no-store-secret", "store.existingSecret=absent", 2, "/etc/kbak/store/absent/credentials"),
    ("no-writer-secret", "writer.existingSecret=absent", 2, "/etc/kbak/writer/absent/writer.key"),
    ("no-epoch-secret", "epoch.existingSecret=absent", 2, "writer.key.epoch of the Secret kbak/absent"),
    ("wrong-secret", "store.existingSecret=wrong", 2, "the credentials are missing or not accepted"),
    ("no-rights", "rbac.secrets=false", 3, "resources: [secrets], verbs: [list]"),
    (
        "deadline",
        "backup.activeDeadlineSeconds=10,backup.extraArgs={--upload,1Ki/s}",
        6,
        "interrupted by SIGTERM",
    ),
    // Nothing listens there.
    ("no-store", "plan.spec.repository.endpoint=http://192.0.2.1:9", 5, "Connection refused"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn failed_runs_name_their_reason_in_log_and_message() {
    let Some(kbak) = Installed::start().await else { return };
    kbak.add_store_secret("wrong", "not-the-secret").await;
    for (name, setting, exit, reason) in FAILURES {
        kbak.helm("upgrade", &[setting, "backup.backoffLimit=0"]);
        kbak.start_job("backup", name).await;
        fails(&kbak, name, *exit, reason).await;
    }
    no_egress(&kbak).await;
    // Earlier snapshots are untouched, and the next run is not disturbed by any of these.
    kbak.helm("upgrade", &[]);
    kbak.back_up("at-last").await;
}

/// Waits for the end of a Job that fails in its only pod, which names the reason.
async fn fails(kbak: &Installed, name: &str, exit: i64, reason: &str) {
    assert!(!kbak.ended(name).await, "{name}");
    let pods = kbak.pods(name).await;
    let (code, message) = end_of(&pods[0]);
    let log = kbak.log(&pods[0]).await;
    assert_eq!((code, pods.len()), (exit, 1), "{name}: {log}");
    assert!(log.contains(reason) && message.contains(reason), "{name}: {log}\nmessage: {message}");
}

/// A NetworkPolicy that leaves no way to the store. It holds a moment after a pod begins, so this one waits.
async fn no_egress(kbak: &Installed) {
    kbak.helm("upgrade", &["networkPolicy.store.cidrs={198.51.100.0/24}", "backup.backoffLimit=0"]);
    let closed = format!("while nc -w 1 {NODE} {} </dev/null >/dev/null 2>&1; do true; done", kbak.port());
    let wait = |spec: &mut Value| {
        spec["template"]["spec"]["initContainers"] = json!([helper("wait", &closed)]);
    };
    kbak.start_changed_job("backup", "no-egress", wait).await;
    fails(kbak, "no-egress", 5, "Connection refused").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_and_evicted_runs_are_tried_again() {
    let Some(kbak) = Installed::start().await else { return };
    killed(&kbak).await;
    drained(&kbak).await;
    native_sidecars_end_with_the_run_and_old_ones_at_the_deadline(&kbak).await;
}

/// A process killed in the middle of a run is one try; the next one ends well.
async fn killed(kbak: &Installed) {
    kbak.helm("upgrade", &["backup.extraArgs={--upload,16Ki/s}", "backup.backoffLimit=1"]);
    kbak.start_job("backup", "killed").await;
    let pod = kbak.running("killed").await;
    kill(&pod);
    assert!(kbak.ended("killed").await);
    let pods = kbak.pods("killed").await;
    assert_eq!(pods.len(), 2);
    let (code, message) = end_of(&pods[0]);
    assert_eq!(code, 137);
    assert!(message.contains("resources begins"), "the end of the log stands in: {message}");
    assert_eq!(end_of(&pods[1]).0, 0);
}

/// A drained node takes no new pods and evicts the run, which costs no try. It goes on where a node is.
async fn drained(kbak: &Installed) {
    kbak.helm("upgrade", &["backup.extraArgs={--upload,16Ki/s}", "backup.backoffLimit=0"]);
    kbak.start_job("backup", "drained").await;
    let pod = kbak.running("drained").await;
    let node = pod["spec"]["nodeName"].as_str().expect("a node");
    let node = format!("/api/v1/nodes/{node}");
    patch(&kbak.cluster, &node, json!({"spec": {"unschedulable": true}})).await;
    let name = pod["metadata"]["name"].as_str().expect("a name");
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "kbak"},
    });
    let path = format!("/api/v1/namespaces/kbak/pods/{name}/eviction");
    let body = Bytes::from(eviction.to_string());
    kbak.cluster.send(Method::POST, &path, "", "application/json", body).await.expect("an eviction");
    // The next pod is made, and waits for a node.
    let query = "/api/v1/namespaces/kbak/pods";
    until(&kbak.cluster, query, |pods| unschedulable(pods, "drained")).await;
    patch(&kbak.cluster, &node, json!({"spec": {"unschedulable": null}})).await;
    assert!(kbak.ended("drained").await);
}

/// True if a pod of a Job waits for a node.
fn unschedulable(pods: &Value, job: &str) -> bool {
    pods["items"].as_array().is_some_and(|pods| {
        pods.iter().filter(|pod| pod["metadata"]["labels"]["job-name"] == job).any(|pod| {
            pod["status"]["conditions"][0]["reason"] == "Unschedulable" && pod["status"]["phase"] == "Pending"
        })
    })
}

/// Kills the container's process, found by its cgroup: the node's processes are this machine's.
fn kill(pod: &Value) {
    let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().expect("an id");
    let id = id.trim_start_matches("containerd://");
    assert!(id.len() == 64);
    let mut killed = 0;
    for entry in std::fs::read_dir("/proc").expect("processes").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let cgroups = std::fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        if cgroups.contains(id) {
            let pid = rustix::process::Pid::from_raw(pid).expect("a process");
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("a signal");
            killed += 1;
        }
    }
    assert_eq!(killed, 1, "a container of one process");
}
