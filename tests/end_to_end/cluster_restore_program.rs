//! The program: backup of one cluster, plan and restore in another, and its output.

use serde_json::{Value, json};

use crate::support::cli_repo::{CliRepo, as_strs};
use crate::support::control_plane::{ControlPlane, create, get};
use crate::support::memory_backup::{config_map, create_namespace};
use crate::support::program::{command, good};

fn json_of(output: &std::process::Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// Backs up `plane`'s resources and returns the arguments that restore them.
fn backed_up(cli: &CliRepo, plane: &ControlPlane) -> Vec<String> {
    let kubeconfig = plane.kubeconfig();
    let from = ["backup", "--resources", "--kubeconfig", kubeconfig.to_str().expect("UTF-8")];
    good(&[&from[..], &as_strs(&cli.writer_args())].concat());
    let mut restore = vec!["restore".to_owned(), "latest".to_owned()];
    restore.extend(cli.reader_args());
    restore.extend(["--cluster".to_owned(), "--kubeconfig".to_owned()]);
    restore
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_that_the_server_does_not_let_in_are_a_wrong_configuration() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let cli = CliRepo::new();
    let restore = backed_up(&cli, &plane);
    let text = std::fs::read_to_string(plane.kubeconfig()).expect("a kubeconfig");
    let anonymous: Vec<&str> = text
        .lines()
        .filter(|line| !["client-certificate", "client-key", "token"].iter().any(|key| line.contains(key)))
        .map(|line| if line.trim() == "user:" { "  user: {}" } else { line })
        .collect();
    let wrong: Vec<&str> = anonymous
        .iter()
        .map(|line| if *line == "  user: {}" { "  user: {token: wrong}" } else { line })
        .collect();
    for (lines, code) in [(anonymous, 403), (wrong, 401)] {
        std::fs::write(cli.at("kubeconfig"), lines.join("\n")).expect("a file");
        for more in [&["--dry-run"][..], &[]] {
            let file = cli.text("kubeconfig");
            let args = [&as_strs(&restore)[..], &[file.as_str()], more].concat();
            let output = command(&args).output().expect("it runs");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{said}\n{}", lines.join("\n"));
            assert!(said.contains(&code.to_string()), "{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restore_is_planned_bound_to_its_plan_hash_and_reported() {
    let (old, new) =
        (ControlPlane::start(&["--without-controllers"]), ControlPlane::start(&["--without-controllers"]));
    let source = old.cluster().await;
    create_namespace(&source, "shop").await;
    create(&source, "/api/v1/namespaces/shop/configmaps", config_map("settings", "1")).await;
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let ingress = json!({"metadata": {"name": "web"}, "spec": {"defaultBackend": backend}});
    create(&source, "/apis/networking.k8s.io/v1/namespaces/shop/ingresses", ingress).await;
    let cli = CliRepo::new();
    let mut restore = backed_up(&cli, &old);
    let kubeconfig = new.kubeconfig();
    restore.push(kubeconfig.to_str().expect("UTF-8").to_owned());
    let with = |more: &[&str]| -> Vec<String> {
        restore.iter().cloned().chain(more.iter().map(|m| (*m).to_owned())).collect()
    };

    // The Ingress would be held back: the dry run ends as the run does.
    let dry = |more: &[&str]| {
        let output = command(&with(&[&["--namespace", "shop"], more].concat())).output().expect("it runs");
        assert_eq!(output.status.code(), Some(3), "{more:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    };
    let shown = dry(&["--dry-run"]);
    let text = String::from_utf8(shown.stdout).expect("UTF-8");
    assert!(text.contains("→ the cluster https://") && text.contains(" (context "), "{text}");
    assert!(text.contains("\nhold     1 object in shop (Ingress 1)  → --release ingress\n"), "{text}");
    assert!(text.contains("\ncreate   2 objects in shop (ConfigMap 1, Namespace 1)\n"), "{text}");
    assert!(text.contains("--takeover"), "{text}");
    let hash = text.lines().find_map(|line| line.strip_prefix("plan     hash ")).expect("a hash").to_owned();
    let document = json_of(&dry(&["--dry-run=server", "-o", "json"]));
    assert_eq!(document["plan"]["hash"], json!(hash), "the same plan, whoever was asked");
    let objects = document["objects"].as_array().expect("objects");
    let one = objects.iter().find(|one| one["name"] == "settings").expect("the object");
    assert_eq!((&one["action"], &one["grade"]), (&json!("create"), &json!("not-before")));
    let yaml = dry(&["--dry-run", "-o", "yaml"]);
    let yaml: Value = serde_saphyr::from_str(&String::from_utf8(yaml.stdout).expect("UTF-8")).expect("YAML");
    assert_eq!(yaml["objects"].as_array().map(Vec::len), Some(objects.len()));

    // A choice is no gap, in both.
    good(&with(&["--namespace", "shop", "--release", "none", "--dry-run"]));

    // Another plan than the one with this hash: nothing is done.
    let other = command(&with(&["--namespace", "shop", "--takeover", "--plan-hash", &hash]))
        .output()
        .expect("it runs");
    assert_eq!(other.status.code(), Some(2), "{}", String::from_utf8_lossy(&other.stderr));
    let target = new.cluster().await;
    target.get("/api/v1/namespaces/shop", "", 1 << 20).await.expect_err("the cluster is unchanged");

    let outcomes = cli.at("outcomes");
    let mut run = command(&with(&[
        "--namespace",
        "shop",
        "--plan-hash",
        &hash,
        "-o",
        "json",
        "--outcomes",
        outcomes.to_str().expect("UTF-8"),
    ]));
    let run = run.output().expect("it runs");
    assert_eq!(
        run.status.code(),
        Some(3),
        "the Ingress is held back: {}",
        String::from_utf8_lossy(&run.stderr)
    );
    let report = json_of(&run);
    assert_eq!(report["items"][0]["gaps"][0]["code"], "held");
    let told = std::fs::read_to_string(&outcomes).expect("outcomes");
    assert!(told.contains(r#""resource":"ingresses.networking.k8s.io","kind":"Ingress","namespace":"shop","name":"web","outcome":"held","why":"ingress""#), "{told}");
    assert!(report["items"][0]["objects"].to_string().contains("Ingress/shop/web"));
    // It can be held back explicitly, and it can be released.
    good(&with(&["--namespace", "shop", "--release", "none"]));
    good(&with(&["--namespace", "shop", "--takeover"]));
    assert_eq!(
        get(&target, "/apis/networking.k8s.io/v1/namespaces/shop/ingresses/web").await["metadata"]["name"],
        "web"
    );

    // A plan from a file.
    let plan = cli.at("plan.yaml");
    let text = "apiVersion: kbak.dev/v1\nkind: RestorePlan\nmetadata: {name: copy}\nspec:\n  select:\n    objects: [configmaps/shop/settings]\n  map:\n    namespaces: {shop: copy}\n  modify:\n    - match: {names: [settings]}\n      patch: [{op: replace, path: /data/value, value: \"2\"}]\n";
    std::fs::write(&plan, text).expect("a file");
    let file = plan.to_str().expect("UTF-8");
    good(&["plan", "check", file]);
    good(&with(&["--plan", file]));
    assert_eq!(get(&target, "/api/v1/namespaces/copy/configmaps/settings").await["data"]["value"], "2");
    let all =
        get(&target, "/api/v1/namespaces/copy/configmaps").await["items"].as_array().expect("a list").len();
    assert_eq!(all, 1);
}
