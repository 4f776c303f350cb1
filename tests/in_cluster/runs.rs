//! Runs that end well: the chart's test, a backup, its verification by the schedule, a restore.

use std::time::Duration;

use serde_json::Value;

use super::installed::{Installed, end_of};
use crate::support::owners::must;
use crate::support::plane::get;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cronjobs_back_up_and_verify_the_cluster_and_a_laptop_reads_it() {
    let Some(kbak) = Installed::start().await else { return };
    let said = kbak.helm_test();
    assert!(said.contains("0 problems"), "{said}");

    kbak.start_job("backup", "first").await;
    let complete = kbak.ended("first").await;
    let pod = kbak.pods("first").await.pop().expect("a pod");
    let log = kbak.log(&pod).await;
    assert!(complete && log.contains("snapshot 000001 committed"), "{log}");
    let (code, message) = end_of(&pod);
    assert_eq!(code, 0);
    assert!(message.starts_with("snapshot 000001 committed, exit 0\nhead sha256:"), "{message}");

    // By the schedule itself, which no Job made by hand tries.
    kbak.helm("upgrade", &["verify.schedule=* * * * *", "verify.read=all"]);
    let verified = scheduled(&kbak).await;
    let name = verified["metadata"]["name"].as_str().expect("a name");
    assert!(kbak.ended(name).await, "{name}");
    let pod = kbak.pods(name).await.pop().expect("a pod");
    let volumes = pod["spec"]["volumes"].to_string();
    assert!(!volumes.contains("serviceAccountToken") && !volumes.contains("kbak-writer"), "{volumes}");
    assert!(kbak.log(&pod).await.contains("verified: 1 snapshot of 1 plan"));

    let mut ls = kbak.on_the_laptop(&["ls", "latest", "resources:apps/v1/deployments"]);
    let listed = must(ls.args(["--signer", "kbak.pub", "--identity", "bob.key"]), b"");
    assert!(String::from_utf8_lossy(&listed).contains("coredns"));
}

/// Waits for a Job that the verification's CronJob has started.
async fn scheduled(kbak: &Installed) -> Value {
    for _ in 0..900 {
        let jobs = get(&kbak.cluster, "/apis/batch/v1/namespaces/kbak/jobs").await;
        let jobs = jobs["items"].as_array().expect("items");
        if let Some(job) =
            jobs.iter().find(|job| job["metadata"]["ownerReferences"][0]["name"] == "kbak-verify")
        {
            return job.clone();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the CronJob starts no Job");
}
