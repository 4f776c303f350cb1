//! The secret files of a writer: `writer.key` (its ids and signing key) and, for each plan,
//! the secrets of the epochs that it writes into. None of them decrypts a backup.

use std::fmt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::format::derive::{EpochSecret, NamesKey, SecretKey};
use crate::format::epoch::Epoch;
use crate::format::ids::{EpochId, NameId, ObjectHash, RepositoryId, WriterId, from_hex, to_hex};
use crate::format::json::{self, SecretJsonError};
use crate::format::sign::{KeyError, Namespace, SigningKey};
use crate::format::signers::{Signer, Signers};
use crate::keys::private_file;
use crate::keys::private_file::{FileError, SecretFile};
use crate::runtime::Runtime;

/// The most epoch secrets in one file: the current one and those of a rollover in progress.
pub const MAX_HELD: usize = 8;

/// An error in a writer's file. It never contains the file's content.
#[derive(Debug, thiserror::Error)]
pub enum WriterFileError {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not the expected JSON.
    #[error("{label} is not a {kind} file of kbak")]
    Json {
        /// The file.
        label: String,
        /// The kind of file that was expected.
        kind: &'static str,
        /// The error and its position.
        source: SecretJsonError,
    },
    /// The file is of another kind or of a newer version.
    #[error("{label} is not a {kind} file of this version of kbak")]
    Kind {
        /// The file.
        label: String,
        /// The kind of file that was expected.
        kind: &'static str,
    },
    /// A key or secret in the file is malformed.
    #[error("the key in {label}")]
    Key {
        /// The file.
        label: String,
        /// The cause.
        source: KeyError,
    },
    /// The file belongs to another repository, writer or plan.
    #[error("{label} belongs to another {what}")]
    Foreign {
        /// The file.
        label: String,
        /// `repository`, `writer` or `plan`.
        what: &'static str,
    },
    /// A keeper other than a file failed.
    #[error("cannot {operation} the epoch's secret in {label}")]
    Keeper {
        /// `read` or `write`.
        operation: &'static str,
        /// The place where the secret is kept.
        label: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The identity and keys of a writer. `Debug` shows no secret.
#[derive(Clone)]
pub struct WriterKey {
    /// The repository it writes.
    pub repository: RepositoryId,
    /// The writer's id; it stays when the signing key is replaced.
    pub writer: WriterId,
    /// The key that turns names into ids.
    pub names: NamesKey,
    /// The key that signs epochs and manifests.
    pub signing: SigningKey,
}

#[derive(Serialize, Deserialize)]
struct WriterKeyFile {
    kbak: String,
    version: u64,
    repository: RepositoryId,
    writer: WriterId,
    names_key: String,
    signing_key: String,
}

impl Drop for WriterKeyFile {
    fn drop(&mut self) {
        self.names_key.zeroize();
        self.signing_key.zeroize();
    }
}

const WRITER_KIND: &str = "writer key";
const EPOCH_KIND: &str = "epoch secret";
const VERSION: u64 = 1;

impl WriterKey {
    /// Generates a new writer of a new repository.
    #[must_use]
    pub fn generate(runtime: &Runtime) -> Self {
        let seed = Zeroizing::new(runtime.random::<32>());
        Self {
            repository: RepositoryId(runtime.random()),
            writer: WriterId(runtime.random()),
            names: NamesKey(SecretKey::new(runtime.random())),
            signing: SigningKey::from_seed(&seed),
        }
    }

    /// Parses the file's content. `label` names it in messages.
    pub fn parse(label: &str, content: &[u8]) -> Result<Self, WriterFileError> {
        let label = || label.to_owned();
        let file: WriterKeyFile = json::parse_secret(content).map_err(|source| WriterFileError::Json {
            label: label(),
            kind: WRITER_KIND,
            source,
        })?;
        if file.kbak != WRITER_KIND || file.version != VERSION {
            return Err(WriterFileError::Kind { label: label(), kind: WRITER_KIND });
        }
        let key = |source| WriterFileError::Key { label: label(), source };
        let names = from_hex::<32>(&file.names_key).map_err(|_| key(KeyError::Malformed))?;
        Ok(Self {
            repository: file.repository,
            writer: file.writer,
            names: NamesKey(SecretKey::new(names)),
            signing: SigningKey::from_openssh(&file.signing_key, None).map_err(key)?,
        })
    }

    /// Reads the file. Returns a warning if its permissions are too open.
    pub fn read(path: &Path) -> Result<(Self, Option<String>), WriterFileError> {
        let SecretFile { bytes, warning } = private_file::read(path)?;
        Ok((Self::parse(&path.display().to_string(), &bytes)?, warning))
    }

    /// Returns the file's content. For a 0600 file or a Kubernetes Secret only.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let file = WriterKeyFile {
            kbak: WRITER_KIND.to_owned(),
            version: VERSION,
            repository: self.repository,
            writer: self.writer,
            names_key: to_hex(self.names.0.expose()),
            signing_key: self.signing.to_openssh().to_string(),
        };
        pretty(&file)
    }

    /// Returns the id of the plan `name`.
    #[must_use]
    pub fn plan(&self, name: &str) -> NameId {
        self.names.id("plan", name)
    }

    /// Returns a pin of this writer's own key, under which it verifies its own objects.
    #[must_use]
    pub fn own_signers(&self) -> Signers {
        let mut signers = Signers::default();
        signers.add(self.signer());
        signers
    }

    /// Returns this writer's line in kbak.pub.
    #[must_use]
    pub fn signer(&self) -> Signer {
        let key = self.signing.public();
        Signer::new(&self.writer.to_string(), &Namespace::WRITER, key, "kbak writer")
    }
}

impl fmt::Debug for WriterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriterKey({}…)", self.writer)
    }
}

#[expect(clippy::expect_used, reason = "strings and numbers always serialise")]
fn pretty(value: &impl Serialize) -> Zeroizing<String> {
    let mut text = serde_json::to_string_pretty(value).expect("a serialisable file");
    text.push('\n');
    Zeroizing::new(text)
}

/// The secret of one epoch, as the writer stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldEpoch {
    /// The epoch.
    pub epoch: EpochId,
    /// The epoch's secret.
    pub secret: EpochSecret,
}

impl HeldEpoch {
    /// True if this is the secret of `epoch`.
    #[must_use]
    pub fn fits(&self, epoch: &Epoch) -> bool {
        self.epoch == epoch.epoch && self.secret.commitment() == epoch.commitment.0
    }
}

/// The storage for a writer's epoch secrets of one plan: a file or a Kubernetes Secret.
///
/// During a rollover it holds the old and the new secret, so that a crash at any point loses
/// neither; afterwards only the new one.
#[async_trait]
pub trait EpochKeeper: Send + Sync + fmt::Debug {
    /// Returns a name for messages.
    fn describe(&self) -> String;
    /// Returns the stored secrets, or none if the storage does not exist yet.
    async fn load(&self) -> Result<Option<Vec<HeldEpoch>>, WriterFileError>;
    /// Changes the stored secrets atomically. A keeper that several runs share prevents concurrent changes.
    async fn update(&self, change: Change<'_>) -> Result<(), WriterFileError>;
    /// Returns the last committed snapshot, if the keeper stores it.
    async fn head(&self) -> Result<Option<KnownHead>, WriterFileError> {
        Ok(None)
    }
    /// Stores the last committed snapshot, if the keeper can.
    async fn keep_head(&self, _: KnownHead) -> Result<(), WriterFileError> {
        Ok(())
    }
}

/// A function from the stored secrets to those to store.
pub type Change<'a> = Box<dyn FnOnce(Vec<HeldEpoch>) -> Vec<HeldEpoch> + Send + 'a>;

/// The content of an epoch file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochFile {
    /// The repository.
    pub repository: RepositoryId,
    /// The writer.
    pub writer: WriterId,
    /// The plan.
    pub plan: NameId,
    /// The epoch secrets.
    pub held: Vec<HeldEpoch>,
    /// The last snapshot that was committed with them.
    pub head: Option<KnownHead>,
}

/// The last snapshot that this writer committed. With it the writer notices when the newest
/// snapshots were removed from the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownHead {
    /// Its sequence.
    pub seq: u64,
    /// SHA-256 of its manifest.
    pub hash: ObjectHash,
}

#[derive(Serialize, Deserialize)]
struct EpochFileText {
    kbak: String,
    version: u64,
    repository: RepositoryId,
    writer: WriterId,
    plan: NameId,
    epochs: Vec<HeldText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    head: Option<KnownHead>,
}

#[derive(Serialize, Deserialize)]
struct HeldText {
    epoch: EpochId,
    secret: String,
}

impl Drop for HeldText {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl EpochFile {
    /// Parses the file's content. `label` names it in messages.
    pub fn parse(label: &str, content: &[u8]) -> Result<Self, WriterFileError> {
        let label = || label.to_owned();
        let file: EpochFileText = json::parse_secret(content).map_err(|source| WriterFileError::Json {
            label: label(),
            kind: EPOCH_KIND,
            source,
        })?;
        if file.kbak != EPOCH_KIND || file.version != VERSION || file.epochs.len() > MAX_HELD {
            return Err(WriterFileError::Kind { label: label(), kind: EPOCH_KIND });
        }
        let read = |text: &HeldText| {
            let bytes = from_hex::<32>(&text.secret)
                .map_err(|_| WriterFileError::Key { label: label(), source: KeyError::Malformed })?;
            Ok(HeldEpoch { epoch: text.epoch, secret: EpochSecret(SecretKey::new(bytes)) })
        };
        let held = file.epochs.iter().map(read).collect::<Result<_, WriterFileError>>()?;
        let EpochFileText { repository, writer, plan, head, .. } = file;
        Ok(Self { repository, writer, plan, held, head })
    }

    /// Returns the file's content. For a 0600 file or a Kubernetes Secret only.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let write = |held: &HeldEpoch| HeldText { epoch: held.epoch, secret: to_hex(held.secret.0.expose()) };
        pretty(&EpochFileText {
            kbak: EPOCH_KIND.to_owned(),
            version: VERSION,
            repository: self.repository,
            writer: self.writer,
            plan: self.plan,
            epochs: self.held.iter().map(write).collect(),
            head: self.head,
        })
    }
}

/// Returns the default path of a plan's epoch file: `<writer.key>.epoch` for the plan
/// `default`, `<writer.key>.<plan>.epoch` for others.
#[must_use]
pub fn epoch_path(writer_key: &Path, plan: &str) -> PathBuf {
    let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let mut name = writer_key.file_name().unwrap_or_default().to_owned();
    if plan != "default" {
        name.push(".");
        name.push(plan.chars().map(|c| if sound(c) { c } else { '_' }).collect::<String>());
    }
    name.push(".epoch");
    writer_key.with_file_name(name)
}

/// Stores epoch secrets in a 0600 file.
#[derive(Debug)]
pub struct FileKeeper {
    path: PathBuf,
    repository: RepositoryId,
    writer: WriterId,
    plan: NameId,
    runtime: Runtime,
}

impl FileKeeper {
    /// Creates a keeper in `path` for one plan of `key`'s writer.
    #[must_use]
    pub fn new(path: PathBuf, key: &WriterKey, plan: NameId, runtime: &Runtime) -> Self {
        Self { path, repository: key.repository, writer: key.writer, plan, runtime: runtime.clone() }
    }
}

#[async_trait]
impl EpochKeeper for FileKeeper {
    fn describe(&self) -> String {
        self.path.display().to_string()
    }

    async fn load(&self) -> Result<Option<Vec<HeldEpoch>>, WriterFileError> {
        Ok(self.read().await?.map(|file| file.held))
    }

    async fn head(&self) -> Result<Option<KnownHead>, WriterFileError> {
        Ok(self.read().await?.and_then(|file| file.head))
    }

    async fn keep_head(&self, head: KnownHead) -> Result<(), WriterFileError> {
        let lock = self.lock().await;
        let Some(file) = self.read().await? else { return Ok(()) };
        // Another run may have committed a later snapshot.
        if file.head.is_none_or(|known| known.seq <= head.seq) {
            self.write(file.held, Some(head)).await?;
        }
        drop(lock);
        Ok(())
    }

    async fn update(&self, change: Change<'_>) -> Result<(), WriterFileError> {
        // Two runs that start at the same time must not lose each other's secret.
        let lock = self.lock().await;
        let (held, head) = self.read().await?.map_or_else(Default::default, |file| (file.held, file.head));
        let written = self.write(change(held), head).await;
        drop(lock);
        written
    }
}

impl FileKeeper {
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
        let foreign = |what| Err(WriterFileError::Foreign { label: self.describe(), what });
        if file.repository != self.repository {
            return foreign("repository");
        }
        if file.writer != self.writer {
            return foreign("writer");
        }
        if file.plan != self.plan {
            return foreign("plan");
        }
        Ok(Some(file))
    }

    async fn write(&self, held: Vec<HeldEpoch>, head: Option<KnownHead>) -> Result<(), WriterFileError> {
        let (repository, writer, plan) = (self.repository, self.writer, self.plan);
        let file = EpochFile { repository, writer, plan, held, head };
        let (path, random) = (self.path.clone(), self.runtime.random());
        let text = file.to_text();
        let replaced = move || private_file::replace(&path, random, text.as_bytes());
        Ok(self.runtime.workers.run(replaced).await?)
    }
}
