//! Velero, run beside the control plane where VELERO names its program and VELERO_PLUGINS the folder with
//! `velero-plugin-for-aws`, for the rates that benches/resources compares.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::control_plane::{ControlPlane, create};
use crate::support::program::succeeds;
use crate::support::servers::{S3Server, seaweedfs};
use crate::support::wait::until;

const NAMESPACE: &str = "/api/v1/namespaces/velero";
const OBJECTS: &str = "/apis/velero.io/v1/namespaces/velero";

/// Velero's program and the store that its servers use.
pub struct Velero {
    program: PathBuf,
    plugins: PathBuf,
    store: S3Server,
    credentials: PathBuf,
}

/// The result of a backup or restore by Velero.
pub struct VeleroRun {
    pub seconds: f64,
    /// The most memory that its server had resident, in bytes.
    pub peak: u64,
    /// The status that Velero gave the backup or restore.
    pub status: Value,
}

/// A server beside one control plane; it ends when this is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// Returns the peak of its resident memory in bytes.
    fn peak(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }
}

impl Velero {
    /// Returns Velero with an empty store, or `None` if VELERO names no program.
    pub async fn from_environment() -> Option<Self> {
        let program = PathBuf::from(std::env::var_os("VELERO")?);
        let plugins =
            std::env::var_os("VELERO_PLUGINS").expect("VELERO_PLUGINS names the folder of its plugins");
        let store = seaweedfs();
        store.bucket("velero", false).await;
        let credentials = store.options("velero").credentials_file.expect("a file");
        Some(Self { program, plugins: plugins.into(), store, credentials })
    }

    fn command(&self, plane: &ControlPlane, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).env("KUBECONFIG", plane.kubeconfig()).stdin(Stdio::null());
        command
    }

    /// Defines Velero's kinds, starts its server as it is by default, and waits for its store.
    async fn start(&self, plane: &ControlPlane, log: &Path) -> Server {
        let cluster = plane.cluster().await;
        succeeds(&mut self.command(plane, &["install", "--crds-only"]));
        create(&cluster, "/api/v1/namespaces", json!({"metadata": {"name": "velero"}})).await;
        until(&cluster, NAMESPACE, |namespace| namespace["status"]["phase"] == "Active").await;
        let config = format!("region=us-east-1,s3ForcePathStyle=true,s3Url={}", self.store.endpoint);
        succeeds(&mut self.command(
            plane,
            &[
                "backup-location",
                "create",
                "default",
                "--default",
                "--provider",
                "aws",
                "--bucket",
                "velero",
                "--config",
                &config,
                "--backup-sync-period",
                "1s",
            ],
        ));
        let log = std::fs::File::create(log).expect("a log");
        let mut command =
            self.command(plane, &["server", "--metrics-address", "127.0.0.1:0", "--plugin-dir"]);
        command.arg(&self.plugins).env("AWS_SHARED_CREDENTIALS_FILE", &self.credentials);
        command.env("VELERO_NAMESPACE", "velero");
        let server =
            Server(command.stderr(log.try_clone().expect("a log")).stdout(log).spawn().expect("a server"));
        let location = format!("{OBJECTS}/backupstoragelocations/default");
        until(&cluster, &location, |location| location["status"]["phase"] == "Available").await;
        server
    }

    /// Backs up every object of a cluster.
    pub async fn back_up(&self, plane: &ControlPlane, folder: &Path) -> VeleroRun {
        let server = self.start(plane, &folder.join("velero-backup.log")).await;
        self.run(plane, server, "backups", &["backup", "create", "all", "--snapshot-volumes=false", "--wait"])
            .await
    }

    /// Restores that backup into an empty cluster.
    pub async fn restore(&self, plane: &ControlPlane, folder: &Path) -> VeleroRun {
        let server = self.start(plane, &folder.join("velero-restore.log")).await;
        until(&plane.cluster().await, &format!("{OBJECTS}/backups/all"), |backup| {
            backup["status"].is_object()
        })
        .await;
        self.run(plane, server, "restores", &["restore", "create", "all", "--from-backup", "all", "--wait"])
            .await
    }

    async fn run(&self, plane: &ControlPlane, server: Server, plural: &str, args: &[&str]) -> VeleroRun {
        let start = Instant::now();
        let mut command = self.command(plane, args);
        let output =
            tokio::task::spawn_blocking(move || command.output()).await.expect("it ends").expect("it runs");
        let seconds = start.elapsed().as_secs_f64();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let done = until(&plane.cluster().await, &format!("{OBJECTS}/{plural}/all"), |_| true).await;
        VeleroRun { seconds, peak: server.peak(), status: done["status"].clone() }
    }
}
