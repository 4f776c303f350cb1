//! Runs that end well: the chart's test, a backup, its verification by the schedule, a restore.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};

use super::helper;
use super::installed::{Installed, NODE, end_of};
use crate::support::control_plane::{create, get};
use crate::support::owners::run_ok;
use crate::support::wait::until;

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

    let query = "fieldSelector=involvedObject.name%3Dkbak-backup,reportingComponent%3Dkbak";
    let events = kbak.cluster.get("/api/v1/namespaces/kbak/events", query, 16 << 20).await.expect("Events");
    let events: Value = serde_json::from_slice(&events.body).expect("JSON");
    assert_eq!(events["items"][0]["reason"], "BackupComplete", "{events:#} {log}");

    // By the schedule itself, which no Job made by hand tries. Meanwhile the policies are tried.
    let every_minute = ["verify.schedule=* * * * *", "verify.read=all"];
    network_policies_allow_what_each_pod_needs(&kbak, &every_minute).await;
    let verified = scheduled(&kbak).await;
    let name = verified["metadata"]["name"].as_str().expect("a name");
    assert!(kbak.ended(name).await, "{name}");
    let pod = kbak.pods(name).await.pop().expect("a pod");
    let volumes = pod["spec"]["volumes"].to_string();
    assert!(!volumes.contains("serviceAccountToken") && !volumes.contains("kbak-writer"), "{volumes}");
    assert!(kbak.log(&pod).await.contains("verified: 1 snapshot of 1 plan"));

    super::owners::removed_owner_opens_no_later_snapshot_and_added_one_no_earlier(&kbak).await;

    let mut ls = kbak.on_the_laptop(&["ls", "latest", "resources:apps/v1/deployments"]);
    let listed = run_ok(ls.args(["--signer", "kbak.pub", "--identity", "ada.key"]), b"");
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

/// Tries connections from pods with the labels of kbak's own: the store, the API server, the kubelet.
async fn network_policies_allow_what_each_pod_needs(kbak: &Installed, settings: &[&str]) {
    let store = format!("{NODE}:{}", kbak.port());
    let (server, kubelet) = (format!("{NODE}:6443"), format!("{NODE}:10250"));
    let third = third_server(kbak).await;
    let cidr = format!("{NODE}/32");
    let cidrs = [
        format!("networkPolicy.store.cidrs={{{cidr}}}"),
        format!("networkPolicy.apiServer.cidrs={{{cidr}}}"),
    ];
    kbak.helm("upgrade", &[settings, &[&cidrs[0], &cidrs[1]]].concat());
    let probes = [
        ("backup", vec!["names", &store, &server]),
        ("check", vec!["names", &store, &server]),
        ("verify", vec!["names", &store]),
        ("stranger", vec!["names", &store, &server, &kubelet, &third]),
    ];
    let addresses = [&store, &server, &kubelet, &third];
    join_all(probes.into_iter().map(async |(component, open)| {
        let said = probe(kbak, component, &addresses).await;
        let found: Vec<&str> = said.lines().collect();
        assert_eq!(found, open, "{component}");
    }))
    .await;
    // Nobody reaches a pod of kbak.
    let backup = listener(kbak, "kbak", "backup").await;
    let said = probe(kbak, "visitor", &[&backup]).await;
    assert_eq!(said.trim_end(), "names");
}

/// Starts a server in a pod of another namespace at the store's port, and returns its address.
async fn third_server(kbak: &Installed) -> String {
    create(&kbak.cluster, "/api/v1/namespaces", json!({"metadata": {"name": "third"}})).await;
    listener(kbak, "third", "server").await
}

/// Starts a pod that listens at the store's port, and returns its address.
async fn listener(kbak: &Installed, namespace: &str, component: &str) -> String {
    let port = kbak.port();
    let name = format!("listener-{component}");
    let path = format!("/api/v1/namespaces/{namespace}/pods");
    create(&kbak.cluster, &path, busybox(&name, component, &format!("nc -ll -p {port} -e true"))).await;
    let pod =
        until(&kbak.cluster, &format!("{path}/{name}"), |pod| pod["status"]["phase"] == "Running").await;
    format!("{}:{port}", pod["status"]["podIP"].as_str().expect("an address"))
}

/// Returns "names" if the cluster's DNS answers, and those of the addresses to which a pod of a component can connect.
async fn probe(kbak: &Installed, component: &str, addresses: &[&String]) -> String {
    // The policy comes a moment after the pod, which has no connection of its own before.
    let addresses: Vec<&str> = addresses.iter().map(|address| address.as_str()).collect();
    let script = format!(
        "sleep 3; nslookup kubernetes.default.svc.cluster.local >/dev/null && echo names; for a in {}; do \
         nc -w 2 ${{a%:*}} ${{a#*:}} </dev/null >/dev/null 2>&1 && echo $a; done; true",
        addresses.join(" ")
    );
    let name = format!("probe-{component}");
    let pod = busybox(&name, component, &script);
    create(&kbak.cluster, "/api/v1/namespaces/kbak/pods", pod).await;
    let path = format!("/api/v1/namespaces/kbak/pods/{name}");
    let pod = until(&kbak.cluster, &path, |pod| pod["status"]["phase"] == "Succeeded").await;
    kbak.log(&pod).await
}

/// Returns a pod with the labels of kbak's own.
fn busybox(name: &str, component: &str, script: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {
            "app.kubernetes.io/name": "kbak", "app.kubernetes.io/instance": "kbak",
            "app.kubernetes.io/component": component,
        }},
        "spec": {
            "restartPolicy": "Never",
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [helper("probe", script)],
        },
    })
}
