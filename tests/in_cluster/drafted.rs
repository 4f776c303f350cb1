//! The first day with kbak: values drafted from the cluster, the chart, a backup by its CronJob, a disaster, and
//! a restore from outside of the cluster.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::installed::Installed;
use crate::support::control_plane::{create, delete, get};
use crate::support::kinds::define;
use crate::support::owners::run_ok;
use crate::support::postgres::{SqlLogin, is_ready};
use crate::support::program::command;
use crate::support::wait::{until, until_gone};

const PASSWORD: &str = "a password of the shop";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn objects_and_rows_backed_up_by_drafted_values_are_restored_from_outside() {
    let Some(kbak) = Installed::prepare(&["--variant", "postgres"]).await else { return };
    let image = std::env::var("KBAK_TEST_POSTGRES_IMAGE").expect("scripts/tools --need postgres-image");
    kbak.import(Path::new(&image));
    open_shop(&kbak).await;
    let before = fill(&kbak).await;

    kbak.make_owners();
    draft_values(&kbak);
    kbak.make_repository().await;
    // As the drafted values tell: a copy of the database's Secret in kbak's namespace.
    // A file with a line break at its end is what most tools make.
    let password = format!("{PASSWORD}\n");
    let login = json!({"metadata": {"name": "shop-orders"}, "stringData": {"password": password}});
    create(&kbak.cluster, "/api/v1/namespaces/kbak/secrets", login).await;
    kbak.helm("install", &["plan.spec.databases[0].tls=allow-plaintext"]);
    let said = kbak.helm_test();
    assert!(said.contains("0 problems"), "{said}");
    let log = kbak.back_up("first").await;
    assert!(log.contains("snapshot 000001 committed"), "{log}");

    delete(&kbak.cluster, "/api/v1/namespaces/shop").await;
    until_gone(&kbak.cluster, "/api/v1/namespaces/shop").await;
    restore_objects(&kbak);
    let settings = get(&kbak.cluster, "/api/v1/namespaces/shop/configmaps/settings").await;
    assert_eq!(settings["data"], json!({"colour": "green"}));
    let widget = get(&kbak.cluster, "/apis/demo.example/v1/namespaces/shop/widgets/one").await;
    assert_eq!(widget["spec"], json!({"size": 7}));
    let port = database(&kbak).await;
    restore_rows(&kbak, port);
    assert_eq!(rows(port), before);
}

/// Makes a namespace with a database, its Secret, and an object of a kind of its own.
async fn open_shop(kbak: &Installed) {
    let cluster = &kbak.cluster;
    define(cluster, "demo.example", "v1", "widgets", "Widget", "Namespaced").await;
    create(cluster, "/api/v1/namespaces", json!({"metadata": {"name": "shop"}})).await;
    let secret = json!({"metadata": {"name": "orders-login"}, "stringData": {"password": PASSWORD}});
    create(cluster, "/api/v1/namespaces/shop/secrets", secret).await;
    let settings = json!({"metadata": {"name": "settings"}, "data": {"colour": "green"}});
    create(cluster, "/api/v1/namespaces/shop/configmaps", settings).await;
    let widget = json!({"apiVersion": "demo.example/v1", "kind": "Widget",
        "metadata": {"name": "one"}, "spec": {"size": 7}});
    create(cluster, "/apis/demo.example/v1/namespaces/shop/widgets", widget).await;
    let labels = json!({"app": "orders"});
    let reference = json!({"secretKeyRef": {"name": "orders-login", "key": "password"}});
    let container = json!({
        "name": "main", "image": "kbak.test/postgres:1", "imagePullPolicy": "Never",
        "env": [
            {"name": "POSTGRES_USER", "value": "shop"},
            {"name": "POSTGRES_PASSWORD", "valueFrom": reference},
        ],
        "readinessProbe": {"tcpSocket": {"port": 5432}, "periodSeconds": 1},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    });
    let pod = json!({
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsUser": 70, "runAsGroup": 70, "fsGroup": 70},
        "containers": [container], "volumes": [{"name": "data", "emptyDir": {}}],
    });
    let set = json!({"metadata": {"name": "orders"}, "spec": {
        "serviceName": "orders", "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }});
    create(cluster, "/apis/apps/v1/namespaces/shop/statefulsets", set).await;
    let service =
        json!({"metadata": {"name": "orders"}, "spec": {"selector": labels, "ports": [{"port": 5432}]}});
    create(cluster, "/api/v1/namespaces/shop/services", service).await;
}

/// Waits for the database and returns the port at which it is reached from outside.
async fn database(kbak: &Installed) -> u16 {
    let set = "/apis/apps/v1/namespaces/shop/statefulsets/orders";
    until(&kbak.cluster, set, |set| set["status"]["readyReplicas"] == 1).await;
    let service = get(&kbak.cluster, "/api/v1/namespaces/shop/services/orders").await;
    let address = service["spec"]["clusterIP"].as_str().expect("an address");
    let port = kbak.publish(&format!("{address}:5432"));
    // The Service's rules come a moment after its pod is ready.
    for _ in 0..600 {
        if is_ready("127.0.0.1", port) {
            return port;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the database is not reached at {address}");
}

fn login(port: u16) -> SqlLogin<'static> {
    SqlLogin { host: "127.0.0.1", port, user: "shop", password: PASSWORD }
}

/// Fills the database and returns what it holds.
async fn fill(kbak: &Installed) -> String {
    let port = database(kbak).await;
    login(port).run("postgres", "CREATE DATABASE ledger");
    login(port).run(
        "ledger",
        "CREATE TABLE orders AS SELECT n, md5(n::text) AS note FROM generate_series(1, 5000) AS n",
    );
    rows(port)
}

fn rows(port: u16) -> String {
    login(port).run("ledger", "SELECT count(*), md5(string_agg(t::text, '' ORDER BY n)) FROM orders t")
}

/// Drafts the values of the chart, plan and all.
fn draft_values(kbak: &Installed) {
    let mut draft = command(&["plan", "init", "--values", "values.yaml", "--repo", "s3://backups/prod"]);
    draft.current_dir(kbak.file("")).args(["--region", "us-east-1", "--endpoint", &kbak.endpoint()]);
    for recipient in &kbak.recipients() {
        draft.args(["--recipient", recipient]);
    }
    run_ok(draft.arg("--kubeconfig").arg(kbak.kubeconfig()), b"");
    let text = std::fs::read_to_string(kbak.file("values.yaml")).expect("values");
    assert!(text.lines().count() < 30, "{text}");
    assert!(text.contains("{apiGroups: [demo.example], resources: [widgets]}"), "{text}");
    assert!(text.contains("host: orders.shop.svc, user: shop}"), "{text}");
}

/// Restores the namespace, as an owner does on a laptop with an administrator's kubeconfig.
fn restore_objects(kbak: &Installed) {
    let mut restore = kbak.restore("bob", &["--item", "resources", "--cluster", "--namespace", "shop"]);
    run_ok(restore.arg("--kubeconfig").arg(kbak.kubeconfig()), b"");
}

fn restore_rows(kbak: &Installed, port: u16) {
    std::fs::write(kbak.file("password"), PASSWORD).expect("a file");
    let url = format!("postgresql://shop@127.0.0.1:{port}?sslmode=prefer");
    let more = ["--item", "shop-orders", "--database", &url, "--database-password-file", "password"];
    run_ok(&mut kbak.restore("bob", &more), b"");
}
