//! The memory limit as the kernel counts it (VmHWM), at a size that is small beside scripts/soak
//! and large beside the limit.

use std::io::Write as _;

use kbak::runtime::{Random as _, SeededRandom};

use crate::support::cli_repo::{CliRepo, as_strs};
use crate::support::program::good;

#[test]
fn resident_memory_stays_within_the_limit() {
    let cli = CliRepo::new();
    std::fs::create_dir(cli.at("data/many")).expect("a folder");
    let mut block = vec![0; 1 << 20];
    SeededRandom::new(1).fill(&mut block);
    let mut large = std::fs::File::create(cli.at("data/large")).expect("a file");
    for number in 0..256u32 {
        // Each mebibyte differs, without the cost of as many random bytes.
        for chunk in block.chunks_mut(4096) {
            chunk[..4].copy_from_slice(&number.to_le_bytes());
        }
        large.write_all(&block).expect("written");
    }
    for number in 0..20_000usize {
        let size = number % 700;
        std::fs::write(cli.at(&format!("data/many/{number}")), &block[number..number + size])
            .expect("a file");
    }
    let report = cli.text("report.json");
    let held = |what: &str| {
        let report = std::fs::read(&report).expect("a report");
        let report: serde_json::Value = serde_json::from_slice(&report).expect("JSON");
        let peak = report["memory_peak"].as_u64().expect("a figure");
        assert!(peak <= 128 << 20, "{what}: {} MiB were resident", peak >> 20);
    };
    let (data, back) = (cli.text("data"), cli.text("back"));
    let measured = ["--report-file", &report];
    good(&[&["backup", "--path", &data], &measured[..], &as_strs(&cli.writer_args())].concat());
    held("backup");
    let reader = cli.reader_args();
    let reader = [&measured[..], &as_strs(&reader)].concat();
    good(&[&["restore", "latest", "--to", &back], &reader[..]].concat());
    held("restore");
    good(&[&["verify"], &reader[..]].concat());
    held("verify");
}
