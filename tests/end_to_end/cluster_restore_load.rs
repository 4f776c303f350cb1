//! GeneratedConfigMaps objects and large ones: memory as the kernel counts it, and the rate beside the server's own.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use kbak::kubernetes::KindInfo;
use kbak::report::event::Reporter;
use kbak::report::memory::resident;
use kbak::target::kubernetes::{
    ResourceStreams, RestoreConfig, StreamError, WaitLimits, plan_resources, restore_resources,
};
use serde_json::json;

use crate::support::backup_builder::{backup_uid, kind_info};
use crate::support::control_plane::{ControlPlane, get};

/// ConfigMaps generated on the fly, not held in memory. Every fourth has an owner.
struct GeneratedConfigMaps {
    objects: usize,
    bytes: usize,
}

impl GeneratedConfigMaps {
    fn line(&self, number: usize) -> Bytes {
        let name = format!("map-{number:06}");
        let mut object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"namespace": "many", "name": name, "uid": backup_uid("ConfigMap", &name), "labels": {"app": "load"}},
            "data": {"value": "x".repeat(self.bytes)},
        });
        if number % 4 == 3 {
            let owner = format!("map-{:06}", number - 1);
            object["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": backup_uid("ConfigMap", &owner)}]);
        }
        Bytes::from(format!("{object}\n"))
    }
}

#[async_trait]
impl ResourceStreams for GeneratedConfigMaps {
    fn kinds(&self) -> Vec<KindInfo> {
        vec![kind_info("core/v1/configmaps ConfigMap"), kind_info("-core/v1/namespaces Namespace")]
    }

    async fn open(&self, kind: &KindInfo) -> Result<BoxStream<'_, Result<Bytes, StreamError>>, StreamError> {
        if !kind.namespaced {
            let line = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "many"}});
            return Ok(futures::stream::iter([Ok(Bytes::from(format!("{line}\n")))]).boxed());
        }
        Ok(futures::stream::iter((0..self.objects).map(|number| Ok(self.line(number)))).boxed())
    }
}

#[expect(clippy::print_stdout, reason = "figures for whoever runs it")]
async fn restore_and_measure(config_maps: &GeneratedConfigMaps) {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    let meter = Reporter::silent().meter("restore", "objects");
    let config = RestoreConfig {
        waits: WaitLimits { max_idle_rounds: 0, ..WaitLimits::default() },
        takeover: true,
        ..RestoreConfig::default()
    };
    let plan =
        plan_resources(&target, config_maps, &config, false, &mut |_| {}, &meter).await.expect("a plan");
    assert_eq!(plan.writes as usize, config_maps.objects + 1);
    let begun = std::time::Instant::now();
    let report =
        restore_resources(&target, config_maps, &config, &|_, _| {}, &meter).await.expect("a report");
    let took = begun.elapsed();
    assert!(report.is_whole(), "{report:#?}");
    assert_eq!(
        (report.created as usize, report.relinked as usize),
        (config_maps.objects + 1, config_maps.objects / 4)
    );
    let peak = resident().expect("the kernel says").peak;
    let writes = report.created + report.relinked;
    println!(
        "{} objects, {writes} writes in {took:?}: {} a second, {} MiB",
        config_maps.objects,
        writes as f64 / took.as_secs_f64(),
        peak >> 20
    );
    assert!(peak <= 128 << 20, "{} MiB were resident", peak >> 20);
}

/// KBAK_TEST_OBJECTS=100000 sets the promised size.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_objects_are_restored_in_little_memory() {
    let objects = std::env::var("KBAK_TEST_OBJECTS").ok().and_then(|text| text.parse().ok()).unwrap_or(4_000);
    restore_and_measure(&GeneratedConfigMaps { objects, bytes: 800 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_objects_are_restored_in_little_memory() {
    restore_and_measure(&GeneratedConfigMaps { objects: 80, bytes: 950 << 10 }).await;
}

/// Killed between two writes and restarted; objects created without an answer are found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restore_continues_after_api_server_restart() {
    let config_maps = GeneratedConfigMaps { objects: 1_200, bytes: 100 };
    let mut plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    let (tell, hear) = std::sync::mpsc::channel::<()>();
    let restarts = std::thread::spawn(move || {
        hear.recv().expect("the restore has begun");
        plane.command("kill kube-apiserver");
        plane.command("start kube-apiserver");
        plane
    });
    let told = AtomicUsize::new(0);
    let each = |_: &_, _: &_| {
        if told.fetch_add(1, Ordering::Relaxed) == 300 {
            tell.send(()).expect("it waits");
        }
    };
    let meter = Reporter::silent().meter("restore", "objects");
    let config = RestoreConfig { takeover: true, ..RestoreConfig::default() };
    let report = restore_resources(&target, &config_maps, &config, &each, &meter).await.expect("a report");
    let plane = restarts.join().expect("it is up again");
    assert!(report.is_whole(), "{report:#?}");
    assert_eq!((report.created + report.existed) as usize, config_maps.objects + 1, "{report:#?}");
    let list = get(&plane.cluster().await, "/api/v1/namespaces/many/configmaps").await;
    let items = list["items"].as_array().expect("items");
    let mut uids = std::collections::HashMap::new();
    for item in items {
        uids.insert(item["metadata"]["name"].as_str(), item["metadata"]["uid"].as_str());
    }
    let mut owned = 0;
    for owner in items.iter().filter_map(|item| item["metadata"]["ownerReferences"].as_array()).flatten() {
        assert_eq!(uids.get(&owner["name"].as_str()), Some(&owner["uid"].as_str()), "{owner}");
        owned += 1;
    }
    assert_eq!(owned, config_maps.objects / 4);
}
