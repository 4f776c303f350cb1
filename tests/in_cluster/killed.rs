//! The pod's process is killed at every point of a run that is named for tests; the next run succeeds, and
//! nothing is left over.

use std::collections::BTreeSet;

use futures::future::join_all;
use serde_json::{Value, json};

use super::installed::{Installed, end_of};
use crate::kill::{BACKUP, EPOCH_CREATE, EPOCH_FIRST_COMMIT};
use crate::support::control_plane::{delete, get};
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

/// The number of installations, which share a node: their pods wait more than they work.
const LANES: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn next_run_succeeds_when_the_pod_is_killed_at_any_point() {
    let Some(first) = Installed::start().await else { return };
    let mut lanes = vec![first];
    for lane in 1..LANES {
        let next = lanes[0].beside(&format!("kbak-{lane}")).await;
        lanes.push(next);
    }
    let points: Vec<&str> = [BACKUP, EPOCH_CREATE, EPOCH_FIRST_COMMIT].concat();
    let run = lanes.iter().enumerate().map(|(lane, kbak)| {
        let points = points.iter().copied().enumerate().skip(lane).step_by(LANES);
        killed_at(kbak, points.collect())
    });
    let not_passed: BTreeSet<&str> = join_all(run).await.into_iter().flatten().collect();
    assert_eq!(not_passed, OF_FOLDERS.iter().copied().collect(), "points that are not passed");
}

/// Kills a pod at each of these points, and runs a Job of the CronJob after each. Returns the points that a run does
/// not pass.
async fn killed_at(kbak: &Installed, points: Vec<(usize, &'static str)>) -> Vec<&'static str> {
    let secrets = names(kbak, &kbak.core("secrets")).await;
    let mut not_passed = Vec::new();
    for (number, point) in points {
        // Points of an epoch's creation are passed only by a run that creates one.
        let arguments: &[&str] = if point.starts_with("epoch.") { &["--new-epoch"] } else { &[] };
        let killed = format!("killed-{number}");
        kbak.start_changed_pod(&killed, |spec| kill_at(spec, point, arguments)).await;
        let pod = kbak.pod_ended(&killed).await;
        delete(&kbak.cluster, &kbak.core(&format!("pods/{killed}"))).await;
        match end_of(&pod).0 {
            0 => not_passed.push(point),
            code => {
                assert_eq!(code, 137, "{point}");
                kbak.back_up(&format!("after-{number}")).await;
            }
        }
    }
    let mut verify = kbak.on_the_laptop(&["verify", "--read-all", "--signer", "kbak.pub"]);
    run_ok(verify.args(["--identity", "ada.key"]), b"");
    let mut shown = kbak.on_the_laptop(&["ls", "latest", "resources:core/v1/configmaps"]);
    run_ok(shown.args(["--signer", "kbak.pub", "--identity", "bob.key"]), b"");

    for job in names(kbak, &kbak.batch("jobs")).await {
        kbak.delete_job(&job).await;
    }
    until(&kbak.cluster, &kbak.core("pods"), |pods| pods["items"] == json!([])).await;
    assert_eq!(names(kbak, &kbak.core("secrets")).await, secrets, "Secrets");
    not_passed
}

/// Makes a pod end at a point.
fn kill_at(spec: &mut Value, point: &str, arguments: &[&str]) {
    // The first process of a namespace ignores its own SIGKILL: here it is the second.
    spec["shareProcessNamespace"] = json!(true);
    let container = &mut spec["containers"][0];
    let kill = json!({"name": "KBAK_KILL_AT", "value": point});
    container["env"].as_array_mut().expect("variables").push(kill);
    container["args"].as_array_mut().expect("arguments").extend(arguments.iter().map(|text| json!(text)));
}

/// Returns the names of all objects at a path.
async fn names(kbak: &Installed, path: &str) -> BTreeSet<String> {
    let list = get(&kbak.cluster, path).await;
    let items = list["items"].as_array().expect("items").iter();
    items.map(|item| item["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
}
