//! The program on real clusters: a test's own keys and repository, backups into it, restores from it.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use super::program::{command, good};

/// A repository in a folder, with its keys.
pub struct Cycle {
    folder: tempfile::TempDir,
    public: String,
    /// The number of runs so far: each has its own report.
    runs: AtomicU32,
}

/// The result of a run of the program.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    /// Its `--report-file`; null if it wrote none.
    pub report: Value,
}

impl Run {
    /// Returns the run if it ended with `code`, else panics.
    pub fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}\n{:#}", self.stderr, self.stdout, self.report["items"]);
        self
    }

    /// Returns every gap that it reports: code, object, reason.
    pub fn gaps(&self) -> Vec<(String, String, String)> {
        let items = self.report["items"].as_array().into_iter().flatten();
        let gaps = items.flat_map(|item| item["gaps"].as_array().into_iter().flatten());
        let text = |gap: &Value, field: &str| gap[field].as_str().unwrap_or_default().to_owned();
        gaps.map(|gap| (text(gap, "code"), text(gap, "object"), text(gap, "reason"))).collect()
    }

    /// Returns all output that a person reads.
    pub fn told(&self) -> String {
        format!("{}\n{}\n{}", self.stdout, self.stderr, self.report["items"])
    }
}

impl Cycle {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
        for made in ["store", "keys"] {
            std::fs::create_dir(at(made)).expect("a folder");
        }
        good(&["keygen", "-o", &at("owner.key"), "--no-passphrase"]);
        let lines = std::fs::read_to_string(at("owner.key")).expect("a key");
        let public =
            lines.lines().find_map(|line| line.strip_prefix("# public key: ")).expect("a public key");
        let repo = format!("file://{}", at("store"));
        let init = ["init", "--repo", &repo, "--single-owner", "--identity", &at("owner.key"), "--recipient"];
        good(&[&init[..], &[public, "--folder", &at("keys")]].concat());
        Self { public: public.to_owned(), folder, runs: AtomicU32::new(0) }
    }

    fn at(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    fn repo(&self) -> String {
        format!("file://{}", self.at("store"))
    }

    /// Backs up the cluster's resources.
    pub async fn backup(&self, kubeconfig: &Path, more: &[&str]) -> Run {
        let (writer, kubeconfig) = (self.at("keys/writer.key"), kubeconfig.to_str().expect("UTF-8"));
        let fixed = ["--writer-key", &writer, "--recipient", &self.public, "--resources", "--kubeconfig"];
        self.run(&[&["backup"], &fixed[..], &[kubeconfig], more].concat()).await
    }

    /// Restores the newest snapshot's resources into a cluster.
    pub async fn restore(&self, kubeconfig: &Path, more: &[&str]) -> Run {
        let args = self.restoring(kubeconfig, more);
        self.run(&args.iter().map(String::as_str).collect::<Vec<_>>()).await
    }

    /// Returns the arguments of [`Self::restore`], for a run that a test ends.
    pub fn restoring(&self, kubeconfig: &Path, more: &[&str]) -> Vec<String> {
        let kubeconfig = kubeconfig.to_str().expect("UTF-8");
        let (pin, owner) = (self.at("keys/kbak.pub"), self.at("owner.key"));
        let fixed = ["--signer", &pin, "--identity", &owner, "--item", "resources", "--cluster"];
        let all = [&["restore", "latest"], &fixed[..], &["--kubeconfig", kubeconfig], more].concat();
        all.into_iter().map(str::to_owned).collect()
    }

    /// Starts [`Self::restore`]; dropping the returned child ends it.
    pub fn start_restore(&self, kubeconfig: &Path, more: &[&str]) -> tokio::process::Child {
        let mut args = self.restoring(kubeconfig, more);
        args.extend(["--repo".to_owned(), self.repo()]);
        let mut command = tokio::process::Command::from(command(&args));
        let silent = std::process::Stdio::null;
        command.stdout(silent()).stderr(silent()).kill_on_drop(true).spawn().expect("it starts")
    }

    async fn run(&self, args: &[&str]) -> Run {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let (repo, report) = (self.repo(), self.at(&format!("report-{number}.json")));
        let fixed = ["--repo", &repo, "--report-file", &report, "--progress", "none"];
        // Not on the test's runtime thread, whose servers it may ask.
        let mut command = tokio::process::Command::from(command(&[args, &fixed[..]].concat()));
        let output = command.output().await.expect("it runs");
        let text = std::fs::read(&report).ok();
        Run {
            code: output.status.code().expect("it ended by itself"),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            report: text.map(|text| serde_json::from_slice(&text).expect("JSON")).unwrap_or_default(),
        }
    }
}
