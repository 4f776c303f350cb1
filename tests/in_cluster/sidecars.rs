//! Sidecars that never end by themselves, as a mesh adds them to a pod.

use serde_json::{Value, json};

use super::helper;
use super::installed::{Installed, end_of};
use crate::support::wait::until;

/// A container as a mesh injects it.
fn sidecar() -> Value {
    helper("proxy", "trap '' TERM; while :; do sleep 1; done")
}

/// A native sidecar ends with the run; the old kind keeps the pod until its deadline, and the docs say so.
pub async fn native_sidecars_end_with_the_run_and_old_ones_at_the_deadline(kbak: &Installed) {
    kbak.helm("upgrade", &["backup.backoffLimit=0"]);
    let native = |spec: &mut Value| {
        let pod = &mut spec["template"]["spec"];
        pod["terminationGracePeriodSeconds"] = json!(1);
        pod["initContainers"] = json!([sidecar()]);
        pod["initContainers"][0]["restartPolicy"] = json!("Always");
    };
    kbak.start_changed_job("backup", "native-sidecar", native).await;
    assert!(kbak.ended("native-sidecar").await);

    let old = |spec: &mut Value| {
        let pod = &mut spec["template"]["spec"];
        pod["terminationGracePeriodSeconds"] = json!(1);
        pod["activeDeadlineSeconds"] = json!(30);
        pod["containers"].as_array_mut().expect("containers").push(sidecar());
    };
    kbak.start_changed_job("backup", "old-sidecar", old).await;
    let pods = "/api/v1/namespaces/kbak/pods";
    let pods = until(&kbak.cluster, pods, |pods| ended_alone(pods).is_some()).await;
    let pod = ended_alone(&pods).expect("a pod");
    assert_eq!(pod["status"]["phase"], "Running", "kbak has ended, and the sidecar keeps the pod");
    assert!(kbak.log(pod).await.contains("committed"), "the snapshot is stored");
    assert!(!kbak.ended("old-sidecar").await, "the deadline fails the Job");
    let pods = kbak.pods("old-sidecar").await;
    assert_eq!((pods.len(), pods[0]["status"]["reason"].as_str()), (1, Some("DeadlineExceeded")));
    assert_eq!(end_of(&pods[0]).0, 0);
}

/// Returns the pod of the old kind of sidecar whose container kbak has ended.
fn ended_alone(pods: &Value) -> Option<&Value> {
    let mut pods = pods["items"].as_array()?.iter();
    let pod = pods.find(|pod| pod["metadata"]["labels"]["job-name"] == "old-sidecar")?;
    let mut all = pod["status"]["containerStatuses"].as_array()?.iter();
    let kbak = all.find(|container| container["name"] == "kbak")?;
    kbak["state"]["terminated"].is_object().then_some(pod)
}
