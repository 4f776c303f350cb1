//! Prompts and signals at a terminal, which `script` provides.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::cli_repo::{CliRepo, as_strs};
use crate::support::postgres::PostgresServer;
use crate::support::program::{command, succeeds};

/// Runs a shell line on its own terminal and presses each key after its text was shown. Returns all output.
fn at_a_terminal(shell: &str, keys: &[(&str, &[u8])]) -> String {
    let mut child = Command::new("script")
        .args(["-qfc", shell, "/dev/null"])
        .env("KBAK", env!("CARGO_BIN_EXE_kbak"))
        .env("SHELL", "/bin/sh")
        .env("TERM", "dumb")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut stdout = child.stdout.take().expect("a pipe");
    let (mut shown, mut from) = (String::new(), 0);
    let mut keys = keys.iter();
    let mut next = keys.next();
    let mut some = [0u8; 4096];
    loop {
        while let Some((text, pressed)) = next {
            let Some(at) = shown[from..].find(text) else { break };
            from += at + text.len();
            stdin.write_all(pressed).expect("keys are pressed");
            stdin.flush().expect("keys are pressed");
            next = keys.next();
        }
        match stdout.read(&mut some).expect("output") {
            0 => break,
            read => shown.push_str(&String::from_utf8_lossy(&some[..read])),
        }
    }
    child.wait().expect("an end");
    assert!(next.is_none(), "never asked: {shown}");
    shown
}

#[test]
fn ctrl_c_at_a_passphrase_prompt_restores_the_terminal() {
    let folder = tempfile::tempdir().expect("a folder");
    let shell = format!(
        "cd {}; \"$KBAK\" keygen -o owner.key; echo \"code=$?\"; stty -a; ls",
        folder.path().display()
    );
    let shown = at_a_terminal(&shell, &[("passphrase for the new key: ", b"secret\x03")]);
    assert!(shown.contains("code=6"), "{shown}");
    assert!(shown.contains("exit 6") && !shown.contains("secret"), "{shown}");
    let modes: Vec<&str> = shown.split_whitespace().collect();
    for mode in ["echo", "isig", "icanon"] {
        assert!(modes.contains(&mode), "{mode}: {shown}");
    }
    assert!(!shown.contains("owner.key\r\n"), "no file was created: {shown}");
}

#[test]
fn passphrase_is_typed_and_edited_without_echo() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("pass"), "grün\n").expect("a file");
    let shell = format!(
        "cd {}; \"$KBAK\" keygen -o owner.key; echo \"code=$?\"; \
         \"$KBAK\" keygen --public owner.key --passphrase-file pass; echo \"opened=$?\"",
        folder.path().display()
    );
    let first = "wrong\x15grx\x7füm\x7fn\r".as_bytes();
    let keys =
        [("passphrase for the new key: ", first), ("passphrase for the same again: ", "grün\r".as_bytes())];
    let shown = at_a_terminal(&shell, &keys);
    assert!(shown.contains("code=0") && shown.contains("opened=0"), "{shown}");
    assert!(!shown.contains("grün") && !shown.contains("wrong"), "{shown}");
}

#[test]
fn signal_ends_a_run_that_has_not_begun() {
    let cli = CliRepo::new();
    let pipe = cli.at("owner.pipe");
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, rustix::fs::Mode::RWXU, 0).expect("a pipe");
    let args = ["show", "--repo", &cli.url(), "--signer", &cli.text("keys/kbak.pub")];
    let mut child = command(&[&args[..], &["--identity", &cli.text("owner.pipe")]].concat())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program runs");
    // The open succeeds once the program waits to read the pipe.
    let pipe = std::fs::OpenOptions::new().write(true).open(pipe).expect("it reads");
    kill_process(Pid::from_child(&child), Signal::TERM).expect("a signal");
    assert_eq!(child.wait().expect("an end").code(), Some(6));
    drop(pipe);
}

#[test]
fn unread_output_does_not_block_an_interrupted_run() {
    let cli = CliRepo::new();
    std::fs::write(cli.at("data/large"), vec![7; 4 << 20]).expect("a file");
    assert_eq!(cli.backup(&[]).0, 0);
    let reader = cli.reader_args();
    let args = [&["restore", "latest", "--tar", "--progress", "none"], &as_strs(&reader)[..]].concat();
    let mut child =
        command(&args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program runs");
    let output = child.stdout.take().expect("a pipe");
    // There is more output than a pipe holds.
    while rustix::io::ioctl_fionread(&output).expect("how much is there") == 0 {
        assert!(child.try_wait().expect("how it is").is_none(), "it ended by itself");
        std::thread::yield_now();
    }
    let pid = Pid::from_child(&child);
    for _ in 0..2 {
        kill_process(pid, Signal::TERM).expect("a signal");
    }
    assert_eq!(child.wait().expect("an end").code(), Some(6));
    drop(output);
}

#[test]
fn databases_are_dropped_only_after_a_yes_on_the_terminal() {
    let server = PostgresServer::start("secret", &[]);
    server.sql("postgres", "CREATE DATABASE shop");
    server.sql("shop", "CREATE TABLE orders AS SELECT n FROM generate_series(1, 100) n");
    let cli = CliRepo::new();
    let url = format!("postgresql://kbak@/shop?host={}", server.socket().display());
    let mut backup = command(&["backup", "--database", &url]);
    succeeds(backup.args(cli.writer_args()).env("PGPASSWORD", "secret"));
    server.sql("shop", "INSERT INTO orders VALUES (0)");
    let count = || server.sql("shop", "SELECT count(*) FROM orders").trim().to_owned();
    let line = |more: &str| {
        let reader = as_strs(&cli.reader_args()).join(" ");
        format!(
            "PGPASSWORD=secret \"$KBAK\" restore latest --database '{url}' --replace-databases {more} {reader}; \
             echo \"code=$?\""
        )
    };
    let shown = at_a_terminal(&line(""), &[("type yes to go on: ", b"no\r")]);
    assert!(shown.contains("code=2") && shown.contains("not confirmed; nothing was changed"), "{shown}");
    assert!(
        shown.contains("shop (1 object)") && shown.contains("as kbak these databases are DROPPED"),
        "{shown}"
    );
    assert_eq!(count(), "101");
    let shown = at_a_terminal(&line(""), &[("type yes to go on: ", b"yes\r")]);
    assert!(shown.contains("code=0"), "{shown}");
    assert_eq!(count(), "100");
    let shown = at_a_terminal(&line("--yes"), &[]);
    assert!(shown.contains("code=0") && !shown.contains("type yes"), "{shown}");
}
