//! Existing objects, second writes, removed API versions.

use bytes::Bytes;
use http::Method;
use kbak::kubernetes::Cluster;
use kbak::plan::Glob;
use kbak::target::kubernetes::{ExistingPolicy, Outcome, Permission, RestoreConfig, WaitLimits};
use serde_json::{Value, json};

use crate::support::plane::{Plane, create, get};
use crate::support::resources::{Held, config_map, namespace};
use crate::support::stored::{restore, stored, uid};

fn config() -> RestoreConfig {
    RestoreConfig {
        takeover: true,
        allow: Permission::ALL.into(),
        waits: WaitLimits { max_idle_rounds: 1, ..WaitLimits::default() },
        ..RestoreConfig::default()
    }
}

async fn bring(cluster: &Cluster, held: &Held, config: &RestoreConfig) -> Outcome {
    let (report, outcomes) = restore(cluster, held, config).await;
    report.expect("a report");
    outcomes.into_values().next_back().expect("an object")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn existing_objects_are_kept_patched_or_replaced_as_configured() {
    let plane = Plane::up(&["--without-controllers"]);
    let here = plane.cluster().await;
    namespace(&here, "shop").await;
    let maps = "/api/v1/namespaces/shop/configmaps";
    create(&here, maps, json!({"metadata": {"name": "a"}, "data": {"value": "now", "more": "kept"}})).await;
    let held = stored(&[("core/v1/configmaps ConfigMap", &[("shop/a", json!({"data": {"value": "then"}}))])]);
    let data = async || get(&here, &format!("{maps}/a")).await["data"].clone();

    assert_eq!(bring(&here, &held, &config()).await, Outcome::Differs);
    let said = RestoreConfig { existing: Some(ExistingPolicy::Skip), ..config() };
    let (report, _) = restore(&here, &held, &said).await;
    assert!(report.expect("a report").is_whole(), "to leave it alone is what was asked for");
    assert_eq!(data().await["value"], "now");
    let patch = RestoreConfig { existing: Some(ExistingPolicy::Patch), ..config() };
    assert_eq!(bring(&here, &held, &patch).await, Outcome::Patched);
    assert_eq!(data().await, json!({"value": "then", "more": "kept"}));
    assert_eq!(bring(&here, &held, &patch).await, Outcome::Existed);
    here.send(
        Method::PATCH,
        &format!("{maps}/a"),
        "",
        "application/merge-patch+json",
        Bytes::from_static(br#"{"data":{"value":"now"}}"#),
    )
    .await
    .expect("patched");
    let replace = RestoreConfig { existing: Some(ExistingPolicy::Replace), ..config() };
    assert_eq!(bring(&here, &held, &replace).await, Outcome::Replaced);
    assert_eq!(data().await, json!({"value": "then"}));

    // A restored object equals the backup until another client writes to it.
    let held = stored(&[("core/v1/configmaps ConfigMap", &[("shop/b", json!({"data": {"value": "then"}}))])]);
    let b = format!("{maps}/b");
    for wanted in [Outcome::Created, Outcome::Existed] {
        assert_eq!(bring(&here, &held, &config()).await, wanted);
    }
    let later = Bytes::from_static(br#"{"data":{"value":"now"}}"#);
    here.send(Method::PATCH, &b, "fieldManager=app", "application/merge-patch+json", later)
        .await
        .expect("patched");
    assert_eq!(bring(&here, &held, &config()).await, Outcome::Differs);

    // A replacement keeps the server's values, which the server refuses to lose.
    let service = json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{"port": 80}], "selector": {"app": "old"}}});
    let there = create(&here, "/api/v1/namespaces/shop/services", service).await;
    let held = stored(&[(
        "core/v1/services Service",
        &[(
            "shop/s",
            json!({"spec": {"type": "NodePort", "clusterIP": "10.1.1.1", "selector": {"app": "new"},
        "ports": [{"port": 80, "protocol": "TCP", "nodePort": 31999}]}}),
        )],
    )]);
    assert_eq!(bring(&here, &held, &replace).await, Outcome::Replaced);
    let now = get(&here, "/api/v1/namespaces/shop/services/s").await;
    assert_eq!(
        (&now["spec"]["clusterIP"], &now["spec"]["selector"]["app"]),
        (&there["spec"]["clusterIP"], &json!("new"))
    );

    // Every namespace has this account; the backup's additions are merged into it.
    create(&here, "/api/v1/namespaces/shop/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    let account = json!({"imagePullSecrets": [{"name": "registry"}], "secrets": [{"name": "default-token-abcde"}], "metadata": {"annotations": {"role": "x"}}});
    let held = stored(&[("core/v1/serviceaccounts ServiceAccount", &[("shop/default", account)])]);
    assert_eq!(bring(&here, &held, &config()).await, Outcome::Patched);
    let now = get(&here, "/api/v1/namespaces/shop/serviceaccounts/default").await;
    assert_eq!((&now["imagePullSecrets"], now.get("secrets")), (&json!([{"name": "registry"}]), None));

    // A node port in use by another Service is given up, and reported.
    let port = now_port(&here).await;
    let applied = json!({"spec": {"ports": [{"port": 80, "nodePort": port}]}}).to_string();
    let held = stored(&[(
        "core/v1/services Service",
        &[(
            "shop/t",
            json!({
        "metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": applied}},
        "spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP", "nodePort": port}]}}),
        )],
    )]);
    let (report, outcomes) = restore(&here, &held, &config()).await;
    assert_eq!(outcomes["Service/shop/t"], Outcome::Created);
    assert!(
        report
            .expect("a report")
            .warnings
            .iter()
            .any(|warning| warning.text().contains("node ports are in use"))
    );
}

async fn now_port(cluster: &Cluster) -> Value {
    get(cluster, "/api/v1/namespaces/shop/services/s").await["spec"]["ports"][0]["nodePort"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_managers_finalizers_and_status_are_restored() {
    let (old, new) = (Plane::up(&["--without-controllers"]), Plane::up(&["--without-controllers"]));
    let (there, here) = (old.cluster().await, new.cluster().await);
    namespace(&there, "shop").await;
    let owner = create(&there, "/api/v1/namespaces/shop/configmaps", config_map("owner", "1")).await;
    // Applied by a GitOps tool, as Argo CD does.
    let applied = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "child", "finalizers": ["demo.kbak.dev/keep"],
        "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}]}, "data": {"a": "1"}});
    let path = "/api/v1/namespaces/shop/configmaps/child";
    here_apply(&there, path, &applied).await;
    let stored_child = get(&there, path).await;
    let pdb = json!({"metadata": {"name": "p"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    create(&there, "/apis/policy/v1/namespaces/shop/poddisruptionbudgets", pdb).await;
    let status = json!({"status": {"observedGeneration": 1, "currentHealthy": 3, "desiredHealthy": 1, "disruptionsAllowed": 2, "expectedPods": 3}});
    there
        .send(
            Method::PATCH,
            "/apis/policy/v1/namespaces/shop/poddisruptionbudgets/p/status",
            "",
            "application/merge-patch+json",
            Bytes::from(status.to_string()),
        )
        .await
        .expect("a status");

    let (held, _) = crate::support::resources::read(&there).await;
    let config =
        RestoreConfig { status: vec![Glob::new("poddisruptionbudgets.policy").expect("a glob")], ..config() };
    let (report, _) = restore(&here, &held, &config).await;
    let report = report.expect("a report");
    assert!(report.is_whole(), "{report:#?}");
    assert_eq!((report.relinked, report.managed, report.status), (1, 1, 1), "{report:#?}");
    let child = get(&here, path).await;
    let owner = get(&here, "/api/v1/namespaces/shop/configmaps/owner").await;
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
    here_apply(&here, path, &less).await;
    assert_eq!(get(&here, path).await["data"], json!({"b": "2"}));
    let budget = get(&here, "/apis/policy/v1/namespaces/shop/poddisruptionbudgets/p").await;
    assert_eq!(budget["status"]["currentHealthy"], 3);
}

async fn here_apply(cluster: &Cluster, path: &str, object: &Value) {
    let body = Bytes::from(object.to_string());
    let query = "fieldManager=argo";
    cluster.send(Method::PATCH, path, query, "application/apply-patch+yaml", body).await.expect("applied");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removed_api_versions_are_mapped() {
    let plane = Plane::up(&["--without-controllers"]);
    let here = plane.cluster().await;
    namespace(&here, "shop").await;
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "a"}]}});
    let mut once = template.clone();
    once["spec"]["restartPolicy"] = json!("Never");
    let owned = json!([{"apiVersion": "extensions/v1beta1", "kind": "Deployment", "name": "web", "uid": uid("Deployment", "shop/web")}]);
    let held = stored(&[
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
    let (report, outcomes) = restore(&here, &held, &config()).await;
    let report = report.expect("a report");
    let created = outcomes.values().filter(|outcome| **outcome == Outcome::Created).count();
    assert_eq!(created, 5, "{outcomes:#?}");
    assert_eq!(report.unserved.len(), 1, "there is nothing in place of a PodSecurityPolicy");
    let Outcome::Failed(refusal) = &outcomes["PodDisruptionBudget/shop/none"] else {
        panic!("it means another thing now")
    };
    assert_eq!(refusal.reason, "RemovedVersion");
    let web = get(&here, "/apis/apps/v1/namespaces/shop/deployments/web").await;
    assert_eq!(web["spec"]["selector"], json!({"matchLabels": {"app": "web"}}));
    let scaler = get(&here, "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers/web").await;
    let owner = &scaler["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["apiVersion"], &owner["uid"]), (&json!("apps/v1"), &web["metadata"]["uid"]));
}
