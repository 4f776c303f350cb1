//! `writer.key`: the ids and signing key of a writer. It does not decrypt a backup.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::private_file::{self, FileError, SecretFile};
use crate::format::derive::{NamesKey, SecretKey};
use crate::format::ids::{NameId, RepositoryId, WriterId, from_hex, to_hex};
use crate::format::json::{self, SecretJsonError};
use crate::format::sign::{KeyError, Namespace, SigningKey};
use crate::format::signers::{Signer, Signers};
use crate::report::text::bytes_without_bom;
use crate::runtime::Runtime;

/// An error in a writer's file. It never contains the file's content.
#[derive(Debug, thiserror::Error)]
pub enum WriterFileError {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not the expected JSON.
    #[error("{label}: this is not kbak's {kind}")]
    Json {
        /// The file.
        label: String,
        /// The kind of file that was expected.
        kind: &'static str,
        /// The error and its position.
        source: SecretJsonError,
    },
    /// The file is of another kind or of a newer version.
    #[error("{label}: this is not kbak's {kind} in a form that this version reads")]
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
    BelongsElsewhere {
        /// The file.
        label: String,
        /// `repository`, `writer` or `plan`.
        what: &'static str,
    },
    /// The folder of the file does not take a new one.
    #[error("{label}: no file can be replaced there")]
    NotWritable {
        /// The folder.
        label: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A Kubernetes Secret does not hold what it should.
    #[error("{label}: it {what}")]
    Malformed {
        /// The Secret.
        label: String,
        /// The fault.
        what: &'static str,
    },
    /// The API server refuses to read or change a Secret.
    #[error("cannot {verb} {label}")]
    SecretRefused {
        /// The Secret.
        label: String,
        /// `read` or `change`.
        verb: String,
        /// The server's answer.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The API server does not answer.
    #[error("cannot {verb} {label}")]
    SecretUnreachable {
        /// The Secret.
        label: String,
        /// `read` or `change`.
        verb: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The Secret is marked as immutable, so nobody can change it.
    #[error("cannot change {label}: it is immutable")]
    SecretImmutable {
        /// The Secret.
        label: String,
    },
    /// Another run changed the Secret at the same time.
    #[error("{label} was changed by another run at the same time")]
    SecretChanged {
        /// The Secret.
        label: String,
    },
}

impl WriterFileError {
    /// True if the file or Secret cannot be changed by this account: a mounted or immutable Secret, or a
    /// missing right.
    pub fn is_read_only(&self) -> bool {
        match self {
            Self::File(error) => error.is_read_only(),
            Self::NotWritable { .. } | Self::SecretRefused { .. } | Self::SecretImmutable { .. } => true,
            _ => false,
        }
    }
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
pub(super) const VERSION: u64 = 1;

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
        let content = bytes_without_bom(content);
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
    pub fn plan(&self, name: &str) -> NameId {
        self.names.id("plan", name)
    }

    /// Returns a pin of this writer's own key, under which it verifies its own objects.
    pub fn own_signers(&self) -> Signers {
        let mut signers = Signers::default();
        signers.add(self.signer());
        signers
    }

    /// Returns this writer's line in kbak.pub.
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
pub(super) fn pretty(value: &impl Serialize) -> Zeroizing<String> {
    let mut text = serde_json::to_string_pretty(value).expect("a serialisable file");
    text.push('\n');
    Zeroizing::new(text)
}
