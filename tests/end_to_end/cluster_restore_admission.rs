//! Admission: defaults that it sets make no difference, and its refusals are told apart from missing rights.

use std::collections::BTreeMap;

use kbak::kubernetes::Cluster;
use kbak::target::kubernetes::{
    ExistingPolicy, Outcome, RefusalCause, RestoreConfig, RestoreReport, WaitLimits,
};
use serde_json::{Value, json};

use crate::support::backup_builder::{backup_of, plan, restore};
use crate::support::control_plane::{ControlPlane, create, get, try_create};
use crate::support::memory_backup::{MemoryBackup, create_namespace};
use crate::support::webhooks::WebhookServer;

fn config(existing: Option<ExistingPolicy>) -> RestoreConfig {
    RestoreConfig {
        takeover: true,
        existing,
        waits: WaitLimits { max_idle_rounds: 0, ..WaitLimits::default() },
        ..RestoreConfig::default()
    }
}

fn core(namespace: &str, plural: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/{plural}")
}

/// Creates a namespace in which pods can be created without controllers.
async fn namespace_for_pods(cluster: &Cluster, name: &str, labels: Value) {
    create(cluster, "/api/v1/namespaces", json!({"metadata": {"name": name, "labels": labels}})).await;
    create(cluster, &core(name, "serviceaccounts"), json!({"metadata": {"name": "default"}})).await;
}

fn pod(more: Value) -> Value {
    let mut spec =
        json!({"containers": [{"name": "a", "image": "a"}], "automountServiceAccountToken": false});
    spec.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
    json!({ "spec": spec })
}

fn pods(objects: &[(&str, Value)]) -> MemoryBackup {
    backup_of(&[("core/v1/pods Pod", objects)])
}

async fn run(cluster: &Cluster, held: &MemoryBackup, existing: Option<ExistingPolicy>) -> RestoreReport {
    let config = config(existing);
    let (planned, _) = plan(cluster, held, &config, false).await;
    let (report, outcomes) = restore(cluster, held, &config).await;
    let report = report.expect("a report");
    assert_eq!(planned.is_whole(), report.is_whole(), "{planned:#?}\n{report:#?}\n{outcomes:#?}");
    report
}

/// Restores again by every policy: no object is changed or different.
async fn none_differs(cluster: &Cluster, held: &MemoryBackup, count: u64) {
    use ExistingPolicy::{Patch, Replace, Skip};
    for existing in [None, Some(Skip), Some(Patch), Some(Replace), Some(Replace), None] {
        let report = run(cluster, held, existing).await;
        assert_eq!(report.existed, count, "{existing:?}: {report:#?}");
        assert!(report.is_whole(), "{existing:?}: {report:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_admission_sets_are_no_difference_by_any_policy() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    namespace_for_pods(&target, "limited", json!({})).await;
    let limits = json!({"limits": [{"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "100m"}}]});
    create(&target, &core("limited", "limitranges"), json!({"metadata": {"name": "l"}, "spec": limits}))
        .await;
    // The server reads limits and classes with some delay.
    until_set(&target, "limited", "/spec/containers/0/resources/limits/cpu").await;
    let held = pods(&[("limited/a", pod(json!({})))]);
    assert_eq!(run(&target, &held, None).await.created, 1);
    let found = get(&target, &core("limited", "pods/a")).await;
    assert_eq!(found.pointer("/spec/containers/0/resources/limits/cpu"), Some(&json!("1")));
    none_differs(&target, &held, 1).await;
    let changed = pods(&[("limited/a", pod(json!({"containers": [{"name": "a", "image": "b"}]})))]);
    assert_eq!(run(&target, &changed, None).await.differing, 1);

    // A default class that is newer than the objects of the backup.
    namespace_for_pods(&target, "classes", json!({})).await;
    let class = json!({"metadata": {"name": "usual"}, "value": 7, "globalDefault": true});
    create(&target, "/apis/scheduling.k8s.io/v1/priorityclasses", class).await;
    until_set(&target, "classes", "/spec/priorityClassName").await;
    let held = pods(&[("classes/a", pod(json!({})))]);
    assert_eq!(run(&target, &held, None).await.created, 1);
    assert_eq!(get(&target, &core("classes", "pods/a")).await["spec"]["priorityClassName"], "usual");
    none_differs(&target, &held, 1).await;

    // Webhooks that are called for creates only, and for both.
    let hooks = WebhookServer::start().await;
    for (space, operations) in [("creates", json!(["CREATE"])), ("both", json!(["CREATE", "UPDATE"]))] {
        create(
            &target,
            "/api/v1/namespaces",
            json!({"metadata": {"name": space, "labels": {"hooked": space}}}),
        )
        .await;
        let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": operations, "resources": ["configmaps"]});
        let hook = json!({"name": format!("{space}.demo.kbak.dev"), "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "failurePolicy": "Fail", "clientConfig": hooks.client(&format!("/label/{space}")), "rules": [rule],
            "namespaceSelector": {"matchLabels": {"hooked": space}}});
        let webhooks = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
        create(&target, webhooks, json!({"metadata": {"name": space}, "webhooks": [hook]})).await;
        let probe = || json!({"metadata": {"generateName": "probe"}});
        for tries in 0.. {
            if create(&target, &core(space, "configmaps"), probe()).await["metadata"]["labels"]["team"]
                == "shop"
            {
                break;
            }
            assert!(tries < 300, "the webhook is never asked");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        let map = json!({"data": {"a": "1"}, "metadata": {"labels": {"team": "other"}}});
        let name = format!("{space}/a");
        let held = backup_of(&[("core/v1/configmaps ConfigMap", &[(name.as_str(), map)])]);
        assert_eq!(run(&target, &held, None).await.created, 1);
        none_differs(&target, &held, 1).await;
        let other = json!({"data": {"a": "2"}, "metadata": {"labels": {"team": "other"}}});
        let other = backup_of(&[("core/v1/configmaps ConfigMap", &[(name.as_str(), other)])]);
        assert_eq!(run(&target, &other, None).await.differing, 1);
        assert_eq!(run(&target, &other, Some(ExistingPolicy::Replace)).await.replaced, 1);
        assert_eq!(get(&target, &core(space, "configmaps/a")).await["data"]["a"], "2");
    }
}

/// Creates pods in dry runs until the server sets a field in them.
async fn until_set(cluster: &Cluster, namespace: &str, pointer: &str) {
    let path = format!("{}?dryRun=All", core(namespace, "pods"));
    let mut object = pod(json!({}));
    object["metadata"] = json!({"generateName": "probe"});
    for _ in 0..300 {
        let made = try_create(cluster, &path, object.clone()).await;
        if made.is_ok_and(|made| made.pointer(pointer).is_some()) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("{pointer} is never set");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_of_admission_are_told_apart_from_missing_rights() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    for (name, labels) in [
        ("secure", json!({"pod-security.kubernetes.io/enforce": "restricted"})),
        ("limited", json!({})),
        ("plain", json!({})),
        ("counted", json!({})),
    ] {
        namespace_for_pods(&target, name, labels).await;
    }
    let limits = json!({"limits": [{"type": "Container", "max": {"cpu": "1"}, "default": {"cpu": "1"}}]});
    create(&target, &core("limited", "limitranges"), json!({"metadata": {"name": "l"}, "spec": limits}))
        .await;
    until_set(&target, "limited", "/spec/containers/0/resources/limits/cpu").await;
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"limits.cpu": "1"}}});
    let made = create(&target, &core("counted", "resourcequotas"), quota).await;
    let mut counted = made.clone();
    counted["status"] = json!({"hard": {"limits.cpu": "1"}, "used": {"limits.cpu": "0"}});
    let path = core("counted", "resourcequotas/q/status");
    let body = counted.to_string().into();
    target.send(http::Method::PUT, &path, "", "application/json", body).await.expect("a status");

    let much = json!({"containers": [{"name": "a", "image": "a", "resources": {"limits": {"cpu": "2"}}}]});
    let held = pods(&[
        ("secure/a", pod(json!({}))),
        ("limited/a", pod(much)),
        ("plain/class", pod(json!({"priorityClassName": "absent"}))),
        ("plain/runtime", pod(json!({"runtimeClassName": "absent"}))),
        ("counted/a", pod(json!({}))),
    ]);
    let (planned, decided) = plan(&target, &held, &config(None), true).await;
    assert!(!planned.is_whole(), "{planned:#?}");
    let (report, outcomes) = restore(&target, &held, &config(None)).await;
    assert_eq!(report.expect("a report").failed, 5, "{outcomes:#?}");
    let causes: BTreeMap<&str, RefusalCause> = outcomes
        .iter()
        .map(|(name, outcome)| match outcome {
            Outcome::Failed(refusal) => (name.as_str(), refusal.cause),
            other => panic!("{name}: {other:?}"),
        })
        .collect();
    let wanted = [
        ("Pod/counted/a", RefusalCause::Quota),
        ("Pod/limited/a", RefusalCause::Limits),
        ("Pod/plain/class", RefusalCause::MissingObject),
        ("Pod/plain/runtime", RefusalCause::MissingObject),
        ("Pod/secure/a", RefusalCause::PodSecurity),
    ];
    assert_eq!(causes, wanted.into());
    for (name, cause) in wanted {
        let foreseen = decided[name].refusal.as_ref().map(|refusal| refusal.cause);
        assert_eq!(foreseen, Some(cause), "{name} in the dry run");
        assert!(cause.remedy().is_some_and(|remedy| !remedy.contains("right")), "{name}");
    }
}

fn service(kind: &str, ports: Value, more: Value) -> Value {
    let applied = json!({"spec": {"ports": ports, "healthCheckNodePort": more["healthCheckNodePort"]}});
    let annotations = json!({"kubectl.kubernetes.io/last-applied-configuration": applied.to_string()});
    let mut spec = json!({"type": kind, "ports": ports, "selector": {"app": "a"}});
    spec.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
    json!({"metadata": {"annotations": annotations}, "spec": spec})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_taken_ports_of_a_service_are_given_up() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    create_namespace(&target, "other").await;
    create_namespace(&target, "shop").await;
    let port = |port: u16, node: u16| json!({"name": format!("p{port}"), "protocol": "TCP", "port": port, "nodePort": node});
    let mut taken = service("NodePort", json!([port(80, 31_001), port(81, 31_002)]), json!({}));
    taken["metadata"]["name"] = json!("taken");
    create(&target, &core("other", "services"), taken).await;
    let health = json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": 31_002});
    let held = backup_of(&[(
        "core/v1/services Service",
        &[
            ("shop/two", service("NodePort", json!([port(80, 31_001), port(81, 31_011)]), json!({}))),
            ("shop/health", service("LoadBalancer", json!([port(80, 31_012)]), health)),
            ("shop/range", service("NodePort", json!([port(80, 31_013), port(81, 80)]), json!({}))),
        ],
    )]);
    // A dry run gives them up as the restore does, and names those that the server refuses in one: not a port out
    // of its range.
    let (foreseen, decisions) = plan(&target, &held, &config(None), true).await;
    assert!(foreseen.is_whole() && foreseen.refused.is_empty(), "{foreseen:#?}");
    let dropped: Vec<String> =
        foreseen.dropped.iter().map(|(object, what)| format!("{object}: {what}")).collect();
    assert_eq!((dropped.len(), foreseen.dropped_count), (2, 2), "{decisions:#?}");

    let (report, outcomes) = restore(&target, &held, &config(None)).await;
    let report = report.expect("a report");
    assert_eq!(report.created, 3, "{outcomes:#?}");
    assert!(report.is_whole(), "{report:#?}");
    let told: Vec<&str> = report.warnings.iter().map(kbak::target::kubernetes::Warning::text).collect();
    for text in [
        "Service/shop/two: its node port 31001 cannot be had",
        "Service/shop/health: its health check port 31002 cannot be had",
        "Service/shop/range: its node port 80 cannot be had",
    ] {
        assert!(told.iter().any(|one| one.starts_with(text)), "{text}: {told:#?}");
        let is_foreseen = dropped.iter().any(|one| one.starts_with(text));
        assert!(is_foreseen || text.contains("range"), "{text}: {dropped:#?}");
    }
    assert_eq!(told.len(), 3, "{told:#?}");
    let ports =
        async |name: &str| get(&target, &core("shop", &format!("services/{name}"))).await["spec"].clone();
    let two = ports("two").await;
    assert_eq!(two["ports"][1]["nodePort"], 31_011, "the other port stays");
    assert_ne!(two["ports"][0]["nodePort"], 31_001);
    let health = ports("health").await;
    assert_eq!(health["ports"][0]["nodePort"], 31_012);
    assert_ne!(health["healthCheckNodePort"], 31_002);

    // A second run and a replacement keep the ports that the Services got in place of taken ones.
    let mut held = held;
    held.kinds[0].1.pop();
    for existing in [None, Some(ExistingPolicy::Replace)] {
        let report = run(&target, &held, existing).await;
        assert_eq!((report.existed, report.replaced), (2, 0), "{existing:?}: {report:#?}");
    }
    let mut changed = service("NodePort", json!([port(80, 31_001), port(81, 31_011)]), json!({}));
    changed["spec"]["selector"] = json!({"app": "b"});
    let changed = backup_of(&[("core/v1/services Service", &[("shop/two", changed)])]);
    let report = run(&target, &changed, Some(ExistingPolicy::Replace)).await;
    assert_eq!(report.replaced, 1, "{report:#?}");
    let now = ports("two").await;
    assert_eq!(now["selector"]["app"], "b");
    assert_eq!(now["ports"], two["ports"]);
}
