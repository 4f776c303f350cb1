//! A running dump: a reader of its bytes that proves at the end that they are complete.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::process::ChildStdout;
use tokio::time::{Instant, Sleep};

use super::error::DatabaseError;
use super::tool::Tool;

/// The number of last bytes of a text that must hold its last line. Other lines may follow it.
const TAIL: usize = 512;

/// A running dump, read like a file. It is known to be complete only when [`Dump::finish`]
/// succeeds. Dropping it kills the tool and its child processes.
#[derive(Debug)]
pub struct Dump {
    database: String,
    tool: Tool,
    /// Bytes that come before those of the tool, and the number of them that were read.
    head: (Vec<u8>, usize),
    stdout: ChildStdout,
    bytes: u64,
    check: Box<dyn CompletenessCheck>,
    idle_until: Pin<Box<Sleep>>,
    is_at_end: bool,
}

/// The check that runs over the bytes of a dump as they are read.
pub trait CompletenessCheck: std::fmt::Debug + Send {
    /// Takes the next bytes.
    fn feed(&mut self, bytes: &[u8]);

    /// Returns the evidence after the last byte. Fails with the missing part, in words.
    fn finish(self: Box<Self>) -> Result<Proof, String>;
}

/// The proof that a finished dump is complete. Stored in the snapshot.
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

/// The proof that an archive with a table of contents is complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveProof {
    /// The format's version, such as (1, 14).
    pub format: (u8, u8),
    /// The number of entries in the table of contents.
    pub entries: u64,
    /// The number of entries with data. Each has exactly one complete block.
    pub blocks: u64,
}

/// Requires that a text ends with a certain line.
#[derive(Debug)]
pub struct LastLineCheck {
    line: &'static str,
    tail: Vec<u8>,
}

impl LastLineCheck {
    /// Creates a check for `line`.
    #[must_use]
    pub fn new(line: &'static str) -> Self {
        Self { line, tail: Vec::new() }
    }
}

impl CompletenessCheck for LastLineCheck {
    fn feed(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL)..]);
        let surplus = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..surplus);
    }

    fn finish(self: Box<Self>) -> Result<Proof, String> {
        match memchr::memmem::rfind(&self.tail, self.line.as_bytes()) {
            Some(_) => Ok(Proof::LastLine),
            None => Err("its last line is missing".to_owned()),
        }
    }
}

impl Dump {
    /// Wraps a started tool that writes a dump to its standard output.
    pub(super) fn new(
        database: &str,
        mut tool: Tool,
        check: impl CompletenessCheck + 'static,
    ) -> Result<Self, DatabaseError> {
        let Some(stdout) = tool.stdout() else {
            return Err(tool.io_error("read from", std::io::Error::other("its output is taken")));
        };
        let idle_until = Box::pin(tokio::time::sleep(tool.idle_timeout()));
        let (database, check) = (database.to_owned(), Box::new(check));
        let head = (Vec::new(), 0);
        Ok(Self { database, tool, head, stdout, bytes: 0, check, idle_until, is_at_end: false })
    }

    /// Puts a text before the bytes of the tool.
    #[must_use]
    pub(super) fn with_head(self, text: String) -> Self {
        Self { head: (text.into_bytes(), 0), ..self }
    }

    /// Checks that the dump is complete. Call it after reading returned 0 bytes.
    /// Fails with the tool's message, or with [`DatabaseError::IncompleteDump`] when the bytes do not end
    /// where they should, or were not read to their end.
    pub async fn finish(self) -> Result<DumpProof, DatabaseError> {
        let Self { database, tool, bytes, check, is_at_end, stdout, .. } = self;
        let name = tool.name().to_owned();
        let incomplete =
            |problem| DatabaseError::IncompleteDump { name, database: database.clone(), problem };
        if !is_at_end {
            return Err(incomplete("it was not read to its end".to_owned()));
        }
        drop(stdout);
        let description = tool.describe();
        tool.wait_success().await?;
        let proof = check.finish().map_err(incomplete)?;
        Ok(DumpProof { database, bytes, tool: description, proof })
    }
}

impl AsyncRead for Dump {
    /// Reads the next bytes. Fails with `TimedOut` when the tool writes nothing for too long.
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let (head, read) = &mut this.head;
        if *read < head.len() {
            let count = buf.remaining().min(head.len() - *read);
            buf.put_slice(&head[*read..*read + count]);
            *read += count;
            this.bytes += count as u64;
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.stdout).poll_read(cx, buf) {
            Poll::Pending => {
                ready!(this.idle_until.as_mut().poll(cx));
                let error = this.tool.timeout_error();
                Poll::Ready(Err(std::io::Error::new(std::io::ErrorKind::TimedOut, error)))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => {
                let new = &buf.filled()[before..];
                this.is_at_end |= new.is_empty() && buf.remaining() > 0;
                this.bytes += new.len() as u64;
                this.check.feed(new);
                let until = Instant::now() + this.tool.idle_timeout();
                this.idle_until.as_mut().reset(until);
                Poll::Ready(Ok(()))
            }
        }
    }
}
