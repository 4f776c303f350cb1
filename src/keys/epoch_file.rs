//! The secrets of the epochs that a writer writes into, one file a plan. None of them decrypts a backup.

use std::fmt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::private_file;
use super::writer_key::{VERSION, WriterFileError, WriterKey, pretty};
use crate::format::derive::{EpochSecret, SecretKey};
use crate::format::ids::{EpochId, NameId, ObjectHash, RepositoryId, WriterId, from_hex, to_hex};
use crate::format::manifest::MAX_TRUST;
use crate::format::sign::{KeyError, PublicKey};
use crate::format::{epoch::VerifiedEpoch, json, timestamp};
use crate::report::text::bytes_without_bom;
use crate::runtime::Runtime;

/// The most epoch secrets in one file: the current one and those of a rollover in progress.
pub const MAX_SECRETS: usize = 8;

/// The most snapshots committed last that one file holds.
pub const MAX_HEADS: usize = 16;

/// The most runs without a commit that one file holds.
pub const MAX_RUNS: usize = 32;

const EPOCH_KIND: &str = "epoch secret";

/// The secret of one epoch, as the writer stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSecret {
    /// The epoch.
    pub epoch: EpochId,
    /// The epoch's secret.
    pub secret: EpochSecret,
    /// The SHA-256 of epoch.json: whoever had the writer's key for a minute could sign another one, with a recipient
    /// of their own. None in files of earlier versions.
    pub document: Option<ObjectHash>,
}

impl StoredSecret {
    /// True if this is the secret of `epoch`, and `epoch` the document that this writer stored.
    pub fn matches(&self, epoch: &VerifiedEpoch) -> bool {
        let is_stored = self.document.is_none_or(|document| document == epoch.hash());
        is_stored && self.epoch == epoch.epoch && self.secret.commitment() == epoch.commitment.0
    }
}

/// The content of a writer's file of a plan: its epoch secrets, and its own past, which the store cannot forge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EpochFileState {
    /// The epoch secrets. During a rollover the old and the new one, so that a crash at any point loses
    /// neither; afterwards only the new one.
    pub secrets: Vec<StoredSecret>,
    /// The snapshots that were committed last: several only after two runs at once.
    pub heads: Vec<LastCommit>,
    /// The runs that have begun and did not commit.
    pub runs: Vec<OpenRun>,
    /// The revocations that were seen in the store, by the SHA-256 of their records.
    pub trust: Vec<ObjectHash>,
}

/// The storage for a writer's state of one plan: a file or a Kubernetes Secret.
#[async_trait]
pub trait EpochSecretStore: Send + Sync + fmt::Debug {
    /// Returns a name for messages.
    fn describe(&self) -> String;
    /// Returns the stored state, or none if the storage does not exist yet.
    async fn load(&self) -> Result<Option<EpochFileState>, WriterFileError>;
    /// True if several machines write here: then only one run at a time may create an epoch.
    fn is_shared(&self) -> bool {
        false
    }
    /// Changes the stored state atomically. Fails with [`WriterFileError::SecretChanged`] if `change` gives it up,
    /// or if other changes always come first.
    async fn update(&self, change: StateChange<'_>) -> Result<(), WriterFileError>;
    /// Checks that a new epoch's secret can be stored, without storing any.
    async fn check_writable(&self) -> Result<(), WriterFileError> {
        Ok(())
    }
}

/// A function from the stored state to the one to store; none gives the change up. It may be called again, on its
/// own result too.
pub type StateChange<'a> = &'a (dyn Fn(EpochFileState) -> Option<EpochFileState> + Send + Sync);

/// The content of an epoch file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochFile {
    /// The repository.
    pub repository: RepositoryId,
    /// The writer.
    pub writer: WriterId,
    /// The plan.
    pub plan: NameId,
    /// The secrets and the past of the plan.
    pub state: EpochFileState,
}

/// A snapshot that this writer committed. With it the writer notices when the newest snapshots were removed
/// from the store, and believes only hints that its own snapshots name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastCommit {
    /// Its sequence.
    pub seq: u64,
    /// SHA-256 of its manifest.
    pub hash: ObjectHash,
}

/// A run that has begun: the next one believes the index objects that its key signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRun {
    /// The public half of a key that only the run's memory held.
    pub key: PublicKey,
    /// The epoch that it writes into.
    pub epoch: EpochId,
    /// The time at which it began, by the store's clock.
    #[serde(with = "timestamp")]
    pub started: Timestamp,
    /// The sequence of the snapshot that it makes; 0 in files of earlier versions.
    #[serde(default)]
    pub seq: u64,
    /// True if it said that it ended without a commit. One that was killed has not, nor has one that still runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
}

#[derive(Serialize, Deserialize)]
struct EpochFileText {
    kbak: String,
    version: u64,
    repository: RepositoryId,
    writer: WriterId,
    plan: NameId,
    epochs: Vec<SecretText>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    heads: Vec<LastCommit>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    runs: Vec<OpenRun>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    trust: Vec<ObjectHash>,
}

#[derive(Serialize, Deserialize)]
struct SecretText {
    epoch: EpochId,
    secret: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    document: Option<ObjectHash>,
}

impl Drop for SecretText {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl EpochFile {
    /// Parses the file's content. `label` names it in messages.
    pub fn parse(label: &str, content: &[u8]) -> Result<Self, WriterFileError> {
        let label = || label.to_owned();
        let content = bytes_without_bom(content);
        let file: EpochFileText = json::parse_secret(content).map_err(|source| WriterFileError::Json {
            label: label(),
            kind: EPOCH_KIND,
            source,
        })?;
        let too_many = file.epochs.len() > MAX_SECRETS
            || file.heads.len() > MAX_HEADS
            || file.runs.len() > MAX_RUNS
            || file.trust.len() > MAX_TRUST;
        if file.kbak != EPOCH_KIND || file.version != VERSION || too_many {
            return Err(WriterFileError::Kind { label: label(), kind: EPOCH_KIND });
        }
        let read = |text: &SecretText| {
            let bytes = from_hex::<32>(&text.secret)
                .map_err(|_| WriterFileError::Key { label: label(), source: KeyError::Malformed })?;
            let secret = EpochSecret(SecretKey::new(bytes));
            Ok(StoredSecret { epoch: text.epoch, secret, document: text.document })
        };
        let secrets = file.epochs.iter().map(read).collect::<Result<_, WriterFileError>>()?;
        let EpochFileText { repository, writer, plan, heads, runs, trust, .. } = file;
        Ok(Self { repository, writer, plan, state: EpochFileState { secrets, heads, runs, trust } })
    }

    /// Checks that the file belongs to a plan of a writer. `label` names it in messages.
    ///
    /// # Errors
    /// [`WriterFileError::BelongsElsewhere`].
    pub fn require(
        &self,
        label: &str,
        repository: RepositoryId,
        writer: WriterId,
        plan: NameId,
    ) -> Result<(), WriterFileError> {
        let what = match () {
            () if self.repository != repository => "repository",
            () if self.writer != writer => "writer",
            () if self.plan != plan => "plan",
            () => return Ok(()),
        };
        Err(WriterFileError::BelongsElsewhere { label: label.to_owned(), what })
    }

    /// Returns the file's content. For a 0600 file or a Kubernetes Secret only.
    pub fn to_text(&self) -> Zeroizing<String> {
        let write = |secrets: &StoredSecret| SecretText {
            epoch: secrets.epoch,
            secret: to_hex(secrets.secret.0.expose()),
            document: secrets.document,
        };
        pretty(&EpochFileText {
            kbak: EPOCH_KIND.to_owned(),
            version: VERSION,
            repository: self.repository,
            writer: self.writer,
            plan: self.plan,
            epochs: self.state.secrets.iter().map(write).collect(),
            heads: self.state.heads.clone(),
            runs: self.state.runs.clone(),
            trust: self.state.trust.clone(),
        })
    }
}

/// Returns the default path of a plan's epoch file: `<writer.key>.epoch` for the plan
/// `default`, `<writer.key>.<plan>.epoch` for others.
#[must_use]
pub fn epoch_path(writer_key: &Path, plan: &str) -> PathBuf {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let mut name = writer_key.file_name().unwrap_or_default().to_owned();
    if plan != "default" {
        name.push(".");
        name.push(plan.chars().map(|c| if is_allowed(c) { c } else { '_' }).collect::<String>());
    }
    name.push(".epoch");
    writer_key.with_file_name(name)
}

/// Stores epoch secrets in a 0600 file.
#[derive(Debug)]
pub struct FileSecretStore {
    path: PathBuf,
    repository: RepositoryId,
    writer: WriterId,
    plan: NameId,
    runtime: Runtime,
}

impl FileSecretStore {
    /// Creates a store in `path` for one plan of `key`'s writer.
    #[must_use]
    pub fn new(path: PathBuf, key: &WriterKey, plan: NameId, runtime: &Runtime) -> Self {
        Self { path, repository: key.repository, writer: key.writer, plan, runtime: runtime.clone() }
    }
}

#[async_trait]
impl EpochSecretStore for FileSecretStore {
    fn describe(&self) -> String {
        self.path.display().to_string()
    }

    async fn load(&self) -> Result<Option<EpochFileState>, WriterFileError> {
        Ok(self.read().await?.map(|file| file.state))
    }

    async fn check_writable(&self) -> Result<(), WriterFileError> {
        let folder = private_file::folder_of(&self.path);
        let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
        let flags = rustix::fs::AtFlags::EACCESS;
        rustix::fs::accessat(rustix::fs::CWD, folder, access, flags).map_err(|error| {
            let (folder, source) = (folder.display().to_string(), Box::new(error));
            WriterFileError::NotWritable { label: folder, source }
        })
    }

    async fn update(&self, change: StateChange<'_>) -> Result<(), WriterFileError> {
        // Two runs that start at the same time must not lose each other's secret.
        let lock = self.lock().await;
        let state = self.read().await?.map(|file| file.state).unwrap_or_default();
        let written = match change(state) {
            Some(changed) => self.write(changed).await,
            None => Err(WriterFileError::SecretChanged { label: self.describe() }),
        };
        drop(lock);
        written
    }
}

impl FileSecretStore {
    async fn lock(&self) -> Option<std::fs::File> {
        let path = self.path.clone();
        self.runtime.workers.run(move || private_file::lock_beside(&path)).await
    }

    async fn read(&self) -> Result<Option<EpochFile>, WriterFileError> {
        let path = self.path.clone();
        let read = self.runtime.workers.run(move || private_file::read(&path)).await;
        let bytes = match read {
            Ok(file) => file.bytes,
            Err(error) if error.is_missing() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let file = EpochFile::parse(&self.describe(), &bytes)?;
        file.require(&self.describe(), self.repository, self.writer, self.plan)?;
        Ok(Some(file))
    }

    async fn write(&self, state: EpochFileState) -> Result<(), WriterFileError> {
        let (repository, writer, plan) = (self.repository, self.writer, self.plan);
        let file = EpochFile { repository, writer, plan, state };
        let (path, random) = (self.path.clone(), self.runtime.random());
        let text = file.to_text();
        let replaced = move || private_file::replace(&path, random, text.as_bytes());
        Ok(self.runtime.workers.run(replaced).await?)
    }
}
