//! The order in which objects are created, and the speed.

use serde_json::json;

use super::stage::Scene;
use super::{DEFINITIONS, WEBHOOKS, core, custom, custom_path, definition, map, namespace, webhook};
use crate::support::plane::{create, get};
use crate::support::wait::until;

/// Velero creates objects one after another, some ten a second. Here a webhook admits no object
/// until eight requests are open at once.
pub async fn vl487_vl2888_objects_are_created_side_by_side(mut scene: Scene) {
    namespace(&scene.there, "vl487", json!({})).await;
    for number in 0..16 {
        let mut object = map(&format!("m{number}"), json!({}));
        object["metadata"]["labels"] = json!({"judged-by": "vl487"});
        create(&scene.there, &core("vl487", "configmaps"), object).await;
    }
    let door = scene.hooks().client("/together/8/vl487");
    create(&scene.here, WEBHOOKS, webhook("vl487", door, "", "configmaps")).await;
    scene.backed_up().await;

    scene.restore(&["--namespace", "vl487"]).await.ended(0);
    assert_eq!(scene.hooks().asked("/together/8/vl487"), 16, "each object is sent once");
}

/// Velero took 52 minutes for a read, a create and a patch of each of 31,000 Secrets.
pub async fn vl6845_a_secret_costs_one_write(mut scene: Scene) {
    namespace(&scene.there, "vl6845", json!({})).await;
    let mut secrets = Vec::new();
    for number in 0..300 {
        let metadata = json!({"name": format!("s{number:03}"), "labels": {"judged-by": "vl6845"}});
        secrets.push(json!({"metadata": metadata, "stringData": {"number": number.to_string()}}));
    }
    use futures::StreamExt as _;
    let path = core("vl6845", "secrets");
    let made = futures::stream::iter(secrets).map(|secret| create(&scene.there, &path, secret));
    made.buffer_unordered(16).collect::<Vec<_>>().await;
    let client = scene.hooks().client("/admit/vl6845");
    create(&scene.here, WEBHOOKS, webhook("vl6845", client, "", "secrets")).await;
    scene.backed_up().await;

    scene.restore(&["--namespace", "vl6845"]).await.ended(0);
    let found = get(&scene.here, &path).await;
    assert_eq!(found["items"].as_array().expect("items").len(), 300);
    assert_eq!(scene.hooks().asked("/admit/vl6845"), 300, "creates and updates");
}

/// A webhook created first refuses, or cannot yet judge, the objects created after it.
pub async fn vl2443_webhooks_come_after_what_they_judge(mut scene: Scene) {
    namespace(&scene.there, "vl2443", json!({})).await;
    let path = core("vl2443", "configmaps");
    for number in 0..20 {
        let mut object = map(&format!("m{number}"), json!({}));
        object["metadata"]["labels"] = json!({"judged-by": "vl2443"});
        create(&scene.there, &path, object).await;
    }
    let client = scene.hooks().client("/deny/vl2443");
    create(&scene.there, WEBHOOKS, webhook("vl2443", client, "", "configmaps")).await;
    scene.backed_up().await;

    let hook = "validatingwebhookconfigurations.admissionregistration.k8s.io/vl2443";
    scene.restore(&["--namespace", "vl2443", "--object", hook, "--allow", "webhooks"]).await.ended(0);
    let found = get(&scene.here, &format!("{path}?labelSelector=judged-by")).await;
    assert_eq!(found["items"].as_array().expect("items").len(), 20);
    get(&scene.here, &format!("{WEBHOOKS}/vl2443")).await;
    assert_eq!(scene.hooks().asked("/deny/vl2443"), 0);
}

/// A webhook whose pods are still starting does not answer: that object waits, the others go on.
pub async fn vl4847_a_webhook_that_is_not_up_yet_is_waited_for(mut scene: Scene) {
    namespace(&scene.there, "vl4847", json!({})).await;
    let path = core("vl4847", "configmaps");
    for name in ["first", "second"] {
        let mut object = map(name, json!({}));
        object["metadata"]["labels"] = json!({"judged-by": "vl4847"});
        create(&scene.there, &path, object).await;
    }
    let client = scene.hooks().client("/late/5/vl4847");
    create(&scene.here, WEBHOOKS, webhook("vl4847", client, "", "configmaps")).await;
    scene.backed_up().await;

    scene.restore(&["--namespace", "vl4847"]).await.ended(0);
    let found = get(&scene.here, &format!("{path}?labelSelector=judged-by")).await;
    assert_eq!(found["items"].as_array().expect("items").len(), 2);
    assert!(scene.hooks().asked("/late/5/vl4847") >= 7, "five refusals and two creates");
}

/// An operator's webhook accepts a kind only after another exists. No order is configured.
pub async fn vl4045_vl8832_order_between_custom_resources_is_found(mut scene: Scene) {
    namespace(&scene.there, "vl4045", json!({})).await;
    // Apps come before Zones, alphabetically and in each server's order.
    for kind in ["Appx", "Zonex"] {
        create(&scene.there, DEFINITIONS, definition(kind)).await;
        create(&scene.here, DEFINITIONS, definition(kind)).await;
        let plural = format!("{}s", kind.to_lowercase());
        for cluster in [&scene.there, &scene.here] {
            until(cluster, &custom_path("vl4045", &plural), |list| list["items"].is_array()).await;
        }
        let mut object = custom(kind, "one");
        let name = format!("vl4045-{}", kind.to_lowercase());
        object["metadata"]["labels"] = json!({"judged-by": name});
        create(&scene.there, &custom_path("vl4045", &plural), object).await;
        let path = if kind == "Appx" { "/after/vl4045" } else { "/admit/vl4045" };
        let judge = webhook(&name, scene.hooks().client(path), "velero.kbak.dev", &plural);
        create(&scene.here, WEBHOOKS, judge).await;
    }
    scene.backed_up().await;

    scene.restore(&["--namespace", "vl4045"]).await.ended(0);
    for plural in ["appxs", "zonexs"] {
        get(&scene.here, &format!("{}/one", custom_path("vl4045", plural))).await;
    }
    assert!(scene.hooks().asked("/after/vl4045") >= 1);
}

/// Velero's discovery is older than the definitions and misses their objects.
pub async fn vl5658_definitions_and_their_objects_come_in_one_run(mut scene: Scene) {
    namespace(&scene.there, "vl5658", json!({})).await;
    create(&scene.there, DEFINITIONS, definition("Racer")).await;
    let path = custom_path("vl5658", "racers");
    until(&scene.there, &path, |list| list["items"].is_array()).await;
    create(&scene.there, &path, custom("Racer", "one")).await;
    scene.backed_up().await;

    let wanted = "customresourcedefinitions.apiextensions.k8s.io/racers.velero.kbak.dev";
    scene.restore(&["--namespace", "vl5658", "--object", wanted, "--allow", "crds"]).await.ended(0);
    assert_eq!(get(&scene.here, &format!("{path}/one")).await["spec"], json!({"a": 1}));
}
