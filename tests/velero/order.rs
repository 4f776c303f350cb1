//! The order in which objects are created, and the speed.

use serde_json::json;

use super::case_runner::CaseContext;
use super::{DEFINITIONS, WEBHOOKS, core, custom, custom_path, definition, map, namespace, webhook};
use crate::support::control_plane::{create, get};
use crate::support::wait::until;

/// Velero creates objects one after another, some ten a second. Here a webhook admits no object
/// until eight requests are open at once.
pub async fn vl487_vl2888_objects_are_created_concurrently(mut case: CaseContext) {
    namespace(&case.source, "vl487", json!({})).await;
    for number in 0..16 {
        let mut object = map(&format!("m{number}"), json!({}));
        object["metadata"]["labels"] = json!({"judged-by": "vl487"});
        create(&case.source, &core("vl487", "configmaps"), object).await;
    }
    let door = case.webhooks().client("/together/8/vl487");
    create(&case.target, WEBHOOKS, webhook("vl487", door, "", "configmaps")).await;
    case.wait_for_backup().await;

    case.restore(&["--namespace", "vl487"]).await.ended(0);
    assert_eq!(case.webhooks().requests("/together/8/vl487"), 16, "each object is sent once");
}

/// Velero took 52 minutes for a read, a create and a patch of each of 31,000 Secrets.
pub async fn vl6845_secret_is_restored_with_one_write(mut case: CaseContext) {
    namespace(&case.source, "vl6845", json!({})).await;
    let mut secrets = Vec::new();
    for number in 0..300 {
        let metadata = json!({"name": format!("s{number:03}"), "labels": {"judged-by": "vl6845"}});
        secrets.push(json!({"metadata": metadata, "stringData": {"number": number.to_string()}}));
    }
    use futures::StreamExt as _;
    let path = core("vl6845", "secrets");
    let made = futures::stream::iter(secrets).map(|secret| create(&case.source, &path, secret));
    made.buffer_unordered(16).collect::<Vec<_>>().await;
    let client = case.webhooks().client("/admit/vl6845");
    create(&case.target, WEBHOOKS, webhook("vl6845", client, "", "secrets")).await;
    case.wait_for_backup().await;

    case.restore(&["--namespace", "vl6845"]).await.ended(0);
    let found = get(&case.target, &path).await;
    assert_eq!(found["items"].as_array().expect("items").len(), 300);
    assert_eq!(case.webhooks().requests("/admit/vl6845"), 300, "creates and updates");
}

/// A webhook created first refuses, or cannot yet judge, the objects created after it.
pub async fn vl2443_webhooks_are_restored_after_the_objects_they_match(mut case: CaseContext) {
    namespace(&case.source, "vl2443", json!({})).await;
    let path = core("vl2443", "configmaps");
    for number in 0..20 {
        let mut object = map(&format!("m{number}"), json!({}));
        object["metadata"]["labels"] = json!({"judged-by": "vl2443"});
        create(&case.source, &path, object).await;
    }
    let client = case.webhooks().client("/deny/vl2443");
    create(&case.source, WEBHOOKS, webhook("vl2443", client, "", "configmaps")).await;
    case.wait_for_backup().await;

    let hook = "validatingwebhookconfigurations.admissionregistration.k8s.io/vl2443";
    case.restore(&["--namespace", "vl2443", "--object", hook, "--allow", "webhooks"]).await.ended(0);
    let found = get(&case.target, &format!("{path}?labelSelector=judged-by")).await;
    assert_eq!(found["items"].as_array().expect("items").len(), 20);
    get(&case.target, &format!("{WEBHOOKS}/vl2443")).await;
    assert_eq!(case.webhooks().requests("/deny/vl2443"), 0);
}

/// A webhook whose pods are still starting does not answer: that object waits, the others go on.
pub async fn vl4847_restore_waits_for_a_starting_webhook(mut case: CaseContext) {
    namespace(&case.source, "vl4847", json!({})).await;
    let path = core("vl4847", "configmaps");
    for name in ["first", "second"] {
        let mut object = map(name, json!({}));
        object["metadata"]["labels"] = json!({"judged-by": "vl4847"});
        create(&case.source, &path, object).await;
    }
    let client = case.webhooks().client("/late/5/vl4847");
    create(&case.target, WEBHOOKS, webhook("vl4847", client, "", "configmaps")).await;
    case.wait_for_backup().await;

    case.restore(&["--namespace", "vl4847"]).await.ended(0);
    let found = get(&case.target, &format!("{path}?labelSelector=judged-by")).await;
    assert_eq!(found["items"].as_array().expect("items").len(), 2);
    assert!(case.webhooks().requests("/late/5/vl4847") >= 7, "five refusals and two creates");
}

/// An operator's webhook accepts a kind only after another exists. No order is configured.
pub async fn vl4045_vl8832_order_between_custom_resources_is_discovered(mut case: CaseContext) {
    namespace(&case.source, "vl4045", json!({})).await;
    // Apps come before Zones, alphabetically and in each server's order.
    for kind in ["Appx", "Zonex"] {
        create(&case.source, DEFINITIONS, definition(kind)).await;
        create(&case.target, DEFINITIONS, definition(kind)).await;
        let plural = format!("{}s", kind.to_lowercase());
        for cluster in [&case.source, &case.target] {
            until(cluster, &custom_path("vl4045", &plural), |list| list["items"].is_array()).await;
        }
        let mut object = custom(kind, "one");
        let name = format!("vl4045-{}", kind.to_lowercase());
        object["metadata"]["labels"] = json!({"judged-by": name});
        create(&case.source, &custom_path("vl4045", &plural), object).await;
        let path = if kind == "Appx" { "/after/vl4045" } else { "/admit/vl4045" };
        let judge = webhook(&name, case.webhooks().client(path), "velero.kbak.dev", &plural);
        create(&case.target, WEBHOOKS, judge).await;
    }
    case.wait_for_backup().await;

    case.restore(&["--namespace", "vl4045"]).await.ended(0);
    for plural in ["appxs", "zonexs"] {
        get(&case.target, &format!("{}/one", custom_path("vl4045", plural))).await;
    }
    assert!(case.webhooks().requests("/after/vl4045") >= 1);
}

/// Velero's discovery is older than the definitions and misses their objects.
pub async fn vl5658_definitions_and_their_objects_are_restored_in_one_run(mut case: CaseContext) {
    namespace(&case.source, "vl5658", json!({})).await;
    create(&case.source, DEFINITIONS, definition("Racer")).await;
    let path = custom_path("vl5658", "racers");
    until(&case.source, &path, |list| list["items"].is_array()).await;
    create(&case.source, &path, custom("Racer", "one")).await;
    case.wait_for_backup().await;

    let wanted = "customresourcedefinitions.apiextensions.k8s.io/racers.velero.kbak.dev";
    case.restore(&["--namespace", "vl5658", "--object", wanted, "--allow", "crds"]).await.ended(0);
    assert_eq!(get(&case.target, &format!("{path}/one")).await["spec"], json!({"a": 1}));
}
