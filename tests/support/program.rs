//! The built program, and files that it writes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Returns the program with these arguments, without the tester's environment.
pub fn command<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kbak"));
    command.args(args).stdin(Stdio::null());
    for name in ["KUBECONFIG", "PGPASSWORD", "KBAK_KILL_AT"] {
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
