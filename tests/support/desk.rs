//! A folder with keys, a repository and plans, all made by the program.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::program::{command, good, kbak};

/// A folder with an owner's key in `keys/`, a repository in `store/` and a folder `data/` with a file.
pub struct Desk {
    folder: tempfile::TempDir,
    /// The owner's public line.
    pub recipient: String,
}

impl Desk {
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// Creates one whose writer is for the plan `name`.
    pub fn of_plan(name: &str) -> Self {
        Self::with(&["--plan-name", name])
    }

    fn with(more: &[&str]) -> Self {
        let mut desk = Self { folder: tempfile::tempdir().expect("a folder"), recipient: String::new() };
        for name in ["data", "store", "keys"] {
            std::fs::create_dir(desk.at(name)).expect("a folder");
        }
        std::fs::write(desk.at("data/one.txt"), "one\n").expect("a file");
        let (repo, keys, key) = (desk.repo(), desk.text("keys"), desk.text("keys/owner.key"));
        let made = good(&["keygen", "-o", &key, "--no-passphrase", "--comment", "ada@shop"]);
        desk.recipient = String::from_utf8(made.stdout).expect("text").trim_end().to_owned();
        let init = ["init", "--repo", &repo, "--recipient", &desk.recipient, "--single-owner"];
        let proven = good(&[&init[..], &["--identity", &key, "--folder", &keys], more].concat());
        let said = String::from_utf8(proven.stderr).expect("text");
        assert!(said.contains("proven by every owner"), "{said}");
        desk
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.at(name).to_str().expect("UTF-8").to_owned()
    }

    pub fn repo(&self) -> String {
        format!("file://{}", self.text("store"))
    }

    /// Returns the item name of the folder `data/`.
    pub fn item(&self) -> String {
        format!("path{}", self.text("data"))
    }

    /// Returns the arguments of verbs that write.
    pub fn writer(&self) -> Vec<String> {
        let key = self.text("keys/writer.key");
        ["--repo", &self.repo(), "--writer-key", &key, "--recipient", &self.recipient]
            .map(str::to_owned)
            .to_vec()
    }

    /// Returns the arguments of verbs that read.
    pub fn reader(&self) -> Vec<String> {
        let (pin, key) = (self.text("keys/kbak.pub"), self.text("keys/owner.key"));
        ["--repo", &self.repo(), "--signer", &pin, "--identity", &key].map(str::to_owned).to_vec()
    }

    /// Backs up the folder `data/`.
    pub fn backup(&self, more: &[&str]) -> (i32, String, String) {
        let (data, writer) = (self.text("data"), self.writer());
        kbak(&[&["backup", "--path", &data], &texts(&writer)[..], more].concat())
    }

    /// Runs a verb that reads.
    pub fn reads(&self, args: &[&str]) -> (i32, String, String) {
        kbak(&[args, &texts(&self.reader())].concat())
    }

    /// Runs a reading verb, which must succeed, and returns its JSON output.
    pub fn told(&self, args: &[&str]) -> Value {
        let reader = self.reader();
        let output = good(&[args, &["-o", "json"], &texts(&reader)[..]].concat());
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Writes a plan whose `spec` continues with these lines, and returns its path.
    pub fn plan(&self, more: &str) -> String {
        let (repo, recipient) = (self.repo(), &self.recipient);
        let text = format!(
            "apiVersion: kbak.dev/v1\nkind: BackupPlan\nmetadata: {{name: nightly}}\nspec:\n  \
             repository: {{url: \"{repo}\"}}\n  recipients: [\"{recipient}\"]\n  \
             writer: {{keyFile: keys/writer.key, epochFile: keys/writer.key.nightly.epoch, signersFile: keys/kbak.pub}}\n{more}"
        );
        std::fs::write(self.at("plan.yaml"), text).expect("a plan");
        self.text("plan.yaml")
    }
}

/// Returns arguments as slices.
pub fn texts(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

/// Runs the program and returns its exit code, its JSON report, and its messages.
pub fn json(args: &[&str]) -> (i32, Value, String) {
    let output = command(&[args, &["-o", "json"]].concat()).output().expect("it runs");
    let said = String::from_utf8(output.stderr).expect("text");
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code().expect("a code"), report, said)
}

/// Sets a file's permissions.
pub fn chmod(path: &Path, mode: u32) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(path, mode).expect("its mode");
}
