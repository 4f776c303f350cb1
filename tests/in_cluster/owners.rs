//! An owner who is removed from the plan: the CronJob renews the epoch itself, with the chart's rights.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use super::installed::Installed;
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

/// Puts another owner in bob's place after a first backup: the next run opens an epoch without him.
pub async fn removed_owner_opens_no_later_snapshot(kbak: &Installed) {
    let before = epochs(kbak).await;
    let recipients = kbak.recipients();
    let eve = kbak.make_owner("eve");
    kbak.write_values(&[recipients[0].clone(), eve]);
    kbak.helm("upgrade", &[]);
    let log = kbak.back_up("without-bob").await;
    assert!(log.contains("new epoch"), "{log}");
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
    let mut old = kbak.on_the_laptop(&["ls", "1", "--signer", "kbak.pub", "--identity", "bob.key"]);
    run_ok(&mut old, b"");

    kbak.write_values(&recipients);
    kbak.helm("upgrade", &[]);
}
