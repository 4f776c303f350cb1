//! A first plan, drafted from a real cluster's contents and from the configuration of other tools.

use kbak::kubernetes::Cluster;
use kbak::plan::parse;
use serde_json::{Value, json};

use crate::support::cli_repo::CliRepo;
use crate::support::control_plane::{ControlPlane, create};
use crate::support::kinds::define;
use crate::support::memory_backup::create_namespace;
use crate::support::program::{command, good, kbak};

const CANARY: &str = "canary-of-a-password";

async fn fill(cluster: &Cluster) {
    for name in ["shop", "velero", "kitchen"] {
        create_namespace(cluster, name).await;
    }
    define(cluster, "velero.io", "v1", "schedules", "Schedule", "Namespaced").await;
    define(cluster, "k8up.io", "v1", "schedules", "Schedule", "Namespaced").await;
    let schedule = |name: &str, cron: &str, paused: bool, template: Value| {
        json!({"apiVersion": "velero.io/v1", "kind": "Schedule", "metadata": {"name": name},
            "spec": {"schedule": cron, "paused": paused, "template": template}})
    };
    let path = "/apis/velero.io/v1/namespaces/velero/schedules";
    let template = json!({
        "includedNamespaces": ["shop", "kitchen"], "excludedResources": ["pods", "replicasets.apps"],
        "labelSelector": {"matchLabels": {"tier": "gold"}, "matchExpressions": [{"key": "env", "operator": "NotIn", "values": ["dev", "test"]}]},
        "ttl": "720h0m0s", "includeClusterResources": true, "hooks": {"resources": [{"name": "freeze"}]},
    });
    create(cluster, path, schedule("daily", "0 2 * * *", false, template)).await;
    create(
        cluster,
        path,
        schedule(
            "old",
            "@hourly",
            true,
            json!({"includedNamespaces": ["kitchen"], "labelSelector": {"matchLabels": {"no key": "x"}}}),
        ),
    )
    .await;
    let k8up = json!({"apiVersion": "k8up.io/v1", "kind": "Schedule", "metadata": {"name": "own"},
        "spec": {"backup": {"schedule": "@daily-random"}, "prune": {"retention": {"keepDaily": 14, "keepLast": 5}}}});
    create(cluster, "/apis/k8up.io/v1/namespaces/kitchen/schedules", k8up).await;
    let set = json!({"metadata": {"name": "orders-db"}, "spec": {
        "serviceName": "orders", "selector": {"matchLabels": {"app": "orders"}},
        "template": {"metadata": {"labels": {"app": "orders"}}, "spec": {"containers": [{
            "name": "main", "image": "postgres:16",
            "env": [{"name": "POSTGRES_USER", "value": "shop"},
                {"name": "POSTGRES_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "orders-login", "key": "password"}}}]}]}}}});
    create(cluster, "/apis/apps/v1/namespaces/shop/statefulsets", set).await;
    let service = json!({"metadata": {"name": "orders"}, "spec": {"selector": {"app": "orders"}, "ports": [{"port": 5433, "targetPort": 5432}]}});
    create(cluster, "/api/v1/namespaces/shop/services", service).await;
    let mysql = json!({"metadata": {"name": "blog"}, "spec": {"selector": {"matchLabels": {"app": "blog"}},
        "template": {"metadata": {"labels": {"app": "blog"}}, "spec": {"containers": [{"name": "main", "image": "mysql:8",
            "env": [{"name": "MYSQL_ROOT_PASSWORD", "value": CANARY}]}]}}}});
    create(cluster, "/apis/apps/v1/namespaces/kitchen/deployments", mysql).await;
    let claim = json!({"metadata": {"name": "uploads", "annotations": {"k8up.io/backup": "false"}},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}}});
    create(cluster, "/api/v1/namespaces/shop/persistentvolumeclaims", claim).await;
    let job = |name: &str, command: Value, env: Value| {
        json!({"metadata": {"name": name}, "spec": {"schedule": "0 3 * * *", "jobTemplate": {"spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "dump", "image": "postgres:16", "command": command, "env": env}]}}}}}})
    };
    let jobs = "/apis/batch/v1/namespaces/shop/cronjobs";
    let env = json!([{"name": "PGPASSWORD", "valueFrom": {"secretKeyRef": {"name": "dumper", "key": "pw"}}}]);
    create(
        cluster,
        jobs,
        job("dump", json!(["sh", "-c", "pg_dump -h orders -U dumper shop | gzip > /backup/x"]), env),
    )
    .await;
    let url = format!("postgresql://me:{CANARY}@ledger.example.eu/ledger");
    create(
        cluster,
        jobs,
        job("dump-ledger", json!(["pg_dump", url]), json!([{"name": "DB_PASSWORD", "value": CANARY}])),
    )
    .await;
    create(cluster, jobs, job("other", json!(["true"]), json!([]))).await;
    let pod = json!({"metadata": {"name": "web", "annotations": {
            "backup.velero.io/backup-volumes": "data", "k8up.io/backupcommand": format!("mysqldump -p{CANARY} --all-databases")}},
        "spec": {"containers": [{"name": "main", "image": "nginx"}]}});
    create(cluster, "/api/v1/namespaces/kitchen/pods", pod).await;
    let key = json!({"metadata": {"name": "sealed-key", "labels": {"sealedsecrets.bitnami.com/sealed-secrets-key": "active"}},
        "stringData": {"tls.key": CANARY}});
    create(cluster, "/api/v1/namespaces/kube-system/secrets", key).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plan_draft_reflects_cluster_contents_and_existing_tools() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let cluster = plane.cluster().await;
    fill(&cluster).await;
    let cli = CliRepo::for_plan("nightly");
    let config = plane.kubeconfig().display().to_string();
    let init = ["plan", "init", "--kubeconfig", &config, "--plan-name", "nightly"];

    // With repository and recipients it is a valid plan; without, only those two are missing.
    let (repo, recipient) = (cli.url(), cli.recipient.clone());
    let output = good(&[&init[..], &["--repo", &repo, "--recipient", &recipient]].concat());
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(!text.contains(CANARY), "{text}");
    let checked = parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let spec = checked.plan.spec;
    assert_eq!(spec.cluster.and_then(|cluster| cluster.kubeconfig_file), Some(plane.kubeconfig()));
    let resources = spec.resources.expect("resources");
    assert_eq!(resources.namespaces.include, ["shop", "kitchen"]);
    assert_eq!(resources.kinds.exclude, ["events", "events.events.k8s.io", "pods", "replicasets.apps"]);
    assert_eq!(
        resources.selector.as_deref(),
        Some("tier=gold,env notin (dev,test),velero.io/exclude-from-backup!=true")
    );
    assert_eq!(resources.cluster_scoped, kbak::plan::ClusterScoped::All);
    assert_eq!(spec.retention.and_then(|retention| retention.keep_daily), Some(30));
    assert_eq!(spec.schedule.map(|schedule| schedule.next.to_string()).as_deref(), Some("1d2h"));
    let databases: Vec<_> = spec
        .databases
        .iter()
        .map(|one| (one.name.as_str(), one.host.as_deref(), one.user.as_deref()))
        .collect();
    assert_eq!(
        databases,
        [
            ("shop-orders-db", Some("orders.shop.svc"), Some("dumper")),
            ("shop-dump-ledger", Some("ledger.example.eu"), None),
        ],
        "{text}"
    );
    assert_eq!(spec.databases[0].port, Some(5433));
    for said in [
        "the key pw of Secret shop/dumper",
        "NOT IN THIS PLAN: mysql, Deployment kitchen/blog",
        "Secret kube-system/sealed-key: the key that opens Sealed Secrets",
        "Velero's Schedule velero/old (@hourly, paused) is not taken over",
        "K8up's Schedule kitchen/own (@daily-random)",
        "{namespace: shop, claims: [uploads]}    # 5Gi, K8up was set to skip it",
        "Velero read the volumes data of pod kitchen/web as files",
        "k8up.io/backupcommand (mysqldump): its command is not copied",
        "Not taken over from Velero: the hooks freeze",
    ] {
        assert!(text.contains(said), "{said:?} is missing:\n{text}");
    }

    let bare = good(&init);
    let error =
        parse(&String::from_utf8(bare.stdout).expect("text")).expect_err("placeholders are to be filled in");
    let fields: Vec<&str> = error.problems.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, ["spec.repository.url", "spec.recipients"]);

    // Another schedule by its name; a missing one is a usage error.
    let other =
        good(&[&init[..], &["--from", "velero/old", "--repo", &repo, "--recipient", &recipient]].concat());
    let text = String::from_utf8(other.stdout).expect("text");
    assert!(text.contains("# Not taken over from Velero: \"no key=x\" of its selector"), "{text}");
    let other = parse(&text).expect("a plan").plan.spec;
    assert_eq!(other.resources.expect("resources").namespaces.include, ["kitchen"]);
    // A relative path is made absolute: the plan may be stored elsewhere.
    let mut beside = command(&["plan", "init", "--kubeconfig", "kubeconfig"]);
    let output =
        beside.current_dir(plane.kubeconfig().parent().expect("a folder")).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.contains(&format!("kubeconfigFile: \"{config}\"")), "{text}");
    let output = command(&[&init[..], &["--from", "velero/none"]].concat()).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("it has: velero/daily, velero/old"), "{said}");
    values_of_the_chart_hold_the_same_plan(&init, &cli);
}

/// Values have no paths of this machine, name each Secret to make, and say what they leave out.
fn values_of_the_chart_hold_the_same_plan(init: &[&str], cli: &CliRepo) {
    let file = cli.text("values.yaml");
    let (repo, endpoint) = ("s3://backups/prod", "https://s3.example.eu");
    let place = ["--repo", repo, "--endpoint", endpoint, "--recipient", &cli.recipient];
    let values = [init, &place[..], &["--values", &file]].concat();
    good(&values);
    let text = std::fs::read_to_string(&file).expect("values");
    assert!(!text.contains(CANARY) && !text.contains("keyFile") && !text.contains("kubeconfig"), "{text}");
    let value: Value = serde_saphyr::from_str(&text).expect("YAML");
    let spec = &value["plan"]["spec"];
    assert_eq!(value["plan"]["name"], "nightly");
    assert_eq!(spec["repository"], json!({"url": repo, "endpoint": endpoint}));
    assert_eq!(spec["recipients"], json!([cli.recipient]));
    assert_eq!(spec["resources"]["namespaces"]["include"], json!(["shop", "kitchen"]));
    assert_eq!(spec["resources"]["clusterScoped"], "all");
    assert_eq!(spec["resources"].get("consistency"), None, "a default is not written: {text}");
    assert_eq!(spec["retention"], json!({"keepDaily": 30}));
    assert_eq!(
        spec["databases"],
        json!([
            {"name": "shop-orders-db", "engine": "postgresql", "host": "orders.shop.svc", "port": 5433, "user": "dumper"},
            {"name": "shop-dump-ledger", "engine": "postgresql", "host": "ledger.example.eu"},
        ])
    );
    assert_eq!(
        value["databases"],
        json!([
            {"name": "shop-orders-db", "existingSecret": "shop-orders-db"},
            {"name": "shop-dump-ledger", "existingSecret": "shop-dump-ledger"},
        ])
    );
    assert_eq!(value["store"], json!({"existingSecret": "kbak-store"}));
    let rules = json!([
        {"apiGroups": ["k8up.io"], "resources": ["schedules"]},
        {"apiGroups": ["velero.io"], "resources": ["schedules"]},
    ]);
    assert_eq!(value["rbac"]["extraRules"], rules);
    for said in [
        "kubectl -n shop get secret dumper -o jsonpath='{.data.pw}' | base64 -d |",
        "kubectl -n kbak create secret generic shop-orders-db --from-file=password=/dev/stdin",
        "NOT IN THIS PLAN: mysql, Deployment kitchen/blog",
        "NOT IN THIS PLAN: the claims shop/uploads",
        "Not taken over from Velero: the hooks freeze",
    ] {
        assert!(text.contains(said), "{said:?} is missing:\n{text}");
    }

    let (code, _, said) = kbak(&values);
    assert!(code == 2 && said.contains("exists"), "an existing file is kept: {code} {said}");
    std::fs::remove_file(&file).expect("removed");
    let (code, _, said) = kbak(&[init, &["--values", &file]].concat());
    assert!(code == 2 && said.contains("--repo") && said.contains("--recipient"), "{code} {said}");
    let (code, _, said) = kbak(&[init, &place[..], &["--values", &file, "--writer-key", "x"]].concat());
    assert!(code == 2 && said.contains("--writer-key"), "{code} {said}");
    assert!(!std::path::Path::new(&file).exists());
}
