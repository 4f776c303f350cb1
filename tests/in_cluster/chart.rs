//! The chart and the manifests made from it. No pod runs here.

use std::process::Command;

use bytes::Bytes;
use http::Method;
use kbak::kubernetes::Cluster;
use serde_json::{Value, json};

use super::{collection, documents, helm, object, project, rendered};
use crate::support::control_plane::{ControlPlane, create};
use crate::support::owners::{run, run_ok};
use crate::support::program::prometheus_parser;

/// Sets of values, from the least to the most.
const VALUES: [&str; 5] = ["small", "everything", "namespaces", "identity", "folder"];

#[test]
fn readme_schema_and_plain_manifests_match_the_chart() {
    run_ok(Command::new(project("deploy/render")).args([env!("CARGO_BIN_EXE_kbak"), "--check"]), b"");
}

#[test]
fn verification_without_a_pin_is_refused() {
    let home = tempfile::tempdir().expect("a folder");
    let mut template = helm(home.path());
    template.args(["template", "kbak"]).arg(project("deploy/chart"));
    template.arg("--values").arg(project("tests/in_cluster/values/small.yaml")).args(["--set", "signers="]);
    let output = run(&mut template, b"");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("verify needs the pin"), "{said}");
}

#[test]
fn secret_of_a_database_that_the_plan_lacks_is_refused() {
    let home = tempfile::tempdir().expect("a folder");
    let mut template = helm(home.path());
    template.args(["template", "kbak"]).arg(project("deploy/chart"));
    template.arg("--values").arg(project("tests/in_cluster/values/everything.yaml"));
    template.args(["--set", "databases[0].name=shpo,databases[0].existingSecret=shop-backup"]);
    let output = run(&mut template, b"");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("the plan has no database shpo"), "{said}");
}

#[test]
fn names_of_digits_stay_text_and_null_removes_a_label() {
    let home = tempfile::tempdir().expect("a folder");
    let mut template = helm(home.path());
    template.args(["template", "kbak", "--namespace", "2024"]).arg(project("deploy/chart"));
    template.arg("--values").arg(project("tests/in_cluster/values/everything.yaml"));
    template.args(["--set", r"pods.labels.sidecar\.istio\.io/inject=null"]);
    let text = String::from_utf8(run_ok(&mut template, b"")).expect("text");
    assert!(text.contains("namespace: \"2024\"") && !text.contains("namespace: 2024"), "{text}");
    assert!(!text.contains("sidecar.istio.io/inject"), "{text}");
}

#[test]
fn schedules_of_two_releases_differ_in_their_minute() {
    let home = tempfile::tempdir().expect("a folder");
    let schedule = |name: &str| {
        let mut template = helm(home.path());
        template.args(["template", name]).arg(project("deploy/chart"));
        template.arg("--values").arg(project("tests/in_cluster/values/small.yaml"));
        let text = String::from_utf8(run_ok(&mut template, b"")).expect("text");
        let line = text.lines().find(|line| line.trim().starts_with("schedule:")).expect("a schedule");
        line.trim().to_owned()
    };
    assert_ne!(schedule("kbak-berlin"), schedule("kbak-paris"));
}

/// Labels by which `kubectl get -l` and `kubectl apply --prune` find all objects of an installation.
const COMMON_LABELS: [(&str, &str); 2] =
    [("app.kubernetes.io/name", "kbak"), ("app.kubernetes.io/instance", "kbak")];

#[test]
fn every_object_has_the_common_labels() {
    let home = tempfile::tempdir().expect("a folder");
    for set in VALUES {
        for object in rendered(home.path(), &project(&format!("tests/in_cluster/values/{set}.yaml"))) {
            labelled(set, &object, &["app.kubernetes.io/version", "app.kubernetes.io/managed-by"]);
        }
    }
    for file in std::fs::read_dir(project("jobs")).expect("manifests").flatten() {
        let text = std::fs::read_to_string(file.path()).expect("a file");
        for object in documents(&text).iter().filter(|object| object["kind"] != "Kustomization") {
            labelled("jobs", object, &["app.kubernetes.io/version"]);
        }
    }
}

/// Checks the labels of an object, and of the Jobs and pods that it makes.
fn labelled(set: &str, object: &Value, more: &[&str]) {
    let about = format!("{set}: {} {}", object["kind"], object["metadata"]["name"]);
    let (job, none) = (&object["spec"]["jobTemplate"], Value::Null);
    let (job, pod) = match object["kind"] == "CronJob" {
        true => (job, &job["spec"]["template"]),
        false => (&none, &none),
    };
    for labels in [object, job, pod].iter().filter(|one| !one.is_null()).map(|one| &one["metadata"]["labels"])
    {
        for (label, value) in COMMON_LABELS {
            assert_eq!(labels[label], value, "{about}: {label}");
        }
        assert!(more.iter().all(|label| labels[label].is_string()), "{about}: {labels}");
    }
    if object["kind"].as_str().is_some_and(|kind| kind.starts_with("Cluster")) {
        assert_eq!(object["metadata"]["labels"]["kbak.dev/namespace"], "kbak", "{about}");
    }
}

#[test]
fn metrics_of_clusters_with_one_plan_name_differ_in_their_label() {
    let home = tempfile::tempdir().expect("a folder");
    let label = |settings: &[&str]| {
        let mut template = helm(home.path());
        template.args(["template", "kbak", "--namespace", "kbak"]).arg(project("deploy/chart"));
        template.arg("--values").arg(project("tests/in_cluster/values/everything.yaml"));
        for setting in settings {
            template.args(["--set", setting]);
        }
        let text = String::from_utf8(run_ok(&mut template, b"")).expect("text");
        let objects = documents(&text);
        let rules = object(&objects, "PrometheusRule", "kbak")["spec"].to_string();
        let found = rules.split("cluster=\\\"").nth(1).expect("a label in the rules");
        let found = found.split('\\').next().expect("a value").to_owned();
        assert!(text.contains(&format!("cluster: {found}\n")), "the plan has it, too: {text}");
        assert!(!text.contains("@CLUSTER@"), "{text}");
        found
    };
    let of_release = label(&[]);
    assert!(of_release.starts_with("kbak-kbak-"), "{of_release}");
    assert_ne!(of_release, label(&["plan.spec.repository.url=s3://backups/other"]));
    assert_eq!(label(&["clusterName=prod"]), "prod");
    assert_eq!(label(&["notify[2].metrics.cluster=own", "clusterName=prod"]), "own");
}

#[test]
fn receivers_of_notices_are_mounted_allowed_and_valid() {
    let home = tempfile::tempdir().expect("a folder");
    let objects = rendered(home.path(), &project("tests/in_cluster/values/everything.yaml"));
    let plan = object(&objects, "ConfigMap", "kbak-plan")["data"]["plan.yaml"].as_str().expect("a plan");
    let parsed = kbak::plan::parse(plan).expect("a good plan").plan;
    let files: Vec<_> = parsed.spec.notify.iter().filter_map(|notify| notify.url_file()).collect();
    let files: Vec<_> = files.iter().map(|file| file.to_str().expect("text")).collect();
    assert_eq!(files, ["/etc/kbak/notify/0/kbak-ping/url", "/etc/kbak/notify/1/kbak-chat/address"]);
    assert_eq!(parsed.spec.schedule.map(|schedule| schedule.next.duration().as_secs()), Some(93_600));

    for part in ["backup", "verify"] {
        let job = object(&objects, "CronJob", &format!("kbak-{part}"));
        let pod = &job["spec"]["jobTemplate"]["spec"]["template"]["spec"];
        let mounts = pod["containers"][0]["volumeMounts"].as_array().expect("mounts").iter();
        let mounts: Vec<&str> = mounts.filter_map(|mount| mount["mountPath"].as_str()).collect();
        for file in &files {
            let (folder, _) = file.rsplit_once('/').expect("a folder");
            assert!(mounts.contains(&folder), "{part}: {file}: {mounts:?}");
        }
        let environment = pod["containers"][0]["env"].to_string();
        assert_eq!(environment.contains("KBAK_CRONJOB"), part == "backup", "{environment}");
        let egress = &object(&objects, "NetworkPolicy", &format!("kbak-{part}"))["spec"]["egress"];
        for allowed in [
            r#""ports":[{"port":443,"protocol":"TCP"},{"port":3001,"protocol":"TCP"}]"#,
            r#"{"ports":[{"port":9091,"protocol":"TCP"}],"to":[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"monitoring"}}}]}"#,
        ] {
            assert!(egress.to_string().contains(allowed), "{part}: {allowed}: {egress:#}");
        }
    }
    let without = rendered(home.path(), &project("tests/in_cluster/values/folder.yaml"));
    let named = |one: &Value| one["metadata"]["name"] == "kbak-backup-events";
    assert!(objects.iter().any(named) && !without.iter().any(named));
}

#[test]
fn alert_rules_and_dashboard_queries_are_parsed_by_prometheus() {
    let home = tempfile::tempdir().expect("a folder");
    let objects = rendered(home.path(), &project("tests/in_cluster/values/everything.yaml"));
    let rules = &object(&objects, "PrometheusRule", "kbak")["spec"];
    let dashboard = object(&objects, "ConfigMap", "kbak-dashboard")["data"]["kbak.json"].as_str();
    let file = home.path().join("text");
    let check = |kind: &str, text: &str| {
        std::fs::write(&file, text).expect("a file");
        run(prometheus_parser(kind).arg(&file), b"")
    };
    let said = check("rules", &rules.to_string()).stdout;
    assert_eq!(String::from_utf8_lossy(&said), "12 rules\n");
    let said = check("dashboard", dashboard.expect("a dashboard")).stdout;
    assert_eq!(String::from_utf8_lossy(&said), "9 dashboard\n");
    let wrong = check("rules", &rules.to_string().replace("max by (plan)", "max by plan"));
    assert!(!wrong.status.success() && String::from_utf8_lossy(&wrong.stderr).contains("KbakBackupOverdue"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rendered_objects_are_accepted_where_pods_are_restricted() {
    let plane = ControlPlane::start(&[]);
    let cluster = plane.cluster().await;
    let home = tempfile::tempdir().expect("a folder");
    prepare(&cluster).await;
    for set in VALUES {
        let values = project(&format!("tests/in_cluster/values/{set}.yaml"));
        let mut lint = helm(home.path());
        lint.args(["lint", "--strict"]).arg(project("deploy/chart")).arg("--values").arg(&values);
        run_ok(&mut lint, b"");
        let objects = rendered(home.path(), &values);
        assert!(objects.iter().filter(|object| object["kind"] == "CronJob").count() > 0, "{set}");
        for object in &objects {
            accepted(&cluster, set, object).await;
            if object["kind"] == "CronJob" {
                accepted(&cluster, set, &pod_of(object)).await;
            }
        }
    }
}

/// Makes what a cluster has before the chart comes: namespaces, accounts, the kind of alert rules.
async fn prepare(cluster: &Cluster) {
    for name in ["kbak", "shop", "blog"] {
        let labels = json!({
            "pod-security.kubernetes.io/enforce": "restricted",
            "pod-security.kubernetes.io/warn": "restricted",
        });
        create(cluster, "/api/v1/namespaces", json!({"metadata": {"name": name, "labels": labels}})).await;
    }
    let accounts = "/api/v1/namespaces/kbak/serviceaccounts";
    for name in ["kbak-backup", "kbak-verify", "backups-backup", "reader"] {
        create(cluster, accounts, json!({"metadata": {"name": name}})).await;
    }
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let rules = json!({
        "metadata": {"name": "prometheusrules.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com", "scope": "Namespaced",
            "names": {"plural": "prometheusrules", "singular": "prometheusrule", "kind": "PrometheusRule"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}],
        },
    });
    create(cluster, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", rules).await;
    let kind = "/apis/monitoring.coreos.com/v1/namespaces/kbak/prometheusrules";
    for _ in 0..600 {
        if cluster.get(kind, "", 1 << 20).await.is_ok() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the kind PrometheusRule never is served");
}

/// Asks the server to try this object: no unknown field, no warning, no refusal.
async fn accepted(cluster: &Cluster, set: &str, object: &Value) {
    let mut object = object.clone();
    if object["kind"] == "ServiceAccount" {
        // Those exist already, because pods need theirs to be tried.
        object["metadata"]["name"] = json!(format!("{}-tried", object["metadata"]["name"].as_str().unwrap()));
    }
    let about = format!("{set}: {} {}", object["kind"], object["metadata"]["name"]);
    let body = Bytes::from(object.to_string());
    let query = "dryRun=All&fieldValidation=Strict";
    let answer = cluster.send(Method::POST, &collection(&object), query, "application/json", body).await;
    let answer = answer.unwrap_or_else(|error| panic!("{about}: {error}"));
    assert!(answer.warnings.is_empty(), "{about}: {:?}", answer.warnings);
}

/// Returns a pod as a Job of this CronJob makes it: Pod Security refuses pods alone.
fn pod_of(cronjob: &Value) -> Value {
    let template = &cronjob["spec"]["jobTemplate"]["spec"]["template"];
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": cronjob["metadata"]["name"], "namespace": cronjob["metadata"]["namespace"],
            "labels": template["metadata"]["labels"],
        },
        "spec": template["spec"],
    })
}
