//! A part of a cluster with its dependencies; also with the rights of a single namespace.

use std::path::Path;

use kbak::kubernetes::{Cluster, Selection};
use kbak::plan::{ClusterScoped, Glob};
use kbak::source::kubernetes::{GapReason, KindConsistency, ResourcesConfig};
use serde_json::{Value, json};

use crate::support::control_plane::{ControlPlane, connect, create};
use crate::support::memory_backup::{
    MemoryBackup, NoHook, create_namespace, define_apples, read_with, sample_object,
};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

fn globs(names: &[&str]) -> Vec<Glob> {
    names.iter().map(|name| Glob::new(name).expect("a pattern")).collect()
}

fn config_of(selection: Selection) -> ResourcesConfig {
    ResourcesConfig { selection, ..ResourcesConfig::default() }
}

fn names(held: &MemoryBackup, resource: &str) -> Vec<String> {
    held.objects(resource).into_keys().map(|key| key.trim_start_matches('/').to_owned()).collect()
}

/// Creates two namespaces, each with an application and its own cluster-scoped dependencies.
async fn two_applications(cluster: &Cluster) {
    define_apples(cluster).await;
    let at = |path: &str, name: &str, more: Value| {
        let mut object = json!({"metadata": {"name": name}});
        object.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        (path.to_owned(), object)
    };
    for of in ["shop", "other"] {
        create_namespace(cluster, of).await;
        let ns = |group: &str, kind: &str| format!("{group}/namespaces/{of}/{kind}");
        let named = |what: &str| format!("{of}-{what}");
        let storage = "/apis/storage.k8s.io/v1/storageclasses";
        let provisioner = json!({"provisioner": "kubernetes.io/no-provisioner"});
        let role = |name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": named(name)});
        let account = json!([{"kind": "ServiceAccount", "namespace": of, "name": "web"}]);
        let rules = json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]});
        let pod = json!({"metadata": {"labels": {"app": "web"}}, "spec": {
            "priorityClassName": named("priority"), "runtimeClassName": named("runtime"),
            "containers": [{"name": "web", "image": "web:1"}]}});
        let claim = json!({"spec": {"storageClassName": named("class"), "volumeName": named("disk"),
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        let volume = json!({"spec": {"storageClassName": named("class"), "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/srv"}}});
        let workload = json!({"metadata": {"name": "web", "labels": {"app": "web"}}, "spec": {
            "selector": {"matchLabels": {"app": "web"}}, "template": pod}});
        let ingress = json!({"spec": {"ingressClassName": named("ingress"), "defaultBackend": {"resource": {"kind": "Nothing", "name": "x"}}}});
        for (path, object) in [
            at(storage, &named("class"), provisioner.clone()),
            at(storage, &named("unused"), provisioner),
            at("/apis/scheduling.k8s.io/v1/priorityclasses", &named("priority"), json!({"value": 1})),
            at("/apis/node.k8s.io/v1/runtimeclasses", &named("runtime"), json!({"handler": "runc"})),
            at(
                "/apis/networking.k8s.io/v1/ingressclasses",
                &named("ingress"),
                json!({"spec": {"controller": "kbak.dev/none"}}),
            ),
            at("/api/v1/persistentvolumes", &named("disk"), volume),
            at(&format!("{RBAC}/clusterroles"), &named("bound"), rules.clone()),
            at(&format!("{RBAC}/clusterroles"), &named("everywhere"), rules.clone()),
            at(&format!("{RBAC}/clusterroles"), &named("unbound"), rules),
            at(
                &format!("{RBAC}/clusterrolebindings"),
                &named("everywhere"),
                json!({"roleRef": role("everywhere"), "subjects": account}),
            ),
            at(&ns(RBAC, "rolebindings"), "bound", json!({"roleRef": role("bound"), "subjects": account})),
            at(&ns("/api/v1", "serviceaccounts"), "web", json!({})),
            at(&ns("/api/v1", "configmaps"), "settings", json!({"data": {"a": "b"}})),
            at(&ns("/api/v1", "persistentvolumeclaims"), "data", claim),
            at(&ns("/apis/apps/v1", "deployments"), "web", workload),
            at(&ns("/apis/networking.k8s.io/v1", "ingresses"), "web", ingress),
        ] {
            create(cluster, &path, object).await;
        }
    }
    create(
        cluster,
        "/apis/demo.kbak.dev/v1/namespaces/shop/apples",
        sample_object("apples.demo.kbak.dev", "one", 1),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn selected_namespace_includes_its_dependencies() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let cluster = plane.cluster().await;
    two_applications(&cluster).await;
    for namespaces in [&["shop"][..], &["sho*"][..]] {
        let selection = Selection { namespaces: globs(namespaces), ..Selection::default() };
        let (held, report) = read_with(&cluster, &config_of(selection), NoHook).await;
        let report = report.expect("a report");
        assert!(report.gaps.is_empty(), "{:?}", report.gaps);
        assert!(report.kinds.iter().all(|kind| kind.consistency == KindConsistency::AtRevision));
        for (resource, wanted) in [
            ("namespaces", &["shop"][..]),
            ("storageclasses.storage.k8s.io", &["shop-class"]),
            ("priorityclasses.scheduling.k8s.io", &["shop-priority"]),
            ("runtimeclasses.node.k8s.io", &["shop-runtime"]),
            ("ingressclasses.networking.k8s.io", &["shop-ingress"]),
            ("persistentvolumes", &["shop-disk"]),
            ("clusterroles.rbac.authorization.k8s.io", &["shop-bound", "shop-everywhere"]),
            ("clusterrolebindings.rbac.authorization.k8s.io", &["shop-everywhere"]),
            ("customresourcedefinitions.apiextensions.k8s.io", &["apples.demo.kbak.dev"]),
            ("deployments.apps", &["shop/web"]),
            ("apples.demo.kbak.dev", &["shop/one"]),
        ] {
            assert_eq!(names(&held, resource), wanted, "{namespaces:?}: {resource}");
        }
        let foreign = held.kinds.iter().flat_map(|(_, lines)| lines);
        for line in foreign {
            let object: Value = serde_json::from_slice(line).expect("JSON");
            let namespace = &object["metadata"]["namespace"];
            assert!(namespace.is_null() || namespace == "shop", "{object}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn selected_kinds_include_what_their_objects_need() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let cluster = plane.cluster().await;
    two_applications(&cluster).await;
    let definition = ["apples.demo.kbak.dev"];
    for (kinds, namespaces, spaces, volumes, definitions) in [
        (&["apples.demo.kbak.dev"][..], &["*"][..], &["shop"][..], &[][..], &definition[..]),
        (&["persistentvolumeclaims"], &["*"], &["other", "shop"], &["other-disk", "shop-disk"], &[]),
        (&["apples.*", "persistentvolumeclaims"], &["shop"], &["shop"], &["shop-disk"], &definition),
        (&["apples.*", "persistentvolumeclaims"], &["sh*"], &["shop"], &["shop-disk"], &definition),
    ] {
        let (kinds, namespaces) = (globs(kinds), globs(namespaces));
        let selection = Selection { namespaces, kinds, ..Selection::default() };
        let (held, report) = read_with(&cluster, &config_of(selection.clone()), NoHook).await;
        assert!(report.expect("a report").gaps.is_empty(), "{selection:?}");
        assert_eq!(names(&held, "namespaces"), spaces, "{selection:?}");
        assert_eq!(names(&held, "persistentvolumes"), volumes, "{selection:?}");
        let found = names(&held, "customresourcedefinitions.apiextensions.k8s.io");
        assert_eq!(found, definitions, "{selection:?}");
        for resource in ["configmaps", "clusterrolebindings.rbac.authorization.k8s.io", "nodes"] {
            assert!(held.objects(resource).is_empty(), "{resource}: {selection:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn label_selection_includes_matches_and_their_dependencies() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let cluster = plane.cluster().await;
    two_applications(&cluster).await;
    let labels = Some("app=web,kbak.dev/exclude!=true".to_owned());
    let selection = Selection { namespaces: globs(&["other", "shop"]), labels, ..Selection::default() };
    let (held, report) = read_with(&cluster, &config_of(selection), NoHook).await;
    assert!(report.expect("a report").gaps.is_empty());
    assert_eq!(names(&held, "deployments.apps"), ["other/web", "shop/web"]);
    assert_eq!(names(&held, "namespaces"), ["other", "shop"], "they have no such label, and are needed");
    assert_eq!(names(&held, "priorityclasses.scheduling.k8s.io"), ["other-priority", "shop-priority"]);
    assert!(held.objects("storageclasses.storage.k8s.io").is_empty(), "what names it has not the label");
    assert!(held.objects("configmaps").is_empty());

    // An excluding label applies everywhere, and does not make the selection partial.
    let excluded = json!({"metadata": {"name": "left-out", "labels": {"kbak.dev/exclude": "true"}}});
    create(&cluster, "/api/v1/namespaces/shop/configmaps", excluded).await;
    let labels = Some("kbak.dev/exclude!=true".to_owned());
    let (held, report) =
        read_with(&cluster, &config_of(Selection { labels, ..Selection::default() }), NoHook).await;
    assert!(report.expect("a report").gaps.is_empty());
    let maps = names(&held, "configmaps");
    assert!(maps.contains(&"shop/settings".to_owned()) && !maps.contains(&"shop/left-out".to_owned()));
    assert_eq!(held.objects("storageclasses.storage.k8s.io").len(), 4, "all, used or not");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn selected_names_absent_from_the_cluster_are_gaps() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let cluster = plane.cluster().await;
    let selection = Selection {
        namespaces: globs(&["default", "shpo"]),
        kinds: globs(&["configmaps", "widgets.demo.kbak.dev"]),
        ..Selection::default()
    };
    let (_, report) = read_with(&cluster, &config_of(selection), NoHook).await;
    let gaps = report.expect("a report").gaps;
    let absent: Vec<_> = gaps.iter().map(|gap| (gap.object.as_str(), gap.reason.clone())).collect();
    assert_eq!(
        absent,
        [
            ("namespaces/shpo", GapReason::Absent("namespace".to_owned())),
            ("widgets.demo.kbak.dev", GapReason::Absent("kind".to_owned())),
        ]
    );
    // A pattern or a label without a match.
    let nobody = Selection { namespaces: globs(&["zz-*"]), ..Selection::default() };
    let nothing = Selection { labels: Some("nope=never".to_owned()), ..Selection::default() };
    for selection in [nobody, nothing] {
        let (_, report) = read_with(&cluster, &config_of(selection), NoHook).await;
        let gaps = report.expect("a report").gaps;
        assert_eq!(gaps.len(), 1, "{gaps:?}");
        assert_eq!(gaps[0].reason, GapReason::Absent("object".to_owned()));
    }
}

/// Returns a kubeconfig of a ServiceAccount that may read everything in `shop` only.
async fn of_a_namespace(plane: &ControlPlane, cluster: &Cluster, folder: &Path) -> std::path::PathBuf {
    create(cluster, "/api/v1/namespaces/shop/serviceaccounts", json!({"metadata": {"name": "kbak"}})).await;
    let rules = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list"]}]);
    create(
        cluster,
        &format!("{RBAC}/namespaces/shop/roles"),
        json!({"metadata": {"name": "kbak"}, "rules": rules}),
    )
    .await;
    let binding = json!({
        "metadata": {"name": "kbak"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "kbak"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "shop", "name": "kbak"}],
    });
    create(cluster, &format!("{RBAC}/namespaces/shop/rolebindings"), binding).await;
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}});
    let token = create(cluster, "/api/v1/namespaces/shop/serviceaccounts/kbak/token", request).await;
    let text = std::fs::read_to_string(plane.kubeconfig()).expect("a kubeconfig");
    let mut config: Value = serde_saphyr::from_str(&text).expect("YAML");
    config["users"][0]["user"] = json!({"token": token["status"]["token"]});
    let path = folder.join("kubeconfig");
    std::fs::write(&path, config.to_string()).expect("a kubeconfig");
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespace_rights_suffice_to_back_up_that_namespace() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let cluster = plane.cluster().await;
    two_applications(&cluster).await;
    let folder = tempfile::tempdir().expect("a folder");
    let kubeconfig = of_a_namespace(&plane, &cluster, folder.path()).await;
    let reader = connect(&kubeconfig).await;
    let selection = |names: &[&str], cluster_scoped| Selection {
        namespaces: globs(names),
        cluster_scoped,
        ..Selection::default()
    };

    // Without cluster-scoped objects nothing is missing.
    let (held, report) =
        read_with(&reader, &config_of(selection(&["shop"], ClusterScoped::None)), NoHook).await;
    let report = report.expect("a report");
    assert!(report.gaps.is_empty(), "{:?}", report.gaps);
    assert!(report.kinds.iter().all(|kind| kind.consistency == KindConsistency::AtRevision));
    let (_, all) = read_with(&cluster, &config_of(selection(&["shop"], ClusterScoped::None)), NoHook).await;
    let count =
        |kinds: &[kbak::source::kubernetes::KindReport]| kinds.iter().map(|kind| kind.objects).sum::<u64>();
    assert_eq!(
        count(&report.kinds),
        count(&all.expect("a report").kinds),
        "as much as an administrator reads"
    );
    assert_eq!(names(&held, "apples.demo.kbak.dev"), ["shop/one"]);
    assert_eq!(report.cluster_uid, None);
    let [note] = report.notes.as_slice() else { panic!("{:?}", report.notes) };
    assert_eq!(note.object, "the cluster's UID");

    // The namespace itself may be read; only its dependencies beyond it are reported.
    let (held, report) =
        read_with(&reader, &config_of(selection(&["shop"], ClusterScoped::Auto)), NoHook).await;
    let report = report.expect("a report");
    assert_eq!(names(&held, "namespaces"), ["shop"]);
    let named: Vec<&str> = report.gaps.iter().map(|gap| gap.object.as_str()).collect();
    assert_eq!(
        named,
        [
            "persistentvolumes",
            "ingressclasses.networking.k8s.io",
            "runtimeclasses.node.k8s.io",
            "clusterrolebindings.rbac.authorization.k8s.io",
            "clusterroles.rbac.authorization.k8s.io",
            "priorityclasses.scheduling.k8s.io",
            "storageclasses.storage.k8s.io",
            "customresourcedefinitions.apiextensions.k8s.io",
        ]
    );
    assert!(report.gaps.iter().all(|gap| matches!(gap.reason, GapReason::Forbidden { .. })));

    // A namespace without rights is its own gap and does not affect the other.
    let both = selection(&["other", "shop"], ClusterScoped::None);
    let (held, report) = read_with(&reader, &config_of(both), NoHook).await;
    let report = report.expect("a report");
    assert_eq!(names(&held, "deployments.apps"), ["shop/web"]);
    let gap = report.gaps.iter().find(|gap| gap.object == "deployments.apps in other").expect("its gap");
    let GapReason::Forbidden { role, .. } = &gap.reason else { panic!("{gap}") };
    assert_eq!(role, "a Role in other");

    // Without namespace names it may list nothing.
    let (_, report) = read_with(&reader, &ResourcesConfig::default(), NoHook).await;
    let error = report.expect_err("not allowed").to_string();
    assert!(error.contains("add the rule"), "{error}");
}
