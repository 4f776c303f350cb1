//! A snapshot compared with the live cluster: objects and field paths, never values.

use kbak::kubernetes::Cluster;
use serde_json::{Value, json};

use crate::support::cli_repo::CliRepo;
use crate::support::control_plane::{ControlPlane, create, delete, patch};
use crate::support::memory_backup::{config_map, create_namespace};
use crate::support::program::good;

/// Texts that YAML 1.1 reads as booleans and numbers.
const ODD: [&str; 7] = ["yes", "off", "1e3", "0x1f", "null", "010", "1:30"];
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/roles";
const CANARY: &str = "canary-of-a-secret";

/// Runs the comparison and returns its exit code, its rows and its messages.
fn compared(cli: &CliRepo, config: &str, more: &[&str]) -> (i32, Vec<Value>, String) {
    let (code, text, said) =
        cli.run_reader(&[&["diff", "latest", "--live", "--kubeconfig", config], more].concat());
    let rows = match more.contains(&"json") {
        true => text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect(),
        false => vec![Value::from(text)],
    };
    (code, rows, said)
}

async fn fill(cluster: &Cluster) {
    for name in ["shop", "shop-a"] {
        create_namespace(cluster, name).await;
    }
    // Names around the slash and the dash, whose order in keys differs from that of names; two pages.
    for number in 0..450 {
        let path = format!("/api/v1/namespaces/shop{}/configmaps", if number % 2 == 0 { "" } else { "-a" });
        create(cluster, &path, config_map(&format!("c{number}"), "x")).await;
    }
    let data: serde_json::Map<String, Value> =
        ODD.iter().map(|word| (format!("k{word}").replace(':', "-"), json!(word))).collect();
    create(cluster, "/api/v1/namespaces/shop/configmaps", json!({"metadata": {"name": "odd"}, "data": data}))
        .await;
    let secret = json!({"metadata": {"name": "login"}, "stringData": {"user": "me", "password": CANARY}});
    create(cluster, "/api/v1/namespaces/shop/secrets", secret).await;
    let service =
        json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    create(cluster, "/api/v1/namespaces/shop/services", service).await;
    // As texts for a terminal, these names come in another order.
    for name in ["\u{7}x", "\u{1b}x", "victim"] {
        create(cluster, ROLES, json!({"metadata": {"name": name}, "rules": []})).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_in_the_cluster_are_reported_by_object_and_field() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let cluster = plane.cluster().await;
    fill(&cluster).await;
    let cli = CliRepo::for_plan("nightly");
    let config = plane.kubeconfig().display().to_string();
    let plan = cli.write_plan(&format!(
        "  cluster: {{kubeconfigFile: \"{config}\"}}\n  resources: {{}}\n  coverage: off\n"
    ));
    good(&["backup", "--plan", &plan]);

    let (code, rows, said) = compared(&cli, &config, &["-o", "json"]);
    assert_eq!((code, rows), (0, Vec::new()), "{said}");

    let maps = "/api/v1/namespaces/shop/configmaps";
    patch(
        &cluster,
        &format!("{maps}/c0"),
        json!({"data": {"value": "y"}, "metadata": {"labels": {"a/b": "c"}}}),
    )
    .await;
    delete(&cluster, &format!("{maps}/c448")).await;
    create(&cluster, maps, config_map("c4480", "new")).await;
    let secret = json!({"stringData": {"password": format!("new-{CANARY}"), "more": CANARY}});
    patch(&cluster, "/api/v1/namespaces/shop/secrets/login", secret).await;
    // Recreated alike: another UID and address, and no difference.
    let service =
        json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    delete(&cluster, "/api/v1/namespaces/shop/services/web").await;
    create(&cluster, "/api/v1/namespaces/shop/services", service).await;
    let all = json!({"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]});
    patch(&cluster, &format!("{ROLES}/victim"), all).await;
    patch(&cluster, &format!("{ROLES}/%1Bx"), json!({"metadata": {"labels": {"a": "b"}}})).await;
    create_namespace(&cluster, "new").await;
    create(&cluster, "/api/v1/namespaces/new/configmaps", config_map("untold", "x")).await;

    let (code, rows, said) = compared(&cli, &config, &["-o", "json"]);
    assert_eq!(code, 1, "{said}");
    let mut told: Vec<(String, String, Value)> = rows
        .iter()
        .map(|row| {
            let place = format!(
                "{}/{}",
                row["stream"].as_str().expect("a kind"),
                row["path"].as_str().expect("a path")
            );
            (row["change"].as_str().expect("a change").to_owned(), place, row["what"].clone())
        })
        .collect();
    let expected = [
        ("changed", "core/v1/configmaps/shop/c0", json!(["/data/value", "/metadata/labels"])),
        ("removed", "core/v1/configmaps/shop/c448", Value::Null),
        ("added", "core/v1/configmaps/shop/c4480", Value::Null),
        ("added", "core/v1/namespaces/new", Value::Null),
        ("changed", "core/v1/secrets/shop/login", json!(["/data/more", "/data/password"])),
        ("changed", "rbac.authorization.k8s.io/v1/roles/shop/\\u{1b}x", json!(["/metadata/labels"])),
        ("changed", "rbac.authorization.k8s.io/v1/roles/shop/victim", json!(["/rules"])),
    ];
    let expected = expected.map(|(change, place, what)| (change.to_owned(), place.to_owned(), what));
    // Kinds come in reading order: dependencies last.
    told.sort_by(|one, other| one.1.cmp(&other.1));
    assert_eq!(told, expected, "{said}");

    let (code, rows, said) = compared(&cli, &config, &[]);
    let table = rows[0].as_str().expect("a table");
    assert!(
        code == 1 && table.contains("~ resources:core/v1/secrets/shop/login   /data/more, /data/password"),
        "{table}"
    );
    assert!(!format!("{table}{said}").contains(CANARY));
    assert!(said.contains("7 differences"), "{said}");

    // One object for people: text that YAML 1.1 would read as another type is quoted.
    let (repo, pin, key) = (cli.url(), cli.text("keys/kbak.pub"), cli.text("keys/owner.key"));
    let place = "resources:core/v1/configmaps/shop/odd";
    let cat = ["cat", "latest", place, "-o", "yaml", "--repo", &repo, "--signer", &pin, "--identity", &key];
    let yaml = String::from_utf8(good(&cat).stdout).expect("text");
    for line in ["apiVersion: v1", "kind: ConfigMap"] {
        assert!(yaml.lines().any(|one| one == line), "{yaml}");
    }
    for word in ODD {
        let bare = yaml.lines().any(|line| line.ends_with(&format!(": {word}")));
        assert!(!bare, "{word} is not quoted:\n{yaml}");
    }

    let elsewhere = compared(&cli, "/nowhere/config", &[]);
    assert_eq!(elsewhere.0, 2, "{}", elsewhere.2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn comparison_with_the_cluster_is_limited_to_what_the_plan_selects() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let cluster = plane.cluster().await;
    for name in ["shop", "other"] {
        create_namespace(&cluster, name).await;
    }
    let in_shop = |plural: &str| format!("/api/v1/namespaces/shop/{plural}");
    let labelled = |name: &str, app: &str| json!({"metadata": {"name": name, "labels": {"app": app}}});
    create(&cluster, &in_shop("configmaps"), labelled("a", "web")).await;
    let config = plane.kubeconfig().display().to_string();
    for resources in [
        "kinds: {include: [configmaps]}",
        "namespaces: {include: [shop]}",
        "{kinds: {include: [configmaps]}, clusterScoped: none, namespaces: {include: [shop]}}",
        "selector: app=web",
    ] {
        let cli = CliRepo::for_plan("nightly");
        let body = if resources.starts_with('{') { resources.to_owned() } else { format!("{{{resources}}}") };
        let plan = cli.write_plan(&format!(
            "  cluster: {{kubeconfigFile: \"{config}\"}}\n  resources: {body}\n  coverage: off\n"
        ));
        good(&["backup", "--plan", &plan]);
        let (code, rows, said) = compared(&cli, &config, &["-o", "json"]);
        assert_eq!((code, rows), (0, Vec::new()), "{resources}: {said}");
        // What the plan leaves out may change as it likes; what it selects is told.
        create(&cluster, "/api/v1/namespaces/other/secrets", labelled("s", "other")).await;
        create(&cluster, "/api/v1/namespaces/other/configmaps", labelled("b", "other")).await;
        create(&cluster, &in_shop("configmaps"), labelled("new", "web")).await;
        let (code, rows, said) = compared(&cli, &config, &["-o", "json"]);
        let told: Vec<&str> = rows.iter().filter_map(|row| row["path"].as_str()).collect();
        let all = resources.starts_with("kinds");
        let expected = if all { vec!["other/b", "shop/new"] } else { vec!["shop/new"] };
        assert_eq!((code, told), (1, expected), "{resources}: {said}");
        for (namespace, plural, name) in
            [("other", "secrets", "s"), ("other", "configmaps", "b"), ("shop", "configmaps", "new")]
        {
            delete(&cluster, &format!("/api/v1/namespaces/{namespace}/{plural}/{name}")).await;
        }
    }
}
