//! kbak in a cluster: the chart with a real API server, the image and the CronJobs on a real node.

mod alerts;
mod chart;
mod drafted;
mod failures;
mod installed;
mod killed;
mod memory;
mod obstacles;
mod owners;
mod runs;
mod secrets;
mod sidecars;
mod values_refused;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::owners::run_ok;

/// Returns a path of the project.
fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Returns helm, with its caches in `home` and without the tester's settings.
fn helm(home: &Path) -> Command {
    let program = std::env::var_os("KBAK_TEST_HELM")
        .expect("KBAK_TEST_HELM names helm: eval \"$(scripts/tools --need helm)\"");
    let mut command = Command::new(program);
    command.env_clear().env("HOME", home).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// Returns a container that runs a script, within the rules of Pod Security.
fn helper(name: &str, script: &str) -> Value {
    json!({
        "name": name, "image": "kbak.test/busybox:1", "imagePullPolicy": "Never",
        "command": ["sh", "-c", script],
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
    })
}

/// Returns the objects that the chart renders with the values in a file.
fn rendered(home: &Path, values: &Path) -> Vec<Value> {
    let mut command = helm(home);
    command.args(["template", "kbak"]).arg(project("deploy/chart"));
    command.args(["--namespace", "kbak", "--values"]).arg(values);
    documents(&String::from_utf8(run_ok(&mut command, b"")).expect("text"))
}

/// Returns the object of a kind and name.
fn object<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = objects.iter().find(|one| one["kind"] == kind && one["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

/// Returns the documents of a YAML file.
fn documents(text: &str) -> Vec<Value> {
    let documents = text.split("\n---\n").map(|document| document.trim_start_matches("---\n"));
    documents
        .filter(|document| document.lines().any(|line| !line.is_empty() && !line.starts_with('#')))
        .map(|document| serde_saphyr::from_str(document).expect("YAML"))
        .collect()
}

/// Returns the path at which an object of this kind is created.
fn collection(object: &Value) -> String {
    let version = object["apiVersion"].as_str().expect("a version");
    let kind = object["kind"].as_str().expect("a kind").to_lowercase();
    let plural = kind.strip_suffix('y').map_or(format!("{kind}s"), |stem| format!("{stem}ies"));
    let group = if version == "v1" { "/api/v1".to_owned() } else { format!("/apis/{version}") };
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{group}/namespaces/{namespace}/{plural}"),
        None => format!("{group}/{plural}"),
    }
}
