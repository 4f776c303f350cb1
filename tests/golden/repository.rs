//! A whole repository of format v1, stored with the project: read by this version of kbak and by
//! stock tools without kbak.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::control_plane::{ControlPlane, create};
use crate::support::memory_backup::{config_map, create_namespace, define_apples, sample_object};
use crate::support::postgres::PostgresServer;
use crate::support::program::{beneath, good, succeeds};

pub(super) fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/repository")
}

pub(super) fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

pub(super) fn run(program: &str, args: &[&str]) -> String {
    let output = succeeds(Command::new(program).args(args).env_remove("KUBECONFIG"));
    String::from_utf8(output.stdout).expect("text")
}

fn kbak(args: &[&str]) -> String {
    String::from_utf8(good(args).stdout).expect("text")
}

/// Returns every path beneath `root` with kind, mode and content, as find and sha256sum would print it.
pub(super) fn tree(root: &Path) -> Value {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let mut found = BTreeMap::new();
    for path in beneath(root) {
        let meta = std::fs::symlink_metadata(&path).expect("metadata");
        let content = if meta.is_dir() {
            "directory".to_owned()
        } else if meta.is_symlink() {
            format!("link to {}", std::fs::read_link(&path).expect("a link").display())
        } else {
            hex(&Sha256::digest(std::fs::read(&path).expect("a file")))
        };
        let name = path.strip_prefix(root).expect("beneath").as_os_str().as_bytes().escape_ascii();
        let mode = format!("{:04o}", meta.permissions().mode() & 0o7777);
        found.insert(name.to_string(), json!([mode, meta.mtime(), content]));
    }
    json!(found)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the objects of a stream without the server's additions.
pub(super) fn objects(lines: &str) -> Value {
    let mut found = BTreeMap::new();
    for line in lines.lines() {
        let object: Value = serde_json::from_str(line).expect("an object");
        let meta = &object["metadata"];
        let name = format!("{}/{}", meta["namespace"].as_str().unwrap_or(""), meta["name"].as_str().unwrap());
        found.insert(name, object["data"].clone());
    }
    json!(found)
}

/// Returns the rows of the database, read by SQL.
fn rows(server: &PostgresServer, database: &str) -> String {
    server.sql(
        database,
        "SELECT count(*), md5(string_agg(o::text, ',' ORDER BY id)) FROM orders o;
         SELECT md5(lo_get(4242)); SELECT nextval('orders_id_seq')",
    )
}

/// Compares what was recovered without kbak: the folder, unpacked into `folder`, and the objects.
pub(super) fn compare_recovered(out: &Path, folder: &Path, facts: &Value) {
    std::fs::create_dir(folder).expect("a folder");
    run("tar", &["--numeric-owner", "-xpf", &text(&out.join("path/srv/uploads.tar")), "-C", &text(folder)]);
    assert_eq!(&tree(folder), facts["trees"].as_array().and_then(|all| all.last()).expect("a tree"));
    same_file_and_holes(folder);
    let lines = std::fs::read_to_string(out.join("resources/core/v1/configmaps.jsonl")).expect("objects");
    assert_eq!(objects(&lines), facts["configmaps"]);
}

pub(super) fn expected() -> Value {
    let facts = std::fs::read(golden().join("expected.json")).expect("what is expected");
    serde_json::from_slice(&facts).expect("JSON")
}

/// Returns the arguments of a reader.
fn reader() -> [String; 6] {
    [
        "--repo".into(),
        format!("file://{}", golden().join("store").display()),
        "--signer".into(),
        text(&golden().join("kbak.pub")),
        "--identity".into(),
        text(&owner_key()),
    ]
}

/// Returns a private copy of the owner's key, since git cannot keep it from other users.
pub(super) fn owner_key() -> PathBuf {
    static KEY: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let key = folder.path().join("owner.key");
        std::fs::copy(golden().join("owner.key"), &key).expect("a key");
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .expect("its mode");
        folder
    });
    KEY.path().join("owner.key")
}

fn read(args: &[&str]) -> String {
    let reader = reader();
    let all: Vec<&str> = args.iter().copied().chain(reader.iter().map(String::as_str)).collect();
    kbak(&all)
}

#[test]
fn golden_repository_is_read_by_this_version() {
    let facts = expected();
    let snapshots: Value = serde_json::from_str(&read(&["snapshots", "-o", "json"])).expect("JSON");
    let hashes: Vec<&str> =
        snapshots.as_array().expect("a list").iter().filter_map(|s| s["hash"].as_str()).collect();
    assert_eq!(json!(hashes), facts["snapshots"]);
    read(&["verify", "--read-all"]);
    let scratch = tempfile::tempdir().expect("a folder");
    for (number, tree_then) in facts["trees"].as_array().expect("trees").iter().enumerate() {
        let to = scratch.path().join(format!("tree{number}"));
        let snapshot = (number + 1).to_string();
        read(&["restore", &snapshot, "--item", "path/srv/uploads", "--to", &text(&to)]);
        assert_eq!(&tree(&to), tree_then, "snapshot {snapshot}");
        same_file_and_holes(&to);
    }
    let lines = read(&["cat", "latest", "resources:core/v1/configmaps"]);
    assert_eq!(objects(&lines), facts["configmaps"]);
}

#[test]
fn golden_repository_is_restored_by_stock_tools() {
    let facts = expected();
    let scratch = tempfile::tempdir().expect("a folder");
    let out = scratch.path().join("out");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/recover-without-kbak");
    let (store, pin, key) = (golden().join("store"), golden().join("kbak.pub"), golden().join("owner.key"));
    let args = [text(&script), text(&store), text(&pin), text(&key), text(&out)];
    run("sh", &args.iter().map(String::as_str).collect::<Vec<_>>());

    compare_recovered(&out, &scratch.path().join("folder"), &facts);

    let server = PostgresServer::start("secret", &[]);
    server.sql("postgres", "CREATE DATABASE shop");
    server.restore("shop", &out.join("shop/shop.dump"));
    assert_eq!(json!(rows(&server, "shop")), facts["rows"]);
}

#[test]
fn damaged_objects_are_refused_by_stock_tools() {
    let scratch = tempfile::tempdir().expect("a folder");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/recover-without-kbak");
    let store = scratch.path().join("store");
    let files: [&[&str]; 4] = [&["/packs/"], &["/snapshots/"], &["/bodies/"], &["epoch.json", "/epochs/"]];
    for (number, parts) in files.into_iter().enumerate() {
        run("cp", &["-r", &text(&golden().join("store")), &text(&store)]);
        let meant = |path: &PathBuf| path.is_file() && parts.iter().any(|part| text(path).contains(part));
        for path in beneath(&store).into_iter().filter(meant) {
            let mut bytes = std::fs::read(&path).expect("an object");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&path, bytes).expect("damaged");
        }
        let out = scratch.path().join(format!("out{number}"));
        let status = Command::new("sh")
            .args([&script, &store, &golden().join("kbak.pub"), &golden().join("owner.key"), &out])
            .output()
            .expect("it runs");
        assert_eq!(status.status.code(), Some(1), "{parts:?}: {}", String::from_utf8_lossy(&status.stderr));
        std::fs::remove_dir_all(&store).expect("removed");
    }
}

/// Damage by a person who may write to the bucket, and by one lost object.
#[test]
fn invalid_objects_are_ignored_by_stock_tools() {
    let scratch = tempfile::tempdir().expect("a folder");
    let store = scratch.path().join("store");
    run("cp", &["-r", &text(&golden().join("store")), &text(&store)]);
    for path in beneath(&store) {
        let folder = path.parent().expect("a folder");
        if path.ends_with("epoch.json") {
            let mut bytes = std::fs::read(&path).expect("an epoch");
            bytes[30] ^= 1;
            std::fs::write(&path, bytes).expect("damaged");
        } else if folder.ends_with("snapshots") {
            std::fs::write(folder.join(format!("{}-{}", "9".repeat(12), "0".repeat(64))), "{}\n")
                .expect("rubbish");
        }
    }
    std::fs::create_dir_all(store.join("x/y/z/snapshots")).expect("folders");
    std::fs::write(store.join("x/y/z/snapshots/q"), "rubbish").expect("rubbish");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/recover-without-kbak");
    let (pin, key, out) = (golden().join("kbak.pub"), owner_key(), scratch.path().join("out"));
    let args = [text(&script), text(&store), text(&pin), text(&key), text(&out)];
    run("sh", &args.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(out.join("path/srv/uploads.tar").is_file());
    assert!(!out.join(".packs").exists(), "decrypted packs are left");
}

/// Checks links and holes, which a hash of the content does not show.
pub(super) fn same_file_and_holes(root: &Path) {
    use std::os::unix::fs::MetadataExt as _;
    let meta = |name: &str| std::fs::metadata(root.join(name)).expect("a file");
    assert_eq!((meta("twin").ino(), meta("twin").nlink()), (meta("small/09").ino(), 2), "the hard link");
    assert!(meta("sparse").blocks() * 512 < meta("sparse").len() / 4, "the sparse file is full");
}

/// Makes the repository anew, while format v1 is not frozen:
/// `cargo nextest run --all-features --run-ignored only -E 'test(golden_repository_is_regenerated)'`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes into the project; run by hand when the format changes"]
async fn cluster_golden_repository_is_regenerated() {
    let golden = golden();
    let _ = std::fs::remove_dir_all(&golden);
    std::fs::create_dir_all(golden.join("store")).expect("a folder");
    let scratch = tempfile::tempdir().expect("a folder");
    let (work, key) = (scratch.path(), golden.join("owner.key"));
    let owner = kbak(&["keygen", "-o", &text(&key), "--no-passphrase", "--comment", "for tests only"]);
    let repo = format!("file://{}", golden.join("store").display());
    let (keys, recipient) = (work.join("keys"), owner.trim_end());
    std::fs::create_dir(&keys).expect("a folder");
    let init = ["--recipient", recipient, "--single-owner", "--identity"];
    kbak(&[&["init", "--repo", &repo, "--folder", &text(&keys)], &init[..], &[&text(&key)]].concat());
    std::fs::copy(keys.join("kbak.pub"), golden.join("kbak.pub")).expect("the pin");

    let plane = ControlPlane::start(&[]);
    let cluster = plane.cluster().await;
    create_namespace(&cluster, "shop").await;
    define_apples(&cluster).await;
    for name in ["one", "two"] {
        create(&cluster, "/api/v1/namespaces/shop/configmaps", config_map(name, "größer")).await;
    }
    create(&cluster, "/api/v1/namespaces/shop/secrets", sample_object("secrets", "token", 1)).await;
    let server = PostgresServer::start("secret", &["listen_addresses=127.0.0.1", "port=54329"]);
    server.sql("postgres", "CREATE DATABASE shop");
    server.sql(
        "shop",
        "CREATE TABLE orders (id serial PRIMARY KEY, what text NOT NULL, raw bytea);
         INSERT INTO orders (what, raw) SELECT 'order ' || n, sha256(n::text::bytea) FROM generate_series(1, 500) n;
         SELECT lo_from_bytea(4242, decode(repeat('00ff', 5000), 'hex'));",
    );
    let password = work.join("password");
    std::fs::write(&password, "secret").expect("a password");
    std::fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .expect("its mode");

    // The folder has the same name on every machine.
    let uploads = Path::new("/srv/uploads");
    assert!(!uploads.exists(), "/srv/uploads is there: run this where it is not");
    folder(uploads);
    let url = "postgresql://kbak@127.0.0.1:54329/shop?sslmode=disable";
    let (writer, kubeconfig) = (text(&keys.join("writer.key")), text(&plane.kubeconfig()));
    let backup = || {
        kbak(&[
            "backup",
            "--repo",
            &repo,
            "--writer-key",
            &writer,
            "--recipient",
            recipient,
            "--resources",
            "--kubeconfig",
            &kubeconfig,
            "--database",
            url,
            "--database-password-file",
            &text(&password),
            "--path",
            &text(uploads),
        ]);
    };
    backup();
    let mut trees = vec![tree(uploads)];
    std::fs::write(uploads.join("new"), "new\n").expect("a file");
    std::fs::remove_file(uploads.join("small/07")).expect("removed");
    backup();
    trees.push(tree(uploads));
    // A second epoch: one chain has snapshots of both.
    let close = ["epoch", "close", "--repo", &repo, "--writer-key", &writer, "--recipient", recipient];
    kbak(&close);
    std::fs::write(uploads.join("newer"), "newer\n").expect("a file");
    backup();
    trees.push(tree(uploads));

    let snapshots: Value = serde_json::from_str(&read(&["snapshots", "-o", "json"])).expect("JSON");
    let hashes: Vec<&Value> = snapshots.as_array().expect("a list").iter().map(|s| &s["hash"]).collect();
    let configmaps = objects(&read(&["cat", "latest", "resources:core/v1/configmaps"]));
    let facts =
        json!({"snapshots": hashes, "trees": trees, "configmaps": configmaps, "rows": rows(&server, "shop")});
    std::fs::write(golden.join("expected.json"), serde_json::to_string_pretty(&facts).expect("JSON") + "\n")
        .expect("written");
    std::fs::remove_dir_all(uploads).expect("removed");
}

/// Creates all that a tar stream can hold and every user may make.
fn folder(root: &Path) {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::FileExt as _;
    std::fs::create_dir_all(root.join("small")).expect("folders");
    for at in 0..20usize {
        std::fs::write(root.join(format!("small/{at:02}")), format!("{at} ").repeat(at * 40))
            .expect("a file");
    }
    std::fs::write(root.join(OsStr::from_bytes(b"not \xff UTF-8\n")), "odd\n").expect("a file");
    std::fs::write(root.join("x".repeat(200)), "long\n").expect("a file");
    std::fs::hard_link(root.join("small/09"), root.join("twin")).expect("a hard link");
    std::os::unix::fs::symlink("small/01", root.join("link")).expect("a link");
    std::fs::create_dir(root.join("empty")).expect("a folder");
    let sparse = std::fs::File::create(root.join("sparse")).expect("a file");
    sparse.set_len(3 << 20).expect("its length");
    sparse.write_all_at(b"in the middle", 1 << 20).expect("written");
    let mode = |path: &str, mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(root.join(path), mode).expect("its mode");
    };
    mode("small/03", 0o4755);
    mode("empty", 0o1777);
}
