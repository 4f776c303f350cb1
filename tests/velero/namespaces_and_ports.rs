//! Ports, namespaces, rights.

use serde_json::{Value, json};

use super::case_runner::CaseContext;
use super::{core, exists, map, namespace};
use crate::support::control_plane::{connect, create, delete, get, patch};
use crate::support::wait::until;

fn service(name: &str, port: Option<u16>) -> Value {
    let mut entry = json!({"name": "http", "port": 80});
    if let Some(port) = port {
        entry["nodePort"] = json!(port);
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"type": "NodePort", "ports": [entry], "selector": {"app": name}}})
}

/// With its port preserved, an existing Service failed as if another had its port.
pub async fn vl2308_node_port_of_the_existing_service_is_accepted(mut case: CaseContext) {
    let path = core("vl2308", "services");
    for cluster in [&case.source, &case.target] {
        namespace(cluster, "vl2308", json!({})).await;
        create(cluster, &path, service("web", Some(31_308))).await;
    }
    case.wait_for_backup().await;

    let only = ["--namespace", "vl2308", "--kind", "services", "--preserve-nodeports"];
    case.restore(&only).await.ended(0);
    delete(&case.target, &format!("{path}/web")).await;
    case.restore(&only).await.ended(0);
    assert_eq!(get(&case.target, &format!("{path}/web")).await["spec"]["ports"][0]["nodePort"], 31_308);
}

/// A port in use must not cost the whole Service, and its loss is reported.
pub async fn vl5872_service_with_a_taken_node_port_is_restored_without_it(mut case: CaseContext) {
    let path = core("vl5872", "services");
    namespace(&case.source, "vl5872", json!({})).await;
    create(&case.source, &path, service("web", Some(31_872))).await;
    namespace(&case.target, "vl5872-other", json!({})).await;
    create(&case.target, &core("vl5872-other", "services"), service("other", Some(31_872))).await;
    case.wait_for_backup().await;

    let run = case.restore(&["--namespace", "vl5872", "--preserve-nodeports"]).await.ended(0);
    let port = get(&case.target, &format!("{path}/web")).await["spec"]["ports"][0]["nodePort"].clone();
    assert!(port.as_u64().is_some_and(|port| port != 31_872), "{port}");
    assert!(
        run.all_output().contains("Service/vl5872/web: its node port 31872 cannot be had"),
        "{}",
        run.all_output()
    );
}

/// The port that the old cluster assigned is not part of the user's intent.
pub async fn vl6376_health_check_port_is_assigned_by_the_target_cluster(mut case: CaseContext) {
    let path = core("vl6376", "services");
    namespace(&case.source, "vl6376", json!({})).await;
    let mut web = service("web", None);
    web["spec"]["type"] = json!("LoadBalancer");
    web["spec"]["externalTrafficPolicy"] = json!("Local");
    let made = create(&case.source, &path, web).await;
    let health = made["spec"]["healthCheckNodePort"].as_u64().expect("a port");
    // A port that a user chose is asked for, and given up where it is taken.
    let mut chosen = service("chosen", None);
    chosen["spec"]["type"] = json!("LoadBalancer");
    chosen["spec"]["externalTrafficPolicy"] = json!("Local");
    chosen["spec"]["healthCheckNodePort"] = json!(31_376);
    create(&case.source, &path, chosen).await;
    // Another Service has all these ports in the new cluster.
    namespace(&case.target, "vl6376-other", json!({})).await;
    let node = made["spec"]["ports"][0]["nodePort"].as_u64().expect("a port");
    for (name, port) in [("one", health), ("two", node), ("three", 31_376)] {
        create(&case.target, &core("vl6376-other", "services"), service(name, u16::try_from(port).ok()))
            .await;
    }
    case.wait_for_backup().await;

    let run = case.restore(&["--namespace", "vl6376", "--release", "loadbalancers"]).await.ended(0);
    let found = get(&case.target, &format!("{path}/web")).await;
    assert_eq!(found["spec"]["externalTrafficPolicy"], "Local");
    assert_ne!(found["spec"]["healthCheckNodePort"], json!(health), "{}", run.all_output());
    delete(&case.target, &format!("{path}/chosen")).await;
    let keep = ["--namespace", "vl6376", "--release", "loadbalancers", "--preserve-nodeports"];
    let run = case.restore(&keep).await;
    assert!(run.all_output().contains("its health check port 31376 cannot be had"), "{}", run.all_output());
    let found = get(&case.target, &format!("{path}/chosen")).await;
    assert_ne!(found["spec"]["healthCheckNodePort"], 31_376);
}

/// Velero requires cluster-admin.
pub async fn vl5156_namespace_rights_suffice_to_restore_that_namespace(mut case: CaseContext) {
    namespace(&case.source, "vl5156", json!({})).await;
    create(&case.source, &core("vl5156", "configmaps"), map("mine", json!({"a": "b"}))).await;
    create(&case.source, &core("vl5156", "secrets"), json!({"metadata": {"name": "mine"}})).await;
    namespace(&case.target, "vl5156", json!({})).await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/vl5156";
    create(&case.target, &core("vl5156", "serviceaccounts"), json!({"metadata": {"name": "restorer"}})).await;
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps", "secrets"], "verbs": ["get", "list", "create", "patch"]}]);
    create(&case.target, &format!("{rbac}/roles"), json!({"metadata": {"name": "restorer"}, "rules": rules}))
        .await;
    let binding = json!({"metadata": {"name": "restorer"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "restorer"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "vl5156", "name": "restorer"}]});
    create(&case.target, &format!("{rbac}/rolebindings"), binding).await;
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}});
    let token = create(&case.target, &core("vl5156", "serviceaccounts/restorer/token"), request).await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("kubeconfig");
    let text = std::fs::read_to_string(case.kubeconfig()).expect("a kubeconfig");
    let mut config: Value = serde_saphyr::from_str(&text).expect("YAML");
    config["users"][0]["user"] = json!({"token": token["status"]["token"]});
    std::fs::write(&path, config.to_string()).expect("a kubeconfig");
    case.wait_for_backup().await;
    let restorer = connect(&path).await;
    until(&restorer, &core("vl5156", "secrets"), |list| list["items"].is_array()).await;

    let only = ["--namespace", "vl5156", "--kind", "configmaps", "--kind", "secrets"];
    case.restore_as(&path, &only).await.ended(0);
    get(&case.target, &core("vl5156", "configmaps/mine")).await;
    get(&case.target, &core("vl5156", "secrets/mine")).await;
}

/// Velero waits for a terminating namespace once for each object in it, ten minutes each.
pub async fn vl5697_vl7516_vl7424_terminating_namespace_is_awaited_once(mut case: CaseContext) {
    namespace(&case.source, "vl5697", json!({})).await;
    let maps = core("vl5697", "configmaps");
    for number in 0..30 {
        create(&case.source, &maps, map(&format!("m{number}"), json!({}))).await;
    }
    namespace(&case.target, "vl5697", json!({})).await;
    let mut held = map("held", json!({}));
    held["metadata"]["finalizers"] = json!(["demo.kbak.dev/hold"]);
    create(&case.target, &maps, held).await;
    delete(&case.target, "/api/v1/namespaces/vl5697").await;
    case.wait_for_backup().await;

    let space = "/api/v1/namespaces/vl5697";
    let going = get(&case.target, space).await;
    assert_eq!(going["status"]["phase"], "Terminating");
    let released = async {
        // The restore has begun; the time of its first look does not matter.
        until(&case.target, &maps, |list| list["items"].as_array().is_some_and(|all| all.len() == 1)).await;
        patch(&case.target, &format!("{maps}/held"), json!({"metadata": {"finalizers": null}})).await;
    };
    let (run, ()) = tokio::join!(case.restore(&["--namespace", "vl5697"]), released);
    run.ended(0);
    let now = get(&case.target, space).await;
    assert_ne!(now["metadata"]["uid"], going["metadata"]["uid"], "it is a new one");
    assert!(exists(&case.target, &format!("{maps}/m29")).await);
}
