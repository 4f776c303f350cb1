//! A folder with keys, a repository and plans, all made by the program, and runs of the program on them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::program::{Run, command, good, kbak};

/// A folder with an owner's key in `keys/`, a repository in `store/` and a folder `data/` with a file.
pub struct CliRepo {
    folder: tempfile::TempDir,
    /// The owner's public line.
    pub recipient: String,
    /// The number of runs on clusters so far: each has its own report.
    runs: AtomicU32,
}

impl CliRepo {
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// Creates one whose writer is for the plan `name`.
    pub fn for_plan(name: &str) -> Self {
        Self::with(&["--plan-name", name])
    }

    fn with(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut cli = Self { folder, recipient: String::new(), runs: AtomicU32::new(0) };
        for name in ["data", "store", "keys"] {
            std::fs::create_dir(cli.at(name)).expect("a folder");
        }
        std::fs::write(cli.at("data/one.txt"), "one\n").expect("a file");
        let (repo, keys, key) = (cli.url(), cli.text("keys"), cli.text("keys/owner.key"));
        let made = good(&["keygen", "-o", &key, "--no-passphrase", "--comment", "ada@shop"]);
        cli.recipient = String::from_utf8(made.stdout).expect("text").trim_end().to_owned();
        let init = ["init", "--repo", &repo, "--recipient", &cli.recipient, "--single-owner"];
        let proven = good(&[&init[..], &["--identity", &key, "--folder", &keys], more].concat());
        let said = String::from_utf8(proven.stderr).expect("text");
        assert!(said.contains("proven by every owner"), "{said}");
        cli
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns a path in the folder as an argument.
    pub fn text(&self, name: &str) -> String {
        path_text(&self.at(name))
    }

    /// Returns the repository's URL.
    pub fn url(&self) -> String {
        format!("file://{}", self.text("store"))
    }

    /// Returns the item name of the folder `data/`.
    pub fn data_item(&self) -> String {
        format!("path{}", self.text("data"))
    }

    /// Returns the arguments of verbs that write.
    pub fn writer_args(&self) -> Vec<String> {
        let key = self.text("keys/writer.key");
        ["--repo", &self.url(), "--writer-key", &key, "--recipient", &self.recipient]
            .map(str::to_owned)
            .to_vec()
    }

    /// Returns the arguments of verbs that read.
    pub fn reader_args(&self) -> Vec<String> {
        let (pin, key) = (self.text("keys/kbak.pub"), self.text("keys/owner.key"));
        ["--repo", &self.url(), "--signer", &pin, "--identity", &key].map(str::to_owned).to_vec()
    }

    /// Backs up the folder `data/`.
    pub fn backup(&self, more: &[&str]) -> (i32, String, String) {
        let (data, writer) = (self.text("data"), self.writer_args());
        kbak(&[&["backup", "--path", &data], &as_strs(&writer)[..], more].concat())
    }

    /// Runs a verb that reads.
    pub fn run_reader(&self, args: &[&str]) -> (i32, String, String) {
        kbak(&[args, &as_strs(&self.reader_args())].concat())
    }

    /// Runs a reading verb, which must succeed, and returns its JSON output.
    pub fn read_json(&self, args: &[&str]) -> Value {
        let reader = self.reader_args();
        let output = good(&[args, &["-o", "json"], &as_strs(&reader)[..]].concat());
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Writes a plan whose `spec` continues with these lines, and returns its path.
    pub fn write_plan(&self, more: &str) -> String {
        let (repo, recipient) = (self.url(), &self.recipient);
        let text = format!(
            "apiVersion: kbak.dev/v1\nkind: BackupPlan\nmetadata: {{name: nightly}}\nspec:\n  \
             repository: {{url: \"{repo}\"}}\n  recipients: [\"{recipient}\"]\n  \
             writer: {{keyFile: keys/writer.key, epochFile: keys/writer.key.nightly.epoch, signersFile: keys/kbak.pub}}\n{more}"
        );
        std::fs::write(self.at("plan.yaml"), text).expect("a plan");
        self.text("plan.yaml")
    }
}

/// Backups and restores of a cluster's resources.
impl CliRepo {
    fn cluster_backup_args(&self, kubeconfig: &Path) -> Vec<String> {
        let mut args = vec!["backup".to_owned()];
        args.extend(self.writer_args());
        args.extend(["--resources".into(), "--kubeconfig".into(), path_text(kubeconfig)]);
        args
    }

    /// Returns the arguments that restore the newest snapshot's resources into a cluster.
    pub fn cluster_restore_args(&self, kubeconfig: &Path, more: &[&str]) -> Vec<String> {
        let mut args = vec!["restore".to_owned(), "latest".to_owned()];
        args.extend(self.reader_args());
        args.extend(["--item", "resources", "--cluster", "--kubeconfig"].map(str::to_owned));
        args.push(path_text(kubeconfig));
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        args
    }

    /// Backs up a cluster's resources.
    pub async fn backup_cluster(&self, kubeconfig: &Path) -> Run {
        self.run_with_report(self.cluster_backup_args(kubeconfig)).await
    }

    /// Restores the newest snapshot's resources into a cluster.
    pub async fn restore_cluster(&self, kubeconfig: &Path, more: &[&str]) -> Run {
        self.run_with_report(self.cluster_restore_args(kubeconfig, more)).await
    }

    /// Starts [`Self::restore_cluster`]; dropping the returned child ends it.
    pub fn start_cluster_restore(&self, kubeconfig: &Path, more: &[&str]) -> tokio::process::Child {
        let args = self.cluster_restore_args(kubeconfig, more);
        let mut command = tokio::process::Command::from(command(&args));
        command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().expect("it starts")
    }

    async fn run_with_report(&self, mut args: Vec<String>) -> Run {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let report = self.text(&format!("report-{number}.json"));
        args.extend(["--report-file", &report, "--progress", "none"].map(str::to_owned));
        Run::of(&args, &report).await
    }

    /// Returns a backup of a cluster's resources, for a test that changes the command.
    pub fn cluster_backup_command(&self, kubeconfig: &Path) -> Command {
        self.with_last_report(&self.cluster_backup_args(kubeconfig))
    }

    /// Returns a backup by a plan that declares these resources of a cluster.
    pub fn plan_backup_command(&self, kubeconfig: &Path, resources: Value) -> Command {
        let plan = json!({
            "apiVersion": "kbak.dev/v1", "kind": "BackupPlan", "metadata": {"name": "default"},
            "spec": {
                "repository": {"url": self.url()}, "recipients": [self.recipient],
                "writer": {"keyFile": self.text("keys/writer.key")},
                "cluster": {"kubeconfigFile": path_text(kubeconfig)}, "resources": resources,
            },
        });
        std::fs::write(self.at("plan.yaml"), plan.to_string()).expect("a plan");
        self.with_last_report(&["backup".into(), "--plan".into(), self.text("plan.yaml")])
    }

    fn with_last_report(&self, args: &[String]) -> Command {
        let mut command = command(args);
        command.arg("--report-file").arg(self.at("report.json"));
        command
    }

    /// Returns the report of the last of these commands.
    pub fn last_report(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.at("report.json")).expect("a report")).expect("JSON")
    }

    /// Restores the resources of the newest snapshot as files, which must end with `code`.
    pub fn restore_as_files(&self, code: i32) -> PathBuf {
        let files = self.at("files");
        let _ = std::fs::remove_dir_all(&files);
        let (ended, _, err) = self.run_reader(&["restore", "latest", "--resources-to", &path_text(&files)]);
        assert_eq!(ended, code, "{err}");
        files
    }
}

fn path_text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

/// Returns arguments as slices.
pub fn as_strs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}
