//! Items that a cluster holds and a plan omits: reported in every run and by the preflight.

use kbak::kubernetes::Cluster;
use serde_json::{Value, json};

use crate::support::cli_repo::CliRepo;
use crate::support::control_plane::{ControlPlane, create};
use crate::support::kinds::{create_known_account, define};
use crate::support::memory_backup::create_namespace;
use crate::support::program::run_json;

const CANARY: &str = "canary-of-a-secret";

/// Creates a shop with a database and a claim, an operator's database, keys of several kinds.
async fn fill(cluster: &Cluster) {
    for name in ["shop", "dev", "security"] {
        create_namespace(cluster, name).await;
    }
    define(cluster, "postgresql.cnpg.io", "v1", "clusters", "Cluster", "Namespaced").await;
    define(cluster, "cert-manager.io", "v1", "issuers", "Issuer", "Namespaced").await;
    let claim = |name: &str, labels: Value| {
        json!({"metadata": {"name": name, "labels": labels}, "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "fast",
            "resources": {"requests": {"storage": "10Gi"}}}})
    };
    let claims = "/api/v1/namespaces/shop/persistentvolumeclaims";
    for (name, labels) in [
        ("uploads", json!({})),
        ("data-orders-db-0", json!({})),
        ("ledger-1", json!({"cnpg.io/cluster": "ledger"})),
    ] {
        create(cluster, claims, claim(name, labels)).await;
    }
    let workload = |name: &str, image: &str, env: Value, claims: Value| {
        json!({"metadata": {"name": name}, "spec": {
            "serviceName": name, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {
                "containers": [{"name": "main", "image": image, "env": env}]}},
            "volumeClaimTemplates": claims}})
    };
    let sets = "/apis/apps/v1/namespaces/shop/statefulsets";
    let template = json!([{"metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]);
    let env =
        json!([{"name": "POSTGRES_USER", "value": "shop"}, {"name": "POSTGRES_PASSWORD", "value": CANARY}]);
    create(cluster, sets, workload("orders-db", "docker.io/library/postgres:16", env, template)).await;
    create(cluster, sets, workload("cache", "redis:7", json!([]), json!([]))).await;
    create(cluster, sets, workload("web", "nginx:1", json!([]), json!([]))).await;
    let service = json!({"metadata": {"name": "orders"}, "spec": {"selector": {"app": "orders-db"}, "ports": [{"port": 5432}]}});
    create(cluster, "/api/v1/namespaces/shop/services", service).await;
    let ledger =
        json!({"apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster", "metadata": {"name": "ledger"}});
    create(cluster, "/apis/postgresql.cnpg.io/v1/namespaces/shop/clusters", ledger).await;
    let secret = |name: &str, labels: Value| json!({"metadata": {"name": name, "labels": labels}, "stringData": {"key": CANARY}});
    let secrets = "/api/v1/namespaces/security/secrets";
    create(
        cluster,
        secrets,
        secret("sealed-key-1", json!({"sealedsecrets.bitnami.com/sealed-secrets-key": "active"})),
    )
    .await;
    create(cluster, secrets, secret("root-ca", json!({}))).await;
    create(cluster, secrets, secret("sops-age", json!({}))).await;
    create(cluster, secrets, secret("other", json!({}))).await;
    let issuer = json!({"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": "inner"}, "spec": {"ca": {"secretName": "root-ca"}}});
    create(cluster, "/apis/cert-manager.io/v1/namespaces/security/issuers", issuer).await;
}

fn items(coverage: &Value, list: &str) -> Vec<String> {
    let all = coverage[list].as_array().cloned().unwrap_or_default();
    all.iter().map(|one| one["item"].as_str().expect("an item").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn undeclared_items_are_reported_and_fail_only_strict_runs() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let cluster = plane.cluster().await;
    fill(&cluster).await;
    let cli = CliRepo::for_plan("nightly");
    let config = plane.kubeconfig().display().to_string();
    let plan = |rest: &str| {
        cli.write_plan(&format!(
            "  cluster: {{kubeconfigFile: \"{config}\"}}\n  resources: {{namespaces: {{exclude: [dev, security]}}}}\n{rest}"
        ))
    };
    let all = [
        "secret/security/root-ca",
        "secret/security/sealed-key-1",
        "secret/security/sops-age",
        "database/shop/ledger",
        "database/shop/orders-db",
        "volume/shop/uploads",
        "namespace/dev",
        "namespace/security",
    ];

    let (code, report, said) = run_json(&["backup", "--plan", &plan("")]);
    assert_eq!(code, 0, "warnings do not fail a run: {said}");
    assert_eq!(items(&report["coverage"], "uncovered"), all, "{report:#}");
    assert!(report["coverage"]["unseen"].is_null(), "{report:#}");
    let warnings = report["warnings"].as_array().expect("warnings");
    let told: Vec<&str> = warnings.iter().filter_map(|one| one["message"].as_str()).collect();
    assert!(
        told.iter().any(|text| text.contains("2 databases are not declared")
            && text.contains("docker.io/library/postgres:16")),
        "{told:?}"
    );
    assert!(
        told.iter().any(|text| text.contains("1 claim is not declared: shop/uploads (10Gi, class fast)")),
        "{told:?}"
    );
    // The snapshot records what was not declared.
    let shown = cli.read_json(&["show"]);
    assert_eq!(items(&shown["items"][0]["facts"]["coverage"], "uncovered"), all, "{shown:#}");

    let (code, report, said) = run_json(&["backup", "--plan", &plan("  coverage: strict\n")]);
    assert_eq!((code, report["items"][0]["state"].as_str()), (3, Some("good")), "{said}");
    assert!(
        report["verdict"].as_str().is_some_and(|verdict| verdict.contains("not declared: 3 Secrets")),
        "{report:#}"
    );

    let (code, report, _) = run_json(&["backup", "--plan", &plan("  coverage: off\n")]);
    assert_eq!((code, &report["coverage"]), (0, &Value::Null));

    // All accepted by globs until a date; they count again after it.
    let accept = |until: &str| {
        let entry = |item: &str| {
            format!("    - {{item: \"{item}\", gap: uncovered, reason: rebuildable, until: {until}}}\n")
        };
        let items =
            ["secret/*/*", "database/shop/*", "volume/shop/uploads", "namespace/dev", "namespace/sec*"];
        format!("  coverage: strict\n  accept:\n{}", items.map(entry).concat())
    };
    let (code, report, said) = run_json(&["backup", "--plan", &plan(&accept("2099-01-01"))]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(
        (items(&report["coverage"], "uncovered").len(), items(&report["coverage"], "accepted").len()),
        (0, all.len())
    );
    let facts = report["facts"].to_string();
    assert!(facts.contains("volume/shop/uploads is not declared; until 2099-01-01: rebuildable"), "{facts}");
    let (code, report, _) = run_json(&["backup", "--plan", &plan(&accept("2020-01-01"))]);
    assert_eq!((code, items(&report["coverage"], "uncovered").len()), (3, all.len()));
    assert!(
        report["warnings"].to_string().contains("was accepted until 2020-01-01: it counts again"),
        "{report:#}"
    );

    // In the preflight undeclared keys are a problem, other items a warning.
    let (code, report, said) = run_json(&["check", "--plan", &plan("")]);
    assert_eq!(code, 2, "{said}");
    let problems: Vec<&Value> = report["findings"]
        .as_array()
        .expect("findings")
        .iter()
        .filter(|one| one["weight"] == "problem")
        .collect();
    let [one] = problems.as_slice() else { panic!("{problems:#?}") };
    assert!(
        one["what"]
            .as_str()
            .is_some_and(|what| what.contains("sealed-key-1") && what.contains("the CA of Issuer inner")),
        "{one}"
    );
    let whole = cli.write_plan(&format!("  cluster: {{kubeconfigFile: \"{config}\"}}\n  resources: {{}}\n"));
    let (code, report, said) = run_json(&["check", "--plan", &whole]);
    assert_eq!(code, 0, "with every namespace the keys are safe: {report:#} {said}");
    let printed = format!("{report} {said}");
    assert!(!printed.contains(CANARY), "{printed}");

    // A dumped database is covered, with its claims; one that its Service does not lead to is not.
    let declared = cli.write_plan(&format!(
        "  cluster: {{kubeconfigFile: \"{config}\"}}\n  resources: {{}}\n  \
         databases: [{{name: orders, engine: postgresql, host: orders.shop.svc, tls: allow-plaintext}}]\n"
    ));
    let (_, report, said) = run_json(&["backup", "--plan", &declared]);
    assert_eq!(
        items(&report["coverage"], "uncovered"),
        ["database/shop/ledger", "volume/shop/uploads"],
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kinds_without_read_right_are_reported_as_unseen() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let cluster = plane.cluster().await;
    create_namespace(&cluster, "shop").await;
    let cli = CliRepo::for_plan("nightly");
    let rules =
        json!([{"apiGroups": [""], "resources": ["namespaces", "configmaps"], "verbs": ["get", "list"]}]);
    let config =
        create_known_account(&plane, &cluster, &cli.at(""), "few", rules).await.display().to_string();
    let plan = |coverage: &str| {
        cli.write_plan(&format!(
            "  cluster: {{kubeconfigFile: \"{config}\"}}\n  coverage: {coverage}\n  resources: {{kinds: {{include: [configmaps]}}}}\n"
        ))
    };
    let (code, report, said) = run_json(&["backup", "--plan", &plan("warn")]);
    assert_eq!(code, 0, "{said}");
    let unseen = report["coverage"]["unseen"].as_array().expect("unseen");
    let what: Vec<&str> = unseen.iter().filter_map(|one| one["what"].as_str()).collect();
    assert_eq!(
        what,
        [
            "daemonsets.apps",
            "deployments.apps",
            "persistentvolumeclaims",
            "pods",
            "secrets",
            "statefulsets.apps"
        ]
    );
    assert_eq!(unseen[4]["rule"], "{apiGroups: [\"\"], resources: [secrets], verbs: [list]}");
    assert!(said.contains("secrets: not read: not allowed"), "{said}");

    let (code, ..) = run_json(&["backup", "--plan", &plan("strict")]);
    assert_eq!(code, 3, "what was not looked at may hold anything");
}
