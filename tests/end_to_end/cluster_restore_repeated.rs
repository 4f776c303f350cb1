//! A repeated restore: its handling of objects that an earlier run left, complete or not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Method;
use kbak::kubernetes::Cluster;
use kbak::plan::Glob;
use kbak::target::kubernetes::{
    Action, ExistingPolicy, Mapping, Modifier, Outcome, Permission, RestoreConfig, RestoreReport, SideEffect,
    WaitLimits,
};
use serde_json::{Value, json};

use crate::support::backup_builder::{backup_of, backup_uid, plan, restore};
use crate::support::control_plane::{ControlPlane, connect, create, delete, get, patch};
use crate::support::memory_backup::{MemoryBackup, create_namespace};
use crate::support::proxy::{Proxy, ProxyFault};
use crate::support::webhooks::WebhookServer;

fn config() -> RestoreConfig {
    RestoreConfig {
        takeover: true,
        waits: WaitLimits { max_idle_rounds: 0, ..WaitLimits::default() },
        ..RestoreConfig::default()
    }
}

const MAPS: &str = "/api/v1/namespaces/shop/configmaps";
const BUDGETS: &str = "/apis/policy/v1/namespaces/shop/poddisruptionbudgets";

fn maps(objects: &[(&str, Value)]) -> MemoryBackup {
    backup_of(&[("core/v1/configmaps ConfigMap", objects)])
}

async fn restore_all(target: &Cluster, held: &MemoryBackup, config: &RestoreConfig) -> RestoreReport {
    restore(target, held, config).await.0.expect("a report")
}

/// Starts a proxy that answers requests matched by `which` with `code` while `on` is true.
async fn faulty_proxy(
    plane: &ControlPlane,
    on: &Arc<AtomicBool>,
    code: u16,
    which: fn(&Method, &str) -> bool,
) -> (Cluster, Proxy) {
    let on = on.clone();
    let proxy = Proxy::in_front_of(&plane.kubeconfig(), move |request| {
        (on.load(Ordering::SeqCst) && which(&request.method, &request.path))
            .then_some(ProxyFault::Status(code, None))
    })
    .await;
    (connect(&proxy.kubeconfig()).await, proxy)
}

fn owned_by(name: &str) -> Value {
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": backup_uid("ConfigMap", &format!("shop/{name}"))});
    json!({"metadata": {"ownerReferences": [owner]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_from_another_snapshot_are_differences() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    create_namespace(&target, "shop").await;
    let (one, other) = (json!({"data": {"a": "1"}}), json!({"data": {"a": "2"}}));
    let monday = maps(&[("shop/a", one.clone()), ("shop/more", json!({"data": {"a": "1", "b": "2"}}))]);
    assert_eq!(restore_all(&target, &monday, &config()).await.created, 2);
    assert_eq!(
        restore_all(&target, &monday, &config()).await.existed,
        2,
        "unchanged since the first restore"
    );
    let tuesday = maps(&[("shop/a", other), ("shop/more", one)]);
    let (_, decided) = plan(&target, &tuesday, &config(), false).await;
    let (report, outcomes) = restore(&target, &tuesday, &config()).await;
    assert!(!report.expect("a report").is_whole());
    for name in ["ConfigMap/shop/a", "ConfigMap/shop/more"] {
        assert!(matches!(decided[name].action, Action::Conflict(_)), "{name}");
        assert_eq!(outcomes[name], Outcome::Differs, "{name}");
    }
    let replace = RestoreConfig { existing: Some(ExistingPolicy::Replace), ..config() };
    assert_eq!(restore_all(&target, &tuesday, &replace).await.replaced, 2);
    assert_eq!(get(&target, &format!("{MAPS}/more")).await["data"], json!({"a": "1"}));

    // A client that removes an element from a list leaves no trace in managed fields.
    let ports = json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]);
    let web = backup_of(&[("core/v1/services Service", &[("shop/web", json!({"spec": {"ports": ports}}))])]);
    assert_eq!(restore_all(&target, &web, &config()).await.created, 1);
    assert_eq!(restore_all(&target, &web, &config()).await.existed, 1);
    let fewer = json!([{"op": "remove", "path": "/spec/ports/1"}]).to_string().into();
    let path = "/api/v1/namespaces/shop/services/web";
    target.send(Method::PATCH, path, "", "application/json-patch+json", fewer).await.expect("patched");
    assert_eq!(restore_all(&target, &web, &config()).await.differing, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspended_jobs_of_a_copy_are_reported_until_resumed() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    create_namespace(&target, "shop").await;
    let job = json!({"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]}}});
    let cron = json!({"spec": {"schedule": "0 0 * * *", "suspend": false, "jobTemplate": {"spec": job}}});
    let held = backup_of(&[("batch/v1/cronjobs CronJob", &[("shop/c", cron)])]);
    let copy = RestoreConfig { takeover: false, ..config() };
    assert_eq!(restore_all(&target, &held, &copy).await.suspended, 1);
    assert_eq!(restore_all(&target, &held, &copy).await.existed, 1, "as the copy has it");
    let release = RestoreConfig { release: Some([SideEffect::Jobs].into()), ..copy.clone() };
    assert_eq!(restore_all(&target, &held, &release).await.differing, 1, "it is still suspended");
    let wake = RestoreConfig { existing: Some(ExistingPolicy::Patch), ..release };
    assert_eq!(restore_all(&target, &held, &wake).await.patched, 1);
    let spec = get(&target, "/apis/batch/v1/namespaces/shop/cronjobs/c").await["spec"].clone();
    assert_eq!(spec["suspend"], json!(false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_defaults_and_webhook_changes_are_no_difference() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    create_namespace(&target, "shop").await;
    let color = json!({"type": "string", "default": "red"});
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {"color": color}}}}});
    let definition = json!({"spec": {"group": "demo.kbak.dev", "scope": "Namespaced", "names": {"plural": "figs", "kind": "Fig"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}});
    let held = backup_of(&[
        (
            "-apiextensions.k8s.io/v1/customresourcedefinitions CustomResourceDefinition",
            &[("figs.demo.kbak.dev", definition)],
        ),
        ("demo.kbak.dev/v1/figs Fig", &[("shop/f", json!({"spec": {}}))]),
    ]);
    let config = RestoreConfig { allow: Permission::ALL.into(), ..config() };
    assert_eq!(restore_all(&target, &held, &config).await.created, 2);
    assert_eq!(restore_all(&target, &held, &config).await.existed, 2);

    // A webhook for creates only.
    let hooks = WebhookServer::start().await;
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]});
    let hook = json!({"name": "label.demo.kbak.dev", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "failurePolicy": "Fail", "clientConfig": hooks.client("/label/team"), "rules": [rule]});
    let webhooks = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    create(&target, webhooks, json!({"metadata": {"name": "label"}, "webhooks": [hook]})).await;
    // It takes a moment until it is called.
    let asked = async |number| {
        let probe = json!({"metadata": {"name": format!("probe{number}")}});
        create(&target, MAPS, probe).await["metadata"]["labels"]["team"] == "shop"
    };
    let mut number = 0;
    while !asked(number).await {
        number += 1;
        assert!(number < 300, "the webhook is never asked");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let held = maps(&[("shop/a", json!({"data": {"a": "1"}}))]);
    assert_eq!(restore_all(&target, &held, &config).await.created, 1);
    let map = get(&target, &format!("{MAPS}/a")).await;
    assert_eq!(map["metadata"]["labels"]["team"], "shop");
    assert_eq!(restore_all(&target, &held, &config).await.existed, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_status_is_written_by_the_next_run_only() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    create_namespace(&target, "shop").await;
    let spec = json!({"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}});
    let status = |healthy: u32| json!({"currentHealthy": healthy, "desiredHealthy": 1, "disruptionsAllowed": 2, "expectedPods": 3});
    let applied = json!({"manager": "argo", "operation": "Apply", "apiVersion": "policy/v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {"f:minAvailable": {}}}});
    let mut owned = owned_by("owner");
    owned["metadata"]["managedFields"] = json!([applied]);
    owned["spec"] = spec.clone();
    owned["status"] = status(3);
    let lone = json!({"spec": spec, "status": status(3)});
    let mut held = backup_of(&[(
        "policy/v1/poddisruptionbudgets PodDisruptionBudget",
        &[("shop/owned", owned), ("shop/lone", lone)],
    )]);
    held.kinds[0].0.subresources = vec!["status".to_owned()];
    held.kinds.extend(maps(&[("shop/owner", json!({"data": {"a": "1"}}))]).kinds);
    let config =
        RestoreConfig { status: vec![Glob::new("poddisruptionbudgets.policy").expect("a glob")], ..config() };
    let on = Arc::new(AtomicBool::new(true));
    let (few, _proxy) =
        faulty_proxy(&plane, &on, 403, |method, path| *method == Method::PATCH && path.ends_with("/status"))
            .await;
    let report = restore_all(&few, &held, &config).await;
    assert_eq!((report.relinked, report.status, report.unfinished.len()), (1, 0, 2), "{report:#?}");
    on.store(false, Ordering::SeqCst);
    let report = restore_all(&few, &held, &config).await;
    assert_eq!((report.managed, report.status), (1, 2), "{report:#?}");
    for name in ["owned", "lone"] {
        let budget = get(&target, &format!("{BUDGETS}/{name}")).await;
        assert_eq!(budget["status"]["currentHealthy"], 3, "{name}");
        // The object is in use: its own status is newer than the backup's.
        patch(&target, &format!("{BUDGETS}/{name}/status"), json!({"status": status(2)})).await;
    }
    let report = restore_all(&few, &held, &config).await;
    assert_eq!((report.existed, report.status, report.managed), (3, 0, 0), "{report:#?}");
    for name in ["owned", "lone"] {
        let budget = get(&target, &format!("{BUDGETS}/{name}")).await;
        assert_eq!(budget["status"]["currentHealthy"], 2, "{name}");
    }
    let replace = RestoreConfig { existing: Some(ExistingPolicy::Replace), ..config };
    let (foreseen, _) = plan(&target, &held, &replace, false).await;
    assert_eq!((foreseen.writes, foreseen.second_writes), (0, 2), "{foreseen:#?}");
    assert_eq!(restore_all(&few, &held, &replace).await.status, 2);
    for name in ["owned", "lone"] {
        let budget = get(&target, &format!("{BUDGETS}/{name}")).await;
        assert_eq!(budget["status"]["currentHealthy"], 3, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owner_references_of_another_snapshot_are_differences() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    create_namespace(&target, "shop").await;
    let mut controlled = owned_by("one");
    controlled["metadata"]["ownerReferences"][0]["controller"] = json!(true);
    let held = |swap: Value, gone: Value, role: Value| {
        let owner = || json!({"data": {"a": "1"}});
        maps(&[
            ("shop/one", owner()),
            ("shop/other", owner()),
            ("shop/swap", swap),
            ("shop/gone", gone),
            ("shop/role", role),
        ])
    };
    let monday = held(owned_by("one"), owned_by("one"), owned_by("one"));
    let report = restore_all(&target, &monday, &config()).await;
    assert_eq!((report.created, report.relinked), (5, 3));
    assert_eq!(restore_all(&target, &monday, &config()).await.existed, 5);

    let tuesday = held(owned_by("other"), json!({}), controlled);
    let (_, decided) = plan(&target, &tuesday, &config(), false).await;
    let (_, outcomes) = restore(&target, &tuesday, &config()).await;
    for name in ["swap", "gone", "role"].map(|name| format!("ConfigMap/shop/{name}")) {
        assert!(matches!(decided[&name].action, Action::Conflict(_)), "{name}");
        assert_eq!(outcomes[&name], Outcome::Differs, "{name}");
    }
    let owners = async |name: &str| {
        let owners = get(&target, &format!("{MAPS}/{name}")).await["metadata"]["ownerReferences"].clone();
        let all = owners.as_array().cloned().unwrap_or_default();
        all.iter().map(|one| (one["name"].clone(), one["controller"] == json!(true))).collect::<Vec<_>>()
    };
    let existing = |existing| RestoreConfig { existing: Some(existing), ..config() };
    let report = restore_all(&target, &tuesday, &existing(ExistingPolicy::Patch)).await;
    assert_eq!((report.patched, report.existed, report.relinked), (2, 3, 2), "{report:#?}");
    assert_eq!(owners("swap").await, [(json!("other"), false)]);
    assert_eq!(owners("role").await, [(json!("one"), true)]);
    assert_eq!(owners("gone").await, [(json!("one"), false)], "what only the cluster has stays");
    assert_eq!(restore_all(&target, &tuesday, &config()).await.differing, 1);
    assert_eq!(restore_all(&target, &tuesday, &existing(ExistingPolicy::Replace)).await.replaced, 1);
    assert_eq!(owners("gone").await, []);
    assert_eq!(restore_all(&target, &tuesday, &config()).await.existed, 5);

    // A second owner with the UID of a deleted one, and one that does not exist.
    let mut twice = owned_by("one");
    let mut old = twice["metadata"]["ownerReferences"][0].clone();
    old["uid"] = json!(backup_uid("ConfigMap", "an older one"));
    twice["metadata"]["ownerReferences"].as_array_mut().expect("a list").push(old);
    let held = maps(&[("shop/twice", twice), ("shop/swap", owned_by("never"))]);
    let patch = existing(ExistingPolicy::Patch);
    let report = restore_all(&target, &held, &patch).await;
    assert_eq!((report.created, report.relinked, report.is_whole()), (1, 1, false), "{report:#?}");
    assert_eq!(report.unfinished[0].1.reason, "OtherOwners");
    let report = restore_all(&target, &held, &patch).await;
    assert_eq!((report.existed, report.relinked), (1, 0), "{report:#?}");
    assert_eq!(owners("swap").await, [(json!("other"), false)]);

    // Owners that a modifier sets.
    let one = get(&target, &format!("{MAPS}/one")).await["metadata"]["uid"].clone();
    let chosen = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "one", "uid": one}]);
    let modifier = Modifier {
        names: vec![Glob::new("swap").expect("a glob")],
        merge: Some(json!({"metadata": {"ownerReferences": chosen}})),
        ..Modifier::default()
    };
    let patch = RestoreConfig { modifiers: vec![modifier], ..patch };
    let held = maps(&[("shop/swap", json!({}))]);
    assert_eq!(restore_all(&target, &held, &patch).await.patched, 1);
    assert_eq!(owners("swap").await, [(json!("one"), false)]);
    assert_eq!(restore_all(&target, &held, &patch).await.existed, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owner_reference_to_a_namespace_follows_the_mapping() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    create_namespace(&target, "copy").await;
    let copy = get(&target, "/api/v1/namespaces/copy").await;
    let owner = json!({"apiVersion": "v1", "kind": "Namespace", "name": "shop", "uid": backup_uid("Namespace", "shop")});
    let held = maps(&[("shop/a", json!({"metadata": {"ownerReferences": [owner]}}))]);
    let mapping =
        Mapping { namespaces: [("shop".to_owned(), "copy".to_owned())].into(), ..Mapping::default() };
    let config = RestoreConfig { mapping, ..config() };
    assert_eq!(restore_all(&target, &held, &config).await.relinked, 1);
    let found = get(&target, "/api/v1/namespaces/copy/configmaps/a").await;
    let owner = &found["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["name"], &owner["uid"]), (&json!("copy"), &copy["metadata"]["uid"]));
    assert_eq!(restore_all(&target, &held, &config).await.existed, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn field_managers_from_between_two_runs_are_kept() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    create_namespace(&target, "shop").await;
    let data = json!({"a": "1"});
    let applied = json!({"manager": "argo", "operation": "Apply", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:a": {}}}});
    let mut child = owned_by("owner");
    child["data"] = data.clone();
    child["metadata"]["managedFields"] = json!([applied]);
    let children = [("shop/quiet", child.clone()), ("shop/child", child)];
    let report = restore_all(&target, &maps(&children), &config()).await;
    assert_eq!((report.created, report.owners_lost, report.managed), (2, 2, 2), "{report:#?}");
    let apply = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "child"}, "data": data});
    let query = "fieldManager=flux&force=true";
    let path = format!("{MAPS}/child");
    let body = apply.to_string().into();
    target.send(Method::PATCH, &path, query, "application/apply-patch+yaml", body).await.expect("applied");

    // Their owner is created by a later run.
    let mut held = maps(&[("shop/owner", json!({"data": data}))]);
    let (before, _) = plan(&target, &maps(&children), &config(), false).await;
    assert_eq!((before.writes, before.second_writes), (0, 2), "{before:#?}");
    held.kinds[0].1.extend(maps(&children).kinds.remove(0).1);
    let report = restore_all(&target, &held, &config()).await;
    assert_eq!((report.relinked, report.managed, report.is_whole()), (2, 1, true), "{report:#?}");
    let managers = async |name: &str| {
        let found = get(&target, &format!("{MAPS}/{name}")).await;
        assert_eq!(found["metadata"]["ownerReferences"][0]["name"], "owner", "{name}");
        let all = found["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        let mut names: Vec<String> = all
            .iter()
            .filter(|one| one["operation"] == "Apply")
            .map(|one| one["manager"].to_string())
            .collect();
        names.sort();
        names
    };
    assert_eq!(managers("quiet").await, ["\"argo\""]);
    assert_eq!(managers("child").await, ["\"argo\"", "\"flux\""]);
    let (after, _) = plan(&target, &maps(&children), &config(), false).await;
    assert_eq!(after.second_writes, 0);
    assert_ne!(after.hash, before.hash, "the other write is done");

    // No field manager shows any more that a restore made it, and its owner is removed.
    let fields = json!([{"manager": "flux", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:data": {"f:a": {}}}}]);
    let none = json!({"metadata": {"ownerReferences": null, "managedFields": fields}});
    let body = none.to_string().into();
    target
        .send(Method::PATCH, &path, "fieldManager=flux", "application/merge-patch+json", body)
        .await
        .expect("patched");
    let (_, outcomes) = restore(&target, &held, &config()).await;
    assert_eq!(outcomes["ConfigMap/shop/child"], Outcome::Differs);
    let patch = RestoreConfig { existing: Some(ExistingPolicy::Patch), ..config() };
    let report = restore_all(&target, &held, &patch).await;
    assert_eq!((report.patched, report.relinked, report.managed), (1, 1, 0), "{report:#?}");
    assert_eq!(managers("child").await, ["\"flux\""]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missed_second_write_is_done_by_a_later_run() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    create_namespace(&target, "shop").await;
    // As after a restore that ends between its writes: the server records no manager for an object
    // without fields.
    create(&target, MAPS, json!({"metadata": {"name": "empty"}})).await;
    let held = maps(&[
        ("shop/owner", json!({"data": {"a": "1"}})),
        ("shop/empty", owned_by("owner")),
        ("shop/child", owned_by("owner")),
    ]);
    // A login page answers the second writes.
    let on = Arc::new(AtomicBool::new(true));
    let (few, _proxy) = faulty_proxy(&plane, &on, 200, |method, _| *method == Method::PATCH).await;
    let report = restore_all(&few, &held, &config()).await;
    assert_eq!((report.relinked, report.unfinished.len()), (0, 2), "{report:#?}");
    assert!(report.unfinished.iter().all(|(_, refusal)| refusal.reason == "NoObject"), "{report:#?}");
    on.store(false, Ordering::SeqCst);
    assert_eq!(restore_all(&few, &held, &config()).await.relinked, 2);
    let owner = get(&target, &format!("{MAPS}/owner")).await["metadata"]["uid"].clone();
    for name in ["empty", "child"] {
        let child = get(&target, &format!("{MAPS}/{name}")).await;
        assert_eq!(child["metadata"]["ownerReferences"][0]["uid"], owner, "{name}");
    }
    assert_eq!(restore_all(&few, &held, &config()).await.relinked, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_owner_is_not_treated_as_missing() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    create_namespace(&target, "shop").await;
    let owner = create(&target, MAPS, json!({"metadata": {"name": "owner"}})).await;
    let on = Arc::new(AtomicBool::new(true));
    let (few, _proxy) =
        faulty_proxy(&plane, &on, 403, |method, path| *method == Method::GET && path.ends_with("/owner"))
            .await;
    let held = maps(&[("shop/child", owned_by("owner"))]);
    let report = restore_all(&few, &held, &config()).await;
    assert!(!report.is_whole() && report.unfinished.len() == 1, "{report:#?}");
    on.store(false, Ordering::SeqCst);
    let report = restore_all(&few, &held, &config()).await;
    assert!(report.is_whole() && report.relinked == 1, "{report:#?}");
    let child = get(&target, &format!("{MAPS}/child")).await;
    assert_eq!(child["metadata"]["ownerReferences"][0]["uid"], owner["metadata"]["uid"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claim_is_never_created_without_its_volume_name() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    create_namespace(&target, "shop").await;
    let size = json!({"storage": "1Gi"});
    let volume = json!({"spec": {"capacity": size, "accessModes": ["ReadWriteOnce"], "nfs": {"server": "10.0.0.1", "path": "/data"},
        "claimRef": {"namespace": "shop", "name": "data"}}});
    let claim = json!({"spec": {"accessModes": ["ReadWriteOnce"], "volumeName": "pv", "resources": {"requests": size}}});
    let claims =
        backup_of(&[("core/v1/persistentvolumeclaims PersistentVolumeClaim", &[("shop/data", claim)])]);
    let mut both = backup_of(&[("-core/v1/persistentvolumes PersistentVolume", &[("pv", volume.clone())])]);
    both.kinds.extend(claims.kinds.clone());
    let on = Arc::new(AtomicBool::new(true));
    let claim = "/api/v1/namespaces/shop/persistentvolumeclaims/data";

    // The volume is not created in the first run.
    let (no_volumes, _proxy) = faulty_proxy(&plane, &on, 500, |method, path| {
        *method == Method::POST && path.ends_with("/persistentvolumes")
    })
    .await;
    let (report, outcomes) = restore(&no_volumes, &both, &config()).await;
    assert_eq!(report.expect("a report").failed, 2);
    let Outcome::Failed(refusal) = &outcomes["PersistentVolumeClaim/shop/data"] else {
        panic!("{outcomes:?}")
    };
    assert_eq!(refusal.reason, "VolumeMissing");
    on.store(false, Ordering::SeqCst);
    assert_eq!(restore_all(&no_volumes, &both, &config()).await.created, 2);
    assert_eq!(get(&target, claim).await["spec"]["volumeName"], "pv");
    // The controller that would remove the finalizer does not run here.
    patch(&target, claim, json!({"metadata": {"finalizers": null}})).await;
    delete(&target, claim).await;

    // The volume cannot be read.
    on.store(true, Ordering::SeqCst);
    let (blind, _proxy) = faulty_proxy(&plane, &on, 403, |method, path| {
        *method == Method::GET && path.contains("/persistentvolumes")
    })
    .await;
    let report = restore_all(&blind, &claims, &config()).await;
    assert_eq!((report.created, report.is_whole()), (1, false), "{report:#?}");
    assert_eq!(report.unfinished[0].1.reason, "VolumeUnseen");
    assert_eq!(get(&target, claim).await["spec"]["volumeName"], "pv");
}
