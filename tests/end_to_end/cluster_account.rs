//! Runs as the account that `kbak rbac` prints, with the epoch's secret in a Kubernetes Secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::Method;
use kbak::kubernetes::Cluster;
use serde_json::{Value, json};

use crate::support::account::{CRONJOBS, ENTRY, apply, as_account, create_cronjob, move_secret, write_plan};
use crate::support::cli_repo::CliRepo;
use crate::support::control_plane::{ControlPlane, create, delete, get};
use crate::support::memory_backup::create_namespace;
use crate::support::program::{command, good, kbak, run_beside, run_json};

const SECRET: &str = "/api/v1/namespaces/kbak/secrets/kbak-epoch";

/// Returns the epochs that the Secret holds.
async fn epochs(cluster: &Cluster) -> Vec<String> {
    let secret = get(cluster, SECRET).await;
    let text = BASE64.decode(secret["data"][ENTRY].as_str().expect("an entry")).expect("base64");
    let file: Value = serde_json::from_slice(&text).expect("JSON");
    let epochs = file["epochs"].as_array().expect("epochs").iter();
    epochs.map(|epoch| epoch["epoch"].as_str().expect("an id").to_owned()).collect()
}

/// Starts a control plane with the namespace `kbak`.
async fn start_plane() -> (ControlPlane, Cluster) {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let cluster = plane.cluster().await;
    create_namespace(&cluster, "kbak").await;
    (plane, cluster)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn account_of_kbak_rbac_backs_up_and_renews_the_epoch_in_its_secret() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let cluster = plane.cluster().await;
    for namespace in ["kbak", "shop"] {
        create_namespace(&cluster, namespace).await;
    }
    let secret = json!({"metadata": {"name": "db"}, "data": {"password": BASE64.encode("hidden")}});
    create(&cluster, "/api/v1/namespaces/shop/secrets", secret).await;
    let cli = CliRepo::for_plan("nightly");
    move_secret(&cli, &cluster).await;
    let plan = write_plan(&cli, &as_account(&plane, "backup", cli.at("account")));

    // Without any right the run says what is missing, and changes nothing.
    let (code, _, said) = kbak(&["backup", "--plan", &plan]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("of the Secret kbak/kbak-epoch") && said.contains("kbak rbac"), "{said}");

    let admin = plane.kubeconfig().display().to_string();
    let printed = good(&["rbac", "--plan", &plan, "--kubeconfig", &admin, "-o", "json"]).stdout;
    let printed = String::from_utf8(printed).expect("text");
    assert!(!printed.contains('*') && !printed.contains("pods/"), "{printed}");
    for object in printed.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")) {
        let (kind, name) = (object["kind"].as_str().expect("a kind"), &object["metadata"]["name"]);
        let of_this_namespace = name.as_str().expect("a name").starts_with("kbak-kbak-");
        assert_eq!(of_this_namespace, kind.starts_with("Cluster"), "{kind} {name}");
    }
    apply(&cluster, &printed).await;
    let mut last = (1, Value::Null, String::new());
    for _ in 0..100 {
        last = run_json(&["check", "--plan", &plan]);
        if last.0 == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(last.0, 0, "{:#} {}", last.1, last.2);

    let (code, report, said) = run_json(&["backup", "--plan", &plan]);
    assert_eq!(code, 0, "{report:#} {said}");
    let first = epochs(&cluster).await;
    let (code, _, said) = run_json(&["backup", "--plan", &plan, "--new-epoch"]);
    assert_eq!(code, 0, "{said}");
    let second = epochs(&cluster).await;
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_ne!(first, second, "the Secret holds the new epoch, and no longer the old one");
    let (code, report, said) = run_json(&["backup", "--plan", &plan]);
    assert_eq!(code, 0, "{said}");
    assert!(!report.to_string().contains("new epoch"), "{report:#}");
    assert_eq!(epochs(&cluster).await, second);
    let (code, _, said) = cli.run_reader(&["verify"]);
    assert_eq!(code, 0, "{said}");

    // Two runs that renew it at once: neither loses the other's secret.
    let renew = || run_beside(command(&["backup", "--plan", &plan, "--new-epoch", "--progress", "none"]));
    let (one, other) = futures::join!(renew(), renew());
    let codes = [one.status.code(), other.status.code()];
    assert!(codes.contains(&Some(0)), "{one:?} {other:?}");
    assert!(codes.iter().all(|code| matches!(code, Some(0 | 5))), "{one:?} {other:?}");
    let (code, report, said) = run_json(&["backup", "--plan", &plan]);
    assert_eq!(code, 0, "{report:#} {said}");

    let mut secret = get(&cluster, SECRET).await;
    delete(&cluster, SECRET).await;
    secret["immutable"] = json!(true);
    secret["metadata"] = json!({"name": "kbak-epoch"});
    create(&cluster, "/api/v1/namespaces/kbak/secrets", secret).await;
    let (code, found, said) = kbak(&["check", "--plan", &plan]);
    assert_eq!(code, 2, "{found} {said}");
    assert!(found.contains("it is immutable") && found.contains("make it anew"), "{found} {said}");
    let (code, report, said) = run_json(&["backup", "--plan", &plan]);
    assert_eq!(code, 0, "{report:#} {said}");
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("a later removal of this snapshot would not be noticed"), "{report:#}");

    delete(&cluster, SECRET).await;
    let (code, _, said) = kbak(&["backup", "--plan", &plan]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("the Secret of writer.epochSecret must exist"), "{said}");
}

/// Returns the Events about a CronJob.
async fn events(cluster: &Cluster) -> Vec<Value> {
    let query = "fieldSelector=involvedObject.kind%3DCronJob";
    let answer = cluster.get("/api/v1/namespaces/kbak/events", query, 16 << 20).await.expect("Events");
    let list: Value = serde_json::from_slice(&answer.body).expect("JSON");
    list["items"].as_array().expect("items").clone()
}

/// Lets the account of backups read CronJobs.
async fn grant_cronjobs(cluster: &Cluster) {
    let root = "/apis/rbac.authorization.k8s.io/v1/namespaces/kbak";
    let rules = json!([{"apiGroups": ["batch"], "resources": ["cronjobs"], "verbs": ["get"]}]);
    let role = json!({"metadata": {"name": "cronjobs"}, "rules": rules});
    create(cluster, &format!("{root}/roles"), role).await;
    let binding = json!({
        "metadata": {"name": "cronjobs"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "cronjobs"},
        "subjects": [{"kind": "ServiceAccount", "name": "kbak-backup", "namespace": "kbak"}],
    });
    create(cluster, &format!("{root}/rolebindings"), binding).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_of_an_earlier_name_are_found_and_deleted_by_their_labels() {
    let (plane, cluster) = start_plane().await;
    let cli = CliRepo::for_plan("nightly");
    let plan = write_plan(&cli, &plane.kubeconfig());
    for name in ["old", "kbak"] {
        let printed =
            good(&["rbac", "--plan", &plan, "--task", "backup,restore", "--name", name, "-o", "json"]);
        apply(&cluster, &String::from_utf8(printed.stdout).expect("text")).await;
    }
    let group = "/apis/rbac.authorization.k8s.io/v1";
    let selector = "labelSelector=app.kubernetes.io%2Fname%3Dkbak,kbak.dev%2Fnamespace%3Dkbak";
    for path in [
        format!("{group}/clusterroles"),
        format!("{group}/clusterrolebindings"),
        format!("{group}/namespaces/kbak/roles"),
        format!("{group}/namespaces/kbak/rolebindings"),
        "/api/v1/namespaces/kbak/serviceaccounts".to_owned(),
    ] {
        let instances = async || {
            let list = cluster.get(&path, selector, 16 << 20).await.expect("a list");
            let list: Value = serde_json::from_slice(&list.body).expect("JSON");
            let items = list["items"].as_array().expect("items").iter();
            let label = |item: &Value| item["metadata"]["labels"]["app.kubernetes.io/instance"].to_string();
            items.map(label).collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(instances().await.len(), 2, "{path}");
        // As kubectl delete -l does.
        let query = format!("{selector},app.kubernetes.io%2Finstance%3Dold");
        let body = Bytes::from_static(b"{}");
        let deleted = cluster.send(Method::DELETE, &path, &query, "application/json", body).await;
        deleted.unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(instances().await, ["\"kbak\"".to_owned()].into(), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plan_without_secrets_gets_no_right_to_list_them_and_needs_none() {
    let (plane, cluster) = start_plane().await;
    let cli = CliRepo::for_plan("nightly");
    move_secret(&cli, &cluster).await;
    let plan = write_plan(&cli, &as_account(&plane, "backup", cli.at("account")));
    let text = std::fs::read_to_string(&plan).expect("a plan");
    let text = text.replace("resources: {}", "resources: {kinds: {exclude: [secrets]}}");
    std::fs::write(&plan, text).expect("a plan");
    let admin = plane.kubeconfig().display().to_string();
    let printed = good(&["rbac", "--plan", &plan, "--kubeconfig", &admin, "-o", "json"]).stdout;
    let printed = String::from_utf8(printed).expect("text");
    let rules = printed.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let rules: Vec<Value> =
        rules.flat_map(|object| object["rules"].as_array().cloned().unwrap_or_default()).collect();
    let of_secrets = rules.iter().filter(|rule| rule["resources"].to_string().contains("\"secrets\""));
    let named: Vec<&Value> = of_secrets.map(|rule| &rule["resourceNames"]).collect();
    assert_eq!(named, [&json!(["kbak-epoch"])], "{printed}");

    apply(&cluster, &printed).await;
    let mut last = (1, Value::Null, String::new());
    for _ in 0..100 {
        last = run_json(&["check", "--plan", &plan]);
        if last.0 == 0 {
            break;
        }
    }
    assert_eq!(last.0, 0, "{:#} {}", last.1, last.2);
    assert!(last.1.to_string().contains("Secrets are not looked at"), "{:#}", last.1);
    let (code, report, said) = run_json(&["backup", "--plan", &plan]);
    assert_eq!(code, 0, "{report:#} {said}");
    assert!(report["coverage"]["unseen"].is_null(), "{report:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_on_the_cronjob_tell_how_a_backup_ended_if_the_account_may() {
    let (plane, cluster) = start_plane().await;
    let uid = create_cronjob(&cluster).await;
    let cli = CliRepo::for_plan("nightly");
    let config = as_account(&plane, "backup", cli.at("account"));
    let (config, folder) = (config.display(), cli.text("data"));
    let plan = cli.write_plan(&format!(
        "  cluster: {{kubeconfigFile: \"{config}\"}}\n  volumes: [{{path: \"{folder}\"}}]\n  coverage: \"off\"\n"
    ));
    let backup = || async {
        let mut run = command(&["backup", "--plan", &plan, "-o", "json"]);
        let output = run_beside({
            run.env("KBAK_CRONJOB", "kbak-backup");
            run
        });
        let output = output.await;
        let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
        (
            output.status.code(),
            report["warnings"].to_string(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };

    let (code, warnings, said) = backup().await;
    assert_eq!(code, Some(0), "{said}");
    assert!(
        warnings.contains("CronJob kbak-backup") && warnings.contains("resources: [events], verbs: [create]"),
        "{warnings}"
    );
    assert_eq!(events(&cluster).await, Vec::<Value>::new());
    let check = || {
        let output = command(&["check", "--plan", &plan]).env("KBAK_CRONJOB", "kbak-backup").output();
        String::from_utf8_lossy(&output.expect("it runs").stdout).into_owned()
    };
    let missing = check();
    assert!(missing.contains("! events") && missing.contains("resourceNames: [kbak-backup]"), "{missing}");
    // One right alone is not enough: the CronJob is found, and the other is named.
    grant_cronjobs(&cluster).await;
    let mut said = String::new();
    for _ in 0..100 {
        said = check();
        if said.contains("may not create events") {
            break;
        }
    }
    assert!(said.contains("may not create events") && said.contains("resources: [events]"), "{said}");

    let admin = plane.kubeconfig().display().to_string();
    let printed = good(&["rbac", "--plan", &plan, "--kubeconfig", &admin, "-o", "json"]).stdout;
    apply(&cluster, &String::from_utf8(printed).expect("text")).await;
    let mut found = Vec::new();
    for _ in 0..100 {
        let (code, warnings, said) = backup().await;
        assert_eq!(code, Some(0), "{said}");
        found = events(&cluster).await;
        if !found.is_empty() {
            assert_eq!(warnings, "null", "{said}");
            break;
        }
    }
    let said = check();
    assert!(said.contains("the CronJob kbak-backup exists, and Events may be created"), "{said}");
    assert_eq!(events(&cluster).await.len(), found.len(), "a check creates no Event");
    let event = found.first().expect("an Event");
    assert_eq!(event["involvedObject"]["uid"], uid);
    assert_eq!((&event["type"], &event["reason"]), (&json!("Normal"), &json!("BackupComplete")));
    let message = event["message"].as_str().expect("a message");
    assert!(message.starts_with("backup of plan nightly: complete (exit 0), snapshot 0000"), "{message}");
    assert!(!event.to_string().contains(&folder), "{event:#}");

    // A CronJob that is gone is a warning, too.
    delete(&cluster, &format!("{CRONJOBS}/kbak-backup")).await;
    let (code, warnings, _) = backup().await;
    assert!(code == Some(0) && warnings.contains("404"), "{warnings}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secret_with_foreign_content_is_refused() {
    let (plane, cluster) = start_plane().await;
    let cli = CliRepo::for_plan("nightly");
    let plan = write_plan(&cli, &plane.kubeconfig());
    let text = std::fs::read_to_string(&plan).expect("a plan");
    let config = cli.at("admin");
    let admin = std::fs::read_to_string(plane.kubeconfig()).expect("a kubeconfig");
    let mut admin: Value = serde_saphyr::from_str(&admin).expect("YAML");
    admin["contexts"][0]["context"]["namespace"] = json!("kbak");
    std::fs::write(&config, admin.to_string()).expect("a kubeconfig");
    let text = text.replace(&plane.kubeconfig().display().to_string(), &config.display().to_string());
    std::fs::write(&plan, text).expect("a plan");
    let other = CliRepo::for_plan("nightly");
    let foreign = std::fs::read(other.at("keys").join(ENTRY)).expect("the epoch's secret");
    for (content, expected) in [
        (BASE64.encode(&foreign), "belongs to another repository"),
        (BASE64.encode("{}"), "is not"),
        (BASE64.encode("[".repeat(100_000)), "is not"),
    ] {
        let object = json!({"metadata": {"name": "kbak-epoch"}, "data": {ENTRY: content}});
        create(&cluster, "/api/v1/namespaces/kbak/secrets", object).await;
        let (code, _, said) = kbak(&["backup", "--plan", &plan]);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(expected) && said.contains("kbak/kbak-epoch"), "{said}");
        delete(&cluster, SECRET).await;
    }
}

#[test]
fn errors_of_kubeconfigs_quote_no_secret() {
    let cli = CliRepo::for_plan("nightly");
    let exec = json!({"apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "interactiveMode": "Never",
        "args": ["-c", "echo TOPSECRET; exit 1"], "env": [{"name": "A", "value": "TOPSECRET"}]});
    let config = |server: &str, user: Value| {
        json!({"apiVersion": "v1", "kind": "Config", "current-context": "a",
            "clusters": [{"name": "a", "cluster": {"server": server}}], "users": [{"name": "a", "user": user}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}]})
        .to_string()
    };
    for (text, expected) in [
        (
            "users:\n- user:\n    token: TOPSECRET\n   password: TOPSECRET\n".to_owned(),
            "cannot be parsed, at line",
        ),
        ("users: [{user: {token: [TOPSECRET]}}]\n".to_owned(), "has no current-context"),
        ("{\"users\": \"TOPSECRET\"".to_owned(), "cannot be parsed, at line"),
        (config("http://127.0.0.1:9", json!({"exec": exec})), "the credential plugin failed"),
        (config("http://user:TOPSECRET@127.0.0.1:9", json!({})), "http://127.0.0.1:9"),
    ] {
        std::fs::write(cli.at("bad"), &text).expect("a kubeconfig");
        let plan = write_plan(&cli, &cli.at("bad"));
        for verb in [&["backup"][..], &["check"], &["rbac"]] {
            let (code, out, said) = kbak(&[verb, &["--plan", &plan]].concat());
            assert!(code == 2 || code == 5, "{verb:?} {code} {said}");
            assert!(
                !out.contains("TOPSECRET") && !said.contains("TOPSECRET"),
                "{verb:?} {text}: {out} {said}"
            );
            assert!(format!("{out}{said}").contains(expected), "{verb:?} {text}: {out} {said}");
        }
    }
}

#[test]
fn invalid_names_are_refused_before_any_request() {
    let cli = CliRepo::for_plan("nightly");
    let plan = write_plan(&cli, &cli.at("no-kubeconfig"));
    let text = std::fs::read_to_string(&plan).expect("a plan");
    for name in ["../../../x", "Bad Name!", "a/b", "-a"] {
        std::fs::write(&plan, text.replace("epochSecret: kbak-epoch", &format!("epochSecret: \"{name}\"")))
            .expect("a plan");
        let (code, _, said) = kbak(&["plan", "check", &plan]);
        assert!(code == 2 && said.contains("is not a name of a Secret"), "{code} {said}");
    }
    std::fs::write(&plan, text).expect("a plan");
    for option in [["--name", "x: y"], ["--namespace", "Bad NS"]] {
        let (code, out, said) = kbak(&[&["rbac", "--plan", &plan], &option[..]].concat());
        assert!(code == 2 && out.is_empty() && said.contains("not a valid name"), "{code} {out} {said}");
    }
}
