//! A pod's backup of many objects under the chart's memory limit: 3,000, or KBAK_TEST_OBJECTS (scripts/soak: 100,000).

use std::path::Path;

use serde_json::Value;

use super::installed::{Installed, NODE};
use crate::support::memory_backup::{config_map, create_many, create_namespace};
use crate::support::program::print_figure;
use crate::support::receiver::ReceiverServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pod_that_backs_up_many_objects_stays_below_its_memory_limit() {
    let count: u64 = std::env::var("KBAK_TEST_OBJECTS").map_or(3000, |text| text.parse().expect("a number"));
    let Some(kbak) = Installed::start().await else { return };
    // The pod waits at its end for the answer to a notice: until then its cgroup is there.
    let receiver = ReceiverServer::start().await;
    let port = kbak.reach(&receiver.url);
    kbak.helm("upgrade", &[&format!("plan.spec.notify[0].webhook.url=http://{NODE}:{port}/held")]);
    create_namespace(&kbak.cluster, "many").await;
    let filler = "0123456789".repeat(60);
    create_many(&kbak.cluster, count, 32, |number| {
        let object = config_map(&format!("c{number:06}"), &format!("{number}{filler}"));
        ("/api/v1/namespaces/many/configmaps".to_owned(), object)
    })
    .await;

    for (number, name) in ["first", "second"].into_iter().enumerate() {
        kbak.start_job("backup", name).await;
        receiver.wait_for(number + 1).await;
        let pod = kbak.running(name).await;
        let (most, limit) = memory(&pod);
        receiver.release();
        assert!(kbak.ended(name).await, "{}", kbak.log(&pod).await);
        let (most_mib, limit_mib) = (most >> 20, limit >> 20);
        print_figure(&format!(
            "{name} backup of {count} objects in a pod: {most_mib} of {limit_mib} MiB at most"
        ));
        assert!(most > 1 << 20 && most < limit, "{most} of {limit} bytes");
    }
}

/// Returns the most memory that the cgroup of a running container had, and its limit, in bytes.
fn memory(pod: &Value) -> (u64, u64) {
    let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().expect("an id");
    let id = id.trim_start_matches("containerd://");
    let root = Path::new("/sys/fs/cgroup");
    // Version 1 of cgroups, or 2, whichever this machine has. The folder is tests/cluster/node_parts.go's.
    let v1 = root.join("memory/k8s.io").join(id);
    let (most, limit) = match v1.is_dir() {
        true => (v1.join("memory.max_usage_in_bytes"), v1.join("memory.limit_in_bytes")),
        false => (
            root.join("k8s.io").join(id).join("memory.peak"),
            root.join("k8s.io").join(id).join("memory.max"),
        ),
    };
    let [most, limit] = [most, limit].map(|file| {
        let text =
            std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        text.trim().parse().expect("bytes")
    });
    (most, limit)
}
