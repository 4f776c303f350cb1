//! A plan decides for every object before any write, and the restore does the same.

use kbak::plan::Glob;
use kbak::target::kubernetes::{
    Action, Conflict, Derived, Grade, ObjectName, Outcome, Permission, RefusalCause, RestoreConfig, Skip,
    Wait, WaitLimits,
};
use serde_json::{Value, json};

use crate::support::backup_builder::{backup_of, plan, restore};
use crate::support::control_plane::{ControlPlane, create, get};
use crate::support::memory_backup::{MemoryBackup, config_map, create_namespace};

fn definition() -> Value {
    json!({"spec": {"group": "demo.kbak.dev", "scope": "Namespaced", "names": {"plural": "pears", "kind": "Pear"},
        "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {"count": {"type": "integer"}}},
                "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}]}})
}

fn backup() -> MemoryBackup {
    let role = json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]});
    let service = json!({"spec": {"type": "ClusterIP", "clusterIP": "10.9.9.9", "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]}});
    let pod = json!({"spec": {"containers": [{"name": "a", "image": "a:1"}]}});
    let mut owned = pod.clone();
    owned["metadata"] = json!({"ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "1", "controller": true}]});
    backup_of(&[
        ("-core/v1/namespaces Namespace", &[("shop", json!({})), ("new", json!({}))]),
        (
            "core/v1/configmaps ConfigMap",
            &[
                ("shop/same", json!({"data": {"value": "1"}})),
                ("shop/other", json!({"data": {"value": "1"}})),
                ("new/fresh", json!({"data": {"value": "1"}})),
                ("shop/kube-root-ca.crt", json!({"data": {"ca.crt": "x"}})),
            ],
        ),
        ("core/v1/services Service", &[("shop/web", service)]),
        ("core/v1/pods Pod", &[("shop/bare", pod), ("shop/owned", owned)]),
        ("rbac.authorization.k8s.io/v1/roles Role", &[("shop/r", role)]),
        (
            "-apiextensions.k8s.io/v1/customresourcedefinitions CustomResourceDefinition",
            &[("pears.demo.kbak.dev", definition())],
        ),
        (
            "demo.kbak.dev/v1/pears Pear",
            &[
                ("shop/good", json!({"spec": {"count": 1}})),
                ("shop/odd", json!({"spec": {"count": 1, "typo": 2}})),
            ],
        ),
        ("gone.example/v1/plums Plum", &[("shop/p", json!({}))]),
        ("storage.k8s.io/v1/csistoragecapacities CSIStorageCapacity", &[("shop/c", json!({}))]),
        ("longhorn.io/v1beta2/replicas Replica", &[("longhorn-system/r", json!({}))]),
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restore_does_what_its_plan_decided() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    create_namespace(&target, "shop").await;
    create(&target, "/api/v1/namespaces/shop/configmaps", config_map("same", "1")).await;
    create(&target, "/api/v1/namespaces/shop/configmaps", config_map("other", "2")).await;
    let before = get(&target, "/api/v1/configmaps").await["items"].as_array().expect("a list").len();
    let held = backup();

    let config = RestoreConfig {
        waits: WaitLimits { max_idle_rounds: 0, ..WaitLimits::default() },
        takeover: true,
        ..RestoreConfig::default()
    };
    let (first, decided) = plan(&target, &held, &config, false).await;
    let action = |name: &str| decided[name].action.clone();
    assert_eq!(action("Namespace/shop"), Action::Leave);
    assert_eq!(action("Namespace/new"), Action::Create);
    assert_eq!(action("ConfigMap/shop/same"), Action::Leave);
    assert_eq!(action("ConfigMap/shop/other"), Action::Conflict(Conflict::Differs));
    assert_eq!(action("ConfigMap/new/fresh"), Action::Create);
    assert_eq!(action("ConfigMap/shop/kube-root-ca.crt"), Action::Skip(Skip::Derived(Derived::Default)));
    assert_eq!(action("Pod/shop/owned"), Action::Skip(Skip::Derived(Derived::Controlled)));
    assert_eq!(action("Pod/shop/bare"), Action::Create);
    assert_eq!(action("Role/shop/r"), Action::Refuse(Permission::Rbac));
    assert_eq!(action("CustomResourceDefinition/pears.demo.kbak.dev"), Action::Refuse(Permission::Crds));
    assert_eq!(action("Pear/shop/good"), Action::Conflict(Conflict::Unserved), "its definition is refused");
    assert_eq!(action("Plum/shop/p"), Action::Conflict(Conflict::Unserved));
    assert!(matches!(action("Replica/longhorn-system/r"), Action::Skip(Skip::Infrastructure(_))));
    let service: Vec<String> = decided["Service/shop/web"].changes.iter().map(ToString::to_string).collect();
    assert_eq!(service, ["spec.clusterIP dropped"]);

    // The same input gives the same plan hash; another allowance does not.
    let (second, _) = plan(&target, &held, &config, false).await;
    assert_eq!(first.hash, second.hash);
    let config = RestoreConfig { allow: Permission::ALL.into(), ..config };
    let (allowed, decided) = plan(&target, &held, &config, true).await;
    assert_ne!(first.hash, allowed.hash);
    assert_eq!(decided["Role/shop/r"].grade, Grade::DryRun);
    assert_eq!(decided["ConfigMap/new/fresh"].grade, Grade::BlockedBy(Wait::Namespace("new".into())));
    assert_eq!(decided["ConfigMap/new/fresh"].waits, [], "namespace order is implied");
    assert_eq!(decided["Pear/shop/good"].action, Action::Create);
    let definition = Wait::Definition("pears.demo.kbak.dev".into());
    assert_eq!(decided["Pear/shop/good"].grade, Grade::BlockedBy(definition.clone()));
    assert_eq!(decided["Pear/shop/good"].waits, [definition]);
    let (client, _) = plan(&target, &held, &config, false).await;
    assert_eq!(client.hash, allowed.hash, "who was asked is not part of what is done");
    let json = serde_json::to_value(&decided["Service/shop/web"]).expect("JSON");
    assert_eq!(
        (&json["resource"], &json["action"], &json["grade"]),
        (&json!("services"), &json!("create"), &json!("dry-run"))
    );
    let after = get(&target, "/api/v1/configmaps").await["items"].as_array().expect("a list").len();
    assert_eq!(before, after, "planning makes no write");

    let (report, outcomes) = restore(&target, &held, &config).await;
    let report = report.expect("a report");
    assert!(!report.is_whole());
    assert_eq!((report.differing, report.unserved.get("plums.gone.example")), (1, Some(&1)));
    assert_eq!(report.failed, 0, "{:#?}", report.failures);
    for (name, decision) in &decided {
        let fits = match (&decision.action, &outcomes[name]) {
            (Action::Create, Outcome::Created) | (Action::Leave, Outcome::Existed) => true,
            (Action::Skip(a), Outcome::Skipped(b)) => a == b,
            (Action::Conflict(Conflict::Differs), Outcome::Differs) => true,
            (Action::Conflict(Conflict::Unserved), Outcome::Unserved) => true,
            _ => false,
        };
        assert!(fits, "{name}: {:?} became {:?}", decision.action, outcomes[name]);
    }
    // Strict validation names the field that the server would silently drop.
    target
        .send(
            http::Method::DELETE,
            "/apis/demo.kbak.dev/v1/namespaces/shop/pears/odd",
            "",
            "application/json",
            "{}".into(),
        )
        .await
        .expect("deleted");
    let (_, decided) = plan(&target, &held, &config, true).await;
    let odd = &decided["Pear/shop/odd"];
    let refusal = odd.refusal.as_ref().expect("a refusal");
    assert_eq!(
        (odd.grade.clone(), refusal.fields.as_slice()),
        (Grade::Refused, &["spec.typo".to_owned()][..])
    );
    // A second run continues: its own objects are recognised.
    let (again, _) = restore(&target, &held, &config).await;
    assert_eq!(again.expect("a report").created, 1);

    // Only one object, with its namespace.
    let glob = |text: &str| Glob::new(text).expect("a glob");
    let one = ObjectName { resource: glob("configmaps"), namespace: Some(glob("lone")), name: glob("b") };
    let held = backup_of(&[
        ("-core/v1/namespaces Namespace", &[("lone", json!({})), ("else", json!({}))]),
        (
            "core/v1/configmaps ConfigMap",
            &[("lone/a", json!({})), ("lone/b", json!({})), ("else/b", json!({}))],
        ),
    ]);
    let config = RestoreConfig { objects: vec![one], ..config };
    let (report, outcomes) = restore(&target, &held, &config).await;
    assert!(report.expect("a report").is_whole());
    assert_eq!(outcomes.keys().collect::<Vec<_>>(), ["ConfigMap/lone/b", "Namespace/lone"]);
    // Selection by labels.
    let held = backup_of(&[(
        "core/v1/configmaps ConfigMap",
        &[
            ("lone/x", json!({"metadata": {"labels": {"app": "web"}}})),
            ("lone/y", json!({"metadata": {"labels": {"app": "db"}}})),
            ("missing/z", json!({"metadata": {"labels": {"app": "web"}}})),
        ],
    )]);
    let labels = Some("app=web".parse().expect("a selector"));
    let config = RestoreConfig { objects: Vec::new(), labels, ..config };
    let (report, outcomes) = restore(&target, &held, &config).await;
    assert_eq!(outcomes.get("ConfigMap/lone/x"), Some(&Outcome::Created));
    assert!(!outcomes.contains_key("ConfigMap/lone/y"));
    let (object, refusal) = &report.expect("a report").failures[0];
    assert_eq!(
        (object.to_string().as_str(), refusal.cause),
        ("ConfigMap/missing/z", RefusalCause::NoNamespace)
    );
}
