//! Existing objects, second writes, removed API versions.

use bytes::Bytes;
use http::Method;
use kbak::kubernetes::Cluster;
use kbak::plan::Glob;
use kbak::target::kubernetes::{ExistingPolicy, Outcome, Permission, RestoreConfig, WaitLimits};
use serde_json::{Value, json};

use crate::support::backup_builder::{backup_of, backup_uid, restore};
use crate::support::control_plane::{ControlPlane, create, delete, get};
use crate::support::memory_backup::{MemoryBackup, config_map, create_namespace};

fn config() -> RestoreConfig {
    RestoreConfig {
        takeover: true,
        allow: Permission::ALL.into(),
        waits: WaitLimits { max_idle_rounds: 1, ..WaitLimits::default() },
        ..RestoreConfig::default()
    }
}

async fn restore_one(cluster: &Cluster, held: &MemoryBackup, config: &RestoreConfig) -> Outcome {
    let (report, outcomes) = restore(cluster, held, config).await;
    report.expect("a report");
    outcomes.into_values().next_back().expect("an object")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn existing_objects_are_kept_patched_or_replaced_as_configured() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    create_namespace(&target, "shop").await;
    let maps = "/api/v1/namespaces/shop/configmaps";
    create(&target, maps, json!({"metadata": {"name": "a"}, "data": {"value": "now", "more": "kept"}})).await;
    let held =
        backup_of(&[("core/v1/configmaps ConfigMap", &[("shop/a", json!({"data": {"value": "then"}}))])]);
    let data = async || get(&target, &format!("{maps}/a")).await["data"].clone();

    assert_eq!(restore_one(&target, &held, &config()).await, Outcome::Differs);
    let said = RestoreConfig { existing: Some(ExistingPolicy::Skip), ..config() };
    let (report, _) = restore(&target, &held, &said).await;
    assert!(report.expect("a report").is_whole(), "skipping was requested");
    assert_eq!(data().await["value"], "now");
    let patch = RestoreConfig { existing: Some(ExistingPolicy::Patch), ..config() };
    assert_eq!(restore_one(&target, &held, &patch).await, Outcome::Patched);
    assert_eq!(data().await, json!({"value": "then", "more": "kept"}));
    assert_eq!(restore_one(&target, &held, &patch).await, Outcome::Existed);
    target
        .send(
            Method::PATCH,
            &format!("{maps}/a"),
            "",
            "application/merge-patch+json",
            Bytes::from_static(br#"{"data":{"value":"now"}}"#),
        )
        .await
        .expect("patched");
    let replace = RestoreConfig { existing: Some(ExistingPolicy::Replace), ..config() };
    assert_eq!(restore_one(&target, &held, &replace).await, Outcome::Replaced);
    assert_eq!(data().await, json!({"value": "then"}));

    // A restored object equals the backup until another client writes to it.
    let held =
        backup_of(&[("core/v1/configmaps ConfigMap", &[("shop/b", json!({"data": {"value": "then"}}))])]);
    let b = format!("{maps}/b");
    for wanted in [Outcome::Created, Outcome::Existed] {
        assert_eq!(restore_one(&target, &held, &config()).await, wanted);
    }
    let later = Bytes::from_static(br#"{"data":{"value":"now"}}"#);
    target
        .send(Method::PATCH, &b, "fieldManager=app", "application/merge-patch+json", later)
        .await
        .expect("patched");
    assert_eq!(restore_one(&target, &held, &config()).await, Outcome::Differs);

    // A replacement keeps the server's values, which the server refuses to lose.
    let service = json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{"port": 80}], "selector": {"app": "old"}}});
    let existing = create(&target, "/api/v1/namespaces/shop/services", service).await;
    let held = backup_of(&[(
        "core/v1/services Service",
        &[(
            "shop/s",
            json!({"spec": {"type": "NodePort", "clusterIP": "10.1.1.1", "selector": {"app": "new"},
        "ports": [{"port": 80, "protocol": "TCP", "nodePort": 31999}]}}),
        )],
    )]);
    assert_eq!(restore_one(&target, &held, &replace).await, Outcome::Replaced);
    let now = get(&target, "/api/v1/namespaces/shop/services/s").await;
    assert_eq!(
        (&now["spec"]["clusterIP"], &now["spec"]["selector"]["app"]),
        (&existing["spec"]["clusterIP"], &json!("new"))
    );

    // Every namespace has this account; the backup's additions are merged into it.
    create(&target, "/api/v1/namespaces/shop/serviceaccounts", json!({"metadata": {"name": "default"}}))
        .await;
    let account = json!({"imagePullSecrets": [{"name": "registry"}], "secrets": [{"name": "default-token-abcde"}], "metadata": {"annotations": {"role": "x"}}});
    let held = backup_of(&[("core/v1/serviceaccounts ServiceAccount", &[("shop/default", account)])]);
    assert_eq!(restore_one(&target, &held, &config()).await, Outcome::Patched);
    let now = get(&target, "/api/v1/namespaces/shop/serviceaccounts/default").await;
    assert_eq!((&now["imagePullSecrets"], now.get("secrets")), (&json!([{"name": "registry"}]), None));

    // A node port in use by another Service is given up, and reported.
    let port = current_port(&target).await;
    let applied = json!({"spec": {"ports": [{"port": 80, "nodePort": port}]}}).to_string();
    let held = backup_of(&[(
        "core/v1/services Service",
        &[(
            "shop/t",
            json!({
        "metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": applied}},
        "spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP", "nodePort": port}]}}),
        )],
    )]);
    let (report, outcomes) = restore(&target, &held, &config()).await;
    assert_eq!(outcomes["Service/shop/t"], Outcome::Created);
    assert!(
        report.expect("a report").warnings.iter().any(|warning| warning.text().contains("cannot be had"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_selector_differs_from_another_one() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    create_namespace(&target, "shop").await;
    let policies = "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies";
    let spec =
        |from: Value| json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [from]}]});
    let own = spec(json!({"podSelector": {}}));
    let held = backup_of(&[(
        "networking.k8s.io/v1/networkpolicies NetworkPolicy",
        &[("shop/own", json!({"spec": own}))],
    )]);
    for (existing, outcome) in
        [(ExistingPolicy::Patch, Outcome::Patched), (ExistingPolicy::Replace, Outcome::Replaced)]
    {
        // Open to all namespaces instead of its own.
        let open = json!({"metadata": {"name": "own"}, "spec": spec(json!({"namespaceSelector": {}}))});
        create(&target, policies, open).await;
        assert_eq!(restore_one(&target, &held, &config()).await, Outcome::Differs);
        let chosen = RestoreConfig { existing: Some(existing), ..config() };
        assert_eq!(restore_one(&target, &held, &chosen).await, outcome);
        let path = format!("{policies}/own");
        assert_eq!(get(&target, &path).await["spec"]["ingress"], own["ingress"]);
        assert_eq!(restore_one(&target, &held, &chosen).await, Outcome::Existed);
        // A list that the server does not keep is no difference.
        let mut listed = own.clone();
        listed["egress"] = json!([]);
        let listed = backup_of(&[(
            "networking.k8s.io/v1/networkpolicies NetworkPolicy",
            &[("shop/own", json!({"metadata": {"labels": {}}, "spec": listed}))],
        )]);
        assert_eq!(restore_one(&target, &listed, &chosen).await, Outcome::Existed);
        delete(&target, &path).await;
    }
}

async fn current_port(cluster: &Cluster) -> Value {
    get(cluster, "/api/v1/namespaces/shop/services/s").await["spec"]["ports"][0]["nodePort"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_managers_finalizers_and_status_are_restored() {
    let (old, new) =
        (ControlPlane::start(&["--without-controllers"]), ControlPlane::start(&["--without-controllers"]));
    let (source, target) = (old.cluster().await, new.cluster().await);
    create_namespace(&source, "shop").await;
    let owner = create(&source, "/api/v1/namespaces/shop/configmaps", config_map("owner", "1")).await;
    // Applied by a GitOps tool, as Argo CD does.
    let applied = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "child", "finalizers": ["demo.kbak.dev/keep"],
        "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}]}, "data": {"a": "1"}});
    let path = "/api/v1/namespaces/shop/configmaps/child";
    apply_to_target(&source, path, &applied).await;
    let stored_child = get(&source, path).await;
    let pdb = json!({"metadata": {"name": "p"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    create(&source, "/apis/policy/v1/namespaces/shop/poddisruptionbudgets", pdb).await;
    let status = json!({"status": {"observedGeneration": 1, "currentHealthy": 3, "desiredHealthy": 1, "disruptionsAllowed": 2, "expectedPods": 3}});
    source
        .send(
            Method::PATCH,
            "/apis/policy/v1/namespaces/shop/poddisruptionbudgets/p/status",
            "",
            "application/merge-patch+json",
            Bytes::from(status.to_string()),
        )
        .await
        .expect("a status");

    let (held, _) = crate::support::memory_backup::read(&source).await;
    let config =
        RestoreConfig { status: vec![Glob::new("poddisruptionbudgets.policy").expect("a glob")], ..config() };
    let (report, _) = restore(&target, &held, &config).await;
    let report = report.expect("a report");
    assert!(report.is_whole(), "{report:#?}");
    assert_eq!((report.relinked, report.managed, report.status), (1, 1, 1), "{report:#?}");
    let child = get(&target, path).await;
    let owner = get(&target, "/api/v1/namespaces/shop/configmaps/owner").await;
    assert_eq!(child["metadata"]["ownerReferences"][0]["uid"], owner["metadata"]["uid"]);
    assert_eq!(child["metadata"]["finalizers"], json!(["demo.kbak.dev/keep"]));
    let manager = |object: &Value| {
        let all = object["metadata"]["managedFields"].as_array().expect("managers").clone();
        all.into_iter().find(|one| one["manager"] == "argo").expect("the manager")
    };
    let (was, is) = (manager(&stored_child), manager(&child));
    assert_eq!((&is["operation"], &is["fieldsV1"]["f:data"]), (&json!("Apply"), &was["fieldsV1"]["f:data"]));
    // The manager still owns its fields: applying fewer removes the rest.
    let less =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "child"}, "data": {"b": "2"}});
    apply_to_target(&target, path, &less).await;
    assert_eq!(get(&target, path).await["data"], json!({"b": "2"}));
    let budget = get(&target, "/apis/policy/v1/namespaces/shop/poddisruptionbudgets/p").await;
    assert_eq!(budget["status"]["currentHealthy"], 3);
}

async fn apply_to_target(cluster: &Cluster, path: &str, object: &Value) {
    let body = Bytes::from(object.to_string());
    let query = "fieldManager=argo";
    cluster.send(Method::PATCH, path, query, "application/apply-patch+yaml", body).await.expect("applied");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removed_api_versions_are_mapped() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    create_namespace(&target, "shop").await;
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "a"}]}});
    let mut once = template.clone();
    once["spec"]["restartPolicy"] = json!("Never");
    let owned = json!([{"apiVersion": "extensions/v1beta1", "kind": "Deployment", "name": "web", "uid": backup_uid("Deployment", "shop/web")}]);
    let held = backup_of(&[
        (
            "extensions/v1beta1/deployments Deployment",
            &[("shop/web", json!({"spec": {"template": template}}))],
        ),
        (
            "extensions/v1beta1/ingresses Ingress",
            &[("shop/web", json!({"spec": {"backend": {"serviceName": "web", "servicePort": 80}}}))],
        ),
        (
            "batch/v1beta1/cronjobs CronJob",
            &[(
                "shop/night",
                json!({"spec": {"schedule": "0 1 * * *", "jobTemplate": {"spec": {"template": once}}}}),
            )],
        ),
        (
            "policy/v1beta1/poddisruptionbudgets PodDisruptionBudget",
            &[
                (
                    "shop/web",
                    json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}}),
                ),
                ("shop/none", json!({"spec": {"minAvailable": 1}})),
            ],
        ),
        (
            "autoscaling/v2beta2/horizontalpodautoscalers HorizontalPodAutoscaler",
            &[(
                "shop/web",
                json!({
            "metadata": {"ownerReferences": owned},
            "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}]}}),
            )],
        ),
        ("policy/v1beta1/podsecuritypolicies PodSecurityPolicy", &[("shop/p", json!({}))]),
    ]);
    let (report, outcomes) = restore(&target, &held, &config()).await;
    let report = report.expect("a report");
    let created = outcomes.values().filter(|outcome| **outcome == Outcome::Created).count();
    assert_eq!(created, 5, "{outcomes:#?}");
    assert_eq!(report.unserved.len(), 1, "PodSecurityPolicy has no successor");
    let Outcome::Failed(refusal) = &outcomes["PodDisruptionBudget/shop/none"] else {
        panic!("it means another thing now")
    };
    assert_eq!(refusal.reason, "RemovedVersion");
    let web = get(&target, "/apis/apps/v1/namespaces/shop/deployments/web").await;
    assert_eq!(web["spec"]["selector"], json!({"matchLabels": {"app": "web"}}));
    let scaler = get(&target, "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers/web").await;
    let owner = &scaler["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["apiVersion"], &owner["uid"]), (&json!("apps/v1"), &web["metadata"]["uid"]));
}
