//! Objects that exist before a restore, or after an interrupted one.

use std::time::Duration;

use serde_json::{Value, json};

use super::case_runner::CaseContext;
use super::{WEBHOOKS, core, exists, map, namespace, webhook};
use crate::support::control_plane::{create, get};

/// Velero has no dry run of a restore.
pub async fn vl448_dry_run_prints_the_plan_and_makes_no_change(mut case: CaseContext) {
    namespace(&case.source, "vl448", json!({})).await;
    create(&case.source, &core("vl448", "configmaps"), map("shown", json!({"a": "b"}))).await;
    case.wait_for_backup().await;

    let run = case.restore(&["--namespace", "vl448", "--dry-run"]).await.ended(0);
    assert!(run.stdout.contains("ConfigMap 1"), "{}", run.all_output());
    let hash = run.stdout.split("hash ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let hash = hash.expect("a hash").to_owned();
    assert!(!exists(&case.target, "/api/v1/namespaces/vl448").await);
    // A shown plan can be required by its hash.
    case.restore(&["--namespace", "vl448", "--plan-hash", "0123456789abcdef"]).await.ended(2);
    assert!(!exists(&case.target, "/api/v1/namespaces/vl448").await);
    case.restore(&["--namespace", "vl448", "--plan-hash", &hash]).await.ended(0);
    get(&case.target, &core("vl448", "configmaps/shown")).await;
}

/// Velero's restore is permanently failed when its pod restarts.
pub async fn vl4503_killed_restore_resumes(mut case: CaseContext) {
    namespace(&case.source, "vl4503", json!({})).await;
    let maps = core("vl4503", "configmaps");
    // The owner is last by name: when the run is killed, no owner has been set.
    let root = create(&case.source, &maps, map("z-owner", json!({}))).await;
    let owner = |of: &Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "z-owner", "uid": of["metadata"]["uid"]});
    for number in 0..400 {
        let mut object = map(&format!("m{number:03}"), json!({"n": number.to_string()}));
        object["metadata"]["labels"] = json!({"judged-by": "vl4503"});
        object["metadata"]["ownerReferences"] = json!([owner(&root)]);
        create(&case.source, &maps, object).await;
    }
    let client = case.webhooks().client("/admit/vl4503");
    create(&case.target, WEBHOOKS, webhook("vl4503", client, "", "configmaps")).await;
    case.wait_for_backup().await;

    let mut run = case.start_restore(&["--namespace", "vl4503"]);
    while case.webhooks().requests("/admit/vl4503") < 40 {
        assert!(run.try_wait().expect("a state").is_none(), "it ended early");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    run.kill().await.expect("killed");
    let left = get(&case.target, &format!("{maps}?labelSelector=judged-by")).await;
    let left = left["items"].as_array().expect("items").len();
    assert!((1..400).contains(&left), "{left} objects existed when the restore was killed");

    case.restore(&["--namespace", "vl4503"]).await.ended(0);
    let root = get(&case.target, &format!("{maps}/z-owner")).await;
    let found = get(&case.target, &format!("{maps}?labelSelector=judged-by")).await;
    let found = found["items"].as_array().expect("items").clone();
    assert_eq!(found.len(), 400);
    for object in found {
        assert_eq!(
            object["metadata"]["ownerReferences"],
            json!([owner(&root)]),
            "{}",
            object["metadata"]["name"]
        );
    }
}

/// Velero keeps existing objects or patches them by best effort, and never reports differences.
pub async fn vl6142_vl9925_vl10014_vl10104_existing_objects_are_changed_only_on_request(
    mut case: CaseContext,
) {
    namespace(&case.source, "vl6142", json!({})).await;
    let maps = core("vl6142", "configmaps");
    create(&case.source, &maps, map("changed", json!({"a": "old", "gone": "1"}))).await;
    create(&case.source, &maps, map("same", json!({"a": "same"}))).await;
    namespace(&case.target, "vl6142", json!({})).await;
    create(&case.target, &maps, map("changed", json!({"a": "new", "more": "1"}))).await;
    create(&case.target, &maps, map("same", json!({"a": "same"}))).await;
    case.wait_for_backup().await;
    let only = ["--namespace", "vl6142", "--kind", "configmaps"];
    let data = async || get(&case.target, &format!("{maps}/changed")).await["data"].clone();

    // By default it is kept, and the run reports the difference.
    let run = case.restore(&only).await.ended(3);
    let gaps = run.gaps();
    let [(code, _, reason)] = gaps.as_slice() else { panic!("{}", run.all_output()) };
    assert_eq!(code, "differs");
    assert!(reason.contains("vl6142/changed"), "{reason}");
    assert_eq!(data().await, json!({"a": "new", "more": "1"}));
    case.restore(&[&only[..], &["--existing", "skip"]].concat()).await.ended(0);
    assert_eq!(data().await, json!({"a": "new", "more": "1"}));
    case.restore(&[&only[..], &["--existing", "patch"]].concat()).await.ended(0);
    assert_eq!(data().await, json!({"a": "old", "gone": "1", "more": "1"}));
    case.restore(&[&only[..], &["--existing", "replace"]].concat()).await.ended(0);
    assert_eq!(data().await, json!({"a": "old", "gone": "1"}));
}
