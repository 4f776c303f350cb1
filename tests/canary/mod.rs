//! Canaries: marked texts in values, rows, files, passwords and names of a real cluster, database and folder.
//! A backup and a restore run under strace; then all output of the process is searched for them.

mod scanner;
mod undecodable;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::json;

use crate::support::control_plane::{ControlPlane, create};
use crate::support::memory_backup::create_namespace;
use crate::support::postgres::PostgresServer;
use crate::support::program::good;
use scanner::{Canaries, Trace};

/// Texts that may be only in the sources and in the restore's target.
const VALUES: &[&str] = &[
    "canarySecretValue0193",
    "canaryConfigValue5582",
    "canaryRowValue74410",
    "canaryFileValue29937",
    "canaryPassword66021",
];
/// Texts that may be shown to the user but must be in no stored object.
const NAMES: &[&str] = &[
    "canary-namespace",
    "canary-secret-name",
    "canary-config-name",
    "canary_database",
    "canary_table",
    "canary-file-name",
    "canary-folder-name",
    "canary-plan",
    "canary-host",
    "canary-context",
];

struct CanaryFixture {
    folder: tempfile::TempDir,
    plane: ControlPlane,
    server: PostgresServer,
    owner: String,
}

fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

impl CanaryFixture {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let plane = ControlPlane::start(&[]);
        let cluster = plane.cluster().await;
        create_namespace(&cluster, NAMES[0]).await;
        let at = |kind: &str| format!("/api/v1/namespaces/{}/{kind}", NAMES[0]);
        let secret = json!({"metadata": {"name": NAMES[1]}, "stringData": {"key": VALUES[0].repeat(40)}});
        create(&cluster, &at("secrets"), secret).await;
        let config = json!({"metadata": {"name": NAMES[2]}, "data": {"key": VALUES[1].repeat(40)}});
        create(&cluster, &at("configmaps"), config).await;
        let server = PostgresServer::start(VALUES[4], &["listen_addresses=127.0.0.1", "port=54327"]);
        server.sql("postgres", &format!("CREATE DATABASE {}", NAMES[3]));
        let rows = format!(
            "CREATE TABLE {} (id int, what text); INSERT INTO {} SELECT n, repeat('{}', 20) FROM generate_series(1, 200) n",
            NAMES[4], NAMES[4], VALUES[2]
        );
        server.sql(NAMES[3], &rows);
        let mut fixture = Self { folder, plane, server, owner: String::new() };
        for made in ["data", "store", "keys", "home", "tmp"] {
            std::fs::create_dir(fixture.at(made)).expect("a folder");
        }
        let data = fixture.at("data").join(NAMES[6]);
        std::fs::create_dir(&data).expect("a folder");
        std::fs::write(data.join(NAMES[5]), VALUES[3].repeat(3000)).expect("a file");
        std::fs::write(fixture.at("password"), VALUES[4]).expect("a password");
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(fixture.at("password"), mode).expect("its mode");
        let kubeconfig = std::fs::read_to_string(fixture.plane.kubeconfig()).expect("a kubeconfig");
        std::fs::write(fixture.at("kubeconfig"), named(&kubeconfig)).expect("a kubeconfig");
        let made = good(&["keygen", "-o", &text(&fixture.at("owner.key")), "--no-passphrase"]);
        fixture.owner = String::from_utf8(made.stdout).expect("text").trim_end().to_owned();
        let (key, keys) = (text(&fixture.at("owner.key")), text(&fixture.at("keys")));
        let init = ["--recipient", &fixture.owner, "--single-owner", "--identity", &key, "--folder", &keys];
        good(&[&["init", "--repo", &fixture.repo()], &init[..]].concat());
        fixture
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn repo(&self) -> String {
        format!("file://{}", text(&self.at("store")))
    }

    /// Runs the program under strace with its own HOME and TMPDIR. As root, the host is named like a canary.
    fn traced(&self, args: &[&str]) -> (Output, Trace) {
        let log = self.at("trace");
        let mut command = scanner::strace(&log);
        if rustix::process::geteuid().is_root() {
            command.args(["unshare", "--uts", "sh", "-c", "hostname \"$0\" && exec \"$@\"", NAMES[8]]);
        }
        command.arg(env!("CARGO_BIN_EXE_kbak")).args(args);
        command.env("HOME", self.at("home")).env("TMPDIR", self.at("tmp")).env_remove("KUBECONFIG");
        let output = command.output().expect("strace runs");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        let trace = Trace::read(&log);
        // Under strace the host's name is an argument, so names are searched for only in stored objects.
        (output, trace)
    }

    fn url(&self) -> &'static str {
        "postgresql://kbak@127.0.0.1:54327/canary_database?sslmode=disable"
    }
}

/// Returns the kubeconfig with its current context named like a canary.
fn named(kubeconfig: &str) -> String {
    let config: serde_json::Value = serde_saphyr::from_str(kubeconfig).expect("YAML");
    let mut config = config;
    let old = config["current-context"].as_str().expect("a context").to_owned();
    for context in config["contexts"].as_array_mut().expect("contexts") {
        if context["name"] == old {
            context["name"] = json!(NAMES[9]);
        }
    }
    config["current-context"] = json!(NAMES[9]);
    config.to_string()
}

fn all_output(output: &Output) -> Vec<u8> {
    [output.stdout.as_slice(), output.stderr.as_slice()].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_backup_and_restore_leak_no_canary() {
    let fixture = CanaryFixture::new().await;
    let (values, names) = (Canaries::new(VALUES), Canaries::new(NAMES));
    let (repo, keys, password) = (fixture.repo(), fixture.at("keys"), text(&fixture.at("password")));
    let common = ["--repo", repo.as_str(), "--database-password-file", &password];
    let (writer, data, kubeconfig) =
        (text(&keys.join("writer.key")), text(&fixture.at("data")), text(&fixture.at("kubeconfig")));
    let backup = [
        "backup",
        "--plan-name",
        NAMES[7],
        "--writer-key",
        &writer,
        "--recipient",
        &fixture.owner,
        "--path",
        &data,
        "--resources",
        "--kubeconfig",
        &kubeconfig,
        "--context",
        NAMES[9],
        "--database",
        fixture.url(),
        "--new-epoch",
    ];
    let (output, trace) = fixture.traced(&[&backup[..], &common].concat());
    assert!(trace.programs().any(|program| program.ends_with("pg_dump")), "no client tool ran");
    assert_eq!(values.in_bytes(&all_output(&output)), Vec::<String>::new(), "what the backup said");
    assert_eq!(
        trace.leaks(&values, &[]),
        Vec::<String>::new(),
        "the backup's writes, arguments, environment"
    );
    assert_eq!(values.in_tree(&fixture.at("store")), Vec::<String>::new(), "stored objects");
    assert_eq!(names.in_tree(&fixture.at("store")), Vec::<String>::new(), "stored objects");
    for left in ["home", "tmp", "keys"] {
        assert_eq!(values.in_tree(&fixture.at(left)), Vec::<String>::new(), "{left}");
    }

    fixture.server.sql("postgres", &format!("DROP DATABASE {}", NAMES[3]));
    let (target, files) = (text(&fixture.at("target")), text(&fixture.at("files")));
    let (pin, key) = (text(&keys.join("kbak.pub")), text(&fixture.at("owner.key")));
    let restore = [
        "restore",
        "latest",
        "--signer",
        &pin,
        "--identity",
        &key,
        "--to",
        &target,
        "--resources-to",
        &files,
        "--database",
        fixture.url(),
    ];
    let (output, trace) = fixture.traced(&[&restore[..], &common].concat());
    assert!(trace.programs().any(|program| program.ends_with("pg_restore")), "no client tool ran");
    assert_eq!(values.in_bytes(&all_output(&output)), Vec::<String>::new(), "what the restore said");
    let targets = [fixture.at("target"), fixture.at("files")];
    assert_eq!(
        trace.leaks(&values, &targets),
        Vec::<String>::new(),
        "the restore's writes, arguments, environment"
    );
    for left in ["home", "tmp", "keys", "store"] {
        assert_eq!(values.in_tree(&fixture.at(left)), Vec::<String>::new(), "{left}");
    }
    // The restore brought the canaries back, so they were there to be leaked.
    let back = [values.in_tree(&fixture.at("target")), values.in_tree(&fixture.at("files"))].concat();
    assert!(back.len() >= 3, "{back:?}");
    let rows = fixture.server.sql(NAMES[3], &format!("SELECT count(*) FROM {}", NAMES[4]));
    assert_eq!(rows, "200");
}

#[test]
fn scanner_finds_planted_canaries() {
    let folder = tempfile::tempdir().expect("a folder");
    let (log, out) = (folder.path().join("trace"), folder.path().join("out"));
    let canaries = Canaries::new(&["canaryPlanted4711"]);
    let leaks = |script: &str, env: Option<&str>, argument: &str| {
        let mut command = scanner::strace(&log);
        command.args(["sh", "-c", script, argument]).env("OUT", &out);
        if let Some(value) = env {
            command.env("PLANTED", value);
        }
        assert!(command.status().expect("strace runs").success());
        (
            Trace::read(&log).leaks(&canaries, &[]),
            Trace::read(&log).leaks(&canaries, std::slice::from_ref(&out)),
        )
    };
    let clean = leaks("printf 'nothing' > \"$OUT\"; true", None, "x");
    assert_eq!(clean, (Vec::new(), Vec::new()));
    // Written to a file: a leak, unless the file is the target.
    let (found, allowed) = leaks("cat > \"$OUT\" <<END\n$(printf 'canary%s' Planted4711)\nEND", None, "x");
    assert!(found.len() == 1 && allowed.is_empty(), "{found:?} {allowed:?}");
    let (found, _) = leaks("true; env true", Some("canaryPlanted4711"), "x");
    assert!(!found.is_empty(), "in the environment");
    let (found, _) = leaks("true; env true \"$0\"", None, "canaryPlanted4711");
    assert!(!found.is_empty(), "in an argument");
    for planted in [
        b"..canaryPlanted4711..".to_vec(),
        b"..Y2FuYXJ5UGxhbnRlZDQ3MTE=..".to_vec(),
        b"..63616e617279506c616e74656434373131..".to_vec(),
        "..canaryPlanted4711..".encode_utf16().flat_map(u16::to_le_bytes).collect(),
    ] {
        assert_eq!(canaries.in_bytes(&planted).len(), 1, "{planted:?}");
    }
    let tree = folder.path().join("tree");
    std::fs::create_dir(&tree).expect("a folder");
    std::fs::write(tree.join("canaryPlanted4711"), "canaryPlanted4711").expect("a file");
    assert_eq!(canaries.in_tree(&tree).len(), 2, "a name and a content");
}
