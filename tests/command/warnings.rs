//! Warnings of runs: said, counted, and ended by what they ask for.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::lifecycle::json;
use super::mistakes::objects;
use crate::support::cli_repo::{CliRepo, as_strs};
use crate::support::program::{command, good, kbak, run_json};

/// Returns the warnings of a report, each as object and message.
fn warnings(report: &Value) -> Vec<String> {
    let all = report["warnings"].as_array().cloned().unwrap_or_default();
    let text = |one: &Value, field: &str| one[field].as_str().unwrap_or_default().to_owned();
    all.iter().map(|one| format!("{}: {}", text(one, "object"), text(one, "message"))).collect()
}

#[test]
fn settings_without_effect_are_warned_of_and_counted() {
    let cli = CliRepo::for_plan("nightly");
    let plan = cli.write_plan(&format!(
        "  volumes: [{{path: \"{}\"}}]\n  retention: {{keepDaily: 3}}\n",
        cli.text("data")
    ));
    let metrics = cli.text("metrics");
    for _ in 0..2 {
        let (code, report, err) = run_json(&["backup", "--plan", &plan, "--metrics-file", &metrics]);
        assert_eq!(code, 0, "{err}");
        assert!(err.contains("spec.retention: nothing is pruned"), "{err}");
        assert_eq!(
            warnings(&report),
            ["spec.retention: nothing is pruned: not yet supported by this version"]
        );
        let text = std::fs::read_to_string(&metrics).expect("metrics");
        assert!(text.contains("kbak_warnings{verb=\"backup\",plan=\"nightly\"} 1"), "{text}");
    }
}

#[test]
fn first_epoch_of_another_plan_and_changed_owners_are_named() {
    let cli = CliRepo::new();
    let (code, out, err) = cli.backup(&["-o", "json"]);
    assert_eq!((code, warnings(&json(&out)).len()), (0, 0), "kbak init opened this plan: {err}");
    let (code, out, err) = cli.backup(&["--plan-name", "othr", "-o", "json"]);
    assert_eq!(code, 0, "{err}");
    let told = warnings(&json(&out)).concat();
    assert!(told.contains("the first of this plan") && told.contains("1 plan with another name"), "{told}");
    assert!(err.contains("kbak keys check --identity OWNER-KEY"), "{err}");
    let (_, out, _) = cli.backup(&["--plan-name", "othr", "-o", "json"]);
    assert_eq!(warnings(&json(&out)), Vec::<String>::new(), "only the run that opened it");

    let key = cli.text("keys/bob.key");
    let made = good(&["keygen", "-o", &key, "--no-passphrase", "--comment", "bob"]);
    let bob = String::from_utf8(made.stdout).expect("text").trim_end().to_owned();
    let (_, out, err) = cli.backup(&["--recipient", &bob, "--new-epoch", "-o", "json"]);
    let report = json(&out);
    let told = warnings(&report).concat();
    assert!(told.contains("its owners are not those of the last epoch: bob added"), "{told}{err}");
    assert!(report["facts"].to_string().contains("bob added, from this epoch on"), "{}", report["facts"]);
    let (code, out, err) = cli.backup(&["--change-owners", "-o", "json"]);
    assert_eq!(code, 0, "{err}");
    let told = warnings(&json(&out)).concat();
    assert!(told.contains("SHA256:") && told.contains(" removed"), "{told}");
}

/// A backup that sends slowly, stopped once it reads its items. Its JSON report goes to standard output.
fn stopped_backup(cli: &CliRepo) -> (Child, Pid) {
    std::fs::write(cli.at("data/large"), noise(3 << 20)).expect("a file");
    let (data, writer) = (cli.text("data"), cli.writer_args());
    let args = ["backup", "--path", &data, "--upload", "2Mi/s", "--progress", "json", "-o", "json"];
    let mut child = command(&[&args[..], &as_strs(&writer)].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let pid = Pid::from_child(&child);
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    while !line.contains("item-started") {
        line.clear();
        assert_ne!(lines.read_line(&mut line).expect("events"), 0, "it ended");
    }
    kill_process(pid, Signal::STOP).expect("stopped");
    // Its later events go nowhere, and must not block it.
    std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
    (child, pid)
}

/// Returns bytes that no compression makes smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 7u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u8::try_from(state >> 56).expect("eight bits")
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[test]
fn two_backups_at_once_are_told_and_both_can_be_named() {
    let cli = CliRepo::new();
    assert_eq!(cli.backup(&[]).0, 0);
    let (first, pid) = stopped_backup(&cli);
    let (code, out, err) = cli.backup(&["-o", "json"]);
    assert_eq!((code, json(&out)["snapshot"]["sequence"].as_u64()), (0, Some(2)), "{err}");
    let second = json(&out)["snapshot"]["hash"].as_str().expect("a hash").to_owned();
    kill_process(pid, Signal::CONT).expect("goes on");
    let output = first.wait_with_output().expect("an end");
    let report = json(&String::from_utf8_lossy(&output.stdout));
    assert_eq!(
        (output.status.code(), report["snapshot"]["sequence"].as_u64()),
        (Some(0), Some(2)),
        "{report}"
    );
    let told = warnings(&report).concat();
    let expected = format!("snapshot 000002 (sha256:{}) was stored while this run made", &second[..12]);
    assert!(told.contains(&expected), "{told}");

    let (code, _, err) = cli.run_reader(&["show", "2"]);
    assert!(code == 2 && err.contains("2 snapshots could be meant by 2"), "{err}");
    let remedy = err.lines().find(|line| line.contains('→')).expect("a remedy");
    let hash = remedy.rsplit(": ").next().expect("a hash").split_whitespace().next().expect("a hash");
    let (code, out, err) = cli.run_reader(&["show", hash]);
    assert!(code == 0 && out.contains("000002"), "{hash}: {out}{err}");
    assert_eq!(cli.run_reader(&["show", &second[..6]]).0, 0);

    let (code, out, err) = cli.backup(&["-o", "json"]);
    assert_eq!((code, json(&out)["snapshot"]["sequence"].as_u64()), (0, Some(3)), "{err}");
    let told = warnings(&json(&out)).concat();
    assert!(told.contains("snapshot 000002") && told.contains("are the ends of the chain"), "{told}");
    let (_, out, _) = cli.backup(&["-o", "json"]);
    assert_eq!(warnings(&json(&out)), Vec::<String>::new(), "the third snapshot follows both");
}

#[test]
fn interrupted_run_reports_the_items_that_it_began() {
    let cli = CliRepo::new();
    let report = cli.text("report.json");
    let (data, other, writer) = (cli.text("data"), cli.text("other"), cli.writer_args());
    std::fs::create_dir(&other).expect("a folder");
    std::fs::write(cli.at("other/large"), noise(8 << 20)).expect("a file");
    let args = ["backup", "--path", &data, "--path", &other, "--upload", "1Mi/s", "--progress", "json"];
    let files = ["--report-file", &report];
    let mut child = command(&[&args[..], &files, &as_strs(&writer)].concat())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let started = |line: &str| line.contains("item-started") && line.contains("/other");
    assert!(lines.any(|line| started(&line.expect("events"))), "the second item begins");
    kill_process(Pid::from_child(&child), Signal::TERM).expect("a signal");
    lines.for_each(drop);
    assert_eq!(child.wait().expect("an end").code(), Some(6));
    let report = json(&std::fs::read_to_string(report).expect("a report"));
    let items: Vec<&str> = report["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|item| item["item"].as_str().expect("a name"))
        .collect();
    assert_eq!(items, [cli.data_item(), format!("path{other}")], "{report}");
    assert!(report["items"].to_string().contains("not finished"), "{report}");

    assert_eq!(cli.backup(&[]).0, 0);
    let to = cli.text("data");
    let (code, out, _) = cli.run_reader(&["restore", "latest", "--to", &to, "-o", "json"]);
    assert_eq!((code, json(&out)["items"][0]["item"].as_str()), (2, Some(cli.data_item().as_str())));
}

/// Damages the largest of the packs in the middle: it holds chunks of a large file.
fn damage_largest(packs: &[PathBuf]) {
    let size = |pack: &&PathBuf| pack.metadata().expect("its size").len();
    let pack = packs.iter().filter(|pack| pack.is_file()).max_by_key(size).expect("a pack");
    let mut bytes = std::fs::read(pack).expect("a pack");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(pack, bytes).expect("written");
}

#[test]
fn repaired_damage_is_not_reported_for_ever() {
    let cli = CliRepo::new();
    std::fs::write(cli.at("data/large"), noise(6 << 20)).expect("a file");
    assert_eq!(cli.backup(&[]).0, 0);
    damage_largest(&objects(&cli, "/packs/"));
    let (pin, key) = (cli.text("keys/kbak.pub"), cli.text("keys/writer.key"));
    let verify = |more: &[&str]| kbak(&[&["verify", "--repo", &cli.url(), "--signer", &pin], more].concat());
    let (code, out, err) = verify(&["--read-all", "--distrust-key", &key]);
    assert_eq!(code, 4, "{err}");
    assert!(out.contains("kbak verify --distrust-key"), "{out}");
    let (code, out, err) = verify(&["--read-all"]);
    assert_eq!(code, 4, "the newest snapshot still needs them: {err}");
    assert!(out.contains("the next backup stores its data anew"), "{out}");
    // The record counts also where the pack is not read.
    let (code, out, err) = verify(&[]);
    assert_eq!(code, 4, "the newest snapshot still needs a pack that a record calls bad: {out}{err}");

    let lost = |out: &str| warnings(&json(out)).concat().contains("gone, altered or distrusted");
    let (code, out, err) = cli.backup(&["-o", "json"]);
    assert!(code == 0 && lost(&out), "the run that stores it anew says so: {err}");
    for _ in 0..2 {
        let (code, out, err) = cli.backup(&["-o", "json"]);
        assert!(code == 0 && !lost(&out), "{err}");
    }
    let (code, out, err) = verify(&["--read-all"]);
    assert_eq!(code, 0, "the snapshot names the copies: {out}{err}");
    assert!(err.contains("copies of all their chunks are stored elsewhere"), "{out}{err}");
    let (code, out, err) = verify(&[]);
    assert_eq!(code, 0, "no alarm for ever: {out}{err}");
    let (code, out, err) = cli.run_reader(&["verify"]);
    assert_eq!(code, 0, "copies make every snapshot whole: {out}{err}");
    let (code, _, err) = cli.run_reader(&["restore", "1", "--to", &cli.text("back")]);
    assert_eq!(code, 0, "{err}");
}
