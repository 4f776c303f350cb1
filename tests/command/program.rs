//! The program as a process: exit codes, standard output and error, files.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use crate::support::program::{command, kbak, read};

/// Returns the verbs below a verb, as its help lists them.
pub(super) fn verbs(path: &[&str]) -> Vec<String> {
    let mut args = path.to_vec();
    args.push("--help");
    let (_, help, _) = kbak(&args);
    let Some((_, list)) = help.split_once("\nCommands:\n") else { return Vec::new() };
    let lines = list.lines().take_while(|line| !line.is_empty());
    let first = |line: &str| line.strip_prefix("  ")?.split(' ').next().map(str::to_owned);
    lines.filter_map(first).filter(|verb| !verb.is_empty()).collect()
}

#[test]
fn program_without_arguments_prints_a_guide_and_exits_two() {
    let (code, out, err) = kbak::<&str>(&[]);
    assert_eq!(code, 2);
    assert!(out.contains("kbak keygen -o owner.key") && err.is_empty(), "{out}{err}");
}

#[test]
fn usage_error_exits_two_and_help_exits_zero() {
    for args in [&["frobnicate"][..], &["backup", "--frobnicate"], &["restore", "--existing-files", "burn"]] {
        let (code, out, err) = kbak(args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
    }
    for args in [&["--help"][..], &["--version"], &["backup", "-h"]] {
        let (code, out, err) = kbak(args);
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}: {out}");
    }
}

#[test]
fn closed_pipe_ends_the_program_quietly() {
    let mut child = command(&["plan", "schema"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    // The reading end is closed at once or before the program has written more than a pipe holds.
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("an end");
    let (code, _, err) = read(output);
    assert_eq!((code, err.as_str()), (0, ""));
}

fn plan(folder: &Path, spec: &str) -> String {
    let file = folder.join("plan.yaml");
    let owner = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    let text = format!(
        "apiVersion: kbak.dev/v1\nkind: BackupPlan\nmetadata: {{name: nightly}}\nspec:\n  \
         repository: {{url: file:///srv/backups}}\n  recipients: [{owner}]\n  writer: {{keyFile: writer.key}}\n{spec}"
    );
    std::fs::write(&file, text).expect("a plan");
    file.to_str().expect("UTF-8").to_owned()
}

#[test]
fn valid_plan_passes_the_check_and_invalid_plan_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let good = plan(folder.path(), "  resources: {}\n  retention: {keepDaily: 3}\n");
    let (code, out, err) = kbak(&["plan", "check", &good]);
    assert_eq!((code, out.as_str()), (0, ""));
    let expected = format!(
        "! line 9, column 3: spec.retention: nothing is pruned: not yet supported by this version\n\
         ✓ {good} declares resources\n"
    );
    assert_eq!(err, expected);

    let bad = plan(folder.path(), "  resource: {}\n");
    let (code, _, err) = kbak(&["plan", "check", &bad]);
    assert_eq!(code, 2);
    assert!(
        err.starts_with(&format!("error: {bad}: line 8, column 3: unknown field resource in spec\n")),
        "{err}"
    );
    assert!(err.contains("  → did you mean resources?") && err.trim_end().ends_with("exit 2"), "{err}");

    let (code, out, err) = kbak(&["plan", "check", &bad, "-o", "json"]);
    let report: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, err.as_str()), (2, ""));
    assert_eq!(report["problems"][0]["kind"], "unknown-field");
    assert_eq!(report["problems"][0]["at"]["line"], 8);

    let (code, _, err) = kbak(&["plan", "check", "/nowhere/plan.yaml"]);
    assert_eq!(code, 2);
    assert!(err.contains("because No such file") && err.contains("→ "), "{err}");
}

#[test]
fn plan_is_read_from_standard_input() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = std::fs::read(plan(folder.path(), "  resources: {}\n")).expect("a plan");
    let mut child = command(&["plan", "check", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    child.stdin.take().expect("a pipe").write_all(&text).expect("it reads");
    let (code, _, err) = read(child.wait_with_output().expect("an end"));
    assert_eq!((code, err.as_str()), (0, "✓ standard input declares resources\n"));
}

#[test]
fn owner_key_is_created_once_and_protected() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    std::fs::write(at("pass"), "correct horse\nsecond line\n").expect("a file");

    // Without a terminal there is no passphrase prompt.
    let (code, out, err) = kbak(&["keygen", "-o", &at("owner.key")]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("--passphrase-file") && !Path::new(&at("owner.key")).exists(), "{err}");

    let (code, public, err) =
        kbak(&["keygen", "-o", &at("owner.key"), "--comment", "ada", "--passphrase-file", &at("pass")]);
    assert_eq!(code, 0, "{err}");
    assert!(public.starts_with("age1") && public.trim_end().ends_with(" ada"), "{public}");
    let file = std::fs::metadata(at("owner.key")).expect("a file");
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(at("owner.key")).expect("text");
    assert!(text.starts_with("-----BEGIN AGE ENCRYPTED FILE-----"), "{text}");

    let (code, shown, err) =
        kbak(&["keygen", "--public", &at("owner.key"), "--passphrase-file", &at("pass")]);
    assert_eq!((code, shown), (0, public), "{err}");

    let (code, _, err) = kbak(&["keygen", "-o", &at("owner.key"), "--no-passphrase"]);
    assert_eq!(code, 2);
    assert!(err.contains("exists and is not overwritten"), "{err}");
    assert_eq!(std::fs::read_to_string(at("owner.key")).expect("text"), text);

    let (code, paper, _) = kbak(&["keygen", "--paper", "--no-passphrase"]);
    assert_eq!(code, 0);
    assert!(paper.contains("AGE-SECRET-KEY-1") && paper.contains("NOT protected"), "a page");
}

#[test]
fn secrets_in_arguments_are_refused_without_repeating_them() {
    let base =
        ["backup", "--repo", "file:///nowhere", "--writer-key", "/nowhere/writer.key", "--path", "/tmp"];
    for (option, value) in [
        ("--recipient", "AGE-SECRET-KEY-1CANARY7391"),
        ("--database", "postgresql://me:canary-7391@db/shop"),
        ("--database", "postgresql://db/shop?password=canary-7391"),
        ("--repo", "s3://me:canary-7391@backups"),
    ] {
        let mut args: Vec<&str> = base.to_vec();
        if option == "--repo" {
            args[2] = value;
        } else {
            args.extend([option, value]);
        }
        let (code, out, err) = kbak(&args);
        assert_eq!((code, out.as_str()), (2, ""), "{option}: {err}");
        assert!(!err.to_lowercase().contains("canary"), "{err}");
        assert!(err.contains("→"), "{option} says what to do: {err}");
    }
}

#[test]
fn failures_are_json_when_json_is_requested() {
    let (code, out, err) = kbak(&["snapshots", "--repo", "file:///nowhere", "-o", "json"]);
    assert_eq!((code, out.as_str()), (2, ""));
    let shown: serde_json::Value = serde_json::from_str(&err).expect("JSON");
    assert_eq!(shown["error"]["code"], 2);
    assert!(
        shown["error"]["what"].as_str().is_some_and(|what| what.contains("no signer is pinned")),
        "{err}"
    );
    assert!(shown["error"]["remedy"].is_string(), "{err}");
}

#[test]
fn signal_ends_a_run_with_its_own_exit_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let pin = folder.path().join("kbak.pub");
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJXFzc2ujrzEIhCBNXYh0T5T5YWKv6F0BiUE7i/X9AqT";
    std::fs::write(&pin, format!("{} namespaces=\"kbak-manifest-v1\" {key}\n", "0".repeat(32)))
        .expect("a pin");
    let credentials = folder.path().join("credentials");
    std::fs::write(&credentials, "[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
        .expect("a file");
    // A store that takes connections and never answers.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let mut child = command(&[
        "snapshots",
        "--repo",
        "s3://backups",
        "--endpoint",
        &endpoint,
        "--signer",
        &text(&pin),
        "--credentials-file",
        &text(&credentials),
        "--region",
        "eu-central-1",
    ])
    .stderr(Stdio::piped())
    .spawn()
    .expect("the program runs");
    let (mut connection, _) = listener.accept().expect("a connection");
    let mut first = [0u8; 1];
    connection.read_exact(&mut first).expect("a request begins");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
    let status = child.wait().expect("an end");
    let mut err = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut err).expect("text");
    assert_eq!(status.code(), Some(6), "{err}");
    assert!(err.contains("interrupted by SIGTERM") && err.trim_end().ends_with("exit 6"), "{err}");
}
