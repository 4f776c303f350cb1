//! A running dump: a reader of its bytes that proves at the end that they are complete.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::process::ChildStdout;
use tokio::time::{Instant, Sleep};

use super::DatabaseError;
use super::tool::Tool;
use crate::source::database::postgres::archive::{ArchiveError, ArchiveProof, ArchiveScanner};

/// The last line of text that `pg_dumpall` writes.
const GLOBALS_END: &[u8] = b"-- PostgreSQL database cluster dump complete";
/// The number of last bytes that must hold that line; `\unrestrict` and comment lines may follow it.
const TAIL: usize = 512;

/// A running dump, read like a file. It is known to be complete only when [`Dump::finish`]
/// succeeds. Dropping it kills the tool and its child processes.
#[derive(Debug)]
pub struct Dump {
    name: String,
    database: String,
    tool: Tool,
    stdout: ChildStdout,
    bytes: u64,
    watch: Watch,
    silent_until: Pin<Box<Sleep>>,
    ended: bool,
}

/// The completeness check that runs over the bytes as they are read.
#[derive(Debug)]
enum Watch {
    Archive(Box<ArchiveScanner>),
    Text { tail: Vec<u8> },
}

/// The proof that a finished dump is complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpProof {
    /// The database, or `globals` for objects that belong to no database.
    pub database: String,
    /// The size in bytes.
    pub bytes: u64,
    /// The tool that wrote it, with its version.
    pub tool: String,
    /// The kind of proof.
    pub proof: Proof,
}

/// The evidence that a dump is complete. Exit status 0 is always required as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// Every block of data that the table of contents declares came completely, and no other data.
    Archive(ArchiveProof),
    /// The text ends with the line that the tool writes last.
    LastLine,
    /// Only the exit status: the archive's format version is unknown to this reader.
    ExitStatus {
        /// The format version.
        format: (u8, u8),
    },
}

impl Dump {
    pub(super) fn archive(name: &str, database: &str, tool: Tool) -> Result<Self, DatabaseError> {
        Self::new(name, database, tool, Watch::Archive(Box::default()))
    }

    pub(super) fn text(name: &str, database: &str, tool: Tool) -> Result<Self, DatabaseError> {
        Self::new(name, database, tool, Watch::Text { tail: Vec::new() })
    }

    fn new(name: &str, database: &str, mut tool: Tool, watch: Watch) -> Result<Self, DatabaseError> {
        let Some(stdout) = tool.stdout() else {
            return Err(tool.broken("read from", std::io::Error::other("its output is taken")));
        };
        let silent_until = Box::pin(tokio::time::sleep(tool.silence()));
        let (name, database) = (name.to_owned(), database.to_owned());
        Ok(Self { name, database, tool, stdout, bytes: 0, watch, silent_until, ended: false })
    }

    /// Returns the database, or `globals` for objects that belong to no database.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Checks that the dump is complete. Call it after reading returned 0 bytes.
    ///
    /// # Errors
    /// [`DatabaseError::Failed`] with the tool's message; [`DatabaseError::NotWhole`] when the
    /// bytes do not end where they should, or were not read to their end.
    pub async fn finish(self) -> Result<DumpProof, DatabaseError> {
        let Self { name, database, tool, bytes, watch, ended, stdout, .. } = self;
        let not_whole = |problem: String| DatabaseError::NotWhole {
            name: name.clone(),
            database: database.clone(),
            problem,
        };
        if !ended {
            return Err(not_whole("it was not read to its end".to_owned()));
        }
        drop(stdout);
        let described = tool.describe();
        tool.succeed().await?;
        let proof = match watch {
            Watch::Archive(scanner) => match scanner.finish() {
                Ok(proof) => Proof::Archive(proof),
                Err(ArchiveError::Unknown(major, minor)) => Proof::ExitStatus { format: (major, minor) },
                Err(error) => return Err(not_whole(error.to_string())),
            },
            Watch::Text { tail } => {
                if memchr::memmem::rfind(&tail, GLOBALS_END).is_none() {
                    return Err(not_whole("its last line is missing".to_owned()));
                }
                Proof::LastLine
            }
        };
        Ok(DumpProof { database, bytes, tool: described, proof })
    }
}

impl Watch {
    fn see(&mut self, bytes: &[u8]) {
        match self {
            Self::Archive(scanner) => scanner.feed(bytes),
            Self::Text { tail } => {
                tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL)..]);
                let surplus = tail.len().saturating_sub(TAIL);
                tail.drain(..surplus);
            }
        }
    }
}

impl AsyncRead for Dump {
    /// Reads the next bytes. Fails with `TimedOut` when the tool is silent for too long.
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        match Pin::new(&mut this.stdout).poll_read(cx, buf) {
            Poll::Pending => {
                ready!(this.silent_until.as_mut().poll(cx));
                Poll::Ready(Err(std::io::Error::new(std::io::ErrorKind::TimedOut, this.tool.stuck())))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => {
                let new = &buf.filled()[before..];
                this.ended |= new.is_empty() && buf.remaining() > 0;
                this.bytes += new.len() as u64;
                this.watch.see(new);
                let until = Instant::now() + this.tool.silence();
                this.silent_until.as_mut().reset(until);
                Poll::Ready(Ok(()))
            }
        }
    }
}
