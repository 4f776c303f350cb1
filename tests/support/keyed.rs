//! A repository in a folder, with its keys, for tests that run the program.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use super::program::{command, good};

/// A repository folder, deleted on drop.
pub struct Keyed {
    folder: tempfile::TempDir,
    owner: String,
}

fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

impl Keyed {
    /// Creates an owner's key, a writer's key, and their repository.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for made in ["store", "keys"] {
            std::fs::create_dir(folder.path().join(made)).expect("a folder");
        }
        let mut keyed = Self { folder, owner: String::new() };
        let key = text(&keyed.at("owner.key"));
        let made = good(&["keygen", "-o", &key, "--no-passphrase"]);
        keyed.owner = String::from_utf8(made.stdout).expect("text").trim_end().to_owned();
        let (repo, keys) = (keyed.repo(), text(&keyed.at("keys")));
        let init = ["--recipient", &keyed.owner, "--single-owner", "--identity", &key, "--folder", &keys];
        good(&[&["init", "--repo", &repo], &init[..]].concat());
        keyed
    }

    /// Returns a path beside the repository.
    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn repo(&self) -> String {
        format!("file://{}", text(&self.at("store")))
    }

    /// Returns a backup of the resources of a cluster.
    pub fn backup_of(&self, kubeconfig: &Path) -> Command {
        let writer = text(&self.at("keys/writer.key"));
        let mut command = command(&["backup", "--repo", &self.repo(), "--writer-key", &writer]);
        command.args(["--recipient", &self.owner, "--resources", "--kubeconfig"]).arg(kubeconfig);
        command.arg("--report-file").arg(self.at("report.json"));
        command
    }

    /// Returns a backup by a plan that declares these resources of a cluster.
    pub fn backup_by_plan(&self, kubeconfig: &Path, resources: Value) -> Command {
        let plan = serde_json::json!({
            "apiVersion": "kbak.dev/v1", "kind": "BackupPlan", "metadata": {"name": "default"},
            "spec": {
                "repository": {"url": self.repo()}, "recipients": [self.owner],
                "writer": {"keyFile": text(&self.at("keys/writer.key"))},
                "cluster": {"kubeconfigFile": text(kubeconfig)}, "resources": resources,
            },
        });
        std::fs::write(self.at("plan.yaml"), plan.to_string()).expect("a plan");
        let mut command = command(&["backup", "--plan"]);
        command.arg(self.at("plan.yaml")).arg("--report-file").arg(self.at("report.json"));
        command
    }

    /// Returns the output of `show` for the newest snapshot.
    pub fn show(&self) -> Value {
        let [pin, key] = ["keys/kbak.pub", "owner.key"].map(|name| text(&self.at(name)));
        let args =
            ["show", "latest", "--repo", &self.repo(), "--signer", &pin, "--identity", &key, "-o", "json"];
        serde_json::from_slice(&good(&args).stdout).expect("JSON")
    }

    /// Returns the report of the last backup.
    pub fn report(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.at("report.json")).expect("a report")).expect("JSON")
    }

    /// Restores the resources of the newest snapshot as files, which must end with `code`.
    pub fn files(&self, code: i32) -> PathBuf {
        let (pin, key) = (text(&self.at("keys/kbak.pub")), text(&self.at("owner.key")));
        let repo = self.repo();
        let files = self.at("files");
        let _ = std::fs::remove_dir_all(&files);
        let reader = ["--repo", &repo, "--signer", &pin, "--identity", &key];
        let restore = ["restore", "latest", "--resources-to", &text(&files)];
        let output = command(&[&restore[..], &reader].concat()).output().expect("it runs");
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
        files
    }
}

/// Runs a command beside the test's own tasks.
pub async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output()).await.expect("it ends").expect("it runs")
}

/// Prints a figure for scripts/soak.
#[expect(clippy::print_stdout, reason = "it is what such a test is run for")]
pub fn figure(line: &str) {
    println!("{line}");
}
