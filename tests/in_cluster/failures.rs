//! Runs that fail: the pod's log and its termination message name the reason, and the Job is tried
//! again only where that can help.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::installed::{Installed, end_of};

/// A failure: values that cause it, the exit code, and the reason in log and message.
const FAILURES: &[(&str, &str, i64, &str)] = &[
    ("wrong-plan", "plan.spec.resource.kinds=all", 2, "unknown field resource in spec"),
    ("no-store-secret", "store.existingSecret=absent", 2, "/etc/kbak/store/absent/credentials"),
    ("no-writer-secret", "writer.existingSecret=absent", 2, "/etc/kbak/writer/absent/writer.key"),
    ("no-epoch-secret", "epoch.existingSecret=absent", 2, "writer.key.epoch of the Secret kbak/absent"),
    ("wrong-secret", "store.existingSecret=wrong", 2, "the credentials are missing or not accepted"),
    ("no-rights", "rbac.secrets=false", 3, "resources: [secrets], verbs: [get, list]"),
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
        assert!(!kbak.ended(name).await, "{name}");
        let pods = kbak.pods(name).await;
        let (code, message) = end_of(&pods[0]);
        let log = kbak.log(&pods[0]).await;
        assert_eq!((code, pods.len()), (*exit, 1), "{name}: {log}");
        assert!(log.contains(reason) && message.contains(reason), "{name}: {log}\nmessage: {message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_and_evicted_runs_are_tried_again() {
    let Some(kbak) = Installed::start().await else { return };
    killed(&kbak).await;
    evicted(&kbak).await;
}

/// A process killed in the middle of a run is one try; the next one ends well.
async fn killed(kbak: &Installed) {
    kbak.helm("upgrade", &["backup.extraArgs={--upload,16Ki/s}", "backup.backoffLimit=1"]);
    kbak.start_job("backup", "killed").await;
    let pod = running(kbak, "killed").await;
    kill(&pod);
    assert!(kbak.ended("killed").await);
    let pods = kbak.pods("killed").await;
    assert_eq!(pods.len(), 2);
    let (code, message) = end_of(&pods[0]);
    assert_eq!(code, 137);
    assert!(message.contains("resources begins"), "the end of the log stands in: {message}");
    assert_eq!(end_of(&pods[1]).0, 0);
}

/// An eviction interrupts the run, and costs no try.
async fn evicted(kbak: &Installed) {
    kbak.helm("upgrade", &["backup.extraArgs={--upload,16Ki/s}", "backup.backoffLimit=0"]);
    kbak.start_job("backup", "evicted").await;
    let pod = running(kbak, "evicted").await;
    let name = pod["metadata"]["name"].as_str().expect("a name");
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "kbak"},
    });
    let path = format!("/api/v1/namespaces/kbak/pods/{name}/eviction");
    let body = Bytes::from(eviction.to_string());
    kbak.cluster.send(Method::POST, &path, "", "application/json", body).await.expect("an eviction");
    assert!(kbak.ended("evicted").await);
}

/// Waits until the pod of a Job reads resources and its status names the container, and returns it.
async fn running(kbak: &Installed, job: &str) -> Value {
    for _ in 0..600 {
        if let Some(pod) = kbak.pods(job).await.pop()
            && pod["status"]["containerStatuses"][0]["containerID"].is_string()
            && kbak.log(&pod).await.contains("resources begins")
        {
            return pod;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{job} never begins");
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
