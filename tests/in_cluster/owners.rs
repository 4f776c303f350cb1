//! An owner who is removed from the plan: the CronJob renews the epoch itself, with the chart's rights.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use super::installed::{Installed, end_of};
use crate::support::control_plane::get;
use crate::support::owners::{run, run_ok};

/// Returns the epochs whose secrets the Secret holds.
async fn epochs(kbak: &Installed) -> Vec<String> {
    let secret = get(&kbak.cluster, "/api/v1/namespaces/kbak/secrets/kbak-epoch").await;
    let entry = secret["data"]["writer.key.epoch"].as_str().expect("an entry");
    let file: Value = serde_json::from_slice(&BASE64.decode(entry).expect("base64")).expect("JSON");
    let epochs = file["epochs"].as_array().expect("epochs").iter();
    epochs.map(|epoch| epoch["epoch"].as_str().expect("an id").to_owned()).collect()
}

/// Returns the message of the newest Event on the CronJob.
async fn last_event(kbak: &Installed) -> String {
    let query = "fieldSelector=involvedObject.name%3Dkbak-backup,reportingComponent%3Dkbak";
    let events = kbak.cluster.get(&kbak.core("events"), query, 16 << 20).await.expect("Events");
    let events: Value = serde_json::from_slice(&events.body).expect("JSON");
    let events = events["items"].as_array().expect("items").iter();
    let newest = events.max_by_key(|event| event["lastTimestamp"].as_str()).expect("an Event");
    newest["message"].as_str().expect("a message").to_owned()
}

/// Puts another owner in bob's place after a first backup: the next run opens an epoch without bob, and names the
/// added owner, who opens no earlier snapshot (docs/threat-model.md, the editor of kbak's namespace).
pub async fn removed_owner_opens_no_later_snapshot_and_added_one_no_earlier(kbak: &Installed) {
    let before = epochs(kbak).await;
    let recipients = kbak.recipients();
    let eve = kbak.make_owner("eve");
    kbak.write_values(&[recipients[0].clone(), eve.clone()]);
    kbak.helm("upgrade", &[]);
    let log = kbak.back_up("without-bob").await;
    assert!(log.contains("new epoch"), "{log}");
    // An owner whom an editor of the plan added is named where the others look.
    let pod = kbak.pods("without-bob").await.pop().expect("a pod");
    let named = format!("owners: {}", &eve[..8]);
    for said in [end_of(&pod).1, last_event(kbak).await] {
        assert!(said.contains(&named) && said.contains(" added"), "{named}: {said}");
    }
    let after = epochs(kbak).await;
    assert_eq!((before.len(), after.len()), (1, 1));
    assert_ne!(before, after, "the Secret holds the new epoch's secret, and no longer the old one");

    let log = kbak.back_up("again").await;
    assert!(!log.contains("new epoch"), "{log}");
    assert_eq!(epochs(kbak).await, after);

    for owner in ["ada", "eve"] {
        let objects = kbak.file(&format!("of-{owner}"));
        run_ok(kbak.restore(owner, &["--resources-to"]).arg(&objects), b"");
        assert!(objects.read_dir().expect("a folder").count() > 0);
    }
    let refused = run(kbak.restore("bob", &["--resources-to"]).arg(kbak.file("of-bob")), b"");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && !kbak.file("of-bob").exists(), "{said}");
    let old = |owner: &str| {
        kbak.on_the_laptop(&["ls", "1", "--signer", "kbak.pub", "--identity", &format!("{owner}.key")])
    };
    run_ok(&mut old("bob"), b"");
    let refused = run(&mut old("eve"), b"");
    assert!(!refused.status.success(), "an added owner reads no earlier backup");

    kbak.write_values(&recipients);
    kbak.helm("upgrade", &[]);
}
