//! A copy has no side effects: mapped namespaces, foreign clusters, objects from Git, privileged objects.

use std::collections::{BTreeMap, BTreeSet};

use kbak::target::kubernetes::{
    Action, GitTool, Mapping, Modifier, Outcome, Permission, RestoreConfig, RestoreReport, Scope, SideEffect,
    Skip, WaitLimits,
};
use serde_json::{Value, json};

use crate::support::backup_builder::{backup_of, plan, restore};
use crate::support::control_plane::{ControlPlane, delete, get, patch};
use crate::support::memory_backup::{MemoryBackup, create_namespace};

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": image}]}})
}

fn backup() -> MemoryBackup {
    let ports = json!([{"port": 80, "protocol": "TCP", "targetPort": 80, "nodePort": 30123}]);
    let applied = json!({"spec": {"ports": ports}}).to_string();
    let chosen = json!({"metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": applied}},
        "spec": {"type": "NodePort", "ports": ports}});
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let cron = |image: &str| json!({"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": template(image)}}}});
    let argo =
        json!({"metadata": {"annotations": {"argocd.argoproj.io/tracking-id": "shop:/ConfigMap:shop/git"}}});
    let flux = json!({"metadata": {"labels": {"kustomize.toolkit.fluxcd.io/name": "shop", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}}});
    let pod = |spec: Value| {
        let mut pod = json!({"spec": template("docker.io/a:1")["spec"]});
        pod["spec"].as_object_mut().expect("a map").extend(spec.as_object().expect("a map").clone());
        pod
    };
    let helm = json!({"type": "helm.sh/release.v1", "data": {"release": "eA=="}});
    backup_of(&[
        (
            "-core/v1/namespaces Namespace",
            &[(
                "shop",
                json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}),
            )],
        ),
        (
            "core/v1/configmaps ConfigMap",
            &[
                ("shop/plain", json!({})),
                ("shop/git", argo.clone()),
                ("shop/copied", argo),
                ("shop/flux", flux),
            ],
        ),
        (
            "core/v1/services Service",
            &[
                ("shop/web", chosen),
                (
                    "shop/outside",
                    json!({"spec": {"externalIPs": ["192.0.2.7"], "ports": [{"port": 80, "protocol": "TCP"}]}}),
                ),
                (
                    "shop/balanced",
                    json!({"spec": {"type": "LoadBalancer", "ports": [{"port": 80, "protocol": "TCP"}]}}),
                ),
                (
                    "shop/named",
                    json!({"metadata": {"annotations": {"external-dns.alpha.kubernetes.io/hostname": "shop.example.com"}}, "spec": {"ports": [{"port": 80, "protocol": "TCP"}]}}),
                ),
            ],
        ),
        (
            "core/v1/secrets Secret",
            &[
                ("shop/sh.helm.release.v1.web.v1", helm),
                ("shop/kbak-writer", json!({"data": {"nightly": "eyJrYmFrIjogIndyaXRlciBrZXkifQ=="}})),
                (
                    "shop/kbak-epoch",
                    json!({"data": {"writer.key.epoch": "eyJrYmFrIjogImVwb2NoIHNlY3JldCJ9"}}),
                ),
                ("shop/other-writer", json!({"data": {"writer.key": "eyJwZW4iOiAieCJ9"}})),
            ],
        ),
        (
            "core/v1/pods Pod",
            &[("shop/plain", pod(json!({}))), ("shop/root", pod(json!({"hostNetwork": true})))],
        ),
        (
            "batch/v1/cronjobs CronJob",
            &[("shop/night", cron("docker.io/a:1")), ("shop/backup", cron("ghcr.io/x/kbak:1"))],
        ),
        (
            "batch/v1/jobs Job",
            &[(
                "shop/once",
                json!({"spec": {"template": template("docker.io/a:1"), "selector": {"matchLabels": {"controller-uid": "1"}}}}),
            )],
        ),
        (
            "networking.k8s.io/v1/ingresses Ingress",
            &[(
                "shop/web",
                json!({"spec": {"rules": [{"host": "shop.example.com"}], "defaultBackend": backend}}),
            )],
        ),
        (
            "rbac.authorization.k8s.io/v1/rolebindings RoleBinding",
            &[(
                "shop/r",
                json!({
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "ServiceAccount", "name": "a", "namespace": "shop"}]}),
            )],
        ),
    ])
}

fn pairs(from: &str, to: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(from.to_owned(), to.to_owned())])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_has_no_side_effects_unless_released() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    let held = backup();
    let uid =
        get(&target, "/api/v1/namespaces/kube-system").await["metadata"]["uid"].as_str().map(str::to_owned);
    let base = RestoreConfig {
        allow: BTreeSet::from([Permission::Rbac]),
        waits: WaitLimits { max_idle_rounds: 0, ..WaitLimits::default() },
        cluster_uid: uid,
        ..RestoreConfig::default()
    };

    // In its own cluster nothing is held back, and GitOps restores its own objects.
    let (own, decided) = plan(&target, &held, &base, false).await;
    assert!(!own.foreign);
    assert_eq!(decided["Ingress/shop/web"].action, Action::Create);
    assert_eq!(decided["ConfigMap/shop/git"].action, Action::Skip(Skip::Git(GitTool::ArgoCd)));
    assert_eq!(
        decided["ConfigMap/shop/copied"].action,
        Action::Create,
        "Argo CD does not take it for its own"
    );
    assert_eq!(decided["ConfigMap/shop/flux"].action, Action::Skip(Skip::Git(GitTool::Flux)));
    assert_eq!(decided["Secret/shop/kbak-writer"].action, Action::Skip(Skip::OwnKeys));
    assert_eq!(decided["Secret/shop/kbak-epoch"].action, Action::Skip(Skip::OwnKeys));
    assert_eq!(decided["Secret/shop/other-writer"].action, Action::Create, "others call a key so, too");
    assert_eq!(decided["Pod/shop/root"].action, Action::Refuse(Permission::Privileged));
    let drops = |changes: &[kbak::target::kubernetes::Change]| {
        changes.iter().any(|change| change.to_string() == "spec.ports.nodePort dropped")
    };
    assert!(!drops(&decided["Service/shop/web"].changes), "somebody chose it");
    let suspended =
        |name: &str| decided[name].changes.iter().any(|change| change.to_string().starts_with("suspended"));
    assert!(!suspended("CronJob/shop/night") && suspended("CronJob/shop/backup"), "kbak's own never run");
    let all = RestoreConfig { scope: Some(Scope::All), ..base.clone() };
    assert_eq!(plan(&target, &held, &all, false).await.1["ConfigMap/shop/git"].action, Action::Create);
    // In another cluster all of it is held back, unless the restore is a takeover.
    let other = RestoreConfig { cluster_uid: Some("another".into()), ..base.clone() };
    let (foreign, decided) = plan(&target, &held, &other, false).await;
    assert!(foreign.foreign);
    assert_eq!(decided["Ingress/shop/web"].action, Action::Hold(SideEffect::Ingress));
    assert!(drops(&decided["Service/shop/web"].changes), "in a copy it is taken");
    let kept = RestoreConfig { node_ports: true, ..other.clone() };
    assert!(
        !drops(&plan(&target, &held, &kept, false).await.1["Service/shop/web"].changes),
        "said otherwise"
    );
    let takeover = RestoreConfig { takeover: true, ..other };
    assert!(!plan(&target, &held, &takeover, false).await.0.foreign);

    // A copy beside the original.
    let merge = json!({"metadata": {"labels": {"copy": "yes"}}});
    let modifier = Modifier {
        kinds: vec![kbak::plan::Glob::new("configmaps").expect("a glob")],
        merge: Some(merge),
        ..Modifier::default()
    };
    let copy = RestoreConfig {
        mapping: Mapping {
            namespaces: pairs("shop", "shop-test"),
            images: pairs("docker.io/", "mirror.example/"),
            hosts: pairs("example.com", "test.example.com"),
            ..Mapping::default()
        },
        modifiers: vec![modifier],
        ..base
    };
    let (report, outcomes) = restore(&target, &held, &copy).await;
    let report = report.expect("a report");
    assert!(!report.is_whole() && report.failed == 0, "{report:#?}");
    assert_eq!(outcomes["Ingress/shop-test/web"], Outcome::Held(SideEffect::Ingress));
    assert_eq!(outcomes["Service/shop-test/balanced"], Outcome::Held(SideEffect::Loadbalancers));
    assert_eq!(outcomes["Service/shop-test/outside"], Outcome::Held(SideEffect::Loadbalancers));
    assert_eq!(outcomes["Service/shop-test/named"], Outcome::Held(SideEffect::Dns));
    assert_eq!(report.suspended, 3);
    assert!(
        report.warnings.iter().any(|warning| warning.text().contains("helm cannot manage")),
        "{:?}",
        report.warnings
    );
    let at = |path: &str| format!("/{path}").replace("/NS/", "/namespaces/shop-test/");
    let night = get(&target, &at("apis/batch/v1/NS/cronjobs/night")).await;
    assert_eq!(night["spec"]["suspend"], true);
    assert_eq!(
        night.pointer("/spec/jobTemplate/spec/template/spec/containers/0/image"),
        Some(&json!("mirror.example/a:1"))
    );
    assert_eq!(get(&target, &at("apis/batch/v1/NS/jobs/once")).await["spec"]["suspend"], true);
    let git = get(&target, &at("api/v1/NS/configmaps/git")).await;
    assert_eq!(git["metadata"]["labels"], json!({"copy": "yes"}));
    assert_eq!(git["metadata"].get("annotations"), None, "Argo CD deletes what bears its mark");
    let binding = get(&target, &at("apis/rbac.authorization.k8s.io/v1/NS/rolebindings/r")).await;
    assert_eq!(binding["subjects"][0]["namespace"], "shop-test");
    let space = get(&target, "/api/v1/namespaces/shop-test").await;
    assert_eq!(space["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "privileged");

    // The modified object decides: a modifier may add or remove a side effect.
    let merging = |name: &str, merge: Value| Modifier {
        kinds: vec![kbak::plan::Glob::new("services").expect("a glob")],
        names: vec![kbak::plan::Glob::new(name).expect("a glob")],
        merge: Some(merge),
        ..Modifier::default()
    };
    let dns =
        json!({"metadata": {"annotations": {"external-dns.alpha.kubernetes.io/hostname": "a.example"}}});
    for (name, merge, wanted) in [
        ("web", json!({"spec": {"type": "LoadBalancer"}}), Some(SideEffect::Loadbalancers)),
        ("web", json!({"spec": {"externalIPs": ["192.0.2.9"]}}), Some(SideEffect::Loadbalancers)),
        ("web", dns, Some(SideEffect::Dns)),
        ("balanced", json!({"spec": {"type": "ClusterIP"}}), None),
    ] {
        let changed = RestoreConfig { modifiers: vec![merging(name, merge.clone())], ..copy.clone() };
        let action =
            &plan(&target, &held, &changed, false).await.1[&format!("Service/shop-test/{name}")].action;
        match wanted {
            Some(release) => assert_eq!(*action, Action::Hold(release), "{merge}"),
            None => assert!(!matches!(action, Action::Hold(_)), "{action:?} {merge}"),
        }
    }

    // Once released it is restored; an explicit wish to hold it back is also a success.
    let none = RestoreConfig { release: Some(BTreeSet::new()), ..copy.clone() };
    let (report, _) = restore(&target, &held, &none).await;
    let report = report.expect("a report");
    assert_eq!(report.refused.len(), 1, "only what is privileged is missing: {report:#?}");
    let release = RestoreConfig {
        release: Some(SideEffect::ALL.into()),
        allow: BTreeSet::from([Permission::Rbac, Permission::Privileged]),
        existing: Some(kbak::target::kubernetes::ExistingPolicy::Patch),
        ..copy
    };
    let (report, outcomes) = restore(&target, &held, &release).await;
    let report = report.expect("a report");
    assert!(report.is_whole(), "{report:#?}");
    assert_eq!(outcomes["Ingress/shop-test/web"], Outcome::Created);
    let ingress = get(&target, &at("apis/networking.k8s.io/v1/NS/ingresses/web")).await;
    assert_eq!(ingress["spec"]["rules"][0]["host"], "shop.test.example.com");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_collide_after_mapping_are_reported() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    let held = backup_of(&[
        ("-core/v1/namespaces Namespace", &[("a", json!({})), ("b", json!({}))]),
        (
            "core/v1/configmaps ConfigMap",
            &[
                ("a/x", json!({"data": {"of": "a"}})),
                ("b/x", json!({"data": {"of": "b"}})),
                ("b/y", json!({})),
            ],
        ),
        (
            "core/v1/serviceaccounts ServiceAccount",
            &[("a/default", json!({})), ("b/default", json!({"metadata": {"annotations": {"of": "b"}}}))],
        ),
    ]);
    let mut mapping = Mapping { namespaces: pairs("a", "one"), ..Mapping::default() };
    mapping.namespaces.insert("b".into(), "one".into());
    let config = RestoreConfig {
        waits: WaitLimits { max_idle_rounds: 0, ..WaitLimits::default() },
        mapping,
        ..RestoreConfig::default()
    };
    let (planned, decided) = plan(&target, &held, &config, false).await;
    assert_eq!(decided["ServiceAccount/one/default"].action, Action::Create);
    let collides =
        |action: &Action| matches!(action, Action::Conflict(kbak::target::kubernetes::Conflict::Collides));
    assert_eq!(planned.count(collides), 1, "the namespace itself is one, and its account is merged");
    let (_, why) = planned.sums.iter().find(|sum| collides(&sum.action)).expect("a sum").examples[0].clone();
    assert!(why.is_some_and(|why| why.contains("that of namespace b is not restored")));
    let (report, _) = restore(&target, &held, &config).await;
    let report = report.expect("a report");
    assert_eq!((report.created, report.collided, report.is_whole()), (4, 1, false));
    let (lost, outcome) = &report.missing[0];
    assert_eq!((lost.to_string().as_str(), outcome), ("ConfigMap/one/x", &Outcome::Collides("b".into())));
    let account = get(&target, "/api/v1/namespaces/one/serviceaccounts/default").await;
    assert_eq!(account["metadata"]["annotations"]["of"], "b");
    assert_eq!(
        get(&target, "/api/v1/namespaces/one/configmaps/x").await["data"]["of"],
        "a",
        "the first one is restored"
    );
    // Without ConfigMaps all objects are restored, in each run.
    let rest =
        RestoreConfig { exclude_kinds: vec![kbak::plan::Glob::new("configmaps").expect("a glob")], ..config };
    for _ in 0..2 {
        let (report, _) = restore(&target, &held, &rest).await;
        assert!(report.as_ref().is_ok_and(RestoreReport::is_whole), "{report:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_in_another_cluster_leaves_the_storage_of_the_original_alone() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    create_namespace(&target, "shop").await;
    let volume = |source: &str, more: Value| {
        let mut spec = json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Delete", "claimRef": {"namespace": "shop", "name": source}});
        spec[source] = more;
        json!({ "spec": spec })
    };
    let affinity = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}});
    let mut local = volume("local", json!({"path": "/d"}));
    local["spec"]["nodeAffinity"] = affinity;
    let claim = json!({"spec": {"accessModes": ["ReadWriteOnce"], "volumeName": "disk", "resources": {"requests": {"storage": "1Gi"}}}});
    let held = backup_of(&[
        (
            "-core/v1/persistentvolumes PersistentVolume",
            &[
                ("disk", volume("csi", json!({"driver": "csi.demo.kbak.dev", "volumeHandle": "production"}))),
                ("here", local),
            ],
        ),
        ("core/v1/persistentvolumeclaims PersistentVolumeClaim", &[("shop/csi", claim)]),
    ]);
    let config = |release: Option<SideEffect>| RestoreConfig {
        release: release.map(|one| [one].into()),
        waits: WaitLimits { max_idle_rounds: 0, ..WaitLimits::default() },
        ..RestoreConfig::default()
    };
    let (planned, _) = plan(&target, &held, &config(None), false).await;
    let (report, outcomes) = restore(&target, &held, &config(None)).await;
    let report = report.expect("a report");
    assert_eq!((planned.is_whole(), report.is_whole()), (false, false), "{report:#?}");
    assert_eq!(outcomes["PersistentVolume/disk"], Outcome::Held(SideEffect::Volumes));
    assert_eq!(
        outcomes["PersistentVolume/here"],
        Outcome::Created,
        "a node's own folder is no shared storage"
    );
    let (claim, why) = &report.unfinished[0];
    assert_eq!(
        (claim.to_string().as_str(), why.reason.as_str()),
        ("PersistentVolumeClaim/shop/csi", "NoData")
    );

    // Released, the volume comes, and no claim can delete its storage.
    let (_, outcomes) = restore(&target, &held, &config(Some(SideEffect::Volumes))).await;
    assert_eq!(outcomes["PersistentVolume/disk"], Outcome::Created);
    let found = get(&target, "/api/v1/persistentvolumes/disk").await;
    assert_eq!(found["spec"]["persistentVolumeReclaimPolicy"], "Retain");
    assert_eq!(found["spec"]["csi"]["volumeHandle"], "production");

    // A cluster that takes the place of the other gets its volumes as they were.
    patch(&target, "/api/v1/persistentvolumes/disk", json!({"metadata": {"finalizers": null}})).await;
    delete(&target, "/api/v1/persistentvolumes/disk").await;
    let takeover = RestoreConfig { takeover: true, ..config(None) };
    let (_, outcomes) = restore(&target, &held, &takeover).await;
    assert_eq!(outcomes["PersistentVolume/disk"], Outcome::Created);
    let found = get(&target, "/api/v1/persistentvolumes/disk").await;
    assert_eq!(found["spec"]["persistentVolumeReclaimPolicy"], "Delete");
}
