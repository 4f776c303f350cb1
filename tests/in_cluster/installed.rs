//! A node with the image in it, a store that its pods reach, a repository, and the chart installed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use kbak::kubernetes::Cluster;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{collection, documents, helm, project};
use crate::support::control_plane::{ControlPlane, create, get};
use crate::support::owners::run_ok;
use crate::support::program::command;
use crate::support::servers::{KEY, S3Server, SECRET, seaweedfs};
use crate::support::wait::until;

/// The node's address, as its pods see it (tests/cluster).
pub const NODE: &str = "192.0.2.1";

/// kbak as the chart installs it in a namespace, `kbak` for the first one.
pub struct Installed {
    /// The cluster, with its administrator's rights.
    pub cluster: Cluster,
    namespace: String,
    plane: Arc<Mutex<ControlPlane>>,
    store: Arc<S3Server>,
    dir: TempDir,
}

impl Installed {
    /// Starts everything and installs the chart, or returns nothing where no node can run.
    pub async fn start() -> Option<Self> {
        let installed = Self::prepare(&[]).await?;
        installed.install().await;
        Some(installed)
    }

    /// Installs kbak once more on this node: in another namespace, with a repository of its own.
    pub async fn beside(&self, namespace: &str) -> Self {
        let installed = Self {
            cluster: self.cluster.clone(),
            namespace: namespace.to_owned(),
            plane: Arc::clone(&self.plane),
            store: Arc::clone(&self.store),
            dir: tempfile::tempdir().expect("a folder"),
        };
        installed.install().await;
        installed
    }

    async fn install(&self) {
        self.make_owners();
        self.make_repository().await;
        self.write_values(&self.recipients());
        self.helm("install", &[]);
    }

    /// Starts a store and a node that has the image, made with more options of `deploy/image`.
    pub async fn prepare(image: &[&str]) -> Option<Self> {
        let node = std::env::var("KBAK_TEST_NODE")
            .expect("KBAK_TEST_NODE has a node's arguments: eval \"$(scripts/tools --need node)\"");
        if node.is_empty() {
            // scripts/tools has said why there is no node on this machine.
            return None;
        }
        let store = seaweedfs();
        store.bucket("backups", false).await;
        let plane = ControlPlane::start(&node.split(' ').collect::<Vec<_>>());
        let cluster = plane.cluster().await;
        let dir = tempfile::tempdir().expect("a folder");
        let (plane, store) = (Arc::new(Mutex::new(plane)), Arc::new(store));
        let installed = Self { cluster, namespace: "kbak".to_owned(), plane, store, dir };
        let mut make = Command::new(project("scripts/image"));
        let archive = run_ok(make.arg(env!("CARGO_BIN_EXE_kbak")).args(image), b"");
        installed.import(Path::new(String::from_utf8(archive).expect("text").trim_end()));
        installed.reach(&installed.store.endpoint);
        Some(installed)
    }

    fn plane(&self) -> std::sync::MutexGuard<'_, ControlPlane> {
        self.plane.lock().expect("no other user has failed")
    }

    /// Returns the path of a kind in the namespace, or of an object: `pods/first`. `root` is the API's.
    fn path(&self, root: &str, rest: &str) -> String {
        format!("{root}/namespaces/{}/{rest}", self.namespace)
    }

    /// Returns a path of the core's API in the namespace.
    pub fn core(&self, rest: &str) -> String {
        self.path("/api/v1", rest)
    }

    /// Returns a path of the API of Jobs in the namespace.
    pub fn batch(&self, rest: &str) -> String {
        self.path("/apis/batch/v1", rest)
    }

    /// Lets pods reach a server of this machine at the node's address, and returns its port.
    pub fn reach<'a>(&self, url: &'a str) -> &'a str {
        let port = url.rsplit(':').next().expect("a port");
        self.plane().command(&format!("reach {port}"));
        port
    }

    /// Adds an archive of images to the node.
    pub fn import(&self, archive: &Path) {
        self.plane().command(&format!("import {}", archive.display()));
    }

    /// Makes an address of the node's network reachable, and returns its port on loopback.
    pub fn publish(&self, address: &str) -> u16 {
        self.plane().publish(address)
    }

    /// Returns the administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.plane().kubeconfig()
    }

    /// Returns the store's port, on the node and on this machine.
    pub fn port(&self) -> &str {
        self.store.endpoint.rsplit(':').next().expect("a port")
    }

    /// Returns the store's address, as pods see it.
    pub fn endpoint(&self) -> String {
        format!("http://{NODE}:{}", self.port())
    }

    /// Returns a file of the person who installs kbak.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes the keys of two owners.
    pub fn make_owners(&self) {
        let recipients = ["ada", "bob"].map(|owner| self.make_owner(owner));
        std::fs::write(self.file("recipients"), recipients.join("\n")).expect("a file");
    }

    /// Makes the key of an owner, and returns the public one.
    pub fn make_owner(&self, name: &str) -> String {
        let key = format!("{name}.key");
        let mut keygen = command(&["keygen", "--no-passphrase", "-o", &key]);
        let public = run_ok(keygen.current_dir(&self.dir), b"");
        String::from_utf8(public).expect("text").trim().to_owned()
    }

    /// Returns the owners' public keys: ada's, then bob's.
    pub fn recipients(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.file("recipients")).expect("recipients");
        text.lines().map(str::to_owned).collect()
    }

    /// Makes the repository and the Secrets of its writer, as a person does on a laptop.
    pub async fn make_repository(&self) {
        let mut init = self.on_the_laptop(&["init", "--no-lock", "--secrets", &self.namespace]);
        for recipient in &self.recipients() {
            init.args(["--recipient", recipient]);
        }
        run_ok(init.args(["--identity", "ada.key", "--identity", "bob.key"]), b"");
        let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        let namespace = json!({"metadata": {"name": self.namespace, "labels": labels}});
        create(&self.cluster, "/api/v1/namespaces", namespace).await;
        for file in ["kbak-writer.secret.yaml", "kbak-epoch.secret.yaml"] {
            let text = std::fs::read_to_string(self.file(file)).expect("a Secret");
            for secret in documents(&text) {
                create(&self.cluster, &collection(&secret), secret).await;
            }
        }
        self.add_store_secret("kbak-store", SECRET).await;
    }

    /// Adds a Secret with credentials of the store.
    pub async fn add_store_secret(&self, name: &str, secret: &str) {
        let file = format!("[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {secret}\n");
        let object = json!({"metadata": {"name": name}, "stringData": {"credentials": file}});
        create(&self.cluster, &self.core("secrets"), object).await;
    }

    fn repository(&self) -> String {
        match self.namespace.as_str() {
            "kbak" => "s3://backups/prod".to_owned(),
            other => format!("s3://backups/{other}"),
        }
    }

    /// Returns kbak outside of the cluster, with the options of the repository.
    pub fn on_the_laptop(&self, args: &[&str]) -> Command {
        let credentials = self.store.options("backups").credentials_file.expect("credentials");
        let mut command = command(args);
        command.current_dir(&self.dir).args(["--repo", &self.repository(), "--region", "us-east-1"]);
        command.args(["--endpoint", &self.store.endpoint, "--credentials-file"]).arg(credentials);
        command
    }

    /// Returns a restore of the newest snapshot by an owner, outside of the cluster.
    pub fn restore(&self, owner: &str, more: &[&str]) -> Command {
        let mut command = self.on_the_laptop(&["restore", "latest", "--signer", "kbak.pub"]);
        command.args(["--identity", &format!("{owner}.key")]).args(more);
        command
    }

    /// Writes values with a plan for these owners.
    pub fn write_values(&self, owners: &[String]) {
        let repository =
            json!({"url": self.repository(), "endpoint": self.endpoint(), "region": "us-east-1"});
        let values = json!({
            "plan": {"spec": {
                "repository": repository, "recipients": owners, "resources": {},
            }},
            "store": {"existingSecret": "kbak-store"},
        });
        std::fs::write(self.file("values.yaml"), values.to_string()).expect("a file");
    }

    /// Runs `helm install` or `helm upgrade` with more `--set` values.
    pub fn helm(&self, verb: &str, settings: &[&str]) {
        let mut command = helm(self.dir.path());
        command.args([verb, "kbak"]).arg(project("deploy/chart")).args(["--namespace", &self.namespace]);
        command.arg("--kubeconfig").arg(self.kubeconfig());
        command.arg("--values").arg(self.file("values.yaml"));
        // There is no registry.
        command.args(["--set", "image.repository=kbak.test/kbak,image.pullPolicy=Never"]);
        command.args(["--set-string", "image.tag=1"]);
        command.arg("--set-file").arg(format!("signers={}", self.file("kbak.pub").display()));
        for setting in settings {
            command.args(["--set", setting]);
        }
        run_ok(&mut command, b"");
    }

    /// Runs `helm test` and returns the log of its pod.
    pub fn helm_test(&self) -> String {
        let mut command = helm(self.dir.path());
        command.args(["test", "kbak", "--namespace", &self.namespace, "--logs"]);
        command.arg("--kubeconfig").arg(self.kubeconfig());
        String::from_utf8(run_ok(&mut command, b"")).expect("text")
    }

    /// Starts a Job as `kubectl create job NAME --from=cronjob/kbak-PART` does.
    pub async fn start_job(&self, part: &str, name: &str) {
        self.start_changed_job(part, name, |_| ()).await;
    }

    /// Starts a Job like [`Self::start_job`], with a change of its spec.
    pub async fn start_changed_job(&self, part: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let cronjob = get(&self.cluster, &self.batch(&format!("cronjobs/kbak-{part}"))).await;
        let template = &cronjob["spec"]["jobTemplate"];
        let metadata = json!({"name": name, "labels": template["metadata"]["labels"]});
        let mut spec = template["spec"].clone();
        change(&mut spec);
        let job = json!({"metadata": metadata, "spec": spec});
        create(&self.cluster, &self.batch("jobs"), job).await;
    }

    /// Starts a pod as a Job of the CronJob of backups has it, with a change of its spec.
    pub async fn start_changed_pod(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let cronjob = get(&self.cluster, &self.batch("cronjobs/kbak-backup")).await;
        let template = &cronjob["spec"]["jobTemplate"]["spec"]["template"];
        let mut spec = template["spec"].clone();
        change(&mut spec);
        let pod = json!({"metadata": {"name": name, "labels": template["metadata"]["labels"]}, "spec": spec});
        create(&self.cluster, &self.core("pods"), pod).await;
    }

    /// Waits for the end of a pod, and returns it.
    pub async fn pod_ended(&self, name: &str) -> Value {
        let has_ended =
            |pod: &Value| ["Succeeded", "Failed"].iter().any(|phase| pod["status"]["phase"] == *phase);
        until(&self.cluster, &self.core(&format!("pods/{name}")), has_ended).await
    }

    /// Deletes a Job and its pods.
    pub async fn delete_job(&self, name: &str) {
        let path = self.batch(&format!("jobs/{name}"));
        let body = Bytes::from_static(br#"{"propagationPolicy":"Background"}"#);
        self.cluster.send(Method::DELETE, &path, "", "application/json", body).await.expect("deleted");
    }

    /// Runs a backup, which must succeed, and returns its log.
    pub async fn back_up(&self, name: &str) -> String {
        self.start_job("backup", name).await;
        let complete = self.ended(name).await;
        let log = self.log(&self.pods(name).await[0]).await;
        assert!(complete, "{name}: {log}");
        log
    }

    /// Waits for the end of a Job and returns whether it is complete.
    pub async fn ended(&self, name: &str) -> bool {
        let path = self.batch(&format!("jobs/{name}"));
        let job =
            until(&self.cluster, &path, |job| condition(job, "Complete") || condition(job, "Failed")).await;
        condition(&job, "Complete")
    }

    /// Waits until the pod of a Job reads resources and its status names the container, and returns it.
    pub async fn running(&self, job: &str) -> Value {
        for _ in 0..600 {
            if let Some(pod) = self.pods(job).await.pop()
                && pod["status"]["containerStatuses"][0]["containerID"].is_string()
                && self.log(&pod).await.contains("resources begins")
            {
                return pod;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{job} never begins");
    }

    /// Returns the pods of a Job, oldest first.
    pub async fn pods(&self, job: &str) -> Vec<Value> {
        let query = format!("labelSelector=job-name%3D{job}");
        let answer = self.cluster.get(&self.core("pods"), &query, 16 << 20).await.expect("pods");
        let list: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let mut pods = list["items"].as_array().expect("items").clone();
        pods.sort_by_key(|pod| pod["metadata"]["creationTimestamp"].as_str().map(str::to_owned));
        pods
    }

    /// Returns the log of a pod.
    pub async fn log(&self, pod: &Value) -> String {
        let name = pod["metadata"]["name"].as_str().expect("a name");
        let path = self.core(&format!("pods/{name}/log"));
        let container = pod["spec"]["containers"][0]["name"].as_str().expect("a container");
        let answer = self.cluster.get(&path, &format!("container={container}"), 16 << 20).await;
        answer.map(|answer| String::from_utf8_lossy(&answer.body).into_owned()).unwrap_or_default()
    }
}

fn condition(job: &Value, kind: &str) -> bool {
    let conditions = job["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|c| c["type"] == kind && c["status"] == "True"))
}

/// Returns exit code and termination message of a pod that has ended.
pub fn end_of(pod: &Value) -> (i64, String) {
    let end = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    (end["exitCode"].as_i64().expect("an exit code"), end["message"].as_str().unwrap_or_default().to_owned())
}
