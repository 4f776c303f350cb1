//! The garbage collector: lets it check every object and reports the objects that it deleted.

use kbak::kubernetes::Cluster;
use serde_json::{Value, json};

use super::raw;
use crate::support::control_plane::create;
use crate::support::wait::until_gone;

/// Kinds whose objects are created and deleted all the time.
const PASSING: &[&str] = &["events", "events.events.k8s.io", "leases.coordination.k8s.io"];

/// Waits until the collector has worked on a built-in kind, a custom kind and a cluster-scoped
/// kind. Returns the objects that are gone.
pub async fn deleted_objects(cluster: &Cluster) -> Vec<String> {
    let before = raw::read(cluster).await;
    let absent = |api: &str, kind: &str| json!([{"apiVersion": api, "kind": kind, "name": "absent", "uid": "00000000-1111-4222-8333-444444444444"}]);
    let demo = "demo.kbak.dev/v1";
    // An object with a missing owner is collected after all older objects were checked.
    let sentinels = [
        ("/api/v1/namespaces/odd/configmaps", "ConfigMap", absent("v1", "ConfigMap")),
        ("/apis/demo.kbak.dev/v1/namespaces/odd/gadgets", "Gadget", absent(demo, "Apple")),
        ("/apis/demo.kbak.dev/v1/regions", "Region", absent(demo, "Zone")),
    ];
    for (path, kind, owners) in &sentinels {
        let api = if *kind == "ConfigMap" { "v1" } else { demo };
        let metadata = json!({"name": "sentinel", "ownerReferences": owners});
        let object = json!({"apiVersion": api, "kind": kind, "metadata": metadata});
        create(cluster, path, object).await;
    }
    for (path, ..) in &sentinels {
        until_gone(cluster, &format!("{path}/sentinel")).await;
    }
    let after = raw::read(cluster).await;
    let lost = before.objects.iter().filter(|(id, object)| {
        let uid = |object: &Value| object["metadata"]["uid"].clone();
        let same = after.objects.get(*id).is_some_and(|now| uid(now) == uid(object));
        !same && !PASSING.contains(&id.0.as_str())
    });
    lost.map(|((resource, namespace, name), _)| format!("{resource} {namespace}/{name}")).collect()
}
