//! The process is killed (SIGKILL) at every named point; the next run succeeds, and earlier
//! snapshots are unchanged.
//!
//! `KBAK_TEST_SIZE=full` kills at several passes of each point (scripts/soak).

mod databases;
mod points;

pub use points::{BACKUP, EPOCH_CREATE, EPOCH_FIRST_COMMIT};

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::support::cli_repo::{CliRepo, as_strs};
use crate::support::program::{beneath, command, good};
use crate::support::tree::write_seeded;

/// A repository and a tree to back up.
struct KillFixture {
    cli: CliRepo,
}

/// A path with the metadata and content that a restore must bring back.
type Fingerprint = BTreeMap<PathBuf, (u32, i64, i64, u64, Vec<u8>)>;

impl KillFixture {
    fn new() -> Self {
        let fixture = Self { cli: CliRepo::new() };
        for at in 0..60u64 {
            fixture.write(&format!("d{}/f{at:02}", at % 7), at, 300 + 4111 * (at as usize % 11));
        }
        fixture.write("large", 1000, 9 << 20);
        std::fs::hard_link(fixture.cli.at("data/large"), fixture.cli.at("data/twin")).expect("a hard link");
        std::os::unix::fs::symlink("d1/f01", fixture.cli.at("data/link")).expect("a link");
        fixture
    }

    fn write(&self, name: &str, seed: u64, size: usize) {
        write_seeded(&self.cli.at("data").join(name), seed, size);
    }

    /// Changes the tree a little, so that every kind of object is stored again.
    fn change(&self, seed: u64) {
        self.write(&format!("d{}/new{seed}", seed % 7), 10_000 + seed, 5000);
        self.write("d3/f03", 20_000 + seed, 3000 + seed as usize);
        self.write("large", 30_000 + seed, 9 << 20);
    }

    fn verb(&self, verb: &str) -> Vec<String> {
        let mut args = vec![verb.to_owned()];
        match verb {
            "backup" => {
                args.extend(self.cli.writer_args());
                args.extend(["--path".into(), self.cli.text("data"), "--memory".into(), "64Mi".into()]);
            }
            _ => args.extend(self.cli.reader_args()),
        }
        args
    }

    fn backup(&self, kill: Option<&str>) {
        let args = self.verb("backup");
        let args = as_strs(&args);
        match kill {
            Some(point) => run_until_killed(&args, point),
            None => drop(good(&args)),
        }
    }

    fn restore(&self, snapshot: &str, to: &str, kill: Option<&str>) {
        let (mut args, to) = (self.verb("restore"), self.cli.text(to));
        args.insert(1, snapshot.into());
        args.extend(["--to".into(), to, "--existing-files".into(), "skip".into()]);
        let args = as_strs(&args);
        match kill {
            Some(point) => run_until_killed(&args, point),
            None => drop(good(&args)),
        }
    }

    /// Restores a snapshot into an empty folder and compares.
    fn assert_snapshot(&self, snapshot: &str, truth: &Fingerprint, when: &str) {
        self.restore(snapshot, "out", None);
        assert_eq!(&fingerprint(&self.cli.at("out")), truth, "snapshot {snapshot} {when}");
        std::fs::remove_dir_all(self.cli.at("out")).expect("removed");
    }

    /// Checks every byte in the store and opens every chunk.
    fn verify_all(&self) {
        let mut args = self.verb("verify");
        args.push("--read-all".into());
        good(&args);
    }

    /// Returns the number of objects of a class in the store.
    fn objects(&self, class: &str) -> usize {
        self.paths(class).len()
    }

    /// Returns the number of packs that the only snapshot needs: 16 bytes, then 56 a pack.
    fn needed(&self) -> usize {
        let size = |path: &PathBuf| std::fs::metadata(path).expect("an object").len() as usize;
        self.paths("needs").iter().map(|path| (size(path) - 16) / 56).sum()
    }

    fn paths(&self, class: &str) -> Vec<PathBuf> {
        let part = format!("/{class}/");
        let mut found = beneath(&self.cli.at("store"));
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

/// Runs the program until it is killed at the point.
fn run_until_killed(args: &[&str], point: &str) {
    let output = command(args).env("KBAK_KILL_AT", point).output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(9), "{point}: {:?} {said}", output.status);
}
