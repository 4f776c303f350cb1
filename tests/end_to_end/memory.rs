//! The memory limit, as the kernel counts it (VmHWM), at a size that is small beside scripts/soak
//! and large beside the limit.

use std::io::Write as _;
use std::path::Path;

use kbak::world::{Random as _, SeededRandom};

use crate::support::program::good;

fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn the_limit_is_what_is_resident() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| text(&folder.path().join(name));
    for made in ["data/many", "store", "keys"] {
        std::fs::create_dir_all(folder.path().join(made)).expect("a folder");
    }
    let mut block = vec![0; 1 << 20];
    SeededRandom::new(1).fill(&mut block);
    let mut large = std::fs::File::create(at("data/large")).expect("a file");
    for number in 0..256u32 {
        // Another mebibyte each time, without the price of as many random bytes.
        for chunk in block.chunks_mut(4096) {
            chunk[..4].copy_from_slice(&number.to_le_bytes());
        }
        large.write_all(&block).expect("written");
    }
    for number in 0..20_000usize {
        let size = number % 700;
        std::fs::write(at(&format!("data/many/{number}")), &block[number..number + size]).expect("a file");
    }
    let (key, repo, report) = (at("owner.key"), format!("file://{}", at("store")), at("report.json"));
    good(&["keygen", "-o", &key, "--no-passphrase"]);
    let lines = std::fs::read_to_string(&key).expect("a key");
    let public = lines.lines().find_map(|line| line.strip_prefix("# public key: ")).expect("a public key");
    let init =
        ["init", "--repo", &repo, "--single-owner", "--identity", &key, "--recipient", public, "--folder"];
    good(&[&init[..], &[&at("keys")]].concat());
    let held = |what: &str| {
        let report = std::fs::read(&report).expect("a report");
        let report: serde_json::Value = serde_json::from_slice(&report).expect("JSON");
        let peak = report["memory_peak"].as_u64().expect("a figure");
        assert!(peak <= 128 << 20, "{what}: {} MiB were resident", peak >> 20);
    };
    let (writer, data, pin, back) = (at("keys/writer.key"), at("data"), at("keys/kbak.pub"), at("back"));
    good(&[
        "backup",
        "--repo",
        &repo,
        "--writer-key",
        &writer,
        "--recipient",
        public,
        "--path",
        &data,
        "--report-file",
        &report,
    ]);
    held("backup");
    let reader = ["--repo", &repo, "--signer", &pin, "--identity", &key, "--report-file", &report];
    good(&[&["restore", "latest", "--to", &back], &reader[..]].concat());
    held("restore");
    good(&[&["verify"], &reader[..]].concat());
    held("verify");
}
