//! The built program, and files that it writes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// The result of a run of the program.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    /// Its `--report-file`; null if it wrote none.
    pub report: Value,
}

impl Run {
    /// Runs the program, which writes its report to the path `report`.
    pub async fn of(args: &[String], report: &str) -> Self {
        // Not on the test's runtime thread, whose servers it may ask.
        let output = tokio::process::Command::from(command(args)).output().await.expect("it runs");
        let text = std::fs::read(report).ok();
        Self {
            code: output.status.code().expect("it ended by itself"),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            report: text.map(|text| serde_json::from_slice(&text).expect("JSON")).unwrap_or_default(),
        }
    }

    /// Returns the run if it ended with `code`, else panics.
    pub fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}\n{:#}", self.stderr, self.stdout, self.report["items"]);
        self
    }

    /// Returns every gap that it reports: code, object, reason.
    pub fn gaps(&self) -> Vec<(String, String, String)> {
        let items = self.report["items"].as_array().into_iter().flatten();
        let gaps = items.flat_map(|item| item["gaps"].as_array().into_iter().flatten());
        let text = |gap: &Value, field: &str| gap[field].as_str().unwrap_or_default().to_owned();
        gaps.map(|gap| (text(gap, "code"), text(gap, "object"), text(gap, "reason"))).collect()
    }

    /// Returns all output that a person reads.
    pub fn all_output(&self) -> String {
        format!("{}\n{}\n{}", self.stdout, self.stderr, self.report["items"])
    }
}

/// Returns the program with these arguments, without the tester's environment.
pub fn command<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kbak"));
    command.args(args).stdin(Stdio::null());
    for name in ["KUBECONFIG", "PGPASSWORD", "KBAK_KILL_AT", "KBAK_STOP_AT"] {
        command.env_remove(name);
    }
    command
}

/// Returns exit code, standard output and standard error.
pub fn read(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("a code"), text(output.stdout), text(output.stderr))
}

/// Runs the program without a terminal; returns exit code, standard output and standard error.
pub fn kbak<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> (i32, String, String) {
    read(command(args).output().expect("the program runs"))
}

/// Returns Prometheus' own parser of `rules`, of the queries of a `dashboard`, or of `metrics`.
pub fn prometheus_parser(kind: &str) -> Command {
    let program = std::env::var_os("KBAK_TEST_RULES")
        .expect("KBAK_TEST_RULES names the parser: eval \"$(scripts/tools --need rules)\"");
    let mut command = Command::new(program);
    command.arg(kind);
    command
}

/// Runs the program and returns its exit code, its JSON report, and its messages.
pub fn run_json(args: &[&str]) -> (i32, Value, String) {
    let output = command(&[args, &["-o", "json"]].concat()).output().expect("it runs");
    let said = String::from_utf8(output.stderr).expect("text");
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code().expect("a code"), report, said)
}

/// Runs a command beside the test's own tasks.
pub async fn run_beside(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output()).await.expect("it ends").expect("it runs")
}

/// Runs the program, which must succeed.
pub fn good<S: AsRef<std::ffi::OsStr> + std::fmt::Debug>(args: &[S]) -> Output {
    succeeds(&mut command(args))
}

/// Runs any program, which must succeed.
pub fn succeeds(command: &mut Command) -> Output {
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{command:?}: {said}");
    output
}

/// True if a test program that was asked for one test has run it, and it passed. Without the number a name
/// that no test has would pass, too.
pub fn ran_one(run: &Output) -> bool {
    run.status.success() && String::from_utf8_lossy(&run.stdout).contains("test result: ok. 1 passed")
}

/// Returns everything beneath a folder, in order. Links are not followed.
pub fn beneath(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("a type").is_dir() {
                folders.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found.sort_unstable();
    found
}

/// Sets a file's permissions.
pub fn set_mode(path: &Path, mode: u32) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(path, mode).expect("its mode");
}

/// True if the tests run at the size that scripts/soak asks for.
pub fn at_full_size() -> bool {
    std::env::var("KBAK_TEST_SIZE").is_ok_and(|size| size == "full")
}

/// Prints a figure for scripts/soak.
#[expect(clippy::print_stdout, reason = "it is what such a test is run for")]
pub fn print_figure(line: &str) {
    println!("{line}");
}
