//! A restore in place: existing objects, changed objects, and objects that only the cluster has.

use kbak::kubernetes::Cluster;
use kbak::target::kubernetes::{Action, ExistingPolicy, Outcome, Permission, RestoreConfig, WaitLimits};
use serde_json::{Value, json};

use crate::support::backup_builder::{backup_of, backup_uid, plan, restore};
use crate::support::control_plane::{ControlPlane, create, get, patch};
use crate::support::memory_backup::{MemoryBackup, create_namespace};

fn config() -> RestoreConfig {
    RestoreConfig {
        takeover: true,
        waits: WaitLimits { max_idle_rounds: 0, ..WaitLimits::default() },
        ..RestoreConfig::default()
    }
}

/// Returns the outcome of the last object, after checking that plan and restore agree.
async fn restore_one(target: &Cluster, held: &MemoryBackup, config: &RestoreConfig) -> Outcome {
    let (_, decided) = plan(target, held, config, false).await;
    let (report, outcomes) = restore(target, held, config).await;
    report.expect("a report");
    for (name, decision) in &decided {
        let agree = matches!(
            (&decision.action, &outcomes[name]),
            (Action::Create, Outcome::Created)
                | (Action::Leave, Outcome::Existed)
                | (Action::Patch, Outcome::Patched)
                | (Action::Replace, Outcome::Replaced)
                | (Action::Refuse(_), Outcome::Refused(_))
                | (Action::Conflict(_), Outcome::Differs)
        );
        assert!(agree, "{name}: {:?} became {:?}", decision.action, outcomes[name]);
    }
    outcomes.into_values().next_back().expect("an object")
}

/// Returns the object at `path` as a backup holds it.
async fn backed_up(target: &Cluster, kind: &str, path: &str) -> MemoryBackup {
    let object = get(target, path).await;
    let mut held = backup_of(&[(kind, &[])]);
    held.kinds[0].1 = vec![format!("{object}\n").into()];
    held
}

async fn modify_as_another_manager(target: &Cluster, path: &str, with: Value) {
    let body = with.to_string().into();
    let query = "fieldManager=somebody";
    target
        .send(http::Method::PATCH, path, query, "application/merge-patch+json", body)
        .await
        .expect("patched");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn added_fields_are_differences_and_are_removed() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    create_namespace(&target, "shop").await;
    let policies = "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies";
    create(
        &target,
        policies,
        json!({"metadata": {"name": "deny"}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}),
    )
    .await;
    let services = "/api/v1/namespaces/shop/services";
    let service = json!({"metadata": {"name": "web"}, "spec": {"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80}]}});
    create(&target, services, service).await;
    let container = json!({"name": "a", "image": "a"});
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}});
    let deployment = json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template}});
    let deployments = "/apis/apps/v1/namespaces/shop/deployments";
    create(&target, deployments, deployment).await;
    let pods = "/api/v1/namespaces/shop/pods";
    create(&target, "/api/v1/namespaces/shop/serviceaccounts", json!({"metadata": {"name": "default"}}))
        .await;
    create(&target, pods, json!({"metadata": {"name": "lone"}, "spec": {"containers": [container]}})).await;

    let open = json!({"spec": {"ingress": [{}]}});
    let away = json!({"spec": {"selector": {"x": "y"}, "externalIPs": ["203.0.113.9"]}});
    let evil = json!({"spec": {"template": {"spec": {"hostNetwork": true}}}});
    let cases = [
        ("networking.k8s.io/v1/networkpolicies NetworkPolicy", format!("{policies}/deny"), Some(open)),
        ("core/v1/services Service", format!("{services}/web"), Some(away)),
        ("apps/v1/deployments Deployment", format!("{deployments}/web"), Some(evil)),
        ("core/v1/pods Pod", format!("{pods}/lone"), None),
    ];
    for (kind, path, change) in cases {
        let held = backed_up(&target, kind, &path).await;
        let replace = RestoreConfig { existing: Some(ExistingPolicy::Replace), ..config() };
        for untouched in [&config(), &replace] {
            assert_eq!(restore_one(&target, &held, untouched).await, Outcome::Existed, "{path}");
        }
        let Some(change) = change else { continue };
        let before = get(&target, &path).await["spec"].clone();
        modify_as_another_manager(&target, &path, change).await;
        assert_eq!(restore_one(&target, &held, &config()).await, Outcome::Differs, "{path}");
        assert_eq!(restore_one(&target, &held, &replace).await, Outcome::Replaced, "{path}");
        assert_eq!(get(&target, &path).await["spec"], before, "{path}");
        assert_eq!(restore_one(&target, &held, &replace).await, Outcome::Existed, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn existing_equal_objects_are_not_created_again() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    create_namespace(&target, "shop").await;
    let maps = "/api/v1/namespaces/shop/configmaps";
    create(&target, maps, json!({"metadata": {"name": "a"}, "data": {"a": "1"}})).await;
    // An exhausted quota would refuse a create before any other check does.
    let quotas = "/api/v1/namespaces/shop/resourcequotas";
    let hard = json!({"configmaps": "1"});
    create(&target, quotas, json!({"metadata": {"name": "q"}, "spec": {"hard": hard}})).await;
    patch(&target, &format!("{quotas}/q/status"), json!({"status": {"hard": hard, "used": hard}})).await;
    let held = backed_up(&target, "core/v1/configmaps ConfigMap", &format!("{maps}/a")).await;
    assert_eq!(restore_one(&target, &held, &config()).await, Outcome::Existed);

    // An existing object needs no allowance.
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/roles";
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    create(&target, roles, json!({"metadata": {"name": "r"}, "rules": rules})).await;
    let role = format!("{roles}/r");
    let held = backed_up(&target, "rbac.authorization.k8s.io/v1/roles Role", &role).await;
    assert_eq!(restore_one(&target, &held, &config()).await, Outcome::Existed);
    let wider = json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], "resourceNames": ["a"]}]});
    modify_as_another_manager(&target, &role, wider).await;
    assert_eq!(restore_one(&target, &held, &config()).await, Outcome::Refused(Permission::Rbac));

    // The controller's token stays: it is not in the backup.
    create(&target, "/api/v1/namespaces/shop/serviceaccounts", json!({"metadata": {"name": "ci"}})).await;
    let secrets = "/api/v1/namespaces/shop/secrets";
    let token = json!({"metadata": {"name": "ci", "annotations": {"kubernetes.io/service-account.name": "ci"}}, "type": "kubernetes.io/service-account-token"});
    create(&target, secrets, token).await;
    let secret = format!("{secrets}/ci");
    patch(&target, &secret, json!({"data": {"token": "dG9rZW4="}})).await;
    let held = backed_up(&target, "core/v1/secrets Secret", &secret).await;
    let replace = RestoreConfig { existing: Some(ExistingPolicy::Replace), ..config() };
    assert_eq!(restore_one(&target, &held, &replace).await, Outcome::Existed);
    assert_eq!(get(&target, &secret).await["data"]["token"], "dG9rZW4=");

    // A running CronJob here goes on, although the cluster's identity is unknown.
    let job = json!({"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]}}});
    let jobs = "/apis/batch/v1/namespaces/shop/cronjobs";
    let cron =
        json!({"metadata": {"name": "c"}, "spec": {"schedule": "0 0 * * *", "jobTemplate": {"spec": job}}});
    create(&target, jobs, cron).await;
    let cron = format!("{jobs}/c");
    let held = backed_up(&target, "batch/v1/cronjobs CronJob", &cron).await;
    let unknown = RestoreConfig { takeover: false, existing: Some(ExistingPolicy::Replace), ..config() };
    assert_eq!(restore_one(&target, &held, &unknown).await, Outcome::Existed);
    modify_as_another_manager(&target, &cron, json!({"spec": {"schedule": "1 1 * * *"}})).await;
    assert_eq!(restore_one(&target, &held, &unknown).await, Outcome::Replaced);
    let spec = get(&target, &cron).await["spec"].clone();
    assert_eq!((&spec["suspend"], &spec["schedule"]), (&json!(false), &json!("0 0 * * *")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn existing_owners_are_found_by_name() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    create_namespace(&target, "shop").await;
    let maps = "/api/v1/namespaces/shop/configmaps";
    let owner = create(&target, maps, json!({"metadata": {"name": "owner"}})).await;
    let reference =
        |name: &str, uid: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid});
    let owners = json!([
        reference("owner", &backup_uid("ConfigMap", "owner")),
        reference("gone", &backup_uid("ConfigMap", "gone"))
    ]);
    let child = json!({"metadata": {"ownerReferences": owners}});
    // The restored entry of an apply manager replaces the server's entry for the restore.
    let fields = json!({"f:data": {"f:a": {}}});
    let argo = json!({"manager": "argo", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields});
    let applied =
        json!({"data": {"a": "1"}, "metadata": {"ownerReferences": [owners[1]], "managedFields": [argo]}});
    let held = backup_of(&[(
        "core/v1/configmaps ConfigMap",
        &[("shop/child", child), ("shop/applied", applied.clone()), ("shop/adopted", applied)],
    )]);
    let (planned, _) = plan(&target, &held, &config(), false).await;
    assert_eq!(planned.owners_lost, 3);
    let (report, _) = restore(&target, &held, &config()).await;
    let report = report.expect("a report");
    assert_eq!((report.created, report.relinked, report.owners_lost), (3, 1, 3));
    let of = async |name: &str| get(&target, &format!("{maps}/{name}")).await["metadata"].clone();
    assert_eq!(of("child").await["ownerReferences"][0]["uid"], owner["metadata"]["uid"]);

    // Once the other owner exists, dependents without it get it, unless they have a new owner.
    let gone = create(&target, maps, json!({"metadata": {"name": "gone"}})).await;
    let adopter = reference("owner", owner["metadata"]["uid"].as_str().expect("a UID"));
    patch(&target, &format!("{maps}/adopted"), json!({"metadata": {"ownerReferences": [adopter]}})).await;
    let (report, _) = restore(&target, &held, &config()).await;
    let report = report.expect("a report");
    assert_eq!((report.existed, report.differing, report.relinked), (2, 1, 2), "{report:#?}");
    assert_eq!(report.owners_lost, 0);
    let (child, applied) = (of("child").await, of("applied").await);
    assert_eq!(child["ownerReferences"][1]["uid"], gone["metadata"]["uid"]);
    assert_eq!(applied["ownerReferences"][0]["uid"], gone["metadata"]["uid"]);
    assert_eq!(of("adopted").await["ownerReferences"][0]["uid"], owner["metadata"]["uid"]);
    assert!(applied["managedFields"].to_string().contains("argo"), "{applied}");
    let (report, _) = restore(&target, &held, &config()).await;
    assert_eq!(report.expect("a report").relinked, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn released_volume_is_bound_to_its_claim_again() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    create_namespace(&target, "shop").await;
    let volumes = "/api/v1/persistentvolumes";
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "shop", "name": "data", "uid": "gone"});
    let size = json!({"storage": "1Gi"});
    let spec = json!({"capacity": size, "accessModes": ["ReadWriteOnce"], "claimRef": claim, "persistentVolumeReclaimPolicy": "Retain",
        "nfs": {"server": "10.0.0.1", "path": "/data"}});
    create(&target, volumes, json!({"metadata": {"name": "pv"}, "spec": spec})).await;
    let path = format!("{volumes}/pv");
    patch(&target, &format!("{path}/status"), json!({"status": {"phase": "Released"}})).await;
    let bound = json!({"spec": {"accessModes": ["ReadWriteOnce"], "volumeName": "pv", "resources": {"requests": size}}});
    let both = backup_of(&[(
        "core/v1/persistentvolumeclaims PersistentVolumeClaim",
        &[("shop/data", bound.clone())],
    )]);

    let (report, outcomes) = restore(&target, &both, &config()).await;
    let report = report.expect("a report");
    assert_eq!(outcomes["PersistentVolumeClaim/shop/data"], Outcome::Created);
    assert!(!report.is_whole() && report.unfinished[0].1.reason == "VolumeReleased", "{report:?}");
    let (report, outcomes) = restore(&target, &both, &config()).await;
    assert_eq!(outcomes["PersistentVolumeClaim/shop/data"], Outcome::Existed);
    assert!(!report.expect("a report").is_whole(), "it is not bound now either");

    let held = backed_up(&target, "-core/v1/persistentvolumes PersistentVolume", &path).await;
    assert_eq!(
        restore_one(&target, &held, &config()).await,
        Outcome::Differs,
        "it waits for a claim that is gone"
    );
    let patch = RestoreConfig { existing: Some(ExistingPolicy::Patch), ..config() };
    assert_eq!(restore_one(&target, &held, &patch).await, Outcome::Patched);
    let claim = get(&target, &path).await["spec"]["claimRef"].clone();
    assert_eq!((&claim["name"], &claim["uid"]), (&json!("data"), &Value::Null));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_never_gets_the_volume_of_a_live_claim() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let target = plane.cluster().await;
    create_namespace(&target, "shop").await;
    create_namespace(&target, "copy").await;
    let size = json!({"storage": "1Gi"});
    let bound = json!({"spec": {"accessModes": ["ReadWriteOnce"], "volumeName": "pv", "resources": {"requests": size}}});
    let claims = "/api/v1/namespaces/shop/persistentvolumeclaims";
    let live = create(&target, claims, json!({"metadata": {"name": "data"}, "spec": bound["spec"]})).await;
    let reference = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "shop", "name": "data", "uid": live["metadata"]["uid"]});
    let spec = json!({"capacity": size, "accessModes": ["ReadWriteOnce"], "claimRef": reference, "persistentVolumeReclaimPolicy": "Retain",
        "nfs": {"server": "10.0.0.1", "path": "/data"}});
    let volumes = "/api/v1/persistentvolumes";
    create(&target, volumes, json!({"metadata": {"name": "pv"}, "spec": spec})).await;
    let path = format!("{volumes}/pv");
    patch(&target, &format!("{path}/status"), json!({"status": {"phase": "Bound"}})).await;
    let before = get(&target, &path).await["spec"].clone();

    let mut held = backed_up(&target, "-core/v1/persistentvolumes PersistentVolume", &path).await;
    let claims =
        backup_of(&[("core/v1/persistentvolumeclaims PersistentVolumeClaim", &[("shop/data", bound)])]);
    held.kinds.extend(claims.kinds.clone());
    for existing in [None, Some(ExistingPolicy::Patch), Some(ExistingPolicy::Replace)] {
        let mut copy = RestoreConfig { existing, ..config() };
        copy.mapping.namespaces.insert("shop".into(), "copy".into());
        for asks_server in [false, true] {
            let (foreseen, _) = plan(&target, &held, &copy, asks_server).await;
            assert!(!foreseen.is_whole(), "{existing:?}: {foreseen:#?}");
            assert!(foreseen.refused.is_empty(), "the server does not refuse it: {foreseen:#?}");
            let conflict = foreseen.sums.iter().find(|sum| matches!(sum.action, Action::Conflict(_)));
            let (_, why) = &conflict.expect("a conflict").examples[0];
            assert!(why.as_deref().is_some_and(|why| why.starts_with("VolumeInUse")), "{why:?}");
        }
        let (report, outcomes) = restore(&target, &held, &copy).await;
        let report = report.expect("a report");
        assert!(!report.is_whole(), "{existing:?}");
        let Outcome::Failed(refusal) = &outcomes["PersistentVolume/pv"] else {
            panic!("{existing:?}: {outcomes:?}")
        };
        assert_eq!(refusal.reason, "VolumeInUse");
        assert!(refusal.message.contains("shop/data") && refusal.message.contains("copy/data"), "{refusal}");
        assert!(report.unfinished.iter().all(|(_, why)| !why.message.contains("--object")), "{report:?}");
        assert_eq!(get(&target, &path).await["spec"], before, "{existing:?}");
    }
}
