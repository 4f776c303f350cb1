//! A person's folder with keys, a repository and plans, all made by the program.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::program::{command, good};

/// A folder with an owner's key in `keys/`, a repository in `store/` and a folder `data/`.
pub struct Desk {
    folder: tempfile::TempDir,
    /// The owner's public line.
    pub recipient: String,
}

impl Desk {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["data", "store", "keys"] {
            std::fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        std::fs::write(folder.path().join("data/one.txt"), "one\n").expect("a file");
        let text = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
        let key = text("keys/owner.key");
        let made = good(&["keygen", "-o", &key, "--no-passphrase", "--comment", "ada"]);
        let recipient = String::from_utf8(made.stdout).expect("text").trim_end().to_owned();
        let repo = format!("file://{}", text("store"));
        let init = ["init", "--repo", &repo, "--recipient", &recipient, "--single-owner", "--identity", &key];
        good(&[&init[..], &["--folder", &text("keys"), "--plan-name", "nightly"]].concat());
        Self { folder, recipient }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8").to_owned()
    }

    pub fn repo(&self) -> String {
        format!("file://{}", self.text("store"))
    }

    /// Writes a plan whose `spec` goes on with these lines, and gives its path.
    pub fn plan(&self, more: &str) -> String {
        let (repo, recipient) = (self.repo(), &self.recipient);
        let text = format!(
            "apiVersion: kbak.dev/v1\nkind: BackupPlan\nmetadata: {{name: nightly}}\nspec:\n  \
             repository: {{url: \"{repo}\"}}\n  recipients: [\"{recipient}\"]\n  \
             writer: {{keyFile: keys/writer.key, epochFile: keys/writer.key.nightly.epoch, signersFile: keys/kbak.pub}}\n{more}"
        );
        std::fs::write(self.path("plan.yaml"), text).expect("a plan");
        self.text("plan.yaml")
    }

    /// Runs a verb that reads, with the keys that it needs.
    pub fn reads(&self, args: &[&str]) -> Value {
        let (repo, pin, key) = (self.repo(), self.text("keys/kbak.pub"), self.text("keys/owner.key"));
        let more = ["-o", "json", "--repo", &repo, "--signer", &pin, "--identity", &key];
        serde_json::from_slice(&good(&[args, &more].concat()).stdout).expect("JSON")
    }
}

/// Runs the program: its exit code, its JSON report, and what it said.
pub fn json(args: &[&str]) -> (i32, Value, String) {
    let output = command(&[args, &["-o", "json"]].concat()).output().expect("it runs");
    let said = String::from_utf8(output.stderr).expect("text");
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code().expect("a code"), report, said)
}

/// A file's permissions.
pub fn chmod(path: &Path, mode: u32) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(path, mode).expect("its mode");
}
