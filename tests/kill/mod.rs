//! The process is killed at every named point, as the kernel would; the next run succeeds, and what
//! was stored before is as it was.
//!
//! `KBAK_TEST_SIZE=full` kills at several passings of each point (scripts/soak).

mod points;

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use kbak::world::{Random as _, SeededRandom};
use sha2::{Digest as _, Sha256};

use crate::support::program::{beneath, command};

/// A person's folder: keys, a repository in a folder, a tree.
struct Desk {
    folder: tempfile::TempDir,
    owner: String,
}

/// A path with what a restore must bring back of it.
type Fingerprint = BTreeMap<PathBuf, (u32, i64, i64, u64, Vec<u8>)>;

impl Desk {
    fn new() -> Self {
        let mut desk = Self { folder: tempfile::tempdir().expect("a folder"), owner: String::new() };
        for folder in ["data", "store", "keys"] {
            std::fs::create_dir_all(desk.at(folder)).expect("a folder");
        }
        let made = desk.good(&["keygen", "-o", &desk.text("owner.key"), "--no-passphrase"]);
        desk.owner = String::from_utf8(made.stdout).expect("text").trim_end().to_owned();
        let (key, keys) = (desk.text("owner.key"), desk.text("keys"));
        desk.good(&[
            "init",
            "--repo",
            &desk.repo(),
            "--recipient",
            &desk.owner,
            "--single-owner",
            "--identity",
            &key,
            "--folder",
            &keys,
        ]);
        for at in 0..60u64 {
            desk.write(&format!("d{}/f{at:02}", at % 7), at, 300 + 4111 * (at as usize % 11));
        }
        desk.write("large", 1000, 9 << 20);
        std::fs::hard_link(desk.at("data/large"), desk.at("data/twin")).expect("a hard link");
        std::os::unix::fs::symlink("d1/f01", desk.at("data/link")).expect("a link");
        desk
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.at(name).to_str().expect("UTF-8").to_owned()
    }

    fn repo(&self) -> String {
        format!("file://{}", self.text("store"))
    }

    fn write(&self, name: &str, seed: u64, size: usize) {
        let mut bytes = vec![0; size];
        SeededRandom::new(seed).fill(&mut bytes);
        let path = self.at("data").join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        std::fs::write(path, bytes).expect("a file");
    }

    /// Changes the tree a little, so that every kind of object is stored again.
    fn change(&self, seed: u64) {
        self.write(&format!("d{}/new{seed}", seed % 7), 10_000 + seed, 5000);
        self.write("d3/f03", 20_000 + seed, 3000 + seed as usize);
        self.write("large", 30_000 + seed, 9 << 20);
    }

    fn run(&self, args: &[&str], kill: Option<&str>) -> Output {
        let mut command = command(args);
        if let Some(point) = kill {
            command.env("KBAK_KILL_AT", point);
        }
        command.output().expect("the program runs")
    }

    fn good(&self, args: &[&str]) -> Output {
        let output = self.run(args, None);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// Runs until the point and dies there.
    fn killed(&self, args: &[&str], point: &str) {
        let output = self.run(args, Some(point));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(9), "{point}: {:?} {said}", output.status);
    }

    fn verb(&self, verb: &str) -> Vec<String> {
        let mut args: Vec<String> = vec![verb.into(), "--repo".into(), self.repo()];
        let more: Vec<String> = match verb {
            "backup" => vec![
                "--writer-key".into(),
                self.text("keys/writer.key"),
                "--path".into(),
                self.text("data"),
                "--recipient".into(),
                self.owner.clone(),
                "--memory".into(),
                "64Mi".into(),
            ],
            _ => vec![
                "--signer".into(),
                self.text("keys/kbak.pub"),
                "--identity".into(),
                self.text("owner.key"),
            ],
        };
        args.extend(more);
        args
    }

    fn backup(&self, kill: Option<&str>) {
        let args = self.verb("backup");
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        match kill {
            Some(point) => self.killed(&args, point),
            None => drop(self.good(&args)),
        }
    }

    fn restore(&self, snapshot: &str, to: &str, kill: Option<&str>) {
        let (mut args, to) = (self.verb("restore"), self.text(to));
        args.insert(1, snapshot.into());
        args.extend(["--to".into(), to, "--existing-files".into(), "skip".into()]);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        match kill {
            Some(point) => self.killed(&args, point),
            None => drop(self.good(&args)),
        }
    }

    /// Restores a snapshot into an empty folder and compares.
    fn holds(&self, snapshot: &str, truth: &Fingerprint, when: &str) {
        self.restore(snapshot, "out", None);
        assert_eq!(&fingerprint(&self.at("out")), truth, "snapshot {snapshot} {when}");
        std::fs::remove_dir_all(self.at("out")).expect("removed");
    }

    /// Every byte in the store is as verify wants it, and every chunk opens.
    fn sound(&self) {
        let mut args = self.verb("verify");
        args.push("--read-all".into());
        self.good(&args.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Objects of a class in the store.
    fn objects(&self, class: &str) -> usize {
        self.paths(class).len()
    }

    /// How many packs the only snapshot needs: 8 bytes, then 40 a pack.
    fn needed(&self) -> usize {
        let size = |path: &PathBuf| std::fs::metadata(path).expect("an object").len() as usize;
        self.paths("needs").iter().map(|path| (size(path) - 8) / 40).sum()
    }

    fn paths(&self, class: &str) -> Vec<PathBuf> {
        let part = format!("/{class}/");
        let mut found = beneath(&self.at("store"));
        found.retain(|path| path.is_file() && path.to_str().expect("UTF-8").contains(&part));
        found
    }
}

fn fingerprint(root: &Path) -> Fingerprint {
    let mut found = Fingerprint::new();
    for path in beneath(root) {
        let meta = std::fs::symlink_metadata(&path).expect("metadata");
        let content = if meta.is_dir() {
            Vec::new()
        } else if meta.is_symlink() {
            std::fs::read_link(&path).expect("a link").into_os_string().into_encoded_bytes()
        } else {
            Sha256::digest(std::fs::read(&path).expect("a file")).to_vec()
        };
        let size = if meta.is_dir() { 0 } else { meta.size() };
        let what = (meta.permissions().mode(), meta.mtime(), meta.mtime_nsec(), size, content);
        found.insert(path.strip_prefix(root).expect("beneath").to_owned(), what);
    }
    found
}
