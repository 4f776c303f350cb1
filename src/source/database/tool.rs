//! Runs a client tool: clean environment, password in a memory file, own process group, killed when dropped.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping};
use rustix::fs::{MemfdFlags, Mode, SealFlags};
use rustix::process::{Pid, Signal};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use super::{DatabaseConfig, DatabaseError, Password};
use crate::report::text::opaque_debug;

/// The path of the password file, in the tool.
pub(super) const PASSWORD_PATH: &str = "/proc/self/fd/9";
/// The file descriptor of the password file, in the tool.
const PASSWORD_FD: i32 = 9;
/// The number of bytes kept from the end of a tool's standard error, which holds the reason.
const STDERR_TAIL: usize = 16 << 10;
/// The number of error lines that a message shows.
const SHOWN_LINES: usize = 6;
/// The number of bytes that an observer gets of a line of standard error.
const OBSERVED_LINE: usize = 8 << 10;

/// The client tools of one installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTools {
    /// The folder that holds them.
    pub folder: PathBuf,
    /// The major version.
    pub major: u32,
    /// The version, such as `15.18`.
    pub version: String,
}

/// The engine's part in starting a tool. [`Tool::start`] adds the rest.
#[derive(Debug)]
pub struct ToolCommand {
    /// The program in the tools' folder.
    pub program: &'static str,
    /// Its arguments. Other users of the machine can read them.
    pub arguments: Vec<OsString>,
    /// Its environment. It inherits none of kbak's own variables.
    pub environment: Vec<(&'static str, OsString)>,
    /// The password, and the text of the file at `PASSWORD_PATH` that holds it in the tool's format.
    pub password: Option<(Password, Zeroizing<String>)>,
    /// True if [`Tool::stdin`] is written.
    pub has_input: bool,
    /// The reading of the tool's messages.
    pub messages: &'static ToolMessages,
    /// Receives each line of standard error that may be shown, with the password masked.
    pub observer: Option<LineObserver>,
}

/// A function that receives lines.
pub struct LineObserver(pub Box<dyn FnMut(&str) + Send>);

opaque_debug!(LineObserver: "LineObserver(…)");

/// The rules by which an engine's tools write messages.
#[derive(Debug)]
pub struct ToolMessages {
    /// Returns a line of standard error as it may be shown: none if it may quote rows or statements.
    pub shown: fn(&str) -> Option<String>,
    /// Returns true for a line that only tells of progress. An observer gets it, an error does not.
    pub is_progress: fn(&str) -> bool,
    /// Returns the line before without its text, if `line` says that the text may quote rows.
    pub text_hidden_by: fn(line: &str, before: &str) -> Option<String>,
    /// Parts of messages, in lower case, that say that the server was unreachable or went away.
    pub unreachable: &'static [&'static str],
}

/// A running client tool.
#[derive(Debug)]
pub struct Tool {
    name: String,
    program: &'static str,
    version: String,
    child: Child,
    group: Option<Pid>,
    stderr_tail: JoinHandle<Vec<u8>>,
    /// The number of bytes of standard error so far: a tool that writes messages makes progress.
    messages_read: Arc<AtomicU64>,
    password: Option<Password>,
    messages: &'static ToolMessages,
    idle_timeout: Duration,
}

/// Creates a memory file that only this user can read and nobody can change.
fn memory_file(text: &str) -> std::io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create("kbak", flags)?;
    rustix::fs::fchmod(&file, Mode::RUSR | Mode::WUSR)?;
    let mut file = File::from(file);
    file.write_all(text.as_bytes())?;
    file.seek(SeekFrom::Start(0))?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

impl Tool {
    /// Starts a tool. Its standard output is read through [`Self::stdout`].
    /// Fails with [`DatabaseError::Io`] when the tool cannot be started.
    pub fn start(
        config: &DatabaseConfig,
        tools: &ClientTools,
        command: ToolCommand,
    ) -> Result<Self, DatabaseError> {
        let ToolCommand { program, arguments, environment, password, has_input, messages, observer } =
            command;
        let mut command = Command::new(tools.folder.join(program));
        command.args(arguments).env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin");
        // Ignores configuration files of the user who runs kbak.
        command.env("HOME", "/nonexistent").envs(environment);
        command.stdin(if has_input { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        command.current_dir("/");
        if let Some((_, text)) = &password {
            let file = memory_file(text).map_err(|source| config.io_error("make a memory file", source))?;
            let mapping = FdMapping { parent_fd: file, child_fd: PASSWORD_FD };
            let mapped = command.as_std_mut().fd_mappings(vec![mapping]);
            mapped.map_err(|error| config.io_error("pass on a memory file", std::io::Error::other(error)))?;
        }
        let mut child =
            command.spawn().map_err(|source| config.io_error(format!("start {program}"), source))?;
        let password = password.map(|(password, _)| password);
        let messages_read: Arc<AtomicU64> = Arc::default();
        let lines = observer.map(|observer| LineReader::new(observer, password.clone(), messages));
        Ok(Self {
            name: config.name.clone(),
            program,
            version: tools.version.clone(),
            group: child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)),
            stderr_tail: tokio::spawn(read_stderr_tail(child.stderr.take(), lines, messages_read.clone())),
            messages_read,
            child,
            password,
            messages,
            idle_timeout: config.idle_timeout,
        })
    }

    /// Takes the standard output; none after the first call.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Takes the standard input; none after the first call.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Returns the item's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the longest time without progress.
    pub fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    /// Returns the tool and its version.
    pub fn describe(&self) -> String {
        format!("{} {}", self.program, self.version)
    }

    /// Returns the error for a tool that made no progress for too long.
    pub fn timeout_error(&self) -> DatabaseError {
        let (name, idle_timeout) = (self.name.clone(), self.idle_timeout);
        DatabaseError::TimedOut { name, tool: self.program, idle_timeout }
    }

    /// Returns the error for an operation on the tool that failed.
    pub fn io_error(&self, operation: &str, source: std::io::Error) -> DatabaseError {
        let operation = format!("{operation} {}", self.program);
        DatabaseError::Io { name: self.name.clone(), operation, source }
    }

    /// Waits until the tool exits, as long as it writes messages, and requires success.
    /// Fails with [`DatabaseError::TimedOut`] when it does not exit, [`DatabaseError::Io`] when its status is
    /// unknown, [`DatabaseError::ToolFailed`] with the end of its standard error.
    pub async fn wait_success(mut self) -> Result<(), DatabaseError> {
        let status = loop {
            let before = self.messages_read.load(Ordering::Relaxed);
            match tokio::time::timeout(self.idle_timeout, self.child.wait()).await {
                Ok(Ok(status)) => break status,
                Ok(Err(source)) => return Err(self.io_error("wait for", source)),
                Err(_) if self.messages_read.load(Ordering::Relaxed) > before => {}
                Err(_) => return Err(self.timeout_error()),
            }
        };
        let tail = match tokio::time::timeout(self.idle_timeout, &mut self.stderr_tail).await {
            Ok(Ok(tail)) => tail,
            _ => Vec::new(),
        };
        if status.success() {
            return Ok(());
        }
        let stderr_tail = shown(&tail, self.password.as_ref(), self.messages);
        let lower = stderr_tail.to_ascii_lowercase();
        Err(DatabaseError::ToolFailed {
            name: self.name.clone(),
            tool: self.program,
            status: status.to_string(),
            is_unreachable: self.messages.unreachable.iter().any(|words| lower.contains(words)),
            stderr_tail,
        })
    }

    /// Runs the tool to its end and returns its output, at most `limit` bytes.
    /// Fails also for more output than `limit`.
    pub async fn output(mut self, limit: usize) -> Result<Vec<u8>, DatabaseError> {
        let mut written = Vec::new();
        if let Some(stdout) = self.stdout() {
            let mut stdout = stdout.take(limit as u64 + 1);
            match tokio::time::timeout(self.idle_timeout, stdout.read_to_end(&mut written)).await {
                Ok(Ok(_)) => {}
                Ok(Err(source)) => return Err(self.io_error("read from", source)),
                Err(_) => return Err(self.timeout_error()),
            }
        }
        if written.len() > limit {
            let source = std::io::Error::other(format!("more than {limit} bytes of answer"));
            return Err(self.io_error("read from", source));
        }
        self.wait_success().await?;
        Ok(written)
    }
}

impl Drop for Tool {
    /// Kills the whole process group: a wrapper script's child must not survive and hold its locks.
    /// The runtime reaps the process (`kill_on_drop`).
    fn drop(&mut self) {
        self.stderr_tail.abort();
        if let (Some(group), None) = (self.group, self.child.try_wait().ok().flatten()) {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
}

/// Cuts standard error into lines for an observer.
#[derive(Debug)]
struct LineReader {
    observer: LineObserver,
    password: Option<Password>,
    messages: &'static ToolMessages,
    line: Vec<u8>,
}

impl LineReader {
    fn new(observer: LineObserver, password: Option<Password>, messages: &'static ToolMessages) -> Self {
        Self { observer, password, messages, line: Vec::new() }
    }

    fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => self.end_line(),
                byte if self.line.len() < OBSERVED_LINE => self.line.push(*byte),
                _ => {}
            }
        }
    }

    fn end_line(&mut self) {
        let line = masked(&std::mem::take(&mut self.line), self.password.as_ref());
        if let Some(line) = (self.messages.shown)(line.trim()) {
            (self.observer.0)(&line);
        }
    }
}

/// Reads to the end, so that the tool never blocks; keeps at least the last [`STDERR_TAIL`] bytes.
async fn read_stderr_tail(
    stderr: Option<ChildStderr>,
    mut lines: Option<LineReader>,
    count_read: Arc<AtomicU64>,
) -> Vec<u8> {
    let Some(mut stderr) = stderr else { return Vec::new() };
    let (mut kept, mut piece) = (Vec::new(), vec![0; 4096]);
    while let Ok(count @ 1..) = stderr.read(&mut piece).await {
        kept.extend_from_slice(&piece[..count]);
        count_read.fetch_add(count as u64, Ordering::Relaxed);
        if let Some(lines) = &mut lines {
            lines.feed(&piece[..count]);
        }
        if kept.len() > 2 * STDERR_TAIL {
            kept.drain(..kept.len() - STDERR_TAIL);
        }
    }
    if let Some(lines) = &mut lines {
        lines.end_line();
    }
    kept
}

/// Returns a tool's text with the password masked.
fn masked(text: &[u8], password: Option<&Password>) -> String {
    let text = String::from_utf8_lossy(text).into_owned();
    password.map_or_else(|| text.clone(), |password| text.replace(password.reveal(), "…"))
}

/// Returns the last lines of a tool's standard error, with the password masked.
pub(super) fn shown(stderr: &[u8], password: Option<&Password>, messages: &ToolMessages) -> String {
    let text = masked(stderr, password);
    let lines = text.lines().filter_map(|line| (messages.shown)(line.trim()));
    let mut kept: Vec<String> = Vec::new();
    for line in lines.filter(|line| !(messages.is_progress)(line)) {
        let hidden = kept.last().and_then(|before| (messages.text_hidden_by)(&line, before));
        match (hidden, kept.last_mut()) {
            (Some(hidden), Some(before)) => *before = hidden,
            _ => kept.push(line),
        }
    }
    let joined = kept[kept.len().saturating_sub(SHOWN_LINES)..].join("; ");
    joined.chars().filter(|c| !c.is_control()).take(2048).collect()
}
