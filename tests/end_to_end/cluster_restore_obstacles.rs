//! Obstacles to a restore: reported with a type, and awaited only for a bounded time.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use kbak::target::kubernetes::{Outcome, Permission, RefusalCause, RestoreConfig, RestoreError, WaitLimits};
use serde_json::{Value, json};

use crate::support::backup_builder::{backup_of, plan, restore};
use crate::support::control_plane::{ControlPlane, connect, create, delete, patch};
use crate::support::kinds::create_account;
use crate::support::memory_backup::{MemoryBackup, create_namespace};
use crate::support::proxy::{Proxy, ProxyFault};

fn config() -> RestoreConfig {
    RestoreConfig {
        takeover: true,
        allow: Permission::ALL.into(),
        waits: WaitLimits { max_idle_rounds: 1, ..WaitLimits::default() },
        ..RestoreConfig::default()
    }
}

fn maps(names: &[&str]) -> MemoryBackup {
    let objects: Vec<(&str, Value)> = names.iter().map(|name| (*name, json!({"data": {"a": "1"}}))).collect();
    backup_of(&[("core/v1/configmaps ConfigMap", &objects)])
}

fn cause(outcome: &Outcome) -> Option<RefusalCause> {
    if let Outcome::Failed(refusal) = outcome { Some(refusal.cause) } else { None }
}

const HOOKS: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";

fn hook(group: &str, resource: &str) -> Value {
    json!({"metadata": {"name": "dead"}, "webhooks": [{"name": "dead.demo.kbak.dev", "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "failurePolicy": "Fail", "timeoutSeconds": 1,
        "clientConfig": {"service": {"namespace": "shop", "name": "nobody"}},
        "rules": [{"apiGroups": [group], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": [resource]}]}]})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_webhooks_are_reported_and_restored_last() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    create_namespace(&target, "shop").await;
    create(&target, HOOKS, hook("", "configmaps")).await;
    let held = maps(&["shop/a", "shop/b"]);
    let (planned, decided) = plan(&target, &held, &config(), false).await;
    assert_eq!(
        planned.waits.keys().collect::<Vec<_>>(),
        ["webhook dead.demo.kbak.dev, which does not answer"]
    );
    assert_eq!(decided["ConfigMap/shop/a"].waits.len(), 1);
    let (report, outcomes) = restore(&target, &held, &config()).await;
    let report = report.expect("a report");
    assert_eq!((report.failed, report.is_whole()), (2, false));
    let Outcome::Failed(refusal) = &outcomes["ConfigMap/shop/a"] else { panic!("{outcomes:?}") };
    assert_eq!(refusal.cause, RefusalCause::Webhook);
    assert!(refusal.message.contains("dead.demo.kbak.dev"), "{refusal}");
    // With the webhook gone, the same command goes on.
    delete(&target, &format!("{HOOKS}/dead")).await;
    let (report, _) = restore(&target, &held, &config()).await;
    assert!(report.expect("a report").is_whole());

    // A webhook of the backup is restored last, after the second writes, so that it blocks neither.
    let owner = json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": crate::support::backup_builder::backup_uid("ConfigMap", "shop/o")}]}});
    let held = backup_of(&[
        (
            "-admissionregistration.k8s.io/v1/validatingwebhookconfigurations ValidatingWebhookConfiguration",
            &[("dead", hook("", "configmaps"))],
        ),
        ("core/v1/configmaps ConfigMap", &[("shop/o", json!({})), ("shop/p", owner)]),
    ]);
    let (report, outcomes) = restore(&target, &held, &config()).await;
    let report = report.expect("a report");
    assert!(report.is_whole() && report.relinked == 1, "{report:#?}");
    assert_eq!(outcomes["ValidatingWebhookConfiguration/dead"], Outcome::Created);
    delete(&target, &format!("{HOOKS}/dead")).await;

    // With nodes, it waits for its Service and is not created before, because it would block everything.
    create(&target, "/api/v1/nodes", json!({"metadata": {"name": "n"}})).await;
    let held = backup_of(&[(
        "-admissionregistration.k8s.io/v1/validatingwebhookconfigurations ValidatingWebhookConfiguration",
        &[("dead", hook("apps", "deployments"))],
    )]);
    let waits = WaitLimits { backends: Duration::from_secs(2), max_idle_rounds: 1, ..WaitLimits::default() };
    let config = RestoreConfig { waits, ..config() };
    let (_, outcomes) = restore(&target, &held, &config).await;
    assert_eq!(cause(&outcomes["ValidatingWebhookConfiguration/dead"]), Some(RefusalCause::NoBackend));
    let slice = json!({"metadata": {"name": "nobody", "labels": {"kubernetes.io/service-name": "nobody"}}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.9"], "conditions": {"ready": true}}]});
    create(&target, "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices", slice).await;
    let (_, outcomes) = restore(&target, &held, &config).await;
    assert_eq!(outcomes["ValidatingWebhookConfiguration/dead"], Outcome::Created);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminating_namespaces_are_waited_for_once() {
    let plane = ControlPlane::start(&[]);
    let target = plane.cluster().await;
    for name in ["held", "ending"] {
        create_namespace(&target, name).await;
        let stuck = json!({"metadata": {"name": "stuck", "finalizers": ["demo.kbak.dev/keep"]}});
        create(&target, &format!("/api/v1/namespaces/{name}/configmaps"), stuck).await;
        delete(&target, &format!("/api/v1/namespaces/{name}")).await;
    }
    let names: Vec<String> = (0..20).map(|number| format!("held/m{number}")).collect();
    let mut all: Vec<&str> = names.iter().map(String::as_str).collect();
    all.push("ending/m");
    let mut held = maps(&all);
    held.kinds.extend(
        backup_of(&[("-core/v1/namespaces Namespace", &[("ending", json!({})), ("held", json!({}))])]).kinds,
    );
    let waits =
        WaitLimits { terminating: Duration::from_secs(20), max_idle_rounds: 0, ..WaitLimits::default() };
    let config = RestoreConfig { waits, ..config() };
    let (planned, _) = plan(&target, &held, &config, false).await;
    assert!(
        planned.waits.contains_key("the end of Namespace ending, which is being deleted"),
        "{:?}",
        planned.waits
    );
    let release = async {
        let object = "/api/v1/namespaces/ending/configmaps/stuck";
        patch(&target, object, json!({"metadata": {"finalizers": null}})).await;
    };
    let ((report, outcomes), ()) = tokio::join!(restore(&target, &held, &config), release);
    let report = report.expect("a report");
    assert_eq!(
        (&outcomes["Namespace/ending"], &outcomes["ConfigMap/ending/m"]),
        (&Outcome::Created, &Outcome::Created)
    );
    assert_eq!(cause(&outcomes["Namespace/held"]), Some(RefusalCause::Terminating));
    assert!(
        outcomes
            .iter()
            .filter(|(name, _)| name.starts_with("ConfigMap/held"))
            .all(|(_, o)| cause(o) == Some(RefusalCause::Terminating))
    );
    assert_eq!(report.failed, 21, "{report:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_and_revoked_rights_are_reported() {
    let plane = ControlPlane::start(&[]);
    let admin = plane.cluster().await;
    create_namespace(&admin, "shop").await;
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "get", "list"]},
        {"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["create"]}]);
    create(&admin, "/api/v1/namespaces/shop/serviceaccounts", json!({"metadata": {"name": "there"}})).await;
    let folder = tempfile::tempdir().expect("a folder");
    let few = connect(&create_account(&plane, &admin, folder.path(), "few", rules).await).await;
    let mut held = maps(&["shop/a"]);
    held.kinds.extend(
        backup_of(&[
            ("core/v1/secrets Secret", &[("shop/s", json!({"data": {"password": "Y2FuYXJ5"}}))]),
            ("core/v1/serviceaccounts ServiceAccount", &[("shop/there", json!({}))]),
        ])
        .kinds,
    );
    let (report, outcomes) = restore(&few, &held, &config()).await;
    let report = report.expect("a report");
    assert_eq!(outcomes["ConfigMap/shop/a"], Outcome::Created);
    assert_eq!(cause(&outcomes["Secret/shop/s"]), Some(RefusalCause::Right));
    assert_eq!(
        cause(&outcomes["ServiceAccount/shop/there"]),
        Some(RefusalCause::Right),
        "it exists and cannot be read"
    );
    assert_eq!(report.rounds, 2, "missing rights are not awaited");
    assert!(!format!("{report:?}").contains("canary") && !format!("{report:?}").contains("Y2FuYXJ5"));
    // The account is deleted, and its token with it.
    delete(&admin, "/api/v1/namespaces/default/serviceaccounts/few").await;
    for _ in 0..200 {
        if few.get("/api/v1/namespaces/shop/configmaps", "", 1 << 20).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (report, _) = restore(&few, &maps(&["shop/b"]), &config()).await;
    let Err(RestoreError::Api(error)) = report else { panic!("{report:?}") };
    assert_eq!(error.code(), Some(401));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_with_a_dead_conversion_webhook_are_restored_with_their_objects() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let definition = json!({"spec": {"group": "demo.kbak.dev", "scope": "Namespaced", "names": {"plural": "figs", "kind": "Fig"},
        "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": {"service": {"namespace": "shop", "name": "nobody"}}}},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}, {"name": "v2", "served": true, "storage": false, "schema": schema}]}});
    let mut held = backup_of(&[
        ("-core/v1/namespaces Namespace", &[("shop", json!({}))]),
        (
            "-apiextensions.k8s.io/v1/customresourcedefinitions CustomResourceDefinition",
            &[("figs.demo.kbak.dev", definition)],
        ),
        ("demo.kbak.dev/v1/figs Fig", &[("shop/stored", json!({"spec": {"a": 1}}))]),
    ]);
    let (report, outcomes) = restore(&target, &held, &config()).await;
    assert!(
        report.expect("a report").is_whole(),
        "an object at its storage version is not converted: {outcomes:?}"
    );
    // A backup of the other version needs the webhook.
    held.kinds =
        backup_of(&[("demo.kbak.dev/v2/figs Fig", &[("shop/other", json!({"spec": {"a": 1}}))])]).kinds;
    let (report, outcomes) = restore(&target, &held, &config()).await;
    report.expect("a report");
    assert_eq!(cause(&outcomes["Fig/shop/other"]), Some(RefusalCause::Conversion), "{outcomes:?}");
    // A line that no backup writes ends the restore.
    held.kinds[0].1 = vec![Bytes::from_static(b"{\"metadata\":{}}\n")];
    let (report, _) = restore(&target, &held, &config()).await;
    assert!(matches!(report, Err(RestoreError::Damaged { line: 1, .. })), "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn success_status_without_an_object_is_a_failure() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    create_namespace(&target, "shop").await;
    // Like a login page, which comes with status 200.
    let proxy = Proxy::in_front_of(&plane.kubeconfig(), |request| {
        let creates = request.method == Method::POST && request.path.ends_with("/configmaps");
        creates.then_some(ProxyFault::Status(200, None))
    })
    .await;
    let (report, outcomes) =
        restore(&connect(&proxy.kubeconfig()).await, &maps(&["shop/a"]), &config()).await;
    assert!(!report.expect("a report").is_whole());
    let Outcome::Failed(refusal) = &outcomes["ConfigMap/shop/a"] else { panic!("{outcomes:?}") };
    assert_eq!(refusal.reason, "NoObject", "{refusal}");
}
