//! Secrets that are malformed, end in a line break, or are edited during a run.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::installed::{Installed, end_of};
use crate::support::control_plane::{create, delete, get, patch};
use crate::support::owners::run_ok;

const WRITER: &str = "/api/v1/namespaces/kbak/secrets/kbak-writer";
const STORE: &str = "/api/v1/namespaces/kbak/secrets/kbak-store";
const EPOCH: &str = "/api/v1/namespaces/kbak/secrets/kbak-epoch";

/// The entry of each Secret, and the words that name it when it is malformed.
const ENTRIES: &[(&str, &str, &str)] = &[
    (WRITER, "writer.key", "/etc/kbak/writer/kbak-writer/writer.key"),
    (STORE, "credentials", "credentials"),
    (EPOCH, "writer.key.epoch", "writer.key.epoch of the Secret kbak/kbak-epoch"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn secrets_may_end_in_a_line_break_and_malformed_ones_are_named() {
    let Some(kbak) = Installed::start().await else { return };
    kbak.helm("upgrade", &["backup.backoffLimit=0"]);
    for (path, entry, _) in ENTRIES {
        let content = read(&kbak, path, entry).await;
        write(&kbak, path, entry, &[content.trim_ascii_end(), b"\r\n\n"].concat()).await;
    }
    kbak.back_up("line-breaks").await;
    for (number, (path, entry, named)) in ENTRIES.iter().enumerate() {
        let content = read(&kbak, path, entry).await;
        write(&kbak, path, entry, b"not what it should be").await;
        let job = format!("malformed-{number}");
        kbak.start_job("backup", &job).await;
        assert!(!kbak.ended(&job).await, "{entry}");
        let pods = kbak.pods(&job).await;
        let (code, message) = end_of(&pods[0]);
        let log = kbak.log(&pods[0]).await;
        assert_eq!((code, pods.len()), (2, 1), "{entry}: {log}");
        assert!(log.contains(named) && message.contains(named), "{entry}: {log}\nmessage: {message}");
        assert!(!log.contains("not what it should be"), "{entry}: {log}");
        write(&kbak, path, entry, &content).await;
    }
    lost_epoch(&kbak).await;
    edited_during_the_run(&kbak).await;
}

/// The way back that docs/in-cluster.md describes: an empty Secret of the name, and one run with `--new-epoch`.
async fn lost_epoch(kbak: &Installed) {
    delete(&kbak.cluster, EPOCH).await;
    kbak.helm("upgrade", &["backup.backoffLimit=0"]);
    kbak.start_job("backup", "epoch-lost").await;
    assert!(!kbak.ended("epoch-lost").await);
    assert_eq!(end_of(&kbak.pods("epoch-lost").await[0]).0, 2);

    let empty = json!({"metadata": {"name": "kbak-epoch"}, "type": "Opaque"});
    create(&kbak.cluster, &kbak.core("secrets"), empty).await;
    kbak.helm("upgrade", &["backup.extraArgs={--new-epoch}", "backup.backoffLimit=0"]);
    let log = kbak.back_up("new-epoch").await;
    assert!(log.contains("new epoch"), "{log}");
    kbak.helm("upgrade", &["backup.backoffLimit=0"]);
    let log = kbak.back_up("after-loss").await;
    assert!(log.contains("committed") && !log.contains("new epoch"), "{log}");
    let mut verify = kbak.on_the_laptop(&["verify", "--read-all", "--signer", "kbak.pub"]);
    run_ok(verify.args(["--identity", "ada.key"]), b"");
    for snapshot in ["1", "latest"] {
        let mut ls = kbak.on_the_laptop(&["ls", snapshot, "--signer", "kbak.pub", "--identity", "bob.key"]);
        run_ok(&mut ls, b"");
    }
}

/// The run goes on with what it has read, and does not undo the edit of the Secret that it writes.
async fn edited_during_the_run(kbak: &Installed) {
    kbak.helm("upgrade", &["backup.backoffLimit=0", "backup.extraArgs={--upload,16Ki/s}"]);
    kbak.start_job("backup", "edited").await;
    kbak.running("edited").await;
    for (path, entry, _) in &ENTRIES[..2] {
        write(kbak, path, entry, b"not what it should be").await;
    }
    let label = json!({"metadata": {"labels": {"edited": "during-the-run"}}});
    patch(&kbak.cluster, EPOCH, label).await;
    let complete = kbak.ended("edited").await;
    let log = kbak.log(&kbak.pods("edited").await[0]).await;
    assert!(complete, "{log}");
    assert_eq!(get(&kbak.cluster, EPOCH).await["metadata"]["labels"]["edited"], "during-the-run");
}

async fn read(kbak: &Installed, path: &str, entry: &str) -> Vec<u8> {
    let secret = get(&kbak.cluster, path).await;
    BASE64.decode(secret["data"][entry].as_str().expect("an entry")).expect("base64")
}

async fn write(kbak: &Installed, path: &str, entry: &str, content: &[u8]) {
    let mut data = Value::default();
    data[entry] = json!(BASE64.encode(content));
    patch(&kbak.cluster, path, json!({"data": data})).await;
}
