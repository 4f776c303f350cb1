//! A policy that denies an object or warns of it is named, and no value is shown.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use kbak::kubernetes::Cluster;
use kbak::target::kubernetes::{ExistingPolicy, Outcome, RefusalCause, RestoreConfig, WaitLimits, Warning};
use serde_json::{Value, json};

use crate::support::backup_builder::{backup_of, restore};
use crate::support::control_plane::{ControlPlane, create};
use crate::support::memory_backup::create_namespace;

const CANARY: &str = "canary-of-a-password";
/// The same value as a Secret holds it.
const ENCODED: &str = "Y2FuYXJ5LW9mLWEtcGFzc3dvcmQ=";

/// Creates a policy against the key `password` whose message quotes it; returns once it is enforced.
async fn policy(cluster: &Cluster, name: &str, resource: &str, action: &str) {
    let path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
    let rules = json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": [resource]}]);
    let validation = json!({"expression": "!has(object.data) || !('password' in object.data)",
        "messageExpression": "'it is ' + string(object.data['password'])"});
    create(
        cluster,
        path,
        json!({"metadata": {"name": name}, "spec": {
        "failurePolicy": "Fail", "matchConstraints": {"resourceRules": rules}, "validations": [validation]}}),
    )
    .await;
    let path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
    let binding = json!({"metadata": {"name": format!("{name}-all")}, "spec": {"policyName": name, "validationActions": [action]}});
    create(cluster, path, binding).await;
    let probe =
        Bytes::from(json!({"metadata": {"name": "probe"}, "data": {"password": ENCODED}}).to_string());
    for _ in 0..400 {
        let path = format!("/api/v1/namespaces/shop/{resource}");
        let answer = cluster.send(Method::POST, &path, "dryRun=All", "application/json", probe.clone()).await;
        if answer.is_err() || answer.is_ok_and(|answer| !answer.warnings.is_empty()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the policy {name} does not work");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policy_messages_do_not_reveal_values() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    create_namespace(&target, "shop").await;
    policy(&target, "warns", "secrets", "Warn").await;
    policy(&target, "denies", "configmaps", "Deny").await;
    create(&target, "/api/v1/namespaces/shop/secrets", json!({"metadata": {"name": "typed"}})).await;

    let held = backup_of(&[
        (
            "core/v1/secrets Secret",
            &[
                ("shop/db", json!({"data": {"password": ENCODED}})),
                ("shop/typed", json!({"type": "example.com/other", "data": {"a": ENCODED}})),
            ],
        ),
        ("core/v1/configmaps ConfigMap", &[("shop/db", json!({"data": {"password": CANARY}}))]),
    ]);
    let existing = Some(ExistingPolicy::Replace);
    let config = RestoreConfig {
        waits: WaitLimits { max_idle_rounds: 0, ..WaitLimits::default() },
        takeover: true,
        existing,
        ..RestoreConfig::default()
    };
    let (report, outcomes) = restore(&target, &held, &config).await;
    let report = report.expect("a report");
    let told = format!("{report:?} {outcomes:?}");
    assert!(!told.contains(CANARY) && !told.contains(ENCODED), "{told}");

    assert_eq!(outcomes["Secret/shop/db"], Outcome::Created);
    let warned = "Secret/shop/db: ValidatingAdmissionPolicy warns with binding warns-all warned about it";
    let is_warned = |one: &Warning| matches!(one, Warning::Server(text) if text.starts_with(warned));
    assert!(report.warnings.iter().any(is_warned), "{:?}", report.warnings);

    let failed = |name: &str| match &outcomes[name] {
        Outcome::Failed(refusal) => (refusal.cause, refusal.code, refusal.to_string()),
        other => panic!("{name}: {other:?}"),
    };
    let (cause, code, text) = failed("ConfigMap/shop/db");
    assert_eq!((cause, code), (RefusalCause::Denied, 422), "{text}");
    assert!(text.ends_with(": ValidatingAdmissionPolicy denies with binding denies-all denies it"), "{text}");
    let (cause, code, text) = failed("Secret/shop/typed");
    assert_eq!((cause, code), (RefusalCause::Immutable, 422), "{text}");
    assert!(text.contains("may not be changed") && text.contains("type"), "{text}");
    assert!(cause.remedy().is_some_and(|remedy: &str| remedy.contains("delete the existing object")));
    let json: Value = serde_json::to_value(cause).expect("JSON");
    assert_eq!(json, json!("immutable"));
}
