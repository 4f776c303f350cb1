//! Objects that selected ones need to exist, objects that were being deleted, and claims without their data.

use std::collections::{BTreeMap, BTreeSet};

use kbak::kubernetes::Cluster;
use kbak::plan::Glob;
use kbak::target::kubernetes::{
    Action, ExistingPolicy, Mapping, ObjectName, Outcome, Permission, Plan, RestoreConfig, RestoreReport,
    Skip, WaitLimits,
};
use serde_json::{Value, json};

use crate::support::backup_builder::{backup_of, plan, restore};
use crate::support::control_plane::{ControlPlane, delete, get, patch};
use crate::support::memory_backup::{MemoryBackup, create_namespace};

const DEFINITIONS: &str = "-apiextensions.k8s.io/v1/customresourcedefinitions CustomResourceDefinition";
const VOLUMES: &str = "-core/v1/persistentvolumes PersistentVolume";
const CLAIMS: &str = "core/v1/persistentvolumeclaims PersistentVolumeClaim";

fn config() -> RestoreConfig {
    RestoreConfig {
        takeover: true,
        allow: Permission::ALL.into(),
        waits: WaitLimits { max_idle_rounds: 0, ..WaitLimits::default() },
        ..RestoreConfig::default()
    }
}

fn globs(names: &[&str]) -> Vec<Glob> {
    names.iter().map(|name| Glob::new(name).expect("a pattern")).collect()
}

fn object(name: &str) -> ObjectName {
    name.parse().expect("a name")
}

/// Plans and restores, and checks that the plan has the verdict of the run.
async fn both(
    target: &Cluster,
    held: &MemoryBackup,
    config: &RestoreConfig,
) -> (Plan, RestoreReport, BTreeMap<String, Outcome>) {
    let (planned, _) = plan(target, held, config, false).await;
    let (report, outcomes) = restore(target, held, config).await;
    let report = report.expect("a report");
    assert_eq!(planned.is_whole(), report.is_whole(), "{planned:#?}\n{report:#?}");
    (planned, report, outcomes)
}

fn names<'a>(outcomes: &'a BTreeMap<String, Outcome>, wanted: &Outcome) -> Vec<&'a str> {
    outcomes.iter().filter(|(_, outcome)| *outcome == wanted).map(|(name, _)| name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn selected_pods_bring_the_accounts_and_classes_without_which_they_are_refused() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    let spec = |account: &str| {
        json!({"serviceAccountName": account, "automountServiceAccountToken": false, "priorityClassName": "batch",
            "containers": [{"name": "c", "image": "i"}]})
    };
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": spec("builder")});
    let deployment = json!({"spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template}});
    let held = backup_of(&[
        ("-core/v1/namespaces Namespace", &[("jobs", json!({}))]),
        (
            "-scheduling.k8s.io/v1/priorityclasses PriorityClass",
            &[("batch", json!({"value": 7})), ("more", json!({"value": 8}))],
        ),
        (
            "core/v1/serviceaccounts ServiceAccount",
            &[("jobs/builder", json!({})), ("jobs/other", json!({})), ("jobs/runner", json!({}))],
        ),
        ("core/v1/pods Pod", &[("jobs/p", json!({"spec": spec("runner")}))]),
        ("apps/v1/deployments Deployment", &[("jobs/web", deployment)]),
    ]);

    let pods = RestoreConfig { kinds: globs(&["pods"]), ..config() };
    let (_, report, outcomes) = both(&target, &held, &pods).await;
    assert!(report.is_whole(), "{report:#?}\n{outcomes:#?}");
    let made = ["Namespace/jobs", "Pod/jobs/p", "PriorityClass/batch", "ServiceAccount/jobs/runner"];
    assert_eq!(names(&outcomes, &Outcome::Created), made);

    let deployments = RestoreConfig { kinds: globs(&["deployments.apps"]), ..config() };
    let (_, _, outcomes) = both(&target, &held, &deployments).await;
    assert_eq!(names(&outcomes, &Outcome::Created), ["Deployment/jobs/web", "ServiceAccount/jobs/builder"]);
}

fn figs(plural: &str, kind: &str) -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    json!({"spec": {"group": "demo.kbak.dev", "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn selected_objects_bring_the_namespaces_and_definitions_that_they_need() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    let labelled = |app: &str| json!({"metadata": {"labels": {"app": app}}});
    let spaces = ["by-kind", "by-label", "by-object", "custom", "derived", "other"];
    let spaces: Vec<(&str, Value)> =
        spaces.iter().map(|name| (*name, json!({"metadata": {"labels": {"from": "backup"}}}))).collect();
    let held = backup_of(&[
        ("-core/v1/namespaces Namespace", &spaces),
        (
            DEFINITIONS,
            &[("figs.demo.kbak.dev", figs("figs", "Fig")), ("plums.demo.kbak.dev", figs("plums", "Plum"))],
        ),
        ("demo.kbak.dev/v1/figs Fig", &[("custom/f", json!({"spec": {}}))]),
        ("demo.kbak.dev/v1/plums Plum", &[("other/p", json!({"spec": {}}))]),
        (
            "core/v1/configmaps ConfigMap",
            &[("by-kind/a", json!({})), ("by-label/a", labelled("web")), ("by-object/a", json!({}))],
        ),
        ("core/v1/secrets Secret", &[("other/s", json!({}))]),
        ("core/v1/events Event", &[("derived/e", labelled("web"))]),
    ]);

    let by_label = RestoreConfig { labels: Some("app=web".parse().expect("labels")), ..config() };
    let (_, report, outcomes) = both(&target, &held, &by_label).await;
    assert!(report.is_whole(), "{report:#?}");
    assert_eq!(names(&outcomes, &Outcome::Created), ["ConfigMap/by-label/a", "Namespace/by-label"]);

    let by_object = RestoreConfig { objects: vec![object("configmaps/by-object/a")], ..config() };
    let (_, _, outcomes) = both(&target, &held, &by_object).await;
    assert_eq!(names(&outcomes, &Outcome::Created), ["ConfigMap/by-object/a", "Namespace/by-object"]);

    let by_kind = RestoreConfig { kinds: globs(&["configmaps"]), ..config() };
    let (planned, report, outcomes) = both(&target, &held, &by_kind).await;
    assert_eq!(planned.count(|action| *action == Action::Create), 2, "{planned:#?}");
    assert_eq!(names(&outcomes, &Outcome::Created), ["ConfigMap/by-kind/a", "Namespace/by-kind"]);
    assert_eq!(report.existed, 2, "{report:#?}");

    // A namespace that exists and differs was not asked for: it is neither changed nor a difference.
    patch(&target, "/api/v1/namespaces/by-kind", json!({"metadata": {"labels": {"from": "cluster"}}})).await;
    for config in [&by_kind, &by_object, &by_label] {
        let replace = RestoreConfig { existing: Some(ExistingPolicy::Replace), ..config.clone() };
        for config in [config, &replace] {
            let (_, report, _) = both(&target, &held, config).await;
            assert!(report.is_whole() && report.created == 0 && report.replaced == 0, "{report:#?}");
        }
    }
    let found = get(&target, "/api/v1/namespaces/by-kind").await;
    assert_eq!(found["metadata"]["labels"]["from"], "cluster");

    // The definition of a chosen kind needs the same permission as ever.
    let custom = RestoreConfig { kinds: globs(&["figs.*"]), ..config() };
    let refused = RestoreConfig { allow: [].into(), ..custom.clone() };
    let (_, report, _) = both(&target, &held, &refused).await;
    assert_eq!(report.refused.get(&Permission::Crds), Some(&1), "{report:#?}");
    let (_, report, outcomes) = both(&target, &held, &custom).await;
    assert!(report.is_whole(), "{report:#?}");
    let made = names(&outcomes, &Outcome::Created);
    assert_eq!(made, ["CustomResourceDefinition/figs.demo.kbak.dev", "Fig/custom/f"]);

    // An excluded kind does not come, and its lack is foreseen.
    let without = RestoreConfig {
        kinds: globs(&["secrets"]),
        exclude_kinds: globs(&["namespaces"]),
        waits: WaitLimits { max_idle_rounds: 0, ..WaitLimits::default() },
        ..config()
    };
    let (_, report, _) = both(&target, &held, &without).await;
    assert_eq!((report.created, report.failed), (0, 1), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_that_were_being_deleted_are_left_out_unless_named() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    let ending = || json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["demo.kbak.dev/x"]}});
    let held = backup_of(&[
        ("-core/v1/namespaces Namespace", &[("ending", ending()), ("shop", json!({}))]),
        (
            DEFINITIONS,
            &[("figs.demo.kbak.dev", {
                let mut definition = figs("figs", "Fig");
                definition["metadata"] = ending()["metadata"].clone();
                definition
            })],
        ),
        ("demo.kbak.dev/v1/figs Fig", &[("shop/f", json!({"spec": {}}))]),
        (
            "core/v1/configmaps ConfigMap",
            &[("ending/a", json!({})), ("shop/gone", ending()), ("shop/stays", json!({}))],
        ),
    ]);
    let (planned, report, outcomes) = both(&target, &held, &config()).await;
    let left_out = Outcome::Skipped(Skip::BeingDeleted);
    assert_eq!(
        names(&outcomes, &left_out),
        [
            "ConfigMap/ending/a",
            "ConfigMap/shop/gone",
            "CustomResourceDefinition/figs.demo.kbak.dev",
            "Fig/shop/f",
            "Namespace/ending"
        ]
    );
    assert_eq!(names(&outcomes, &Outcome::Created), ["ConfigMap/shop/stays", "Namespace/shop"]);
    assert_eq!(planned.count(|action| *action == Action::Skip(Skip::BeingDeleted)), 5);
    assert_eq!(report.skipped[&Skip::BeingDeleted], 5);
    assert!(report.is_whole(), "{report:#?}");

    // An object that is named comes back, with what it needs.
    let objects = ["configmaps/ending/a", "configmaps/shop/gone", "figs.demo.kbak.dev/shop/f"];
    let named = RestoreConfig { objects: objects.map(object).to_vec(), ..config() };
    let (_, report, outcomes) = both(&target, &held, &named).await;
    assert!(report.is_whole(), "{report:#?}");
    assert_eq!(names(&outcomes, &Outcome::Created).len(), 5, "{outcomes:#?}");
    let back = get(&target, "/api/v1/namespaces/shop/configmaps/gone").await;
    assert_eq!(back["metadata"]["finalizers"], json!(["demo.kbak.dev/x"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_without_their_data_are_named() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    create_namespace(&target, "shop").await;
    let volume = |claim: &str, annotations: Value, policy: &str| {
        json!({"metadata": {"annotations": annotations}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": policy, "nfs": {"server": "10.0.0.1", "path": "/data"},
            "claimRef": {"namespace": "shop", "name": claim}}})
    };
    let claim = |volume: &str| {
        let mut spec =
            json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        if !volume.is_empty() {
            spec["volumeName"] = json!(volume);
        }
        json!({ "spec": spec })
    };
    let provisioned = json!({"pv.kubernetes.io/provisioned-by": "csi.demo.kbak.dev"});
    let held = backup_of(&[
        ("-core/v1/namespaces Namespace", &[("shop", json!({}))]),
        (
            VOLUMES,
            &[
                ("dynamic", volume("dynamic", provisioned, "Delete")),
                ("static", volume("static", json!({}), "Retain")),
            ],
        ),
        (
            CLAIMS,
            &[
                ("shop/dynamic", claim("dynamic")),
                ("shop/pending", claim("")),
                ("shop/static", claim("static")),
            ],
        ),
    ]);
    let lacking = |plan: &Plan| -> BTreeSet<String> {
        plan.incomplete.iter().map(|(object, why)| format!("{object}: {why}")).collect()
    };
    let unfinished = |report: &RestoreReport| -> BTreeSet<String> {
        report.unfinished.iter().map(|(object, why)| format!("{object}: {}", why.message)).collect()
    };
    let claims = "/api/v1/namespaces/shop/persistentvolumeclaims";

    // The volume is in the snapshot and outside of the selection.
    let only_claims = RestoreConfig { kinds: globs(&["persistentvolumeclaims"]), ..config() };
    let (planned, report, _) = both(&target, &held, &only_claims).await;
    assert_eq!(lacking(&planned), unfinished(&report));
    let told = unfinished(&report).into_iter().collect::<Vec<_>>().join("\n");
    assert_eq!(report.unfinished.len(), 2, "{told}");
    assert!(
        told.contains("PersistentVolumeClaim/shop/static")
            && told.contains("--object persistentvolumes/static")
    );
    assert!(
        told.contains("PersistentVolumeClaim/shop/dynamic") && !told.contains("persistentvolumes/dynamic")
    );
    assert_eq!(get(&target, &format!("{claims}/static")).await["spec"].get("volumeName"), None);
    // Later runs name them, too, whatever they do with them, until somebody says that the data is there.
    for existing in [None, Some(ExistingPolicy::Replace), Some(ExistingPolicy::Patch)] {
        let again = RestoreConfig { existing, ..only_claims.clone() };
        let (planned, report, _) = both(&target, &held, &again).await;
        assert_eq!((report.existed, report.unfinished.len()), (3, 2), "{existing:?}: {report:#?}");
        assert_eq!(lacking(&planned), unfinished(&report));
        let told = unfinished(&report).into_iter().collect::<Vec<_>>().join("\n");
        assert!(told.contains("kubectl annotate pvc -n shop static kbak.dev/without-data-"), "{told}");
    }
    let filled = json!({"metadata": {"annotations": {"kbak.dev/without-data": null}}});
    patch(&target, &format!("{claims}/static"), filled.clone()).await;
    let (_, report, _) = both(&target, &held, &only_claims).await;
    assert_eq!(report.unfinished.len(), 1, "{report:#?}");
    patch(&target, &format!("{claims}/dynamic"), filled).await;
    let (_, report, _) = both(&target, &held, &only_claims).await;
    assert!(report.is_whole() && report.existed == 3, "{report:#?}");

    // With its volume the claim keeps its name, and only the other one is named.
    for name in ["dynamic", "pending", "static"] {
        patch(&target, &format!("{claims}/{name}"), json!({"metadata": {"finalizers": null}})).await;
        delete(&target, &format!("{claims}/{name}")).await;
    }
    let (planned, report, _) = both(&target, &held, &config()).await;
    assert_eq!(lacking(&planned), unfinished(&report));
    assert_eq!(report.unfinished[0].0.to_string(), "PersistentVolumeClaim/shop/dynamic");
    assert_eq!(report.unfinished.len(), 1);
    assert_eq!(get(&target, &format!("{claims}/static")).await["spec"]["volumeName"], "static");

    // A copy beside the original never gets its volumes.
    let pair = ("shop".to_owned(), "copy".to_owned());
    let mapping = Mapping { namespaces: [pair].into(), ..Mapping::default() };
    let copy = RestoreConfig { namespaces: globs(&["shop"]), mapping, ..config() };
    let (planned, report, _) = both(&target, &held, &copy).await;
    assert_eq!(lacking(&planned), unfinished(&report));
    assert_eq!(report.unfinished.len(), 2, "{report:#?}");
    let (_, report, _) = both(&target, &held, &copy).await;
    assert_eq!(report.unfinished.len(), 2, "the second run says the same: {report:#?}");
}
