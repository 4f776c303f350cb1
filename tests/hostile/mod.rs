//! Streams that try to write outside the target.

mod failure_report;
mod forged_names;
mod forged_past;
mod overwritten;
mod pax_records;
mod planted;
mod planted_copies;
mod planted_index;
mod raw_member;
mod rubbish;
mod rubbish_everywhere;
mod stream;
mod volume;

use std::path::{Path, PathBuf};

use crate::support::compare::{Tree, differences_between, read};

/// A target with a canary folder beside it, which must stay unchanged.
struct GuardedTarget {
    dir: tempfile::TempDir,
    before: Tree,
}

impl GuardedTarget {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let canary = dir.path().join("canary");
        std::fs::create_dir_all(canary.join("folder")).expect("folders");
        for name in ["secret", "folder/file"] {
            std::fs::write(canary.join(name), b"untouched").expect("a file");
        }
        std::os::unix::fs::symlink("secret", canary.join("link")).expect("link");
        std::fs::create_dir(dir.path().join("target")).expect("a folder");
        let before = read(&canary);
        Self { dir, before }
    }

    fn target(&self) -> PathBuf {
        self.dir.path().join("target")
    }

    fn canary(&self) -> PathBuf {
        self.dir.path().join("canary")
    }

    /// Checks that nothing outside the target was changed or added.
    fn check(&self, case: &str) {
        assert_eq!(
            differences_between(&self.before, &read(&self.canary())),
            [],
            "{case}: the canary changed"
        );
        let mut beside = names(self.dir.path());
        beside.sort();
        assert_eq!(beside, ["canary", "target"], "{case}: unexpected file beside the target");
        for escape in ["/kbak-escape", "/tmp/kbak-escape"] {
            assert!(!Path::new(escape).exists(), "{case}: wrote {escape}");
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}
