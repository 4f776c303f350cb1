//! A dump under way.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::process::ChildStdout;
use tokio::time::{Instant, Sleep};

use super::DatabaseError;
use super::archive::{ArchiveError, ArchiveProof, ArchiveScanner};
use super::tool::Tool;

/// The last line of text that `pg_dumpall` writes.
const GLOBALS_END: &[u8] = b"-- PostgreSQL database cluster dump complete";
/// Where that line must stand: in the last bytes, before `\unrestrict` and comment lines.
const TAIL: usize = 512;

/// A running dump: reads like a file, and is only known to be whole once [`Dump::finish`] says
/// so. Dropping it ends the tool and what the tool started.
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

/// What watches the bytes go by.
#[derive(Debug)]
enum Watch {
    Archive(Box<ArchiveScanner>),
    Text { tail: Vec<u8> },
}

/// What a finished dump was seen to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpProof {
    /// The database; `globals` for what belongs to none.
    pub database: String,
    /// Its bytes.
    pub bytes: u64,
    /// The tool that made it, with its version.
    pub tool: String,
    /// How it is known to be whole.
    pub proof: Proof,
}

/// How a dump is known to be whole. Exit status 0 is required besides, always.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// Every block of data that its table of contents announces came, to its end, and nothing
    /// more.
    Archive(ArchiveProof),
    /// Its last line is the one that its tool writes last.
    LastLine,
    /// Only the exit status: the archive is of a version newer than this reader knows.
    ExitStatus {
        /// Which version.
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

    /// The database; `globals` for what belongs to none.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Says whether the dump is whole. To be called after reading returned 0 bytes.
    ///
    /// # Errors
    /// [`DatabaseError::Failed`] with the tool's own words, [`DatabaseError::NotWhole`] when the
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
    /// Reads on; a tool that says nothing for its silence ends in `TimedOut`.
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
