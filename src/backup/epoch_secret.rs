//! Keeps a plan's epoch secrets in a Kubernetes Secret, so that a CronJob renews its epochs itself.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use zeroize::{Zeroize, Zeroizing};

use super::error::JobError;
use crate::format::ids::NameId;
use crate::keys::epoch_file::{
    EpochFile, EpochFileState, EpochSecretStore, FileSecretStore, StateChange, epoch_path,
};
use crate::keys::writer_key::{WriterFileError, WriterKey};
use crate::kubernetes::{ApiError, ApiResponse, Cluster, RequestLimits};
use crate::plan::{BackupSpec, ClusterSpec, WriterSpec};
use crate::report::event::Reporter;
use crate::runtime::Runtime;

/// The largest Secret that is read: etcd takes no more than 1.5 MiB.
const MAX_SECRET: usize = 2 << 20;
/// The tries of a change that another run's change collides with.
const TRIES: u32 = 5;

/// The place that keeps the epoch secrets of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EpochSecretPlace {
    /// A file.
    File(PathBuf),
    /// A Kubernetes Secret.
    Secret {
        /// The Secret's name; it is in the namespace of the pod, or of the kubeconfig's context.
        name: String,
        /// The access to the cluster; by default the pod's own.
        cluster: Option<ClusterSpec>,
        /// The writer's key file, after which the entry is named.
        key_file: PathBuf,
    },
}

impl EpochSecretPlace {
    /// Returns the place that a plan names: a Secret, a file, or by default a file beside the writer's key.
    #[must_use]
    pub fn of(spec: &BackupSpec, plan: &str) -> Self {
        let WriterSpec { key_file, epoch_file, epoch_secret, .. } = &spec.writer;
        match epoch_secret {
            Some(name) => {
                Self::Secret { name: name.clone(), cluster: spec.cluster.clone(), key_file: key_file.clone() }
            }
            None => Self::File(epoch_file.clone().unwrap_or_else(|| epoch_path(key_file, plan))),
        }
    }

    /// Opens the place for a plan of a writer. Reads nothing yet.
    ///
    /// # Errors
    /// [`JobError::Access`] if there is no access to the cluster.
    pub async fn open(
        &self,
        key: &WriterKey,
        plan: &str,
        runtime: &Runtime,
        reporter: &Reporter,
    ) -> Result<Box<dyn EpochSecretStore>, JobError> {
        match self {
            Self::File(path) => {
                Ok(Box::new(FileSecretStore::new(path.clone(), key, key.plan(plan), runtime)))
            }
            Self::Secret { name, cluster, key_file } => {
                let limits = RequestLimits::default();
                let cluster = Cluster::connect(cluster.as_ref(), limits, reporter).await?;
                Ok(Box::new(ClusterSecretStore::new(cluster, name, key, key_file, plan)))
            }
        }
    }
}

impl fmt::Display for EpochSecretPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Secret { name, .. } => write!(f, "the Secret {name}"),
        }
    }
}

/// Stores epoch secrets in one entry of a Kubernetes Secret that exists already. Each change is made at the
/// `resourceVersion` that was read: the server refuses it if the Secret was changed meanwhile.
///
/// It needs the verbs `get` and `patch` on this Secret, and no more.
pub struct ClusterSecretStore {
    cluster: Cluster,
    namespace: String,
    name: String,
    /// The entry: the name that a plan's epoch file has by default.
    entry: String,
    key: WriterKey,
    plan: NameId,
}

/// The state of the Secret at a version.
struct Current {
    version: Version,
    file: Option<EpochFile>,
}

struct Version {
    resource: String,
    immutable: bool,
}

#[derive(Deserialize)]
struct SecretObject {
    metadata: SecretMetadata,
    #[serde(default)]
    immutable: bool,
    #[serde(default)]
    data: BTreeMap<String, String>,
}

impl Drop for SecretObject {
    fn drop(&mut self) {
        self.data.values_mut().for_each(Zeroize::zeroize);
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SecretMetadata {
    resource_version: String,
}

impl ClusterSecretStore {
    /// Creates a store in the Secret `name` of the namespace that `cluster` works in. `key_file` is the path
    /// of the writer's key, after which the entry is named.
    #[must_use]
    pub fn new(cluster: Cluster, name: &str, key: &WriterKey, key_file: &Path, plan: &str) -> Self {
        let entry = epoch_path(key_file, plan);
        Self {
            namespace: cluster.namespace().to_owned(),
            cluster,
            name: name.to_owned(),
            entry: entry.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            plan: key.plan(plan),
            key: key.clone(),
        }
    }

    fn path(&self) -> String {
        format!("/api/v1/namespaces/{}/secrets/{}", self.namespace, self.name)
    }

    fn malformed(&self, what: &'static str) -> WriterFileError {
        WriterFileError::Malformed { label: self.describe(), what }
    }

    fn parse(&self, answer: &ApiResponse) -> Result<SecretObject, WriterFileError> {
        serde_json::from_slice(&answer.body).map_err(|_| self.malformed("is no Secret"))
    }

    fn require_mutable(&self, immutable: bool) -> Result<(), WriterFileError> {
        if immutable { Err(WriterFileError::SecretImmutable { label: self.describe() }) } else { Ok(()) }
    }

    async fn read(&self) -> Result<Current, WriterFileError> {
        let answer = self.cluster.get(&self.path(), "", MAX_SECRET).await;
        let object = self.parse(&answer.map_err(|error| self.failed("read", error))?)?;
        let version =
            Version { resource: object.metadata.resource_version.clone(), immutable: object.immutable };
        let Some(encoded) = object.data.get(&self.entry).filter(|encoded| !encoded.is_empty()) else {
            return Ok(Current { version, file: None });
        };
        let text = STANDARD.decode(encoded.as_bytes()).map(Zeroizing::new);
        let text = text.map_err(|_| self.malformed("has an entry that is not base64"))?;
        let file = EpochFile::parse(&self.describe(), &text)?;
        file.require(&self.describe(), self.key.repository, self.key.writer, self.plan)?;
        Ok(Current { version, file: Some(file) })
    }

    /// Writes the secrets if the Secret still has `version`; returns false if it has not.
    async fn write(&self, version: &Version, state: EpochFileState) -> Result<bool, WriterFileError> {
        self.require_mutable(version.immutable)?;
        let (repository, writer) = (self.key.repository, self.key.writer);
        let file = EpochFile { repository, writer, plan: self.plan, state };
        let encoded = Zeroizing::new(STANDARD.encode(file.to_text().as_bytes()));
        let body = serde_json::json!({
            "metadata": {"resourceVersion": version.resource},
            "data": {self.entry.as_str(): encoded.as_str()},
        });
        match self.patch("", Bytes::from(body.to_string())).await {
            // A webhook that changes Secrets must not leave an epoch whose secret nobody has.
            Ok(answer) => match serde_json::from_slice::<SecretObject>(&answer.body) {
                Ok(stored) if stored.data.get(&self.entry).is_some_and(|kept| *kept == *encoded) => Ok(true),
                _ => Err(self.malformed("does not hold what was written to it: does a webhook change it?")),
            },
            Err(error) if error.code() == Some(409) => Ok(false),
            Err(error) => Err(self.failed("change", error)),
        }
    }

    async fn patch(&self, query: &str, body: Bytes) -> Result<ApiResponse, ApiError> {
        let query = format!("fieldManager=kbak{query}");
        let merge = "application/merge-patch+json";
        self.cluster.send(http::Method::PATCH, &self.path(), &query, merge, body).await
    }

    fn failed(&self, verb: &'static str, source: ApiError) -> WriterFileError {
        let (label, verb) = (self.describe(), verb.to_owned());
        match source.code() {
            Some(code) if code < 500 && !source.is_transient() => {
                WriterFileError::SecretRefused { label, verb, source: source.into() }
            }
            _ => WriterFileError::SecretUnreachable { label, verb, source: source.into() },
        }
    }
}

impl fmt::Debug for ClusterSecretStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterSecretStore").field("secret", &self.describe()).finish_non_exhaustive()
    }
}

#[async_trait]
impl EpochSecretStore for ClusterSecretStore {
    fn describe(&self) -> String {
        format!("{} of the Secret {}/{}", self.entry, self.namespace, self.name)
    }

    async fn load(&self) -> Result<Option<EpochFileState>, WriterFileError> {
        Ok(self.read().await?.file.map(|file| file.state))
    }

    async fn check_writable(&self) -> Result<(), WriterFileError> {
        let answer = self.patch("&dryRun=All", Bytes::from_static(b"{}")).await;
        let answer = answer.map_err(|error| self.failed("change", error))?;
        // A change of nothing is accepted of an immutable Secret, too.
        self.require_mutable(self.parse(&answer)?.immutable)
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn update(&self, change: StateChange<'_>) -> Result<(), WriterFileError> {
        for _ in 0..TRIES {
            let Current { version, file } = self.read().await?;
            let held = file.map(|file| file.state).unwrap_or_default();
            let Some(changed) = change(held.clone()) else { break };
            // An answer that was lost: the change is there already.
            if changed == held || self.write(&version, changed).await? {
                return Ok(());
            }
        }
        Err(WriterFileError::SecretChanged { label: self.describe() })
    }
}
