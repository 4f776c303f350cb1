//! A real control plane for one test, run by `kbak-testplane up` (tests/cluster).

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::Method;
use kbak::kubernetes::{ApiError, Cluster, RequestLimits};
use kbak::plan::ClusterSpec;
use kbak::report::event::Reporter;
use serde_json::Value;

/// A control plane. Its processes end when this is dropped, or when the test is killed.
#[derive(Debug)]
pub struct ControlPlane {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    dir: tempfile::TempDir,
    etcd: Vec<String>,
}

impl ControlPlane {
    /// Starts a control plane and waits until it is ready.
    pub fn start(arguments: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("plane").tempdir().expect("a folder");
        let mut child = Command::new(program())
            .arg("up")
            .arg("--dir")
            .arg(dir.path())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a control plane");
        let stdin = child.stdin.take();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("its stdout"));
        stdout.read_line(&mut line).expect("a line");
        let said: Value = serde_json::from_str(&line).expect("the control plane is up");
        let etcd = said["etcd"].as_array().expect("etcd").iter().filter_map(Value::as_str);
        let etcd = etcd.map(str::to_owned).collect();
        let without = arguments.contains(&"--without-controllers");
        assert!(without || said["controllers"] == true, "this test needs a controller manager: {said}");
        Self { child, stdin, stdout, dir, etcd }
    }

    /// Sends a command, such as `kill NAME` or `start NAME`, which stops or starts a component.
    pub fn command(&mut self, line: &str) {
        self.ask(line);
    }

    /// Makes an address of the node's network reachable, and returns its port on loopback.
    pub fn publish(&mut self, address: &str) -> u16 {
        let port = self.ask(&format!("publish {address}"))["port"].as_u64().expect("a port");
        u16::try_from(port).expect("a port")
    }

    fn ask(&mut self, line: &str) -> Value {
        writeln!(self.stdin.as_mut().expect("its stdin"), "{line}").expect("a command");
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).expect("an answer");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(answer["ok"], true, "{line}: {answer}");
        answer
    }

    /// Returns the administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// Returns the log that `--audit` makes.
    pub fn audit_log(&self) -> PathBuf {
        self.dir.path().join("audit.log")
    }

    /// Returns kbak's client for the cluster.
    pub async fn cluster(&self) -> Cluster {
        connect(&self.kubeconfig()).await
    }

    /// Compacts etcd's whole history.
    pub fn compact(&self) {
        // An extra write, so that the latest revision until now becomes history, too.
        let put = etcd(&self.etcd[0], "/v3/kv/put", r#"{"key":"a2Jhaw==","value":""}"#);
        let revision = put["header"]["revision"].as_str().expect("a revision").to_owned();
        let body = format!(r#"{{"revision":"{revision}","physical":true}}"#);
        etcd(&self.etcd[0], "/v3/kv/compaction", &body);
    }

    /// Returns etcd's state at a revision: the key of each object by the revision that wrote it.
    pub fn state_at(&self, revision: u64) -> BTreeMap<u64, String> {
        let (from, to) = (BASE64.encode("/registry/"), BASE64.encode("/registry0"));
        let body = format!(
            r#"{{"key":"{from}","range_end":"{to}","revision":"{revision}","keys_only":true,"serializable":true}}"#
        );
        let range = etcd(&self.etcd[0], "/v3/kv/range", &body);
        let keys = range["kvs"].as_array().expect("keys").iter();
        keys.map(|kv| {
            let key = BASE64.decode(kv["key"].as_str().expect("a key")).expect("base64");
            let revision = kv["mod_revision"].as_str().and_then(|text| text.parse().ok());
            (revision.expect("a number"), String::from_utf8(key).expect("text"))
        })
        .collect()
    }
}

/// Returns the program that runs control planes.
pub fn program() -> String {
    std::env::var("KBAK_TEST_PLANE").expect(
        "KBAK_TEST_PLANE names the test control plane: eval \"$(scripts/tools --need control-plane)\"",
    )
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

/// Connects to a cluster by its kubeconfig.
pub async fn connect(kubeconfig: &Path) -> Cluster {
    let spec = ClusterSpec { kubeconfig_file: Some(kubeconfig.to_owned()), context: None };
    Cluster::connect(Some(&spec), RequestLimits::default(), &Reporter::silent()).await.expect("access")
}

/// Sends one request to etcd's JSON gateway.
fn etcd(endpoint: &str, path: &str, body: &str) -> Value {
    let host = endpoint.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).expect("etcd");
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.0\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    let (from, to) = (answer.find('{').expect("JSON"), answer.rfind('}').expect("JSON"));
    serde_json::from_str(&answer[from..=to]).expect("JSON")
}

/// Creates an object and returns the server's version of it.
pub async fn create(cluster: &Cluster, path: &str, object: Value) -> Value {
    try_create(cluster, path, object).await.unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Like [`create`], but returns errors.
pub async fn try_create(cluster: &Cluster, path: &str, object: Value) -> Result<Value, ApiError> {
    let body = Bytes::from(object.to_string());
    let answer = cluster.send(Method::POST, path, "", "application/json", body).await?;
    Ok(serde_json::from_slice(&answer.body).expect("JSON"))
}

/// Reads `path`.
pub async fn get(cluster: &Cluster, path: &str) -> Value {
    let answer = cluster.get(path, "", 64 << 20).await.unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_slice(&answer.body).expect("JSON")
}

/// Merges `patch` into the object at `path`.
pub async fn patch(cluster: &Cluster, path: &str, patch: Value) -> Value {
    let body = Bytes::from(patch.to_string());
    let answer = cluster.send(Method::PATCH, path, "", "application/merge-patch+json", body).await;
    serde_json::from_slice(&answer.unwrap_or_else(|error| panic!("{path}: {error}")).body).expect("JSON")
}

/// Removes the object at `path`.
pub async fn delete(cluster: &Cluster, path: &str) {
    let answer = cluster.send(Method::DELETE, path, "", "application/json", Bytes::from_static(b"{}")).await;
    answer.unwrap_or_else(|error| panic!("{path}: {error}"));
}
