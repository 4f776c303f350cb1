//! Checks that the program understands every command in the documents and the help. The
//! getting-started guide is run word by word on a real cluster and store.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use clap::error::ErrorKind;
use serde_json::json;

use crate::support::control_plane::{ControlPlane, create};
use crate::support::servers::{self, KEY, SECRET};

/// Returns README.md and docs/*.md as name and text.
fn documents() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guides =
        std::fs::read_dir(root.join("docs")).expect("docs").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> =
        guides.filter(|path| path.extension().is_some_and(|ending| ending == "md")).collect();
    files.push(root.join("README.md"));
    files.sort();
    let read = |path: &Path| std::fs::read_to_string(path).expect("text");
    files
        .iter()
        .map(|path| (path.file_name().expect("a name").to_string_lossy().into(), read(path)))
        .collect()
}

/// Returns the commands in a document's fenced blocks; a trailing backslash continues a line.
fn blocks(text: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut fenced = false;
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced && line.trim_start_matches("$ ").starts_with("kbak ") {
            let mut command = line.trim_start_matches("$ ").to_owned();
            while let Some(start) = command.strip_suffix('\\') {
                command = format!("{start} {}", lines.next().expect("the command goes on"));
            }
            commands.push(command);
        }
    }
    commands
}

/// Returns the commands between backticks.
fn inline(text: &str) -> impl Iterator<Item = String> {
    let commands = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("```"))
        .flat_map(|line| line.split('`').skip(1).step_by(2).filter(|code| code.starts_with("kbak ")));
    commands.map(str::to_owned)
}

/// Returns the examples in the help of every verb, before they are wrapped for a terminal.
fn examples() -> Vec<(String, String)> {
    fn of(command: &clap::Command, path: &str, found: &mut Vec<(String, String)>) {
        let path = format!("{path}{} ", command.get_name());
        let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
        let commands = blocks(&format!("```\n{help}\n```"));
        found.extend(commands.into_iter().map(|command| (format!("{path}--help"), command)));
        command.get_subcommands().for_each(|deeper| of(deeper, &path, found));
    }
    let mut found = Vec::new();
    of(&kbak::cli::command(), "", &mut found);
    found
}

/// Splits a command as a shell does, up to a comment, a pipe or a redirection.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote, mut deep) = (None::<String>, None, 0);
    for letter in command.chars() {
        let inside = quote.is_some() || deep > 0;
        match letter {
            '(' if word.as_ref().is_some_and(|word| word.ends_with('$')) => deep += 1,
            ')' if deep > 0 => deep -= 1,
            _ if deep > 0 => {}
            _ if quote == Some(letter) => quote = None,
            '"' | '\'' if !inside => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            ' ' if !inside => words.extend(word.take()),
            '#' if !inside && word.is_none() => return words,
            '|' | '<' | '>' | ';' | '&' if !inside => break,
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// Returns the reason why the program does not parse a command; "…" stands for values that the reader knows.
fn misunderstood(command: &str) -> Option<String> {
    let kept = words(command);
    let parse = |words: &[String]| kbak::cli::command().try_get_matches_from(words).err();
    let error = parse(&kept)?;
    let left: Vec<String> = kept.iter().filter(|word| *word != "…").cloned().collect();
    let shown = error.kind() == ErrorKind::ValueValidation;
    let error = if left.len() < kept.len() && !shown { parse(&left)? } else { error };
    let open = left.len() < kept.len() && error.kind() == ErrorKind::MissingRequiredArgument;
    // A value that is shown only in part.
    let open = open || error.kind() == ErrorKind::ValueValidation && error.to_string().contains('…');
    let told = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    (!open && !told).then(|| error.to_string())
}

#[test]
fn every_documented_command_is_understood() {
    let mut commands = examples();
    for (name, text) in documents() {
        commands.extend(blocks(&text).into_iter().map(|command| (name.clone(), command)));
        // A verb that is only named, as in "`kbak verify` says", has no options to check.
        let named = inline(&text).filter(|command| command.contains(" -"));
        let not_yet = name == "limits.md";
        commands.extend(named.filter(|_| !not_yet).map(|command| (name.clone(), format!("{command} …"))));
    }
    assert!(commands.len() > 60, "{}", commands.len());
    let mut wrong = String::new();
    for (place, command) in commands {
        if let Some(why) = misunderstood(&command) {
            let _ = writeln!(wrong, "{place}: {command}\n{why}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn wrong_commands_are_recognised() {
    for wrong in ["kbak frobnicate", "kbak backup --frobnicate …", "kbak restore --existing-files burn …"]
    {
        assert!(misunderstood(wrong).is_some(), "{wrong}");
    }
    let split = words("kbak a --b \"c d $(cat 'e f')\" 'g \"h' i… | jq . # no");
    assert_eq!(split, ["kbak", "a", "--b", "c d $", "g \"h", "i…"]);
}

/// Replaces `kbak` in the reader's shell: fills in the values that readers would fill in.
const READER: &str = r#"#!/bin/bash
args=()
for arg in "$@"; do
  case $arg in
  …) args+=(s3://backups/prod --endpoint "$ENDPOINT") ;;
  https://s3.example.eu) args+=("$ENDPOINT") ;;
  *) args+=("$arg") ;;
  esac
done
# Nobody is there to be asked for a passphrase.
[ "$1" != keygen ] || args+=(--no-passphrase)
exec "$KBAK" "${args[@]}"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn getting_started_guide_works_as_written() {
    use std::os::unix::fs::PermissionsExt as _;

    let plane = ControlPlane::start(&[]);
    let server = servers::seaweedfs();
    server.bucket("backups", false).await;
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("kbak"), READER).expect("a file");
    std::fs::set_permissions(at("kbak"), std::fs::Permissions::from_mode(0o755)).expect("a mode");
    let config = std::fs::read_to_string(plane.kubeconfig()).expect("a kubeconfig");
    let mut config: serde_json::Value = serde_saphyr::from_str(&config).expect("YAML");
    config["contexts"][0]["name"] = "prod".into();
    std::fs::write(at("kubeconfig"), config.to_string()).expect("a kubeconfig");

    let cluster = plane.cluster().await;
    create(&cluster, "/api/v1/namespaces", json!({"metadata": {"name": "prod"}})).await;
    let labels = json!({"app": "web"});
    let web = json!({"metadata": {"name": "web"}, "spec": {"replicas": 0, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "web"}]}}}});
    create(&cluster, "/apis/apps/v1/namespaces/prod/deployments", web).await;

    let guide = documents().into_iter().find(|(name, _)| name == "getting-started.md").expect("the guide").1;
    let commands = blocks(&guide);
    assert!(commands.len() >= 6, "{commands:?}");
    let script = format!("set -eux\nkbak keygen -o bob.key > bob.pub\n{}\n", commands.join("\n"));
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").expect("a PATH"));
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(folder.path())
        .env("PATH", path)
        .env("KBAK", env!("CARGO_BIN_EXE_kbak"))
        .env("ENDPOINT", &server.endpoint)
        .env("KUBECONFIG", at("kubeconfig"))
        .env("AWS_ACCESS_KEY_ID", KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET)
        .env("AWS_REGION", "us-east-1")
        .output()
        .expect("bash");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    assert!(err.contains("snapshot 000001 committed"), "{err}");
    assert!(out.contains("prod/web"), "the last command lists the earlier content: {out}");
}
