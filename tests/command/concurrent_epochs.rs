//! Runs that create epochs at the same moment.

use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::support::cli_repo::{CliRepo, as_strs};
use crate::support::program::{beneath, command, good, kbak};

fn start(cli: &CliRepo, more: &[&str]) -> Child {
    let (data, writer) = (cli.text("data"), cli.writer_args());
    let args = [&["backup", "--path", &data], &as_strs(&writer)[..], more].concat();
    command(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts")
}

fn at_once(cli: &CliRepo, more: &[&str]) {
    let runs: Vec<Child> = (0..3).map(|_| start(cli, more)).collect();
    for run in runs {
        let output = run.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{more:?}: {said}");
    }
}

#[test]
fn concurrent_epoch_creation_leaves_a_working_plan() {
    let cli = CliRepo::new();
    for round in 0..4 {
        let name = format!("new{round}");
        let plan = ["--plan-name", &name];
        at_once(&cli, &plan);
        let (code, _, err) = cli.backup(&plan);
        assert_eq!(code, 0, "{err}");
        // Again from an existing epoch; the runs that follow continue and close them all.
        at_once(&cli, &[&plan[..], &["--new-epoch"]].concat());
        for more in [&[][..], &[], &["--new-epoch"], &[]] {
            let (code, _, err) = cli.backup(&[&plan[..], more].concat());
            assert_eq!(code, 0, "{more:?}: {err}");
        }
        let secrets = std::fs::read_to_string(cli.at(&format!("keys/writer.key.{name}.epoch")));
        assert_eq!(secrets.expect("kept").matches("\"epoch\"").count(), 1, "closed epochs are removed");
    }
}

/// Starts a backup that stops at a point, and returns when it has.
fn start_stopped(cli: &CliRepo, point: &str) -> Child {
    let (data, writer) = (cli.text("data"), cli.writer_args());
    let args = [&["backup", "--path", &data], &as_strs(&writer)[..]].concat();
    let mut run = command(&args);
    run.env("KBAK_STOP_AT", point).stdout(Stdio::null()).stderr(Stdio::piped());
    let run = run.spawn().expect("it starts");
    let stopped = waitpid(Some(Pid::from_child(&run)), WaitOptions::UNTRACED).expect("it is waited for");
    assert!(stopped.is_some_and(|(_, status)| status.stopped()), "{point}");
    run
}

/// Continues a stopped backup, after another signal if one is given. Returns its exit code and its messages.
fn finish(run: Child, signal: Option<Signal>) -> (i32, String) {
    let process = Pid::from_child(&run);
    for signal in signal.into_iter().chain([Signal::CONT]) {
        kill_process(process, signal).expect("a signal");
    }
    let output = run.wait_with_output().expect("it ends");
    (output.status.code().expect("a code"), String::from_utf8(output.stderr).expect("text"))
}

/// Backs up and returns the messages.
fn backup(cli: &CliRepo) -> String {
    let (code, _, err) = cli.backup(&[]);
    assert_eq!(code, 0, "{err}");
    err
}

const NOT_ENDED: &str = "another run of this plan began at ";
const MADE: &str = "was stored while this run made snapshot 000002";

#[test]
fn both_of_two_runs_at_once_say_that_they_make_the_same_number() {
    let cli = CliRepo::new();
    assert!(!backup(&cli).contains("another run"));
    let first = start_stopped(&cli, "backup.commit.begun");
    let said = backup(&cli);
    assert!(
        said.contains(NOT_ENDED) && said.contains("another snapshot 000002 beside snapshot 000002"),
        "{said}"
    );
    assert!(said.contains("let runs of one plan not overlap"), "{said}");
    let (code, said) = finish(first, None);
    assert!(code == 0 && said.contains(MADE) && !said.contains(NOT_ENDED), "{said}");
    let said = backup(&cli);
    assert!(said.contains("are the ends of the chain") && !said.contains("another run"), "{said}");
}

#[test]
fn run_that_commits_after_the_last_listing_of_another_is_named() {
    let cli = CliRepo::new();
    backup(&cli);
    let second = start_stopped(&cli, "backup.run.noted");
    // This one has listed the snapshots for the last time.
    let first = start_stopped(&cli, "backup.committed");
    for run in [second, first] {
        let (code, said) = finish(run, None);
        assert!(code == 0 && said.contains(MADE), "{said}");
    }
}

#[test]
fn run_that_said_that_it_ended_is_not_taken_for_one_that_runs() {
    let cli = CliRepo::new();
    backup(&cli);
    let interrupted = start_stopped(&cli, "backup.item.read");
    let (code, said) = finish(interrupted, Some(Signal::TERM));
    assert_eq!(code, 6, "{said}");
    let said = backup(&cli);
    assert!(!said.contains("another run"), "{said}");
    // One that was killed says nothing: it is named once.
    let killed = start_stopped(&cli, "backup.item.read");
    let process = Pid::from_child(&killed);
    kill_process(process, Signal::KILL).expect("killed");
    drop(killed.wait_with_output());
    let said = backup(&cli);
    assert!(said.contains(NOT_ENDED) && said.contains("not ended: one that was not killed makes"), "{said}");
    let said = backup(&cli);
    assert!(!said.contains("another run"), "{said}");
}

fn owner(cli: &CliRepo, name: &str) -> String {
    let key = cli.text(&format!("keys/{name}.key"));
    let made = good(&["keygen", "-o", &key, "--no-passphrase", "--comment", name]);
    String::from_utf8(made.stdout).expect("text").trim_end().to_owned()
}

#[test]
fn owner_removal_needs_an_explicit_option() {
    let cli = CliRepo::new();
    let (bob, carol) = (owner(&cli, "bob"), owner(&cli, "carol"));
    let with = |owners: &[&str], more: &[&str]| {
        let (data, repo, key) = (cli.text("data"), cli.url(), cli.text("keys/writer.key"));
        let owners: Vec<&str> = owners.iter().flat_map(|owner| ["--recipient", owner]).collect();
        kbak(
            &[&["backup", "--path", &data, "--repo", &repo, "--writer-key", &key], &owners[..], more]
                .concat(),
        )
    };
    let both = [cli.recipient.as_str(), &bob];
    assert_eq!(with(&both, &["--new-epoch"]).0, 0);
    let store = beneath(&cli.at("store"));
    for owners in [&[carol.as_str()][..], &[&bob], &[&carol, &carol]] {
        for more in [&[][..], &["--new-epoch"]] {
            let (code, _, err) = with(owners, more);
            assert_eq!(code, 2, "{err}");
            assert!(err.contains("--change-owners") || err.contains("occurs twice"), "{err}");
        }
    }
    assert_eq!(beneath(&cli.at("store")), store, "the store is unchanged");
    let dan = owner(&cli, "dan");
    assert_eq!(with(&[&carol, &dan], &[]).0, 2, "strangers alone");
    assert_eq!(with(&[&bob, &dan], &[]).0, 0, "one of two is replaced");
    assert_eq!(with(&[&carol], &["--change-owners"]).0, 0, "asked for");
}

#[test]
fn several_owners_in_one_value_are_refused() {
    let cli = CliRepo::new();
    let bob = owner(&cli, "bob");
    let ssh = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN";
    for other in
        [format!("{}\n{bob}", cli.recipient), format!("{} {bob}", cli.recipient), format!("{bob} {ssh}")]
    {
        let file = cli.at("owners");
        std::fs::write(&file, other.replace('\n', " ")).expect("a file");
        let (repo, text) = (format!("file://{}", cli.text("new")), cli.text("owners"));
        let owner = format!("--owner={other}");
        for args in [
            &["init", "--repo", &repo, "--single-owner", "--recipient", &other][..],
            &["init", "--repo", &repo, "--single-owner", "--recipients-file", &text],
            &[&["keys", "add", &owner][..], &as_strs(&cli.reader_args())].concat(),
        ] {
            let (code, _, err) = kbak(args);
            assert_eq!(code, 2, "{err}");
            assert!(err.contains("more than one key or line"), "{args:?}: {err}");
        }
    }
    let plan = cli.write_plan("  volumes: [{path: /srv}]\n");
    let text = std::fs::read_to_string(&plan).expect("a plan");
    let line = text.lines().find(|line| line.contains("recipients:")).expect("a line").to_owned();
    let block = format!("  recipients:\n  - |\n    {}\n    {bob}", cli.recipient);
    std::fs::write(&plan, text.replace(&line, &block)).expect("written");
    let (code, out, err) = kbak(&["plan", "check", &plan]);
    assert_eq!(code, 2, "{out}{err}");
    assert!(err.contains("more than one key or line"), "{err}");
}
