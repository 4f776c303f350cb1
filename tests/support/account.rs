//! Runs as the accounts that `kbak rbac` prints, with the epoch's secret in a Kubernetes Secret.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use kbak::kubernetes::Cluster;
use serde_json::{Value, json};

use super::cli_repo::CliRepo;
use super::control_plane::{ControlPlane, create};

/// The entry of the Secret `kbak-epoch`, as [`CliRepo::for_plan`] makes it for the plan `nightly`.
pub const ENTRY: &str = "writer.key.nightly.epoch";

/// Writes the administrator's kubeconfig again, in the namespace `kbak` and as the account of a task.
pub fn as_account(plane: &ControlPlane, task: &str, file: PathBuf) -> PathBuf {
    let text = std::fs::read_to_string(plane.kubeconfig()).expect("a kubeconfig");
    let mut config: Value = serde_saphyr::from_str(&text).expect("YAML");
    config["contexts"][0]["context"]["namespace"] = json!("kbak");
    let user = &mut config["users"][0]["user"];
    user["as"] = json!(account(task));
    user["as-groups"] =
        json!(["system:serviceaccounts", "system:serviceaccounts:kbak", "system:authenticated"]);
    std::fs::write(&file, config.to_string()).expect("a kubeconfig");
    file
}

/// Returns the user name of a task's account.
pub fn account(task: &str) -> String {
    format!("system:serviceaccount:kbak:kbak-{task}")
}

/// Writes a plan for the cluster's resources, with the epoch's secret in the Secret `kbak-epoch`.
pub fn write_plan(cli: &CliRepo, kubeconfig: &Path) -> String {
    let config = kubeconfig.display();
    let plan = cli.write_plan(&format!("  cluster: {{kubeconfigFile: \"{config}\"}}\n  resources: {{}}\n"));
    let text = std::fs::read_to_string(&plan).expect("a plan");
    let text = text.replace(&format!("epochFile: keys/{ENTRY}"), "epochSecret: kbak-epoch");
    std::fs::write(&plan, text).expect("a plan");
    plan
}

/// Moves the epoch's secret from its file into the Secret.
pub async fn move_secret(cli: &CliRepo, cluster: &Cluster) {
    let file = cli.at("keys").join(ENTRY);
    let content = BASE64.encode(std::fs::read(&file).expect("the epoch's secret"));
    let object = json!({"metadata": {"name": "kbak-epoch"}, "data": {ENTRY: content}});
    create(cluster, "/api/v1/namespaces/kbak/secrets", object).await;
    std::fs::remove_file(file).expect("removed");
}

/// The folder of the CronJob whose Events tell of runs.
pub const CRONJOBS: &str = "/apis/batch/v1/namespaces/kbak/cronjobs";

/// Creates the CronJob `kbak-backup`. Returns its UID.
pub async fn create_cronjob(cluster: &Cluster) -> Value {
    let pod = json!({"restartPolicy": "Never", "containers": [{"name": "kbak", "image": "kbak"}]});
    let cronjob = json!({"metadata": {"name": "kbak-backup"}, "spec": {
        "schedule": "0 2 * * *", "suspend": true, "jobTemplate": {"spec": {"template": {"spec": pod}}},
    }});
    create(cluster, CRONJOBS, cronjob).await["metadata"]["uid"].clone()
}

/// Creates what `kbak rbac -o json` has printed.
pub async fn apply(cluster: &Cluster, manifests: &str) {
    for line in manifests.lines() {
        let object: Value = serde_json::from_str(line).expect("JSON");
        let (space, kind) =
            (object["metadata"]["namespace"].as_str(), object["kind"].as_str().expect("a kind"));
        let plural = format!("{}s", kind.to_lowercase());
        let root = if kind == "ServiceAccount" { "/api/v1" } else { "/apis/rbac.authorization.k8s.io/v1" };
        let path = match space {
            Some(space) => format!("{root}/namespaces/{space}/{plural}"),
            None => format!("{root}/{plural}"),
        };
        create(cluster, &path, object).await;
    }
}
