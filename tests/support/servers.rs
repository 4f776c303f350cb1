//! Real S3 servers on loopback, ended on drop and with the test process.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use kbak::store::options::StoreOptions;
use tempfile::TempDir;

/// The time within which a server must answer. Far more than it needs: no test measures it.
const START: Duration = Duration::from_secs(90);

/// Keys that every server here knows; the second is read-only if the server has rights.
pub const KEY: &str = "kbaktest";
pub const READER: &str = "kbakreader";
pub const SECRET: &str = "kbaktestsecret";

/// A running server.
pub struct S3Server {
    /// `http://127.0.0.1:port`
    pub endpoint: String,
    folder: TempDir,
    ports: Vec<u16>,
    keeper: Option<Keeper>,
}

/// Holds the child. Its thread lives as long as the child should: the kernel ends the child with the *thread*
/// that started it (prctl(2), PR_SET_PDEATHSIG). A test's own thread may end before the server.
struct Keeper {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl S3Server {
    /// Wraps a server that the test itself runs.
    pub fn own(endpoint: String) -> Self {
        Self {
            endpoint,
            folder: tempfile::tempdir().expect("a temporary folder"),
            ports: Vec::new(),
            keeper: None,
        }
    }

    /// Returns kbak's options for a bucket here.
    pub fn options(&self, bucket: &str) -> StoreOptions {
        self.options_as(bucket, KEY, SECRET)
    }

    /// Returns the same with other credentials.
    pub fn options_as(&self, bucket: &str, key: &str, secret: &str) -> StoreOptions {
        let path = self.folder.path().join(format!("credentials-{key}-{}", secret.len()));
        let text = format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n");
        std::fs::write(&path, text).expect("a writable folder");
        let mut options = StoreOptions::new(format!("s3://{bucket}/some/prefix"));
        options.endpoint = Some(self.endpoint.clone());
        options.credentials_file = Some(path);
        options
    }

    /// Waits until the server reports that it is healthy.
    fn answers(&self, health: &str) -> bool {
        use std::io::{Read, Write};
        let begun = Instant::now();
        while begun.elapsed() < START {
            if self.keeper.as_ref().is_some_and(|keeper| keeper.thread.is_finished()) {
                return false;
            }
            if let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", self.ports[0])) {
                let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
                let ask = format!("GET {health} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
                let _ = stream.write_all(ask.as_bytes());
                let mut head = [0u8; 12];
                if stream.read_exact(&mut head).is_ok() && &head == b"HTTP/1.1 200" {
                    return true;
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }

    /// Creates a bucket through the SDK: kbak creates none.
    pub async fn bucket(&self, name: &str, versions: bool) {
        let client = self.client();
        // A server that answers may still lack a component for a moment.
        let begun = Instant::now();
        while let Err(error) = client.create_bucket().bucket(name).send().await {
            assert!(begun.elapsed() < START, "cannot make bucket {name}: {error:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        if versions {
            let on = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
            let put = client.put_bucket_versioning().bucket(name).versioning_configuration(on);
            put.send().await.expect("versions");
        }
    }

    /// Returns a client of the SDK with all rights.
    pub fn client(&self) -> aws_sdk_s3::Client {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .endpoint_url(&self.endpoint)
            .region(Region::from_static("us-east-1"))
            .credentials_provider(Credentials::new(KEY, SECRET, None, None, "test"))
            .force_path_style(true)
            .build();
        aws_sdk_s3::Client::from_conf(config)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(Keeper { stop, thread }) = self.keeper.take() {
            drop(stop);
            let _ = thread.join();
        }
        // SeaweedFS leaves these, and no option moves them.
        for (part, port) in ["master", "volume", "filer", "s3"]
            .iter()
            .flat_map(|part| self.ports.iter().map(move |port| (part, port)))
        {
            let _ = std::fs::remove_file(format!("/tmp/seaweedfs-{part}-grpc-{port}.sock"));
        }
    }
}

/// SeaweedFS: a store in real use, with rights, versions and locks.
pub fn seaweedfs() -> S3Server {
    start("KBAK_TEST_WEED", "/healthz", |program, folder, ports| {
        let rights = |actions: &str, key: &str| {
            format!(
                r#"{{"name":"{key}","credentials":[{{"accessKey":"{key}","secretKey":"{SECRET}"}}],"actions":[{actions}]}}"#
            )
        };
        let (all, some) = (r#""Admin","Read","Write","List""#, r#""Read","List""#);
        let config = format!(r#"{{"identities":[{},{}]}}"#, rights(all, KEY), rights(some, READER));
        std::fs::write(folder.join("s3.json"), config).expect("a writable folder");
        std::fs::create_dir(folder.join("data")).expect("a writable folder");
        let mut command = command(program);
        command.args(["-logtostderr=true", "server", "-dir=data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]);
        // No outgoing connection, no fixed port, no file outside the folder.
        command.args(["-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]);
        command.args(["-filer.localSocket=filer.sock", "-s3.localSocket=s3.sock"]);
        command.args(["-master.peers=none", "-master.volumeSizeLimitMB=1024", "-volume.max=500"]);
        command.args(["-filer", "-s3", "-s3.config=s3.json", "-s3.autoCreateBucket=false"]);
        let names =
            ["s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "volume.port", "volume.port.grpc"];
        for (name, port) in names.iter().chain(&["filer.port", "filer.port.grpc"]).zip(ports) {
            command.arg(format!("-{name}={port}"));
        }
        command
    })
}

/// moto: an independent imitation of AWS.
pub fn moto() -> S3Server {
    start("KBAK_TEST_MOTO", "/", |program, _, ports| {
        let mut command = command(program);
        command.args(["-H", "127.0.0.1", "-p", &ports[0].to_string()]);
        command
    })
}

/// Returns `program`, killed when the thread that starts it ends.
fn command(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

fn start(variable: &str, health: &str, prepare: impl Fn(&Path, &Path, &[u16]) -> Command) -> S3Server {
    let Some(program) = std::env::var_os(variable) else {
        panic!("{variable} names no program: run scripts/test");
    };
    let program = Path::new(&program).canonicalize();
    let program = program.unwrap_or_else(|error| panic!("{variable}: {error}: run scripts/test"));
    let mut said = String::new();
    // Another process may take a port between our check and the server's bind: then again.
    for _ in 0..3 {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ports = free_ports(8);
        let mut command = prepare(&program, folder.path(), &ports);
        let log = std::fs::File::create(folder.path().join("log")).expect("a log");
        let again = log.try_clone().expect("a log");
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(log).stderr(again);
        // Without the tester's own configuration.
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", folder.path());
        let keeper = keep(command);
        let server = S3Server {
            endpoint: format!("http://127.0.0.1:{}", ports[0]),
            folder,
            keeper: Some(keeper),
            ports,
        };
        if server.answers(health) {
            return server;
        }
        let log = std::fs::read_to_string(server.folder.path().join("log")).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(10).collect();
        let _ = writeln!(said, "{}\n", tail.join("\n"));
    }
    panic!("{} did not start:\n{said}", program.display());
}

fn keep(mut command: Command) -> Keeper {
    let (stop, stopped) = channel::<()>();
    let (started, begun) = channel();
    let thread = std::thread::spawn(move || {
        let child = command.spawn();
        let _ = started.send(child.as_ref().map(|_| ()).map_err(ToString::to_string));
        if let Ok(mut child) = child {
            // Ends when the sender is dropped.
            let _ = stopped.recv();
            end(&mut child);
        }
    });
    if let Err(error) = begun.recv().expect("the thread says") {
        panic!("cannot start setpriv (util-linux): {error}");
    }
    Keeper { stop, thread }
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn free_ports(count: usize) -> Vec<u16> {
    let bind = |_| TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let held: Vec<TcpListener> = (0..count).map(bind).collect();
    held.iter().map(|listener| listener.local_addr().expect("an address").port()).collect()
}
