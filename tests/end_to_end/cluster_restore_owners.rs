//! Very many owners of one object: whoever may create one must not hold up the restore of all others.

use kbak::target::kubernetes::{RestoreConfig, WaitLimits};
use serde_json::{Value, json};

use crate::support::backup_builder::{backup_of, backup_uid, plan, restore};
use crate::support::control_plane::{ControlPlane, connect, create, get};
use crate::support::memory_backup::config_map;
use crate::support::proxy::Proxy;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_that_do_not_exist_cost_a_list_and_no_request_each() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let cluster = plane.cluster().await;
    create(&cluster, "/api/v1/namespaces", json!({"metadata": {"name": "shop"}})).await;
    create(&cluster, "/api/v1/namespaces/shop/configmaps", config_map("there", "x")).await;
    let owner = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": backup_uid("ConfigMap", name)});
    let mut owners: Vec<Value> = (0..2000).map(|number| owner(&format!("gone-{number}"))).collect();
    owners.push(owner("there"));
    let held = backup_of(&[
        ("core/v1/configmaps ConfigMap", &[("shop/child", json!({"metadata": {"ownerReferences": owners}}))]),
        ("-core/v1/namespaces Namespace", &[("shop", json!({}))]),
    ]);

    let proxy = Proxy::in_front_of(&plane.kubeconfig(), |_| None).await;
    let watched = connect(&proxy.kubeconfig()).await;
    let config = RestoreConfig {
        waits: WaitLimits { max_idle_rounds: 0, ..WaitLimits::default() },
        ..RestoreConfig::default()
    };
    let (planned, _) = plan(&watched, &held, &config, false).await;
    let (report, _) = restore(&watched, &held, &config).await;
    let report = report.expect("a report");
    assert_eq!((planned.owners_lost, report.owners_lost), (2000, 2000), "{report:#?}");
    assert!(proxy.total() < 300, "{} requests", proxy.total());
    let child = get(&cluster, "/api/v1/namespaces/shop/configmaps/child").await;
    let kept = child["metadata"]["ownerReferences"].as_array().expect("owners");
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(kept[0]["name"], "there");
}
