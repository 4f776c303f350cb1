//! Output streams: data goes to standard output, messages to standard error, and both can be JSON.

use super::lifecycle::{content, json, sample_repo};
use crate::support::cli_repo::as_strs;
use crate::support::program::{kbak, read};

/// Parses every line as JSON.
fn events(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(json).collect()
}

#[test]
fn json_progress_makes_all_of_standard_error_json_lines() {
    let cli = sample_repo();
    let (code, _, err) = cli.backup(&["--progress", "json"]);
    assert_eq!(code, 0, "{err}");
    let told = events(&err);
    let last = told.last().expect("a summary");
    assert_eq!((&last["event"], &last["report"]["exit"]), (&"summary".into(), &"safe".into()), "{err}");
    assert!(told.iter().all(|event| event["time"].is_string() && event["event"].is_string()), "{err}");

    std::fs::rename(cli.at("data"), cli.at("moved")).expect("moved");
    let (code, out, err) = cli.backup(&["--progress", "json", "-o", "json"]);
    assert_eq!(code, 3, "{err}");
    assert_eq!(events(&err).last().expect("a summary")["report"], json(&out), "the same report");

    let (code, _, err) = cli.run_reader(&["verify", "--progress", "json"]);
    assert_eq!((code, events(&err).last().expect("a summary")["event"].as_str()), (0, Some("summary")));
    let (code, _, err) = cli.run_reader(&["restore", "7", "--progress", "json", "--to", &cli.text("back")]);
    assert_eq!(code, 2, "{err}");
    let told = events(&err);
    let failure = &told.last().expect("a summary")["report"]["failure"];
    assert!(failure["remedy"].is_string() || failure["what"].is_string(), "{err}");
    // Also if no run begins.
    let (code, _, err) = kbak(&["restore", "--progress", "json"]);
    assert_eq!((code, events(&err)[0]["event"].as_str()), (2, Some("failure")), "{err}");
}

#[test]
fn list_verbs_print_one_object_a_line_as_their_help_states() {
    let cli = sample_repo();
    assert_eq!(cli.backup(&[]).0, 0);
    let (code, out, _) = cli.run_reader(&["ls", "latest", "-o", "json"]);
    assert_eq!((code, events(&out)[0]["place"].as_str()), (0, Some(cli.data_item().as_str())));
    let (_, out, _) = cli.run_reader(&["ls", "latest", "-o", "yaml"]);
    assert!(out.starts_with("---\n"), "{out}");
    for verb in ["ls", "find", "diff"] {
        let (_, help, _) = kbak(&[verb, "--help"]);
        assert!(help.contains("one object a line") && !help.contains("One JSON document"), "{help}");
    }
}

/// Runs the program by a shell that redirects its output.
fn shell(args: &[&str], redirect: &str) -> (i32, String, String) {
    let quoted: Vec<String> = args.iter().map(|arg| format!("'{arg}'")).collect();
    let line = format!("'{}' {} {redirect}", env!("CARGO_BIN_EXE_kbak"), quoted.join(" "));
    read(std::process::Command::new("sh").args(["-c", &line]).output().expect("a shell"))
}

#[test]
fn unwritable_standard_output_exits_three() {
    let cli = sample_repo();
    let (data, writer, reader) = (cli.text("data"), cli.writer_args(), cli.reader_args());
    let backup = [&["backup", "--path", &data], &as_strs(&writer)[..]].concat();
    let back = cli.text("back");
    let reads = |args: &[&'static str]| [args.to_vec(), as_strs(&reader)].concat();
    let (code, _, err) = shell(&[&backup[..], &["-o", "json"]].concat(), "> /dev/full");
    assert!(code == 3 && err.contains("snapshot 000001 committed"), "{code}: {err}");
    let (code, _, err) = shell(&[&backup[..], &["-o", "json"]].concat(), ">&-");
    assert!(code == 3 && err.contains("snapshot 000002 committed, but its report"), "{code}: {err}");
    let restore = reads(&["restore", "--to", "back", "-o", "json"]);
    let restore: Vec<&str> =
        restore.iter().map(|arg| if *arg == "back" { back.as_str() } else { arg }).collect();
    let (code, _, err) = shell(&restore, ">&-");
    assert!(
        code == 3 && err.contains("restored, but its report: standard output is closed"),
        "{code}: {err}"
    );
    let item = cli.data_item();
    let place = format!("{item}:one.txt");
    let cat = [&["cat", "latest", &place], &as_strs(&reader)[..]].concat();
    for args in [&cat[..], &reads(&["restore", "--tar"])] {
        let (code, _, err) = shell(args, ">&-");
        assert!(code == 3 && err.contains("standard output is closed"), "{code}: {err}");
        assert_eq!(shell(args, "> /dev/null").0, 0);
    }
    let key = cli.text("new.key");
    let (code, _, err) = shell(&["keygen", "--no-passphrase", "-o", &key], ">&-");
    assert!(code == 2 && err.contains("standard output is closed"), "{code}: {err}");
    assert!(!cli.at("new.key").exists());
}

#[test]
fn usage_error_is_json_when_json_is_requested() {
    for args in [&["backup", "--no-such", "-o", "json"][..], &["ls", "--output=json"]] {
        let (code, out, err) = kbak(args);
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        let told = json(&err);
        assert_eq!(
            (told["error"]["exit"].as_str(), told["error"]["code"].as_u64()),
            (Some("usage"), Some(2))
        );
        let what = told["error"]["what"].as_str().expect("text");
        assert!(what.contains("--no-such") || what.contains("SNAPSHOT"), "{what}");
    }
}

#[test]
fn report_is_written_into_devices_pipes_and_links_without_replacing_them() {
    use std::os::unix::fs::{FileTypeExt as _, symlink};
    let cli = sample_repo();
    let (link, file, pipe) = (cli.at("link"), cli.at("file"), cli.at("pipe"));
    std::fs::write(&file, "old").expect("a file");
    symlink(&file, &link).expect("a link");
    let (code, _, err) = cli.backup(&["--report-file", &cli.text("link"), "--metrics-file", "/dev/stdout"]);
    assert_eq!(code, 0, "{err}");
    assert!(link.is_symlink() && json(&String::from_utf8(content(&file)).expect("text"))["exit"] == "safe");

    let mode = rustix::fs::Mode::RWXU;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::read_to_string(pipe).expect("the report")
    });
    let (code, _, err) = cli.backup(&["--report-file", &cli.text("pipe")]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(json(&reader.join().expect("read"))["exit"], "safe");
    assert!(std::fs::symlink_metadata(&pipe).expect("there").file_type().is_fifo());
}

#[test]
fn run_that_fails_before_it_begins_leaves_its_report() {
    let cli = sample_repo();
    let plan = cli.write_plan("  voluems: []\n");
    let at = ["report.json", "metrics", "last-words"].map(|name| cli.text(name));
    let files = ["--report-file", &at[0], "--metrics-file", &at[1], "--termination-log", &at[2]];
    let pin = cli.text("keys/kbak.pub");
    let restore = ["restore", "--repo", &cli.url(), "--signer", &pin, "--to", &cli.text("back")];
    let verify = ["verify", "--repo", &cli.url(), "--signer", &pin, "--identity", &cli.text("none.key")];
    for verb in [&["backup", "--plan", &plan][..], &restore, &verify] {
        let (code, _, err) = kbak(&[verb, &files].concat());
        assert_eq!(code, 2, "{err}");
        let [report, metrics, words] = at.each_ref().map(|file| std::fs::read_to_string(file).expect("left"));
        assert_eq!((&json(&report)["verb"], &json(&report)["exit"]), (&verb[0].into(), &"usage".into()));
        assert!(metrics.contains("kbak_") && !words.is_empty(), "{metrics} {words}");
        at.iter().for_each(|file| std::fs::remove_file(file).expect("removed"));
    }
}

#[test]
fn too_small_memory_limit_is_refused_with_and_without_a_plan() {
    let cli = sample_repo();
    let plan = cli.write_plan(&format!("  volumes: [{{path: \"{}\"}}]\n", cli.text("data")));
    let (code, _, err) = kbak(&["backup", "--plan", &plan, "--memory", "8Mi"]);
    assert!(code == 2 && err.contains("is less than the minimum, 64Mi"), "{code} {err}");
    let (code, _, err) =
        kbak(&["verify", "--repo", &cli.url(), "--signer", &cli.text("keys/kbak.pub"), "--memory", "8Mi"]);
    assert!(code == 2 && err.contains("is less than the minimum, 64Mi"), "{code} {err}");
    let (code, _, err) = kbak(&["backup", "--plan", &plan, "--memory", "64Mi"]);
    assert_eq!(code, 0, "{err}");
}
