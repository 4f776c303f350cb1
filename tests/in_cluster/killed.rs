//! The pod's process is killed at every point of a run that is named for tests; the next run succeeds, and
//! nothing is left over.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::installed::{Installed, end_of};
use crate::kill::{BACKUP, EPOCH_CREATE, EPOCH_FIRST_COMMIT};
use crate::support::control_plane::get;
use crate::support::owners::run_ok;
use crate::support::wait::until;

/// Points that a backup of resources into S3 does not pass: those of a folder's files, as source or as store.
const OF_FOLDERS: &[&str] = &[
    "store.file.written",
    "store.file.placed",
    "backup.cache.group.stored",
    "backup.cache.sealed",
    "backup.cache.stored",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn next_run_succeeds_when_the_pod_is_killed_at_any_point() {
    let Some(kbak) = Installed::start().await else { return };
    let secrets = names(&kbak, "secrets").await;
    let points: Vec<&str> = [BACKUP, EPOCH_CREATE, EPOCH_FIRST_COMMIT].concat();
    let mut not_passed = Vec::new();
    for (number, point) in points.iter().enumerate() {
        // Points of an epoch's creation are passed only by a run that creates one.
        let arguments: &[&str] = if point.starts_with("epoch.") { &["--new-epoch"] } else { &[] };
        let killed = format!("killed-{number}");
        kbak.start_changed_job("backup", &killed, |spec| kill_at(spec, point, arguments)).await;
        if kbak.ended(&killed).await {
            not_passed.push(*point);
            continue;
        }
        let pods = kbak.pods(&killed).await;
        assert_eq!((end_of(&pods[0]).0, pods.len()), (137, 1), "{point}");
        kbak.back_up(&format!("after-{number}")).await;
    }
    assert_eq!(not_passed, OF_FOLDERS, "points that are not passed");
    let mut verify = kbak.on_the_laptop(&["verify", "--read-all", "--signer", "kbak.pub"]);
    run_ok(verify.args(["--identity", "ada.key"]), b"");
    let mut shown = kbak.on_the_laptop(&["ls", "latest", "resources:core/v1/configmaps"]);
    run_ok(shown.args(["--signer", "kbak.pub", "--identity", "bob.key"]), b"");

    for job in names(&kbak, "jobs").await {
        kbak.delete_job(&job).await;
    }
    until(&kbak.cluster, "/api/v1/namespaces/kbak/pods", |pods| pods["items"] == json!([])).await;
    assert_eq!(names(&kbak, "secrets").await, secrets, "Secrets");
}

/// Makes a Job's only pod end at a point.
fn kill_at(spec: &mut Value, point: &str, arguments: &[&str]) {
    spec["backoffLimit"] = json!(0);
    // The first process of a namespace ignores its own SIGKILL: here it is the second.
    spec["template"]["spec"]["shareProcessNamespace"] = json!(true);
    let container = &mut spec["template"]["spec"]["containers"][0];
    let kill = json!({"name": "KBAK_KILL_AT", "value": point});
    container["env"].as_array_mut().expect("variables").push(kill);
    container["args"].as_array_mut().expect("arguments").extend(arguments.iter().map(|text| json!(text)));
}

/// Returns the names of all objects of a kind in kbak's namespace.
async fn names(kbak: &Installed, plural: &str) -> BTreeSet<String> {
    let root = if plural == "jobs" { "/apis/batch/v1" } else { "/api/v1" };
    let list = get(&kbak.cluster, &format!("{root}/namespaces/kbak/{plural}")).await;
    let items = list["items"].as_array().expect("items").iter();
    items.map(|item| item["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
}
